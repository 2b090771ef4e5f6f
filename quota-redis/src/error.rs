//! What can go wrong between this process and a server, and what a caller of the store is told of it.
//! Whether to try again is decided in `client`; nothing a server says is repeated here, for it may hold a secret.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use quota_core::{Applied, StoreError};
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why there is no answer, or not the one that was asked for.
#[derive(Debug, Clone)]
pub(crate) enum Error {
    /// No connection could be made.
    Unreachable { reason: Cow<'static, str>, source: Option<Arc<dyn StdError + Send + Sync>> },
    /// The connection ended before the answer came; the command may have been carried out.
    Lost,
    /// The connection had ended before the command was sent.
    NotSent,
    /// No answer came in time; the command may have been carried out.
    Timeout,
    /// The server answered that it cannot now.
    TryAgain(&'static str),
    /// The server answers reads and takes no writes: it is a replica.
    ReadOnly,
    /// The cluster is down, or no node of it serves the key.
    ClusterDown,
    /// There is no other database than 0, which only a node of a cluster says.
    OneDatabase,
    /// The script is not known to the server.
    NoScript,
    /// The key belongs to another node; its address as that server wrote it.
    Moved(String),
    /// This once, another node is to be asked.
    Ask(String),
    /// Somebody has to mend something.
    Refused { reason: Cow<'static, str>, source: Option<Arc<dyn StdError + Send + Sync>> },
    /// The user may not do this.
    PermissionDenied,
    /// The server does not know the command.
    UnknownCommand,
    /// What is kept under the key is not ours.
    ForeignValue,
}

impl Error {
    pub(crate) fn unreachable(
        reason: impl Into<Cow<'static, str>>,
        source: impl StdError + Send + Sync + 'static,
    ) -> Self {
        Self::Unreachable { reason: reason.into(), source: Some(Arc::new(source)) }
    }

    pub(crate) fn refused(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Refused { reason: reason.into(), source: None }
    }

    pub(crate) const fn refused_static(reason: &'static str) -> Self {
        Self::Refused { reason: Cow::Borrowed(reason), source: None }
    }

    /// Whether the command may have been carried out all the same.
    pub(crate) fn is_ambiguous(&self) -> bool {
        matches!(self, Self::Lost | Self::Timeout)
    }

    /// Whether the connection may be of no more use; see [`Connection::is_broken_by`](crate::connection::Connection::is_broken_by).
    pub(crate) fn breaks_connection(&self) -> bool {
        matches!(self, Self::Lost | Self::NotSent | Self::Timeout)
    }

    /// Whether only a node of a cluster answers so.
    pub(crate) fn is_from_cluster_node(&self) -> bool {
        matches!(self, Self::Moved(_) | Self::Ask(_) | Self::ClusterDown | Self::OneDatabase)
    }

    /// Whether there can be no notices from this server, to this user.
    pub(crate) fn refuses_notices(&self) -> bool {
        matches!(self, Self::PermissionDenied | Self::UnknownCommand)
    }

    /// What a caller is told, if a write of its may have been carried out by this or by an earlier try.
    pub(crate) fn into_store_error(self, applied: Applied) -> StoreError {
        let unavailable = |reason| StoreError::unavailable(applied, reason);
        match self {
            Self::Unreachable { reason, source } => {
                with_source(StoreError::unavailable(applied, reason), source)
            }
            Self::Lost | Self::NotSent => unavailable("the connection to redis was lost"),
            Self::Timeout => unavailable("redis did not answer in time"),
            Self::TryAgain(reason) => unavailable(reason),
            Self::ReadOnly => StoreError::refused(
                "this redis takes no writes: it is a replica; name its master, or its sentinels by redis+sentinel://",
            ),
            Self::ClusterDown => unavailable("the redis cluster is down, or no node of it serves this key"),
            Self::OneDatabase => StoreError::refused("a redis cluster has the database 0 alone"),
            Self::NoScript => unavailable("redis does not keep scripts"),
            Self::Moved(_) | Self::Ask(_) => unavailable("the key moves between the nodes of the cluster"),
            Self::Refused { reason, source } => with_source(StoreError::refused(reason), source),
            Self::PermissionDenied => StoreError::refused(
                "the redis user lacks a right; the documentation of quota-redis lists those it needs",
            ),
            Self::UnknownCommand => StoreError::refused("this server lacks a command that quota-redis needs"),
            Self::ForeignValue => {
                StoreError::unusable("the key in redis holds what quota-redis has not written")
            }
        }
    }
}

fn with_source(error: StoreError, source: Option<Arc<dyn StdError + Send + Sync>>) -> StoreError {
    match source {
        Some(source) => error.because(SharedSource(source)),
        None => error,
    }
}

/// A failure that several callers are told of.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct SharedSource(Arc<dyn StdError + Send + Sync>);

impl From<RedisError> for Error {
    fn from(error: RedisError) -> Self {
        match error.kind() {
            ErrorKind::Io if error.is_timeout() => return Self::Timeout,
            ErrorKind::Io | ErrorKind::Parse | ErrorKind::UnexpectedReturnType | ErrorKind::Client => {
                return Self::Lost;
            }
            ErrorKind::AuthenticationFailed => return wrong_login(),
            ErrorKind::RESP3NotSupported => return Self::UnknownCommand,
            ErrorKind::Server(ServerErrorKind::Moved) => {
                return error
                    .redirect_node()
                    .map_or(Self::Lost, |(address, _)| Self::Moved(address.to_owned()));
            }
            ErrorKind::Server(ServerErrorKind::Ask) => {
                return error
                    .redirect_node()
                    .map_or(Self::Lost, |(address, _)| Self::Ask(address.to_owned()));
            }
            _ => {}
        }
        from_code(error.code().unwrap_or_default(), error.detail().unwrap_or_default())
    }
}

/// What each error code of a server means, by the first word of the reply.
///
/// [`Error::TryAgain`] passes by itself, so a manager goes on without the store until then. [`Error::ReadOnly`] and
/// [`Error::Refused`] last until the server is set up otherwise: what still works, such as reads on a replica, is still used.
/// None of them is a lost connection.
static REPLY_CODES: [(&str, Error); 16] = [
    ("LOADING", Error::TryAgain("redis is loading its data")),
    ("BUSY", Error::TryAgain("redis is busy with another client's script")),
    ("TRYAGAIN", Error::TryAgain("the key moves between the nodes of the cluster")),
    ("MASTERDOWN", Error::TryAgain("this redis is a replica that has lost its master, and answers no reads")),
    ("CLUSTERDOWN", Error::ClusterDown),
    ("READONLY", Error::ReadOnly),
    (
        "NOREPLICAS",
        Error::refused_static(
            "redis takes no writes: fewer replicas are connected than its min-replicas-to-write",
        ),
    ),
    (
        "MISCONF",
        Error::refused_static("redis takes no writes: it cannot write to its disk; its log says why"),
    ),
    ("OOM", Error::refused_static("redis takes no writes: it has no memory left; raise its maxmemory")),
    ("NOPERM", Error::PermissionDenied),
    ("NOAUTH", Error::refused_static("redis asks for a password; put one into the URL")),
    ("WRONGPASS", Error::refused_static(WRONG_LOGIN)),
    (
        "DENIED",
        Error::refused_static("redis is in protected mode; give it a password, or bind it to this host"),
    ),
    ("WRONGTYPE", Error::ForeignValue),
    ("NOSCRIPT", Error::NoScript),
    ("NOPROTO", Error::UnknownCommand),
];

const WRONG_LOGIN: &str = "redis does not take this user and password";

/// Sorts an error by its code, or by its text where the server gives no code.
fn from_code(code: &str, detail: &str) -> Error {
    if let Some((_, error)) = REPLY_CODES.iter().find(|(known, _)| *known == code) {
        return error.clone();
    }
    match code {
        "ERR" => from_message(detail),
        // Only what looks like a code is repeated: a server may put anything there.
        _ if !code.is_empty() && code.len() <= 16 && code.bytes().all(|byte| byte.is_ascii_uppercase()) => {
            Error::refused(format!("redis answered {code}"))
        }
        _ => Error::refused_static("redis answered with an error of an unknown kind"),
    }
}

/// What older servers say without a word of its own.
fn from_message(detail: &str) -> Error {
    let contains = |part: &str| detail.contains(part);
    match () {
        () if contains("max number of clients") => Error::TryAgain("redis has too many clients"),
        () if contains("unknown command") || contains("nknown subcommand") => Error::UnknownCommand,
        () if contains("DB index") => Error::refused_static("redis has no database of this number"),
        () if contains("SELECT is not allowed") => Error::OneDatabase,
        () if contains("AUTH") => wrong_login(),
        () => Error::refused_static("redis answered with an error"),
    }
}

fn wrong_login() -> Error {
    Error::refused_static(WRONG_LOGIN)
}

/// What the operating system said, without what else may be in its text.
pub(crate) fn sanitize(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| io::Error::from(error.kind()), io::Error::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    fn parse(line: &str) -> Error {
        let Ok(Value::ServerError(error)) = redis::parse_redis_value(format!("-{line}\r\n").as_bytes())
        else {
            panic!("a line with a minus is an error");
        };
        RedisError::from(error).into()
    }

    /// What follows from a reply.
    #[derive(Debug, PartialEq)]
    enum Follows {
        /// The store is away for a while.
        Unreachable,
        /// The store is used for what it still does.
        Refused,
        /// The document is left alone.
        Unusable,
        /// The store tries otherwise.
        Handled,
    }

    fn follows(line: &str) -> Follows {
        match parse(line) {
            Error::NoScript | Error::Moved(_) | Error::Ask(_) => Follows::Handled,
            error => match error.into_store_error(Applied::No) {
                StoreError::Unavailable { .. } => Follows::Unreachable,
                StoreError::Refused { .. } => Follows::Refused,
                StoreError::Unusable { .. } => Follows::Unusable,
                other => panic!("{line}: {other}"),
            },
        }
    }

    #[test]
    fn each_reply_code_has_one_meaning() {
        for (line, expected) in [
            ("LOADING Redis is loading the dataset in memory", Follows::Unreachable),
            ("BUSY Redis is busy running a script", Follows::Unreachable),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Follows::Unreachable),
            ("MASTERDOWN Link with MASTER is down", Follows::Unreachable),
            ("CLUSTERDOWN Hash slot not served", Follows::Unreachable),
            ("ERR max number of clients reached", Follows::Unreachable),
            ("READONLY You can't write against a read only replica.", Follows::Refused),
            ("NOREPLICAS Not enough good replicas to write.", Follows::Refused),
            ("MISCONF Redis is configured to save RDB snapshots", Follows::Refused),
            ("OOM command not allowed when used memory > 'maxmemory'.", Follows::Refused),
            ("NOPERM this user has no permissions", Follows::Refused),
            ("NOAUTH Authentication required.", Follows::Refused),
            ("WRONGPASS invalid username-password pair", Follows::Refused),
            ("DENIED Redis is running in protected mode", Follows::Refused),
            ("NOPROTO unsupported protocol version", Follows::Refused),
            ("ERR DB index is out of range", Follows::Refused),
            ("ERR SELECT is not allowed in cluster mode", Follows::Refused),
            ("ERR something else", Follows::Refused),
            ("NEWCODE something else", Follows::Refused),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", Follows::Unusable),
            ("NOSCRIPT No matching script.", Follows::Handled),
            ("MOVED 3999 127.0.0.1:6381", Follows::Handled),
            ("ASK 3999 127.0.0.1:6381", Follows::Handled),
        ] {
            assert_eq!(follows(line), expected, "{line}");
        }
    }

    #[test]
    fn no_reply_ends_the_connection() {
        for (code, error) in &REPLY_CODES {
            assert!(!error.breaks_connection(), "{code}");
        }
    }

    #[test]
    fn a_redirection_names_its_node() {
        assert!(matches!(parse("MOVED 3999 127.0.0.1:6381"), Error::Moved(at) if at == "127.0.0.1:6381"));
        assert!(matches!(parse("ASK 3999 ::1:6381"), Error::Ask(at) if at == "::1:6381"));
    }

    #[test]
    fn nothing_a_server_says_is_repeated() {
        for line in [
            "ERR unknown command `HELLO`, with args beginning with: `3` `AUTH` `me` `hunter2`",
            "ERR hunter2",
            "hunter2",
            "HUNTER2 hunter2",
            "MOVED hunter2",
        ] {
            let error = parse(line).into_store_error(Applied::No);
            let told = format!("{error} {error:?}").to_lowercase();
            assert!(!told.contains("hunter2"), "{told}");
        }
    }
}
