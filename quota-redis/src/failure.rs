//! What can go wrong between this process and a server, and what a caller of the store is told of it.
//! Whether to try again is decided in `calls`; nothing a server says is repeated here, for it may hold a secret.

use std::borrow::Cow;
use std::error::Error;
use std::io;
use std::sync::Arc;

use quota_core::{Applied, StoreError};
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why there is no answer, or not the one that was asked for.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// No connection could be made.
    Away { why: Cow<'static, str>, source: Option<Arc<dyn Error + Send + Sync>> },
    /// The connection ended before the answer came; the command may have been carried out.
    Lost,
    /// The connection had ended before the command was sent.
    Unsent,
    /// No answer came in time; the command may have been carried out.
    Late,
    /// The server answered that it cannot now.
    NotNow(&'static str),
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
    Refused { why: Cow<'static, str>, source: Option<Arc<dyn Error + Send + Sync>> },
    /// The user may not do this.
    NoRights,
    /// The server does not know the command.
    NoCommand,
    /// What is kept under the key is not ours.
    Foreign,
}

impl Failure {
    pub(crate) fn away(
        why: impl Into<Cow<'static, str>>,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self::Away { why: why.into(), source: Some(Arc::new(source)) }
    }

    pub(crate) fn refused(why: impl Into<Cow<'static, str>>) -> Self {
        Self::Refused { why: why.into(), source: None }
    }

    pub(crate) const fn refusal(why: &'static str) -> Self {
        Self::Refused { why: Cow::Borrowed(why), source: None }
    }

    /// Whether the command may have been carried out all the same.
    pub(crate) fn is_ambiguous(&self) -> bool {
        matches!(self, Self::Lost | Self::Late)
    }

    /// Whether the connection may be of no more use; see [`Wire::is_ended_by`](crate::wire::Wire::is_ended_by).
    pub(crate) fn ends_connection(&self) -> bool {
        matches!(self, Self::Lost | Self::Unsent | Self::Late)
    }

    /// Whether only a node of a cluster answers so.
    pub(crate) fn is_of_a_cluster(&self) -> bool {
        matches!(self, Self::Moved(_) | Self::Ask(_) | Self::ClusterDown | Self::OneDatabase)
    }

    /// Whether there can be no notices from this server, to this user.
    pub(crate) fn refuses_notices(&self) -> bool {
        matches!(self, Self::NoRights | Self::NoCommand)
    }

    /// What a caller is told, if a write of its may have been carried out by this or by an earlier try.
    pub(crate) fn into_error(self, applied: Applied) -> StoreError {
        let unavailable = |why| StoreError::unavailable(applied, why);
        match self {
            Self::Away { why, source } => with_source(StoreError::unavailable(applied, why), source),
            Self::Lost | Self::Unsent => unavailable("the connection to redis was lost"),
            Self::Late => unavailable("redis did not answer in time"),
            Self::NotNow(why) => unavailable(why),
            Self::ReadOnly => StoreError::refused(
                "this redis takes no writes: it is a replica; name its master, or its sentinels by redis+sentinel://",
            ),
            Self::ClusterDown => unavailable("the redis cluster is down, or no node of it serves this key"),
            Self::OneDatabase => StoreError::refused("a redis cluster has the database 0 alone"),
            Self::NoScript => unavailable("redis does not keep scripts"),
            Self::Moved(_) | Self::Ask(_) => unavailable("the key moves between the nodes of the cluster"),
            Self::Refused { why, source } => with_source(StoreError::refused(why), source),
            Self::NoRights => StoreError::refused(
                "the redis user lacks a right; the documentation of quota-redis lists those it needs",
            ),
            Self::NoCommand => StoreError::refused("this server lacks a command that quota-redis needs"),
            Self::Foreign => StoreError::unusable("the key in redis holds what quota-redis has not written"),
        }
    }
}

fn with_source(error: StoreError, source: Option<Arc<dyn Error + Send + Sync>>) -> StoreError {
    match source {
        Some(source) => error.because(Shared(source)),
        None => error,
    }
}

/// A failure that several callers are told of.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Shared(Arc<dyn Error + Send + Sync>);

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        match error.kind() {
            ErrorKind::Io if error.is_timeout() => return Self::Late,
            ErrorKind::Io | ErrorKind::Parse | ErrorKind::UnexpectedReturnType | ErrorKind::Client => {
                return Self::Lost;
            }
            ErrorKind::AuthenticationFailed => return wrong_login(),
            ErrorKind::RESP3NotSupported => return Self::NoCommand,
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
        said(error.code().unwrap_or_default(), error.detail().unwrap_or_default())
    }
}

/// What each error code of a server means, by the first word of the reply.
///
/// [`Failure::NotNow`] passes by itself, so a manager goes on without the store until then. [`Failure::ReadOnly`] and
/// [`Failure::Refused`] last until the server is set up otherwise: what still works, such as reads on a replica, is still used.
/// None of them is a lost connection.
static REPLY_CODES: [(&str, Failure); 16] = [
    ("LOADING", Failure::NotNow("redis is loading its data")),
    ("BUSY", Failure::NotNow("redis is busy with another client's script")),
    ("TRYAGAIN", Failure::NotNow("the key moves between the nodes of the cluster")),
    ("MASTERDOWN", Failure::NotNow("this redis is a replica that has lost its master, and answers no reads")),
    ("CLUSTERDOWN", Failure::ClusterDown),
    ("READONLY", Failure::ReadOnly),
    (
        "NOREPLICAS",
        Failure::refusal(
            "redis takes no writes: fewer replicas are connected than its min-replicas-to-write",
        ),
    ),
    ("MISCONF", Failure::refusal("redis takes no writes: it cannot write to its disk; its log says why")),
    ("OOM", Failure::refusal("redis takes no writes: it has no memory left; raise its maxmemory")),
    ("NOPERM", Failure::NoRights),
    ("NOAUTH", Failure::refusal("redis asks for a password; put one into the URL")),
    ("WRONGPASS", Failure::refusal(WRONG_LOGIN)),
    ("DENIED", Failure::refusal("redis is in protected mode; give it a password, or bind it to this host")),
    ("WRONGTYPE", Failure::Foreign),
    ("NOSCRIPT", Failure::NoScript),
    ("NOPROTO", Failure::NoCommand),
];

const WRONG_LOGIN: &str = "redis does not take this user and password";

/// Sorts an error by its code, or by its text where the server gives no code.
fn said(code: &str, detail: &str) -> Failure {
    if let Some((_, failure)) = REPLY_CODES.iter().find(|(known, _)| *known == code) {
        return failure.clone();
    }
    match code {
        "ERR" => unnamed(detail),
        // Only what looks like a code is repeated: a server may put anything there.
        _ if !code.is_empty() && code.len() <= 16 && code.bytes().all(|byte| byte.is_ascii_uppercase()) => {
            Failure::refused(format!("redis answered {code}"))
        }
        _ => Failure::refusal("redis answered with an error of an unknown kind"),
    }
}

/// What older servers say without a word of its own.
fn unnamed(detail: &str) -> Failure {
    let holds = |part: &str| detail.contains(part);
    match () {
        () if holds("max number of clients") => Failure::NotNow("redis has too many clients"),
        () if holds("unknown command") || holds("nknown subcommand") => Failure::NoCommand,
        () if holds("DB index") => Failure::refusal("redis has no database of this number"),
        () if holds("SELECT is not allowed") => Failure::OneDatabase,
        () if holds("AUTH") => wrong_login(),
        () => Failure::refusal("redis answered with an error"),
    }
}

fn wrong_login() -> Failure {
    Failure::refusal(WRONG_LOGIN)
}

/// What the operating system said, without what else may be in its text.
pub(crate) fn plain(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| io::Error::from(error.kind()), io::Error::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    fn failure(line: &str) -> Failure {
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
        Away,
        /// The store is used for what it still does.
        Refused,
        /// The document is left alone.
        Unusable,
        /// The store tries otherwise.
        Handled,
    }

    fn follows(line: &str) -> Follows {
        match failure(line) {
            Failure::NoScript | Failure::Moved(_) | Failure::Ask(_) => Follows::Handled,
            failure => match failure.into_error(Applied::No) {
                StoreError::Unavailable { .. } => Follows::Away,
                StoreError::Refused { .. } => Follows::Refused,
                StoreError::Unusable { .. } => Follows::Unusable,
                other => panic!("{line}: {other}"),
            },
        }
    }

    #[test]
    fn each_reply_code_has_one_meaning() {
        for (line, expected) in [
            ("LOADING Redis is loading the dataset in memory", Follows::Away),
            ("BUSY Redis is busy running a script", Follows::Away),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Follows::Away),
            ("MASTERDOWN Link with MASTER is down", Follows::Away),
            ("CLUSTERDOWN Hash slot not served", Follows::Away),
            ("ERR max number of clients reached", Follows::Away),
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
        for (code, failure) in &REPLY_CODES {
            assert!(!failure.ends_connection(), "{code}");
        }
    }

    #[test]
    fn a_redirection_names_its_node() {
        assert!(matches!(failure("MOVED 3999 127.0.0.1:6381"), Failure::Moved(at) if at == "127.0.0.1:6381"));
        assert!(matches!(failure("ASK 3999 ::1:6381"), Failure::Ask(at) if at == "::1:6381"));
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
            let error = failure(line).into_error(Applied::No);
            let told = format!("{error} {error:?}").to_lowercase();
            assert!(!told.contains("hunter2"), "{told}");
        }
    }
}
