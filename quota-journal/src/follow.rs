//! Reads a journal without changing it, and waits until it may have new events.

use std::time::Duration;

use quota_core::store::{StoreError, StoreKey, Version};
use quota_core::{AccountId, Clock, QuotaStore};

use crate::journal::Journal;
use crate::update::{JournalDamage, JournalUpdate};

/// The interval at which the store is read even without a notification, because notifications may be lost.
const RECHECK_INTERVAL: Duration = Duration::from_secs(30);
/// The minimum wait. An event may be due by one clock but not by the other, which would otherwise cause a busy loop.
const MIN_WAIT: Duration = Duration::from_millis(100);

/// The stored journal of an account, as the last update of any process wrote it. A missing or damaged journal is empty.
///
/// # Errors
///
/// Any [`StoreError`] from reading.
pub async fn read(store: &dyn QuotaStore, account: &AccountId) -> Result<Journal, StoreError> {
    let found = store.read(&journal_key(account)).await?;
    let journal = found.document.and_then(|found| Journal::decode(&found.body).ok());
    Ok(journal.unwrap_or_default())
}

/// Waits until an account may have new events since an update: its record or journal was written, or an event is due.
///
/// It waits at most 30 seconds. Dropping the future is safe.
pub async fn wait_for_events(store: &dyn QuotaStore, account: &AccountId, update: &JournalUpdate) {
    let (record, journal) = update.versions;
    // If the update cannot write, it does not record due events, and the due time would stay in the past.
    let can_write = !update.damage.record && update.damage.journal != Some(JournalDamage::Newer);
    let due = update.journal.next_change_at().filter(|_| can_write);
    let due = due.map_or(RECHECK_INTERVAL, |due| {
        Duration::try_from(due.duration_since(update.now)).unwrap_or(Duration::ZERO)
    });
    let key = journal_key(account);
    let changes = async {
        tokio::select! {
            () = changed(store, &update.record_key, record) => {}
            () = changed(store, &key, journal) => {}
        }
    };
    let _ = Clock::system().bounded(due.clamp(MIN_WAIT, RECHECK_INTERVAL), changes).await;
}

/// Waits for a change notification. Never completes if the store has no notifications.
async fn changed(store: &dyn QuotaStore, key: &StoreKey, version: Option<Version>) {
    if store.wait_for_change(key, version).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn journal_key(account: &AccountId) -> StoreKey {
    StoreKey::account_extension(account, "journal")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use quota_core::testing::FakeProvider;
    use quota_core::{MemoryStore, Policy, QuotaManager};

    use super::*;
    use crate::update::{Rules, update};

    fn account() -> AccountId {
        "example/main".parse().expect("a valid name")
    }

    async fn refreshed(store: &Arc<MemoryStore>) -> QuotaManager {
        let provider = FakeProvider::answering("example", 42.0);
        let policy = Policy::default().min_call_interval(Duration::from_millis(1));
        let builder = QuotaManager::builder(Arc::clone(store)).fetcher(provider).policy(policy);
        let manager = builder.build().expect("valid settings");
        let _ = manager.account(&account()).get().await.expect("the provider answers");
        manager
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_journal_is_unchanged() {
        let store = Arc::new(MemoryStore::new());
        let _manager = refreshed(&store).await;

        assert_eq!(read(&store, &account()).await.unwrap(), Journal::default());
        let updated = update(&store, &account(), &Rules::default()).await.unwrap();
        assert_eq!(read(&store, &account()).await.unwrap(), updated.journal);
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_to_the_record_ends_the_wait() {
        let store = Arc::new(MemoryStore::new());
        let manager = refreshed(&store).await;
        let updated = update(&store, &account(), &Rules::default()).await.unwrap();
        let mut waits = tokio::task::JoinSet::new();
        let waiting = Arc::clone(&store);
        waits.spawn(async move { wait_for_events(&*waiting, &account(), &updated).await });
        let begun = Clock::system().instant();

        let _ = manager.account(&account()).refresh().await.unwrap();
        waits.join_next().await.unwrap().unwrap();

        assert!(Clock::system().instant().saturating_since(begun) < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_without_a_change_ends() {
        let store = MemoryStore::new();
        let updated = update(&store, &account(), &Rules::default()).await.unwrap();
        let begun = Clock::system().instant();

        wait_for_events(&store, &account(), &updated).await;

        assert_eq!(Clock::system().instant().saturating_since(begun), RECHECK_INTERVAL);
    }
}
