//! Keeps the journals of the accounts current, so that their events reach clients and hooks.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use quota::{AccountId, Clock, QuotaStore};
use quota_journal::{Journal, JournalUpdate, Rules, wait_for_events};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::events::Events;

/// The time for one update.
const UPDATE_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause after a failed update.
const RETRY_DELAY: Duration = Duration::from_secs(5);
/// The number of concurrent updates, so that the store stays free for other calls.
const CONCURRENT_UPDATES: usize = 8;

/// The time for reading the journals of one request.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// The number of journals that one request reads at once.
const CONCURRENT_READS: usize = 8;

type OnUpdate = dyn Fn(&AccountId, &JournalUpdate) + Send + Sync;

/// The journals of a [`Gateway`](crate::Gateway)'s accounts, in the store of its manager.
///
/// The gateway updates the journal of an account when its record or journal has changed, and when an event is due. Other gateways and
/// commands may do the same with the same store: exactly one of them finds each event.
#[derive(Clone)]
pub struct Journals {
    pub(crate) store: Arc<dyn QuotaStore>,
    on_update: Arc<OnUpdate>,
    updates: Arc<Semaphore>,
}

impl fmt::Debug for Journals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journals").finish_non_exhaustive()
    }
}

impl Journals {
    /// The journals in this store.
    #[must_use]
    pub fn new(store: Arc<dyn QuotaStore>) -> Self {
        Self { store, on_update: Arc::new(|_, _| {}), updates: Arc::new(Semaphore::new(CONCURRENT_UPDATES)) }
    }

    /// Calls this after each update, such as to start hooks for its new events. It must return quickly.
    #[must_use]
    pub fn on_update(self, on_update: impl Fn(&AccountId, &JournalUpdate) + Send + Sync + 'static) -> Self {
        Self { on_update: Arc::new(on_update), ..self }
    }

    /// Updates the journals of these accounts until the returned tasks are dropped.
    pub(crate) fn follow(&self, accounts: Vec<(AccountId, Rules)>, events: &Events) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for (account, rules) in accounts {
            let (journals, events) = (self.clone(), events.clone());
            tasks.spawn(async move {
                loop {
                    journals.update_and_wait(&account, &rules, &events).await;
                }
            });
        }
        tasks
    }

    async fn update_and_wait(&self, account: &AccountId, rules: &Rules, events: &Events) {
        let clock = Clock::system();
        let updated = {
            let _permit = self.updates.acquire().await.expect("the semaphore is never closed");
            clock.bounded(UPDATE_TIMEOUT, quota_journal::update(&*self.store, account, rules)).await
        };
        match updated {
            Some(Ok(update)) => {
                // In the poll that ends the update, so that no reload comes between an event and its hook.
                (self.on_update)(account, &update);
                events.publish(account, &update.journal);
                wait_for_events(&*self.store, account, &update).await;
            }
            _ => clock.sleep(RETRY_DELAY).await,
        }
    }
}

/// The journals of these accounts, in this order. A journal that cannot be read in time is empty.
pub(crate) async fn read_all(journals: Option<&Journals>, accounts: Vec<AccountId>) -> Vec<Journal> {
    let clock = Clock::system();
    let begun = clock.instant();
    let reads = accounts.into_iter().map(|account| {
        let clock = &clock;
        async move {
            let store = &*journals?.store;
            // All reads share the time, so that many accounts do not make a request wait longer.
            let left = READ_TIMEOUT.saturating_sub(clock.instant().saturating_since(begun));
            clock.bounded(left, quota_journal::read(store, &account)).await?.ok()
        }
    });
    // Only a few at once, because the store has other callers.
    let journals = stream::iter(reads).buffered(CONCURRENT_READS);
    journals.map(Option::unwrap_or_default).collect().await
}
