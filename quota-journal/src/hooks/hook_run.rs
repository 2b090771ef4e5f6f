//! One run of a hook for one event, as data that another process can run.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use quota_core::{AccountId, Clock};
use serde::{Deserialize, Serialize};

#[cfg(feature = "post")]
use super::post::SecretUrl;
use super::{Action, Hook, HookError, HookFailure, HookPayload, command};
use crate::event::JournalEvent;

/// One run of a hook for one event. It contains all data for the run, so another process can run it without a
/// configuration or a store.
///
/// Its JSON may contain the URL of a webhook, which is a secret. Pass it through a pipe, not through arguments or files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HookRun {
    number: usize,
    kind: String,
    account: AccountId,
    #[serde(with = "stored")]
    action: Action,
    timeout: Duration,
    payload: String,
    variables: Vec<(String, String)>,
}

/// Returns the runs of `hooks` for the new events of an account, in the order of the events.
#[must_use]
pub fn hook_runs(hooks: &[Hook], account: &AccountId, new: &[JournalEvent]) -> Vec<HookRun> {
    let runs = |event| {
        let hooks = (1..).zip(hooks).filter(move |(_, hook)| hook.matches(account, event));
        hooks.map(move |(number, hook)| HookRun::new(number, hook, account, event))
    };
    new.iter().flat_map(runs).collect()
}

impl HookRun {
    fn new(number: usize, hook: &Hook, account: &AccountId, event: &JournalEvent) -> Self {
        let payload = HookPayload::new(account, event);
        let variables = payload.variables().into_iter().map(|(name, value)| (name.to_owned(), value));
        Self {
            number,
            kind: event.kind.as_str().to_owned(),
            account: account.clone(),
            action: hook.action.clone(),
            timeout: hook.timeout,
            payload: payload.json(),
            variables: variables.collect(),
        }
    }

    /// Runs the hook once, within its timeout. `secrets` names the variables that are removed from the environment of a
    /// command. Dropping the future kills the command and every process that it started.
    ///
    /// # Errors
    ///
    /// [`HookError`] if the hook failed.
    pub async fn run(&self, secrets: &[String], clock: &Clock) -> Result<(), HookError> {
        let work = async {
            match &self.action {
                Action::Run { program, arguments } => {
                    command::run(program, arguments, secrets, &self.payload, &self.variables).await
                }
                #[cfg(feature = "post")]
                Action::Post(url) => url.post(&self.payload).await,
            }
        };
        let result = clock.bounded(self.timeout, work).await;
        result.unwrap_or(Err(HookFailure::TimedOut(self.timeout))).map_err(|failure| HookError {
            number: self.number,
            kind: self.kind.clone(),
            account: self.account.clone(),
            failure,
        })
    }
}

/// The JSON of an action. [`Action`] itself does not implement `Serialize`, so that no output shows a URL by accident.
mod stored {
    use serde::{Deserializer, Serializer};

    use super::*;

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Stored {
        // A path need not be UTF-8.
        Run { program: OsString, arguments: Vec<String> },
        Post(String),
    }

    pub(super) fn serialize<S: Serializer>(action: &Action, serializer: S) -> Result<S::Ok, S::Error> {
        let stored = match action {
            Action::Run { program, arguments } => {
                Stored::Run { program: program.clone().into_os_string(), arguments: arguments.clone() }
            }
            #[cfg(feature = "post")]
            Action::Post(url) => Stored::Post(url.expose().to_owned()),
        };
        stored.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Action, D::Error> {
        match Stored::deserialize(deserializer)? {
            Stored::Run { program, arguments } => {
                Ok(Action::Run { program: PathBuf::from(program), arguments })
            }
            #[cfg(feature = "post")]
            Stored::Post(url) => {
                let url = url.parse().map_err(|_| serde::de::Error::custom("not a URL"))?;
                Ok(Action::Post(SecretUrl::new(url)))
            }
            #[cfg(not(feature = "post"))]
            Stored::Post(_) => Err(serde::de::Error::custom("a webhook needs the feature `post`")),
        }
    }
}
