//! Updates the journals of the configured accounts after commands that may have changed a record, and starts their
//! hooks. The crate quota-journal detects the events and runs the hooks.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use quota::{AccountId, Clock, ProviderId, QuotaStore};
use quota_journal::{
    Damage, HookError, HookFailure, JournalDamage, JournalEvent, JournalUpdate, Rules, SECRET_VARIABLES,
    Warning,
};
use tokio::sync::watch;

use crate::config::{Config, clear_hold};
use crate::view::json;
use crate::{detached, hook_failures, io_cause, term};

/// How often a long-running program updates the journals.
const INTERVAL: Duration = Duration::from_secs(15);

/// The rules that define events of a provider's accounts, from the configuration.
pub(crate) fn rules(config: &Config, provider: &ProviderId) -> Rules {
    Rules::new(config.policy_of(provider), &config.hooks)
}

/// Updates the journals of all accounts, and starts the hooks for their new events. Returns a line for each problem.
pub(crate) async fn update(config: &Config, store: &dyn QuotaStore) -> Vec<String> {
    let update = |provider: ProviderId| async move {
        let mut problems = Vec::new();
        let updated = |account: &AccountId, update: JournalUpdate| {
            problems.extend(start_hooks_of(config, account, &update));
        };
        let accounts = config.accounts.iter().map(|account| &account.id);
        let accounts: Vec<_> = accounts.filter(|id| *id.provider() == provider).collect();
        quota_journal::update_all(store, &accounts, &rules(config, &provider), updated).await;
        problems
    };
    // Update them concurrently, because each update waits for the store several times in sequence.
    join_all(config.used_providers().map(|provider| update(provider.id()))).await.concat()
}

/// Starts the hooks for the new events of an update. Returns a line for each problem.
pub(crate) fn start_hooks_of(config: &Config, account: &AccountId, update: &JournalUpdate) -> Vec<String> {
    let is_replaced = update.damage.journal == Some(JournalDamage::Replaced);
    let replaced = is_replaced.then(|| describe(Warning::Replaced(account.clone())));
    replaced.into_iter().chain(start_hooks(config, account, &update.new)).collect()
}

/// Like `update`, for an interactive command. Prints the problems, and the failures of earlier hooks.
pub(crate) async fn update_and_print(config: &Config, store: &dyn QuotaStore) {
    let problems = update(config, store).await;
    for line in problems.into_iter().chain(hook_failures().await) {
        term::eprint(&format!("quota: {line}\n"));
    }
}

/// Like `update`, for a process without a terminal. Saves the problems, so that the next command reports them.
pub(crate) async fn update_and_save_problems(config: &Config, store: &dyn QuotaStore) {
    for line in update(config, store).await {
        let _ = hook_failures::save(line).await;
    }
}

/// Updates the journals and starts their hooks repeatedly, until this is dropped.
pub(crate) async fn keep_updated(configs: watch::Receiver<Arc<Config>>, store: Arc<dyn QuotaStore>) {
    let clock = Clock::system();
    loop {
        clock.sleep(INTERVAL).await;
        let config = Arc::clone(&configs.borrow());
        update_and_save_problems(&config, store.as_ref()).await;
    }
}

/// Starts a detached process that runs the hooks for the new events of an account, so that no command waits for them. Returns a line
/// if that fails.
pub(crate) fn start_hooks(config: &Config, account: &AccountId, new: &[JournalEvent]) -> Option<String> {
    let runs = quota_journal::hook_runs(&config.hooks, account, new);
    if runs.is_empty() {
        return None;
    }
    let lines: String = runs.iter().map(json::one_line).collect();
    let without_secrets = |command: &mut Command| {
        for name in SECRET_VARIABLES {
            command.env_remove(name);
        }
        for name in config.token_variables() {
            command.env_remove(name);
        }
    };
    let started = detached::start(&["run-hooks".as_ref()], without_secrets, lines.as_bytes());
    started.err().map(|error| format!("could not start the hooks of {account}: {}", io_cause::plain(&error)))
}

/// A line for each failed hook that no command has reported.
pub(crate) async fn hook_failures() -> Vec<String> {
    // `quota doctor` reports an unusable file.
    let failures = hook_failures::take().await.unwrap_or_default();
    let now = Clock::system().now();
    failures.into_iter().map(|failure| failure.describe(now)).collect()
}

/// A line for each damaged document of an account, with what to do.
pub(crate) fn damage_lines(damage: Damage, account: &AccountId) -> Vec<String> {
    let record = damage
        .record
        .then(|| format!("the record of {account} is damaged; replace it with: {}", clear_hold(account)));
    let journal = damage.journal.map(|journal| match journal {
        JournalDamage::Replaced => describe(Warning::Replaced(account.clone())),
        JournalDamage::Newer => {
            format!(
                "the journal of {account} was written by a newer quota, so new events are not stored; update quota"
            )
        }
        _ => describe(Warning::Unreadable(account.clone())),
    });
    [record, journal].into_iter().flatten().collect()
}

/// A problem as one line.
pub(crate) fn describe(warning: Warning) -> String {
    match &warning {
        Warning::Hook(HookError { failure: HookFailure::NotStarted(cause), .. }) => {
            format!("{warning}: {}", io_cause::of_read(cause))
        }
        _ => warning.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_reported_as_the_cause() {
        let failure = HookFailure::NotStarted(std::io::ErrorKind::NotFound.into());
        let account = "anthropic/main".parse().unwrap();
        let error = HookError { number: 1, kind: "threshold".to_owned(), account, failure };

        assert_eq!(
            describe(error.into()),
            "hook 1 could not be run (for threshold of anthropic/main): there is no such file"
        );
    }
}
