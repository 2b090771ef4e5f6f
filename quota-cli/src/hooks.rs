//! What is done when something happens: a command is run, or a note is posted.
//! What happened is found out in `journal`, which also sees to it that one process does this.
//!
//! A hook runs at most once: the happening is written down first, and a process that is killed between the two takes the
//! hook with it. The other order would let two processes run it.

mod note;
mod post;
mod run;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use quota::{AccountId, Clock};
use url::Url;

pub(crate) use self::note::Note;
pub(crate) use self::post::client;
use crate::journal::{Happening, What};

/// One hook of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Hook {
    /// The kinds of happenings it is for.
    pub(crate) on: Vec<&'static str>,
    /// The accounts it is for; all if none is named.
    pub(crate) accounts: Vec<AccountId>,
    /// The windows it is for; all if none is named.
    pub(crate) windows: Vec<String>,
    /// The thresholds it is for, in hundredths of a percent; all if none is named.
    pub(crate) thresholds: Vec<u32>,
    pub(crate) action: Action,
    /// How long it may take.
    pub(crate) timeout: Duration,
}

/// What a hook does.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    Run { program: PathBuf, arguments: Vec<String> },
    Post(Address),
}

/// Where notes go. Whoever knows such an address may write to it, so it is never shown.
#[derive(Clone, PartialEq)]
pub(crate) struct Address(Url);

impl Address {
    pub(crate) fn new(url: Url) -> Self {
        Self(url)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address(***)")
    }
}

impl Hook {
    /// Whether it is for this.
    fn is_for(&self, account: &AccountId, happening: &Happening) -> bool {
        let what = &happening.what;
        let named = self.on.contains(&what.kind());
        let account = self.accounts.is_empty() || self.accounts.contains(account);
        // Whatever is about no window is about all of them.
        let of_window = |window: &str| self.windows.iter().any(|named| named == window);
        let window = self.windows.is_empty() || what.window().is_none_or(of_window);
        let threshold = match what {
            What::Threshold { threshold_bp, .. } => {
                self.thresholds.is_empty() || self.thresholds.contains(threshold_bp)
            }
            _ => true,
        };
        named && account && window && threshold
    }
}

/// Runs the hooks for what is new of an account, one after the other, each within its time.
///
/// `secrets` names the environment variables that a command must not see. Gives a line on each hook that failed. Dropping the
/// future ends a command that is running, with all it has started.
pub(crate) async fn run(
    hooks: &[Hook],
    secrets: &[String],
    account: &AccountId,
    new: &[Happening],
    clock: &Clock,
) -> Vec<String> {
    let mut troubles = Vec::new();
    for happening in new {
        for (number, hook) in (1..).zip(hooks).filter(|(_, hook)| hook.is_for(account, happening)) {
            let note = Note::of(account, happening);
            let work = async {
                match &hook.action {
                    Action::Run { program, arguments } => {
                        run::command(program, arguments, secrets, &note).await
                    }
                    Action::Post(Address(url)) => post::note(url, &note).await,
                }
            };
            let outcome = clock.bounded(hook.timeout, work).await;
            let outcome =
                outcome.unwrap_or_else(|| Err(format!("was ended after {} s", hook.timeout.as_secs_f64())));
            if let Err(why) = outcome {
                let kind = happening.what.kind();
                troubles.push(format!("hook {number} {why} (for {kind} of {account})"));
            }
        }
    }
    troubles
}

#[cfg(test)]
mod tests;
