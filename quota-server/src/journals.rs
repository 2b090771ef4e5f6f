//! Updates the journals of the accounts, so that their events reach clients and hooks.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use quota::{AccountId, Clock, QuotaStore};
use quota_journal::{Journal, JournalUpdate, Rules, wait_for_events};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::events::Events;

/// The timeout of one update.
const UPDATE_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause after a failed update.
const RETRY_DELAY: Duration = Duration::from_secs(5);
/// The maximum number of concurrent updates. It leaves capacity of the store for other calls.
const CONCURRENT_UPDATES: usize = 8;

/// The timeout for reading the journals of one request.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// The number of journals that one request reads at the same time.
const CONCURRENT_READS: usize = 8;

type OnUpdate = dyn Fn(&AccountId, &JournalUpdate) + Send + Sync;

/// The journals of a [`Gateway`](crate::Gateway)'s accounts, in the store of its manager.
///
/// The gateway updates an account's journal when the record or journal has changed, and when an event is due. Other
/// gateways and commands may do the same in the same store. Exactly one of them records each event.
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

    /// Sets a function to call after each update, for example to start hooks for new events. It must return quickly.
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
                // Call it in the same poll that ends the update, so that no reload can happen between an event and its
                // hook.
                (self.on_update)(account, &update);
                events.publish(account, &update.journal);
                wait_for_events(&*self.store, account, &update).await;
            }
            _ => clock.sleep(RETRY_DELAY).await,
        }
    }
}

/// Returns the journals of these accounts in the same order. A journal that cannot be read in time is empty.
pub(crate) async fn read_all(journals: Option<&Journals>, accounts: Vec<AccountId>) -> Vec<Journal> {
    let clock = Clock::system();
    let begun = clock.instant();
    let reads = accounts.into_iter().map(|account| {
        let clock = &clock;
        async move {
            let store = &*journals?.store;
            // All reads share one timeout, so that a request does not wait longer with many accounts.
            let left = READ_TIMEOUT.saturating_sub(clock.instant().saturating_since(begun));
            clock.bounded(left, quota_journal::read(store, &account)).await?.ok()
        }
    });
    // Read only a few at the same time, because the store has other callers.
    let journals = stream::iter(reads).buffered(CONCURRENT_READS);
    journals.map(Option::unwrap_or_default).collect().await
}
