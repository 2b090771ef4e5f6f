//! Why a hook failed.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use quota_core::AccountId;

/// A hook that failed, and the event that it ran for.
#[derive(Debug, thiserror::Error)]
#[error("hook {number} {failure} (for {kind} of {account})")]
pub struct HookError {
    /// Its position among the hooks, from 1.
    pub number: usize,
    /// The kind of the event, see [`What::kind`](crate::What::kind).
    pub kind: &'static str,
    /// The account of the event.
    pub account: AccountId,
    /// Why it failed.
    #[source]
    pub failure: HookFailure,
}

/// Why a hook failed, in words that follow its name. Nothing that a command wrote is in it, and no address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HookFailure {
    /// The system did not run the command; the source says why.
    #[error("could not be run")]
    NotRun(#[source] io::Error),
    /// The command ended with a failure.
    #[error("ended with {0}")]
    Ended(ExitStatus),
    /// Its time was over, which ended it.
    #[error("was ended after {} s", .0.as_secs_f64())]
    TimedOut(Duration),
    /// The note could not be posted.
    #[error("could not be posted: {0}")]
    NotPosted(&'static str),
    /// The address answered with this HTTP status.
    #[error("was answered with {0}")]
    Answered(u16),
}
