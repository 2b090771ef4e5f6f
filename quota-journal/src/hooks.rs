//! What is done when something happens: a command is run, or a note is posted.
//! What happened is found in `journal`, which also makes sure that one process does this.
//!
//! A hook runs at most once: the happening is written down first, and a process that is killed between the two takes the
//! hook with it. The other order would let two processes run it.

mod failure;
mod note;
#[cfg(feature = "post")]
pub(crate) mod post;
mod run;

use std::path::PathBuf;
use std::time::Duration;

use quota_core::{AccountId, Clock};

pub use self::failure::{HookError, HookFailure};
pub use self::note::Note;
#[cfg(feature = "post")]
use self::post::Address;
use crate::happening::{Happening, What};

/// One hook of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Hook {
    /// The kinds of happenings it is for.
    pub on: Vec<&'static str>,
    /// The accounts it is for; all if none is named.
    pub accounts: Vec<AccountId>,
    /// The windows it is for; all if none is named.
    pub windows: Vec<String>,
    /// The thresholds it is for, in hundredths of a percent; all if none is named.
    pub thresholds: Vec<u32>,
    /// What it does.
    pub action: Action,
    /// How long it may take.
    pub timeout: Duration,
}

/// What a hook does.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// Runs a program without a shell, with the note on its standard input and in its environment.
    Run {
        /// The program, by path or by a name that is searched in `PATH`.
        program: PathBuf,
        /// Its arguments, as they are.
        arguments: Vec<String>,
    },
    /// Posts the note as JSON.
    #[cfg(feature = "post")]
    Post(Address),
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
/// `secrets` names the environment variables that a command must not get. Returns the hooks that failed. Dropping the future
/// ends a command that is running, with all it has started.
pub async fn run_hooks(
    hooks: &[Hook],
    secrets: &[String],
    account: &AccountId,
    new: &[Happening],
    clock: &Clock,
) -> Vec<HookError> {
    let mut failed = Vec::new();
    for happening in new {
        for (number, hook) in (1..).zip(hooks).filter(|(_, hook)| hook.is_for(account, happening)) {
            let note = Note::of(account, happening);
            let work = async {
                match &hook.action {
                    Action::Run { program, arguments } => {
                        run::command(program, arguments, secrets, &note).await
                    }
                    #[cfg(feature = "post")]
                    Action::Post(address) => address.post(&note).await,
                }
            };
            let outcome = clock.bounded(hook.timeout, work).await;
            if let Err(failure) = outcome.unwrap_or(Err(HookFailure::TimedOut(hook.timeout))) {
                let (kind, account) = (happening.what.kind(), account.clone());
                failed.push(HookError { number, kind, account, failure });
            }
        }
    }
    failed
}

#[cfg(test)]
mod tests;
