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
    /// The server takes no writes.
    ReadOnly,
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

    /// Whether the command may have been carried out all the same.
    pub(crate) fn is_ambiguous(&self) -> bool {
        matches!(self, Self::Lost | Self::Late)
    }

    /// Whether the connection may be of no more use; see [`Wire::is_ended_by`](crate::wire::Wire::is_ended_by).
    pub(crate) fn ends_connection(&self) -> bool {
        matches!(self, Self::Lost | Self::Unsent | Self::Late | Self::ReadOnly)
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
            Self::ReadOnly => unavailable("this redis is a replica, or takes no writes for now"),
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

/// Sorts what a server said by its first word.
fn said(code: &str, detail: &str) -> Failure {
    match code {
        "NOSCRIPT" => Failure::NoScript,
        "READONLY" => Failure::ReadOnly,
        "LOADING" => Failure::NotNow("redis is loading its data"),
        "BUSY" => Failure::NotNow("redis is busy with a script of somebody"),
        "CLUSTERDOWN" => Failure::NotNow("the redis cluster is down, or no node serves this key"),
        "TRYAGAIN" => Failure::NotNow("the key moves between the nodes of the cluster"),
        "MASTERDOWN" => Failure::NotNow("this redis is a replica that has lost its master"),
        "NOREPLICAS" => Failure::NotNow("redis has too few replicas to take writes"),
        "WRONGTYPE" => Failure::Foreign,
        "NOPERM" => Failure::NoRights,
        "NOAUTH" => Failure::refused("redis asks for a password; put one into the URL"),
        "WRONGPASS" => wrong_login(),
        "OOM" => Failure::refused("redis has no memory left; raise its maxmemory"),
        "MISCONF" => Failure::refused("redis cannot write to its disk and takes no writes; its log says why"),
        "DENIED" => {
            Failure::refused("redis is in protected mode; give it a password, or bind it to this host")
        }
        "NOPROTO" => Failure::NoCommand,
        "ERR" => unnamed(detail),
        // Only what looks like a code is repeated: a server may put anything there.
        _ if !code.is_empty() && code.len() <= 16 && code.bytes().all(|byte| byte.is_ascii_uppercase()) => {
            Failure::refused(format!("redis answered {code}"))
        }
        _ => Failure::refused("redis answered with an error of an unknown kind"),
    }
}

/// What older servers say without a word of its own.
fn unnamed(detail: &str) -> Failure {
    let holds = |part: &str| detail.contains(part);
    match () {
        () if holds("max number of clients") => Failure::NotNow("redis has too many clients"),
        () if holds("unknown command") || holds("nknown subcommand") => Failure::NoCommand,
        () if holds("DB index") => Failure::refused("redis has no database of this number"),
        () if holds("SELECT is not allowed") => Failure::refused("a redis cluster has the database 0 alone"),
        () if holds("AUTH") => wrong_login(),
        () => Failure::refused("redis answered with an error"),
    }
}

fn wrong_login() -> Failure {
    Failure::refused("redis does not take this user and password")
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

    #[test]
    fn what_passes_is_told_from_what_must_be_mended() {
        for line in ["LOADING x", "BUSY x", "CLUSTERDOWN x", "TRYAGAIN x", "MASTERDOWN x", "READONLY x"] {
            assert!(failure(line).into_error(Applied::No).is_transient(), "{line}");
        }
        assert!(failure("ERR max number of clients reached").into_error(Applied::No).is_transient());
        for line in ["NOAUTH x", "WRONGPASS x", "NOPERM x", "OOM x", "MISCONF x", "ERR x", "ODD x"] {
            let error = failure(line).into_error(Applied::No);
            assert!(matches!(error, StoreError::Refused { .. }), "{line}: {error}");
        }
        assert!(matches!(failure("WRONGTYPE x").into_error(Applied::No), StoreError::Unusable { .. }));
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
