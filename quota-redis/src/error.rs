//! Errors between this process and a server, and the `StoreError` that the caller gets for each. `client` decides whether to
//! retry. No error repeats text from a server, because it may contain a secret.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use quota_core::store::{StoreError, WriteState};
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why a command has no usable reply.
#[derive(Debug, Clone)]
pub(crate) enum Error {
    /// The connection could not be opened.
    Unreachable { reason: Cow<'static, str>, source: Option<Arc<dyn StdError + Send + Sync>> },
    /// The connection closed before the reply arrived; the command may have been applied.
    Lost,
    /// The connection was closed before the command was sent.
    NotSent,
    /// No reply arrived in time; the command may have been applied.
    Timeout,
    /// The server replied with a temporary error.
    TryAgain(&'static str),
    /// The server is a replica: it serves reads and rejects writes.
    ReadOnly,
    /// The cluster is down, or none of its nodes serves the key.
    ClusterDown,
    /// The server has only database 0, so it is a cluster node.
    OneDatabase,
    /// The server has not cached the script.
    NoScript,
    /// The key belongs to another node, whose address the server reported.
    Moved(String),
    /// Another node serves this one command, while the slot moves.
    Ask(String),
    /// Only a change of the setup helps.
    Rejected { reason: Cow<'static, str>, source: Option<Arc<dyn StdError + Send + Sync>> },
    /// The user lacks a permission.
    PermissionDenied,
    /// The server lacks the command.
    UnknownCommand,
    /// Another program wrote the value under the key.
    ForeignValue,
}

impl Error {
    pub(crate) fn unreachable(
        reason: impl Into<Cow<'static, str>>,
        source: impl StdError + Send + Sync + 'static,
    ) -> Self {
        Self::Unreachable { reason: reason.into(), source: Some(Arc::new(source)) }
    }

    pub(crate) fn rejected(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Rejected { reason: reason.into(), source: None }
    }

    pub(crate) const fn rejected_static(reason: &'static str) -> Self {
        Self::Rejected { reason: Cow::Borrowed(reason), source: None }
    }

    /// Whether the command may have been applied despite the error.
    pub(crate) fn is_ambiguous(&self) -> bool {
        matches!(self, Self::Lost | Self::Timeout)
    }

    /// Whether the connection may be broken; see [`Connection::is_broken_by`](crate::connection::Connection::is_broken_by).
    pub(crate) fn breaks_connection(&self) -> bool {
        matches!(self, Self::Lost | Self::NotSent | Self::Timeout)
    }

    /// Whether only a cluster node sends this error.
    pub(crate) fn is_from_cluster_node(&self) -> bool {
        matches!(self, Self::Moved(_) | Self::Ask(_) | Self::ClusterDown | Self::OneDatabase)
    }

    /// Whether this server or this user cannot subscribe.
    pub(crate) fn rejects_subscriptions(&self) -> bool {
        matches!(self, Self::PermissionDenied | Self::UnknownCommand)
    }

    /// The error for the caller. `applied` says whether a write may have been applied by this or an earlier attempt.
    pub(crate) fn into_store_error(self, applied: WriteState) -> StoreError {
        let unavailable = |reason| StoreError::unavailable(applied, reason);
        match self {
            Self::Unreachable { reason, source } => {
                with_source(StoreError::unavailable(applied, reason), source)
            }
            Self::Lost | Self::NotSent => unavailable("the connection to redis was lost"),
            Self::Timeout => unavailable("redis timed out"),
            Self::TryAgain(reason) => unavailable(reason),
            Self::ReadOnly => StoreError::rejected(
                "this redis is a read-only replica; use the URL of its master, or of its sentinels (redis+sentinel://)",
            ),
            Self::ClusterDown => {
                unavailable("the redis cluster is down, or none of its nodes serves this key")
            }
            Self::OneDatabase => StoreError::rejected("a redis cluster has only database 0"),
            Self::NoScript => unavailable("redis does not cache scripts"),
            Self::Moved(_) | Self::Ask(_) => unavailable("the key is moving between nodes of the cluster"),
            Self::Rejected { reason, source } => with_source(StoreError::rejected(reason), source),
            Self::PermissionDenied => StoreError::rejected(
                "the redis user lacks a permission; the documentation of quota-redis lists the required ones",
            ),
            Self::UnknownCommand => {
                StoreError::rejected("this server lacks a command that quota-redis needs")
            }
            Self::ForeignValue => StoreError::corrupt(
                "another program wrote the value under this redis key; use another ?prefix=",
            ),
        }
    }
}

fn with_source(error: StoreError, source: Option<Arc<dyn StdError + Send + Sync>>) -> StoreError {
    match source {
        Some(source) => error.with_source(SharedSource(source)),
        None => error,
    }
}

/// An error source that several callers share.
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

/// The meaning of each error code, which is the first word of an error reply.
///
/// [`Error::TryAgain`] goes away without intervention, and a manager works standalone until then. [`Error::ReadOnly`] and
/// [`Error::Rejected`] last until the setup of the server changes. What still works, such as reads on a replica, stays in use.
/// No error reply breaks the connection.
static REPLY_CODES: [(&str, Error); 16] = [
    ("LOADING", Error::TryAgain("redis is loading its data")),
    ("BUSY", Error::TryAgain("redis is running a long script of another client")),
    ("TRYAGAIN", Error::TryAgain("the key is moving between nodes of the cluster")),
    (
        "MASTERDOWN",
        Error::TryAgain("this redis is a replica without a connection to its master, so it serves no reads"),
    ),
    ("CLUSTERDOWN", Error::ClusterDown),
    ("READONLY", Error::ReadOnly),
    (
        "NOREPLICAS",
        Error::rejected_static(
            "redis rejects writes: fewer replicas are connected than its min-replicas-to-write",
        ),
    ),
    ("MISCONF", Error::rejected_static("redis rejects writes: it cannot write to its disk; see its log")),
    ("OOM", Error::rejected_static("redis rejects writes: it is out of memory; raise its maxmemory")),
    ("NOPERM", Error::PermissionDenied),
    ("NOAUTH", Error::rejected_static("redis requires a password; add it to the URL")),
    ("WRONGPASS", Error::rejected_static(WRONG_LOGIN)),
    (
        "DENIED",
        Error::rejected_static("redis is in protected mode; set a password on it, or bind it to this host"),
    ),
    ("WRONGTYPE", Error::ForeignValue),
    ("NOSCRIPT", Error::NoScript),
    ("NOPROTO", Error::UnknownCommand),
];

const WRONG_LOGIN: &str = "redis rejected this user and password; check both in the URL";

/// Classifies an error reply by its code, or by its text if the code is generic.
fn from_code(code: &str, detail: &str) -> Error {
    if let Some((_, error)) = REPLY_CODES.iter().find(|(reply_code, _)| *reply_code == code) {
        return error.clone();
    }
    match code {
        "ERR" => from_message(detail),
        // Repeat it only if it looks like a code: a server may put anything there.
        _ if !code.is_empty() && code.len() <= 16 && code.bytes().all(|byte| byte.is_ascii_uppercase()) => {
            Error::rejected(format!("redis replied with the error {code}"))
        }
        _ => Error::rejected_static("redis replied with an unknown error"),
    }
}

/// Classifies an error with the generic code `ERR`, by its text.
fn from_message(detail: &str) -> Error {
    let contains = |part: &str| detail.contains(part);
    match () {
        () if contains("max number of clients") => {
            Error::TryAgain("redis has reached its maximum number of clients")
        }
        () if contains("unknown command") || contains("nknown subcommand") => Error::UnknownCommand,
        () if contains("DB index") => {
            Error::rejected_static("redis has no database with this number; use a lower one")
        }
        () if contains("SELECT is not allowed") => Error::OneDatabase,
        () if contains("AUTH") => wrong_login(),
        () => Error::rejected_static("redis replied with an error; see its log"),
    }
}

fn wrong_login() -> Error {
    Error::rejected_static(WRONG_LOGIN)
}

/// The error of the operating system, without any other text that the error contains.
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
            panic!("a line that starts with a minus is an error");
        };
        RedisError::from(error).into()
    }

    /// The store's reaction to an error reply.
    #[derive(Debug, PartialEq)]
    enum Effect {
        /// The store is unavailable for a while.
        Unreachable,
        /// The store rejects the operation. Operations that still work stay in use.
        Rejected,
        /// The store does not change the document.
        Unusable,
        /// The store recovers without an error.
        Handled,
    }

    fn effect(line: &str) -> Effect {
        match parse(line) {
            Error::NoScript | Error::Moved(_) | Error::Ask(_) => Effect::Handled,
            error => match error.into_store_error(WriteState::NotApplied) {
                StoreError::Unavailable { .. } => Effect::Unreachable,
                StoreError::Rejected { .. } => Effect::Rejected,
                StoreError::Corrupt { .. } => Effect::Unusable,
                other => panic!("{line}: {other}"),
            },
        }
    }

    #[test]
    fn each_reply_code_has_one_meaning() {
        for (line, expected) in [
            ("LOADING Redis is loading the dataset in memory", Effect::Unreachable),
            ("BUSY Redis is busy running a script", Effect::Unreachable),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Effect::Unreachable),
            ("MASTERDOWN Link with MASTER is down", Effect::Unreachable),
            ("CLUSTERDOWN Hash slot not served", Effect::Unreachable),
            ("ERR max number of clients reached", Effect::Unreachable),
            ("READONLY You can't write against a read only replica.", Effect::Rejected),
            ("NOREPLICAS Not enough good replicas to write.", Effect::Rejected),
            ("MISCONF Redis is configured to save RDB snapshots", Effect::Rejected),
            ("OOM command not allowed when used memory > 'maxmemory'.", Effect::Rejected),
            ("NOPERM this user has no permissions", Effect::Rejected),
            ("NOAUTH Authentication required.", Effect::Rejected),
            ("WRONGPASS invalid username-password pair", Effect::Rejected),
            ("DENIED Redis is running in protected mode", Effect::Rejected),
            ("NOPROTO unsupported protocol version", Effect::Rejected),
            ("ERR DB index is out of range", Effect::Rejected),
            ("ERR SELECT is not allowed in cluster mode", Effect::Rejected),
            ("ERR something else", Effect::Rejected),
            ("NEWCODE something else", Effect::Rejected),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", Effect::Unusable),
            ("NOSCRIPT No matching script.", Effect::Handled),
            ("MOVED 3999 127.0.0.1:6381", Effect::Handled),
            ("ASK 3999 127.0.0.1:6381", Effect::Handled),
        ] {
            assert_eq!(effect(line), expected, "{line}");
        }
    }

    #[test]
    fn no_error_reply_breaks_the_connection() {
        for (code, error) in &REPLY_CODES {
            assert!(!error.breaks_connection(), "{code}");
        }
    }

    #[test]
    fn a_redirect_names_its_node() {
        assert!(
            matches!(parse("MOVED 3999 127.0.0.1:6381"), Error::Moved(target) if target == "127.0.0.1:6381")
        );
        assert!(matches!(parse("ASK 3999 ::1:6381"), Error::Ask(target) if target == "::1:6381"));
    }

    #[test]
    fn no_error_repeats_text_from_a_server() {
        for line in [
            "ERR unknown command `HELLO`, with args beginning with: `3` `AUTH` `me` `hunter2`",
            "ERR hunter2",
            "hunter2",
            "HUNTER2 hunter2",
            "MOVED hunter2",
        ] {
            let error = parse(line).into_store_error(WriteState::NotApplied);
            let shown = format!("{error} {error:?}").to_lowercase();
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
