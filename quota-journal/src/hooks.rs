//! Hooks: commands that run for an event, or POST requests that contain the event. `update` derives the events, and
//! ensures that only one process runs the hooks.
//!
//! A hook runs at most once. The event is written first, so a process that is killed before it runs the hook loses that run.
//! In the opposite order, two processes could run the hook.

mod command;
mod error;
mod hook_run;
mod payload;
#[cfg(feature = "post")]
pub(crate) mod post;

use std::path::PathBuf;
use std::time::Duration;

use quota_core::{AccountId, Clock};

pub use self::error::{HookError, HookFailure};
pub use self::hook_run::{HookRun, hook_runs};
pub use self::payload::HookPayload;
#[cfg(feature = "post")]
use self::post::SecretUrl;
use crate::event::{EventKind, JournalEvent};

/// One configured hook.
#[derive(Debug, Clone, PartialEq)]
pub struct Hook {
    /// The kinds of events for which it runs.
    pub on: Vec<&'static str>,
    /// The accounts for which it runs. An empty list means all.
    pub accounts: Vec<AccountId>,
    /// The windows for which it runs. An empty list means all.
    pub windows: Vec<String>,
    /// The thresholds for which it runs, in hundredths of a percent. An empty list means all.
    pub thresholds: Vec<u32>,
    /// The action of the hook.
    pub action: Action,
    /// The timeout of one run.
    pub timeout: Duration,
}

/// The action of a hook.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// Runs a program without a shell, with the payload on its standard input and in its environment.
    Run {
        /// The program: a path, or a name that is looked up in `PATH`.
        program: PathBuf,
        /// Its arguments, passed unchanged.
        arguments: Vec<String>,
    },
    /// Posts the payload as JSON.
    #[cfg(feature = "post")]
    Post(SecretUrl),
}

impl Hook {
    /// Whether the hook runs for this event.
    fn matches(&self, account: &AccountId, event: &JournalEvent) -> bool {
        let kind = self.on.contains(&event.kind.as_str());
        let account = self.accounts.is_empty() || self.accounts.contains(account);
        // An event without a window matches every window.
        let lists = |window: &str| self.windows.iter().any(|listed| listed == window);
        let window = self.windows.is_empty() || event.kind.window().is_none_or(lists);
        let threshold = match &event.kind {
            EventKind::Threshold { threshold_bp, .. } => {
                self.thresholds.is_empty() || self.thresholds.contains(threshold_bp)
            }
            _ => true,
        };
        kind && account && window && threshold
    }
}

/// Runs the hooks for the new events of an account, one after another, each within its timeout.
///
/// `secrets` names the variables that are removed from the environment of a command. Returns the hooks that failed. Dropping
/// the future kills the running command and every process that it started.
pub async fn run_hooks(
    hooks: &[Hook],
    secrets: &[String],
    account: &AccountId,
    new: &[JournalEvent],
    clock: &Clock,
) -> Vec<HookError> {
    let mut failed = Vec::new();
    for run in hook_runs(hooks, account, new) {
        failed.extend(run.run(secrets, clock).await.err());
    }
    failed
}

#[cfg(test)]
mod tests;
