//! The only caller of providers: shared refreshes, lock-free reads, and standalone operation during a store outage.
//! The rules are in [`record`](crate::record); a [`UsageFetcher`](crate::UsageFetcher) sends the request.

mod account;
mod account_refresh;
mod account_state;
mod account_usage;
mod background;
mod builder;
mod context;
mod cooldown;
mod credential_cache;
mod credential_reuse;
mod credential_sources;
mod credentials;
mod entry;
mod error;
mod events;
mod follower;
mod in_flight;
mod limiter;
mod login_check;
mod provider;
mod records;
mod refresh;
mod registry;
mod state;
mod store_client;
mod store_metrics;
mod sync;
mod tasks;
mod view;
mod view_table;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::account::{Account, GetFuture};
use self::account_state::Selection;
pub use self::account_usage::{AccountUsage, Freshness, RefreshOutcome, StaleReason, UsageVersion};
pub use self::builder::{BuildError, QuotaManagerBuilder};
use self::context::TaskContext;
pub use self::error::{ObserveError, QuotaError};
pub use self::events::{Event, Events};
use self::registry::Registry;
pub use self::store_metrics::StoreStats;
pub use self::watch::{Changes, KeepFreshGuard};
use crate::clock::Clock;
use crate::model::{AccountId, Rejected, UsageReport};
use crate::outage::{Outage, OutageStore};
use crate::record::{MergeOutcome, Record};
use crate::store::QuotaStore;

/// The single gateway to the usage endpoints of LLM providers, and the cache in front of it.
///
/// Concurrent refreshes become one call, across tasks, and across processes and hosts that share the store. The manager is cheap
/// to clone. Its tasks end when the last clone and the last [`Account`] are dropped.
///
/// ```
/// use quota_core::{AccountId, MemoryStore, QuotaManager};
/// # use quota_core::testing::FakeProvider;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// # let fetcher = FakeProvider::answering("example", 42.0);
/// let quota = QuotaManager::builder(MemoryStore::new()).fetcher(fetcher).build()?;
/// let main = quota.account(&"example/main".parse::<AccountId>()?);
///
/// let usage = main.get().await?;
/// for window in usage.snapshot().windows() {
///     println!("{}: {}", window.id(), usage.used(window.id()));
/// }
/// quota.close().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct QuotaManager {
    shared: Arc<Shared>,
}

/// The state that all handles of one manager share.
pub(crate) struct Shared {
    pub(crate) context: TaskContext,
    clock: Clock,
    registry: Registry,
    /// The store, if it has outage levels.
    outage_store: Option<Arc<OutageStore>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.context.tasks.close();
    }
}

impl QuotaManager {
    /// Returns the builder of a manager that uses `store`. The store can be an `Arc` that other code shares.
    pub fn builder(store: impl QuotaStore) -> QuotaManagerBuilder {
        QuotaManagerBuilder::new(Arc::new(store))
    }

    /// Returns a handle to an account, without I/O. The account need not exist yet.
    #[must_use]
    pub fn account(&self, id: &AccountId) -> Account {
        Account::new(self.shared.registry.entry(id), Arc::clone(&self.shared))
    }

    /// The outage that the last store operation encountered, if the manager was built with
    /// [`outage_store`](QuotaManagerBuilder::outage_store).
    #[must_use]
    pub fn outage(&self) -> Option<Outage> {
        self.shared.outage_store.as_ref().and_then(|store| store.outage())
    }

    /// Merges readings into an account for which [`account`](Self::account) has returned a handle.
    ///
    /// For code that handles responses of many accounts; see [`Account::observe`].
    ///
    /// # Errors
    ///
    /// [`ObserveError::UnknownAccount`] if no handle was ever created, or if the account was [forgotten](Self::forget). Otherwise
    /// as [`Account::observe`].
    pub fn observe(&self, id: &AccountId, usage: &UsageReport) -> Result<Vec<Rejected>, ObserveError> {
        let unknown = || ObserveError::UnknownAccount { account: id.clone() };
        let entry = self.shared.registry.find(id).ok_or_else(unknown)?;
        Account::new(entry, Arc::clone(&self.shared)).observe(usage)
    }

    /// Forgets a removed account, in this manager and for all processes that share the store.
    ///
    /// This deletes the readings, the owner and the last failure. The limits on the next call stay in the store until they
    /// expire: the hold, the calls of the last hour and the fence. So removing and re-adding an account neither clears a hold nor
    /// resets the budget. Another process that has the readings cached does not restore them. A call in flight does not store its
    /// report. A process that continues to refresh the account creates it again.
    ///
    /// If another account of this manager shows the record of the same login, only this account loses it. Another login that the
    /// account holds on another host keeps its record there.
    ///
    /// Existing [`Account`] handles stay usable, without readings. If the future is dropped, the account may or may not be
    /// forgotten.
    ///
    /// # Errors
    ///
    /// [`QuotaError::Store`] if the write to the store failed. The account stays in this manager, so the caller can retry. With
    /// [`StoreOutagePolicy::Standalone`](crate::policy::StoreOutagePolicy::Standalone), this process forgets the readings at once,
    /// and the others after the outage. [`QuotaError::UnsupportedFormat`] if a newer program wrote the record.
    pub async fn forget(&self, id: &AccountId) -> Result<(), QuotaError> {
        let Shared { context, registry, .. } = &*self.shared;
        let store_error = |error| QuotaError::Store { account: id.clone(), error };
        let entry = registry.entry(id);
        login_check::ensure_checked(&entry, context).await;
        let record = entry.record();
        if record.accounts().len() > 1 {
            // The record belongs to the other accounts of the login too.
            login_check::remove_alias(&entry).await.map_err(store_error)?;
            context.records.select(&entry, None, Selection::Unchecked, None);
        } else {
            let forgotten = record.change_shared(Record::forget).await.map_err(store_error)?;
            if forgotten == MergeOutcome::UnsupportedFormat {
                return Err(QuotaError::UnsupportedFormat { account: id.clone() });
            }
            login_check::remove_alias(&entry).await.map_err(store_error)?;
        }
        entry.update(|state| (state.failed, state.unattributed) = (None, false));
        registry.forget(entry);
        Ok(())
    }

    /// Subscribes to the events of this process from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        Events::of(&self.shared.context.events, &self.shared.context.tasks)
    }

    /// The clock that the builder was given.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// Counts the store's failures since this manager was built.
    ///
    /// The manager also logs them: each outage once, each series of rejected calls once, and each unusable record once.
    #[must_use]
    pub fn store_stats(&self) -> StoreStats {
        self.shared.registry.store_stats()
    }

    /// Stops this manager: waits for calls in flight to end, and writes pending changes. Afterwards only [`Account::peek`] is
    /// useful.
    ///
    /// Changes from a store outage are written now, if the store responds. The wait is bounded by the timeouts of one call and of
    /// one write. Returns whether all tasks ended in that time and the store has all changes.
    pub async fn close(&self) -> bool {
        let longest_call = self.shared.registry.policies().map(|policy| policy.fetch_timeout).max();
        self.close_within(longest_call.expect("there is a general policy")).await
    }

    /// Stops this manager like [`close`](Self::close), but waits for calls in flight for at most `grace`.
    ///
    /// Then it cancels the remaining calls and releases their leases. Otherwise other processes would wait until those expire. A
    /// grace of zero cancels all calls at once.
    ///
    /// A cancelled call arms no hold, and its readings are lost. It counts toward the budget, because the provider may have
    /// received it. Returns as [`close`](Self::close) does, and `false` if a call was cancelled.
    pub async fn close_within(&self, grace: Duration) -> bool {
        let Shared { context, clock, registry, .. } = &*self.shared;
        context.tasks.close();
        let all_ended = clock.bounded(grace, context.tasks.idle()).await.is_some();
        if !all_ended {
            context.tasks.cancel();
        }
        let is_saved = || registry.unsaved().is_empty() && context.records.unsaved().is_empty();
        let flush = async {
            context.tasks.idle().await;
            // Try the store even if it is still marked unavailable: changes from the outage have no later chance.
            if !is_saved() {
                registry.try_store_again();
            }
            for entry in registry.unsaved() {
                // Without a login, it is unknown to which record they belong.
                login_check::ensure_checked(&entry, context).await;
                if !entry.is_unchecked() {
                    entry.record().change(|_, _| ()).await.ok();
                }
            }
            for record in context.records.unsaved() {
                record.change(|_, _| ()).await.ok();
            }
        };
        let flush_timeout = registry.policies().map(|policy| policy.store_timeout.saturating_mul(4)).max();
        let flushed = clock.bounded(flush_timeout.expect("there is a general policy"), flush).await.is_some();
        all_ended && flushed && is_saved()
    }
}

impl fmt::Debug for QuotaManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuotaManager").field("policy", self.shared.registry.policy()).finish_non_exhaustive()
    }
}
