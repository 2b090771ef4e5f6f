//! The journals of the configured accounts, kept after commands that may have changed a record.
//! What an event is, how it is found, and how hooks run is in the crate quota-journal.

use quota::{AccountId, Clock, QuotaStore};
use quota_journal::{Damage, HookError, HookFailure, JournalEvent, Rules, Warning};

use crate::config::{Config, clear_hold};
use crate::{io_cause, term};

/// The rules by which a configuration finds events.
pub(crate) fn rules(config: &Config) -> Rules {
    Rules::new(config.policy.clone(), &config.hooks)
}

/// Writes what has happened to all accounts into their journals, and runs the hooks for it; see [`quota_journal::update_and_run_hooks`].
///
/// Returns a line on each hook that failed.
pub(crate) async fn keep(config: &Config, store: &dyn QuotaStore) -> Vec<String> {
    let accounts: Vec<_> = config.accounts.iter().map(|account| &account.id).collect();
    let secrets = config.token_variables();
    let warnings =
        quota_journal::update_and_run_hooks(store, &accounts, &rules(config), &config.hooks, &secrets).await;
    warnings.into_iter().map(line).collect()
}

/// The same for a command that prints which hooks failed.
pub(crate) async fn tell(config: &Config, store: &dyn QuotaStore) {
    for line in keep(config, store).await {
        term::eprint(&format!("quota: {line}\n"));
    }
}

/// Runs the configured hooks for what is new of an account. Returns a line on each hook that failed.
pub(crate) async fn run_hooks(
    config: &Config,
    account: &AccountId,
    new: &[JournalEvent],
    clock: &Clock,
) -> Vec<String> {
    let secrets = config.token_variables();
    let failed = quota_journal::run_hooks(&config.hooks, &secrets, account, new, clock).await;
    failed.into_iter().map(|error| line(error.into())).collect()
}

/// A line on each damaged document of an account, with what to do.
pub(crate) fn damage_lines(damage: Damage, account: &AccountId) -> Vec<String> {
    let record = damage
        .record
        .then(|| format!("the record of {account} is damaged; replace it: {}", clear_hold(account)));
    let journal = damage.journal.then(|| line(Warning::Replaced(account.clone())));
    let newer = damage.is_journal_newer.then(|| {
        format!(
            "the journal of {account} was written by a newer quota, so nothing is added to it; update quota"
        )
    });
    [record, journal, newer].into_iter().flatten().collect()
}

fn line(warning: Warning) -> String {
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
    fn a_program_that_does_not_exist_is_named_as_the_cause() {
        let failure = HookFailure::NotStarted(std::io::ErrorKind::NotFound.into());
        let account = "anthropic/main".parse().unwrap();
        let error = HookError { number: 1, kind: "threshold", account, failure };

        assert_eq!(
            line(error.into()),
            "hook 1 could not be run (for threshold of anthropic/main): there is no such file"
        );
    }
}
