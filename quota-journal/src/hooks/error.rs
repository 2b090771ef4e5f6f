//! Why a hook failed.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use quota_core::AccountId;

/// A failed hook, and the event for which it ran.
#[derive(Debug, thiserror::Error)]
#[error("hook {number} {failure} (for {kind} of {account})")]
pub struct HookError {
    /// The position of the hook in the configuration, counted from 1.
    pub number: usize,
    /// The kind of the event, see [`EventKind::as_str`](crate::EventKind::as_str).
    pub kind: String,
    /// The account of the event.
    pub account: AccountId,
    /// Why it failed.
    #[source]
    pub failure: HookFailure,
}

/// Why a hook failed, as a text that follows the name of the hook. It contains neither output of the command nor a URL.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HookFailure {
    /// The operating system could not start the command, for the reason in the source.
    #[error("could not be run")]
    NotStarted(#[source] io::Error),
    /// The command exited with a failure.
    #[error("ended with {0}")]
    ExitStatus(ExitStatus),
    /// The command or the request exceeded its timeout and was stopped.
    #[error("timed out after {} s", .0.as_secs_f64())]
    TimedOut(Duration),
    /// The payload could not be posted.
    #[error("could not be posted: {0}")]
    PostFailed(&'static str),
    /// The server responded with this HTTP status.
    #[error("got HTTP status {0}")]
    HttpStatus(u16),
}
