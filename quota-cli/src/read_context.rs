//! The accounts and the store of a command that only reads the store: `budget`, `events`, `pace`, and the resources of `mcp`.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use quota::store::StoreError;
use quota::{AccountId, Clock, QuotaStore};
use quota_journal::{JournalEvent, JournalUpdate};

use crate::cli::GlobalOptions;
use crate::config::Config;
use crate::exit::{CliError, Exit};
use crate::format::LocalTime;
use crate::store::OpenedStore;
use crate::{context, journal, store, store_probe, term};

/// The timeout of the store for one account.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

/// The selected accounts, and their store.
#[derive(Debug)]
pub(crate) struct ReadContext {
    pub(crate) config: Config,
    pub(crate) store: Arc<dyn QuotaStore>,
    opened: OpenedStore,
    clock: Clock,
    /// The printed lines about damaged documents, so that each is printed once.
    reported: RefCell<HashSet<String>>,
}

impl ReadContext {
    /// Loads the configuration and opens the store. If there is no account, prints that and returns `None`.
    ///
    /// # Errors
    ///
    /// [`CliError`] if one of them cannot be used, or a named account does not exist.
    pub(crate) async fn open(accounts: &[String], global: &GlobalOptions) -> Result<Option<Self>, CliError> {
        let opened = store::open(global.store.as_deref())?;
        let Some(mut config) = context::configuration(global.config.as_deref()).await? else {
            return Ok(None);
        };
        config.retain(accounts)?;
        opened.check(&config).await?;
        if !opened.is_shared {
            term::eprint(
                "quota: the store memory: is private to this process, so it is empty; set a shared store with --store or QUOTA_STORE\n",
            );
        }
        Ok(Some(Self::new(config, opened)))
    }

    /// Reads these accounts from an open store.
    pub(crate) fn new(config: Config, opened: OpenedStore) -> Self {
        Self {
            config,
            store: Arc::clone(&opened.store),
            opened,
            clock: Clock::system(),
            reported: RefCell::default(),
        }
    }

    /// The journals of all accounts, in the order of the configuration.
    ///
    /// # Errors
    ///
    /// [`CliError`] if the store does not answer.
    pub(crate) async fn load_all(&self) -> Result<Vec<JournalUpdate>, CliError> {
        let mut updates = Vec::with_capacity(self.config.accounts.len());
        for account in &self.config.accounts {
            updates.push(self.load(&account.id).await?);
        }
        Ok(updates)
    }

    /// The last events of all accounts, oldest first. `updates` are their journals.
    pub(crate) fn last_events<'a>(
        &'a self,
        updates: &'a [JournalUpdate],
        last: usize,
    ) -> Vec<(&'a AccountId, &'a JournalEvent)> {
        let accounts = self.config.accounts.iter().zip(updates);
        let mut events: Vec<_> = accounts
            .flat_map(|(account, update)| update.journal.events().map(|(_, event)| (&account.id, event)))
            .collect();
        events.sort_by_key(|(_, event)| event.at);
        events.split_off(events.len().saturating_sub(last))
    }

    /// Updates the journal of an account, starts the hooks for its new events, and returns the journal with the record. A damaged
    /// document is reported, and is empty in the result.
    ///
    /// # Errors
    ///
    /// [`CliError`] if the store does not answer.
    pub(crate) async fn load(&self, account: &AccountId) -> Result<JournalUpdate, CliError> {
        let rules = journal::rules(&self.config, account.provider());
        let updated = quota_journal::update(self.store.as_ref(), account, &rules);
        let updated = match self.clock.bounded(STORE_TIMEOUT, updated).await {
            Some(updated) => updated.map_err(|error| self.unavailable(&error))?,
            None => {
                let reason = format!("the store did not answer within {} s", STORE_TIMEOUT.as_secs());
                return Err(CliError::new(Exit::Unavailable, reason));
            }
        };
        // Start the hooks now, because the events are saved and no later command starts hooks for them.
        let problem = journal::start_hooks(&self.config, account, &updated.new);
        if let Some(line) = problem {
            term::eprint(&format!("quota: {line}\n"));
        }
        for line in journal::damage_lines(updated.damage, account) {
            if self.reported.borrow_mut().insert(line.clone()) {
                term::eprint(&format!("quota: {line}\n"));
            }
        }
        Ok(updated)
    }

    /// The error text for a store failure. During an outage it describes the outage; the events are derived from the
    /// records afterwards.
    fn unavailable(&self, error: &StoreError) -> CliError {
        match self.opened.outage() {
            Some(outage) => {
                CliError::new(Exit::Unavailable, store_probe::outage_warning(&outage, &LocalTime::now()))
            }
            None => unavailable(error),
        }
    }

    /// Prints the failures of hooks that no command has reported.
    pub(crate) async fn print_hook_failures(&self) {
        for line in journal::hook_failures().await {
            term::eprint(&format!("quota: {line}\n"));
        }
    }
}

/// An error of the store, with its causes.
pub(crate) fn unavailable(error: &StoreError) -> CliError {
    CliError::new(Exit::Unavailable, error.to_string())
}
