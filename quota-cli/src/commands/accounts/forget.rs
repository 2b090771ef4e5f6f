//! Deletes the data of removed accounts: readings and journals in the store, and routing state in the accounts file.
//! `quota_core::record` preserves holds and call budgets, so that removing and adding an account does not reset them.

use quota::{AccountId, QuotaError, QuotaManager};

use crate::cli::GlobalOptions;
use crate::config::{self, Config};
use crate::context;
use crate::exit::CliError;
use crate::sanitize::sanitize;
use crate::store::{self, OpenedStore};

/// Removes the stored data of accounts that are no longer in the configuration. Returns one line per failure.
pub(super) async fn all(config: &Config, global: &GlobalOptions, ids: &[AccountId]) -> Vec<String> {
    let mut failures = Vec::new();
    match open(config, global) {
        Ok((manager, store)) => {
            // If a remaining account has the same login as a removed one, the record is kept. So the manager must know
            // the remaining accounts.
            for account in &config.accounts {
                let _ = manager.account(&account.id).sync().await;
            }
            for id in ids {
                failures.extend(one(&manager, &store, id).await.err());
            }
            manager.close().await;
        }
        Err(failure) => failures.extend(ids.iter().map(|id| not_removed(id, &failure.to_string()))),
    }
    if let Some(file) = config::accounts_file()
        && let Err(error) = file.forget(ids.to_vec()).await
    {
        failures.push(format!("could not remove the routing state: {error}"));
    }
    failures
}

fn open(config: &Config, global: &GlobalOptions) -> Result<(QuotaManager, OpenedStore), CliError> {
    let store = store::open(global.store.as_deref())?;
    Ok((context::open_read_only(config, &store)?, store))
}

/// Removes the record before the journal, because other processes derive the journal from the record.
async fn one(manager: &QuotaManager, store: &OpenedStore, id: &AccountId) -> Result<(), String> {
    let describe = |error: &QuotaError| match error {
        QuotaError::Store { error, .. } => store::cause(error).to_owned(),
        error => error.report(),
    };
    manager.forget(id).await.map_err(|error| not_removed(id, &describe(&error)))?;
    quota_journal::remove(store.store.as_ref(), id)
        .await
        .map_err(|error| not_removed(id, store::cause(&error)))
}

fn not_removed(id: &AccountId, why: &str) -> String {
    let why = sanitize(why);
    format!(
        "could not remove the usage of {id} from the store: {why}; fix that, then add and remove the account again"
    )
}
