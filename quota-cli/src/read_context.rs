//! What commands that only read the store have in common: the accounts that are meant, and what the store has of them.
//! What is made of it is each command's own business.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use quota::{AccountId, Clock, QuotaStore, StoreError};
use quota_journal::JournalUpdate;

use crate::cli::GlobalOptions;
use crate::config::Config;
use crate::exit::{CliError, Exit};
use crate::{context, journal, store, term};

/// How long a person waits for the store.
const PATIENCE: Duration = Duration::from_secs(5);

/// The accounts that are meant, and the store they are in.
#[derive(Debug)]
pub(crate) struct ReadContext {
    pub(crate) config: Config,
    pub(crate) store: Arc<dyn QuotaStore>,
    clock: Clock,
    /// The lines on damaged documents that were shown, each once.
    reported: RefCell<HashSet<String>>,
}

impl ReadContext {
    /// Finds the configuration and the store; `None`, and the reader is told, if there is no account.
    ///
    /// # Errors
    ///
    /// [`CliError`] if one of them cannot be used, or an account is named that there is not.
    pub(crate) async fn open(accounts: &[String], global: &GlobalOptions) -> Result<Option<Self>, CliError> {
        let opened = store::open(global.store.as_deref())?;
        let Some(mut config) = context::configuration(global.config.as_deref()).await? else {
            return Ok(None);
        };
        config.retain(accounts)?;
        opened.check().await?;
        if !opened.is_shared {
            term::eprint(
                "memory: is a store of this process alone, so there is nothing in it yet; name a shared one with --store or \
                 QUOTA_STORE\n",
            );
        }
        Ok(Some(Self { config, store: opened.store, clock: Clock::system(), reported: RefCell::default() }))
    }

    /// What the store has of an account; what is new in it is written down. Its hooks are run by [`start_hooks`](Self::start_hooks). A damaged
    /// document is reported, and is empty in the result.
    ///
    /// # Errors
    ///
    /// [`CliError`] if the store does not answer.
    pub(crate) async fn load(&self, account: &AccountId) -> Result<JournalUpdate, CliError> {
        let rules = journal::rules(&self.config);
        let looked = quota_journal::update(self.store.as_ref(), account, &rules);
        let looked = match self.clock.bounded(PATIENCE, looked).await {
            Some(looked) => looked.map_err(|error| unavailable(&error))?,
            None => {
                let why = format!("the store did not answer within {} s", PATIENCE.as_secs());
                return Err(CliError::new(Exit::Unavailable, why));
            }
        };
        for line in journal::damage_lines(looked.damage, account) {
            if self.reported.borrow_mut().insert(line.clone()) {
                term::eprint(&format!("quota: {line}\n"));
            }
        }
        Ok(looked)
    }

    /// Starts the hooks for the new events of an account, and prints problems and earlier failures of hooks.
    pub(crate) async fn start_hooks(&self, account: &AccountId, updated: &JournalUpdate) {
        let problem = journal::start_hooks(&self.config, account, &updated.new);
        for line in problem.into_iter().chain(journal::hook_failures().await) {
            term::eprint(&format!("quota: {line}\n"));
        }
    }

    /// Does the same for an update of each account, in their order.
    pub(crate) async fn start_all_hooks(&self, updated: &[JournalUpdate]) {
        for (account, updated) in self.config.accounts.iter().zip(updated) {
            self.start_hooks(&account.id, updated).await;
        }
    }
}

/// A failure of the store, with the causes it has.
pub(crate) fn unavailable(error: &StoreError) -> CliError {
    CliError::new(Exit::Unavailable, error.to_string())
}
