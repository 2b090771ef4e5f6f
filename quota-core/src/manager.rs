//! The only caller of providers: shared refreshes, lock-free reads, and going on without the store.
//! The rules are in [`record`](crate::record); a [`UsageFetcher`](crate::UsageFetcher) sends the request.

mod account;
mod account_usage;
mod background;
mod builder;
mod context;
mod cooldown;
mod credential_sources;
mod credentials;
mod entry;
mod error;
mod events;
mod follower;
mod in_flight;
mod limiter;
mod provider;
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
pub use self::account_usage::{AccountUsage, Freshness, RefreshOutcome, StaleReason};
pub use self::builder::{BuildError, QuotaManagerBuilder};
use self::context::TaskContext;
pub use self::error::{ObserveError, QuotaError};
pub use self::events::{Event, Events};
use self::registry::Registry;
pub use self::store_metrics::StoreStats;
pub use self::watch::{Changes, KeepFreshGuard};
use crate::clock::Clock;
use crate::model::{AccountId, Rejected, UsageReport};
use crate::record::{MergeOutcome, Record};
use crate::store::QuotaStore;

/// The single gateway to the usage endpoints of LLM providers, and the cache in front of it.
///
/// Concurrent refreshes become one call, across tasks, and across processes and hosts that share the store. Cheap to
/// clone; when the last clone and the last [`Account`] are gone, its tasks end.
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
/// let answer = main.get().await?;
/// for window in answer.snapshot().windows() {
///     println!("{}: {}", window.id(), answer.used(window.id()));
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

/// What all handles share.
pub(crate) struct Shared {
    pub(crate) context: TaskContext,
    clock: Clock,
    registry: Registry,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.context.tasks.close();
    }
}

impl QuotaManager {
    /// Returns a builder of a manager on `store`, which can be an `Arc` that other code shares.
    pub fn builder(store: impl QuotaStore) -> QuotaManagerBuilder {
        QuotaManagerBuilder::new(Arc::new(store))
    }

    /// A handle to an account. No I/O; the account need not exist yet.
    #[must_use]
    pub fn account(&self, id: &AccountId) -> Account {
        Account::new(self.shared.registry.entry(id), Arc::clone(&self.shared))
    }

    /// Joins readings to an account that this manager has a handle to, or had one.
    ///
    /// For code that sees traffic of many accounts; see [`Account::observe`].
    ///
    /// # Errors
    ///
    /// [`ObserveError::UnknownAccount`] if there never was a handle to it, or it was [forgotten](Self::forget): readings are not
    /// filed under an unused name, and never under another account's. Otherwise as [`Account::observe`].
    pub fn observe(&self, id: &AccountId, usage: &UsageReport) -> Result<Vec<Rejected>, ObserveError> {
        let unknown = || ObserveError::UnknownAccount { account: id.clone() };
        let entry = self.shared.registry.known(id).ok_or_else(unknown)?;
        Account::new(entry, Arc::clone(&self.shared)).observe(usage)
    }

    /// Forgets an account that was removed: its readings, whose it is and why its last call failed, for all processes that share
    /// the store; and the account itself in this manager.
    ///
    /// What binds the next call stays in the store until it ends: a hold, the calls of the last hour, and the fence. So removing an
    /// account and adding it again lifts no hold and resets no budget. A process that still knows the readings does not bring them
    /// back, and a call in flight does not store its answer. A process that goes on refreshing the account creates it again.
    ///
    /// An [`Account`] that exists keeps working, and begins with nothing. If the future is dropped, the account may be forgotten or
    /// not.
    ///
    /// # Errors
    ///
    /// [`QuotaError::Store`] if the store did not take it: the account is not forgotten, so that it can be tried again. Where the
    /// policy is to go on without the store, this process has forgotten the readings, and the others do once the store is back.
    /// [`QuotaError::UnsupportedFormat`] if a newer program keeps the record.
    pub async fn forget(&self, id: &AccountId) -> Result<(), QuotaError> {
        let account = || id.clone();
        let entry = self.shared.registry.entry(id);
        match entry.change_shared(Record::forget).await {
            Ok(MergeOutcome::UnsupportedFormat) => {
                return Err(QuotaError::UnsupportedFormat { account: account() });
            }
            Ok(_) => {}
            Err(error) => return Err(QuotaError::Store { account: account(), error }),
        }
        entry.update(|local| (local.failed, local.unattributed) = (None, false));
        self.shared.registry.forget(entry);
        Ok(())
    }

    /// What happens from now on, as this process sees it.
    #[must_use]
    pub fn events(&self) -> Events {
        Events::of(&self.shared.context.events, &self.shared.context.tasks)
    }

    /// The clock that this manager was given.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// What went wrong with the store so far, as this process saw it. It is written to the log as well: once for each outage, once
    /// for each time that the store refuses, and once for each record that cannot be used.
    #[must_use]
    pub fn store_stats(&self) -> StoreStats {
        self.shared.registry.store_stats()
    }

    /// Stops this manager: waits for calls in flight until they end, and writes what is pending. From now on only
    /// [`Account::peek`] is of use.
    ///
    /// What the store did not take while it was away is written now, if it answers. Takes no longer than a call and a write may
    /// take. Returns whether all of it ended in that time, and the store has all
    /// that was to be written to it.
    pub async fn close(&self) -> bool {
        let longest = self.shared.registry.policies().map(|policy| policy.fetch_timeout).max();
        self.close_within(longest.expect("there is a general policy")).await
    }

    /// The same, but waits for calls in flight no longer than `grace`. Calls that are not answered by then are cancelled, and
    /// their leases are given back, so that other processes need not wait until these expire.
    ///
    /// For programs that are about to end: with a grace of zero, calls are cancelled at once. A cancelled call arms no hold;
    /// its numbers are lost, and it counts toward the budget, because the provider may have received it. Writes to the store
    /// are bounded as in [`close`](Self::close), which also says what is returned; `false` if a call was cancelled.
    pub async fn close_within(&self, grace: Duration) -> bool {
        let Shared { context, clock, registry } = &*self.shared;
        context.tasks.close();
        let all_ended = clock.bounded(grace, context.tasks.idle()).await.is_some();
        if !all_ended {
            context.tasks.cancel();
        }
        let ending = async {
            context.tasks.idle().await;
            // What was done while the store was away. It is tried once more, also if the store has not answered since: there is no
            // later chance.
            if !registry.dirty().is_empty() {
                registry.try_store_again();
            }
            for entry in registry.dirty() {
                entry.change(|_, _| ()).await.ok();
            }
        };
        let patience = registry.policies().map(|policy| policy.store_timeout.saturating_mul(4)).max();
        let ended = clock.bounded(patience.expect("there is a general policy"), ending).await.is_some();
        all_ended && ended && registry.dirty().is_empty()
    }
}

impl fmt::Debug for QuotaManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuotaManager").field("policy", self.shared.registry.policy()).finish_non_exhaustive()
    }
}
