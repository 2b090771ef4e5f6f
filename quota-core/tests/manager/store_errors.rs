//! What happens when the store answers and is of no use: for one account, for writes, or no longer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::*;
use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use quota_core::model::{RequestId, Snapshot};
use quota_core::record::{
    Hold, HoldReason, Lease, LeaseDecision, LeaseRequest, MaxStaleness, ProviderCooldown, Record, Seed,
};
use quota_core::store::{CasOutcome, StoreError, StoreKey, StoreRead, Version};
use quota_core::{Clock, FetchError, MemoryStore, Policy, QuotaError, QuotaStore};

/// A store in which one key is not ours, which takes no writes when it is told so, and can fall silent.
#[derive(Debug)]
struct Trying {
    inner: MemoryStore,
    clock: Clock,
    foreign: StoreKey,
    full: AtomicBool,
    silent: AtomicBool,
}

impl Trying {
    async fn answers(&self, key: &StoreKey) -> Result<(), StoreError> {
        if self.silent.load(Ordering::SeqCst) {
            std::future::pending().await
        } else if *key == self.foreign {
            Err(StoreError::corrupt("something else is there"))
        } else {
            Ok(())
        }
    }
}

#[async_trait]
impl QuotaStore for Trying {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        self.answers(key).await?;
        self.inner.read(key).await
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        keep: Duration,
    ) -> Result<CasOutcome, StoreError> {
        self.answers(key).await?;
        if self.full.load(Ordering::SeqCst) {
            self.clock.sleep(Duration::from_millis(100)).await;
            return Err(StoreError::rejected("there is no room left"));
        }
        self.inner.compare_and_swap(key, expected, body, keep).await
    }

    async fn wait_for_change(&self, key: &StoreKey, seen: Option<Version>) -> Result<(), StoreError> {
        self.answers(key).await?;
        self.inner.wait_for_change(key, seen).await
    }
}

fn trying(policy: Policy) -> (World, Arc<Trying>) {
    let clock = Clock::anchored(noon());
    let store = Arc::new(Trying {
        inner: MemoryStore::with_clock(clock.clone()),
        clock: clock.clone(),
        foreign: StoreKey::account(&id("foreign")),
        full: AtomicBool::new(false),
        silent: AtomicBool::new(false),
    });
    (world_on(Arc::clone(&store) as Arc<dyn QuotaStore>, clock, policy), store)
}

#[tokio::test(start_paused = true)]
async fn a_foreign_key_does_not_keep_the_store_unavailable() {
    let (world, store) = trying(hurried());
    let (main, foreign) = (world.quota.account(&id("main")), world.quota.account(&id("foreign")));
    drop((main.get().await, foreign.get().await));
    world.clock.sleep(MINUTE * 6).await;
    store.silent.store(true, Ordering::SeqCst);
    // The first call that meets the silence is about the key that never answers well.
    drop(foreign.refresh().await);
    drop(main.refresh().await);
    assert!(main.peek().store_unavailable_since().is_some());

    store.silent.store(false, Ordering::SeqCst);
    world.clock.sleep(SECOND * 5).await;

    drop(main.sync().await);
    assert_eq!(main.peek().store_unavailable_since(), None);
}

#[tokio::test(start_paused = true)]
async fn a_concurrent_sync_keeps_changes_whose_write_was_rejected() {
    let (world, store) = trying(hurried());
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    world.clock.sleep(MINUTE * 6).await;
    world.provider.answer(polled(70.0));
    drop(world.provider.clone().taking(SECOND));

    let fills_up = async {
        world.clock.sleep(SECOND / 2).await;
        store.full.store(true, Ordering::SeqCst);
        // While what was learned is being refused.
        world.clock.sleep(Duration::from_millis(550)).await;
        drop(main.sync().await);
    };
    let (refreshed, ()) = tokio::join!(main.refresh(), fills_up);

    assert!(refreshed.unwrap().fetched);
    assert_eq!(last_read(&main.peek()), Some(70.0));
}

/// Another process asks, and its call may take `timeout`.
async fn leave_a_lease(world: &World, timeout: Duration) -> Lease {
    let key = StoreKey::account(&id("main"));
    let (mut record, now) = (Record::default(), world.clock.now());
    let policy = Policy::default().fetch_timeout(timeout);
    let ask = LeaseRequest::new(RequestId::random(), MaxStaleness::StartedAfter(now));
    let LeaseDecision::Granted(lease) = record.begin(now, &ask, &policy) else { panic!("it is free") };
    let swap =
        world.store.compare_and_swap(&key, None, record.encode(), Duration::from_secs(24 * 3600)).await;
    assert!(matches!(swap, Ok(CasOutcome::Applied(_))), "{swap:?}");
    lease
}

#[tokio::test(start_paused = true)]
async fn no_waiter_waits_longer_for_a_holder_than_its_own_lease_would_last() {
    let world = world();
    leave_a_lease(&world, Duration::from_secs(3600)).await;

    let got = world.clock.bounded(MINUTE * 2, world.quota.account(&id("main")).get()).await;

    assert!(matches!(got, Some(Err(QuotaError::InProgress { .. }))), "{got:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_holder_ends_when_the_store_becomes_unavailable() {
    let (world, store) = trying(hurried());
    leave_a_lease(&world, Duration::from_secs(30)).await;
    let (main, other) = (world.quota.account(&id("main")), world.quota.account(&id("other")));
    let start = world.clock.now();

    let falls_silent = async {
        world.clock.sleep(SECOND).await;
        store.silent.store(true, Ordering::SeqCst);
        drop(other.refresh().await);
    };
    let (got, ()) = tokio::join!(main.get(), falls_silent);

    let waited = Duration::try_from(world.clock.now().duration_since(start)).unwrap();
    assert!(matches!(got, Err(QuotaError::InProgress { .. })), "{got:?}");
    assert!(waited < SECOND * 10, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_time_that_the_store_has_lost_is_put_back() {
    let world = world();
    let other_process = another_process(&world.store, &world.clock, &world.provider, Policy::default());
    drop(other_process.account(&id("b")).sync().await);
    world.provider.then_fail(FetchError::throttled(None));
    drop(world.quota.account(&id("main")).refresh().await);
    settle().await;
    let key = StoreKey::provider(id("main").provider());
    let written = world.store.read(&key).await.unwrap();
    assert!(quiet_until(&written).is_some(), "it was imposed");

    let nothing = ProviderCooldown::default().encode();
    let lost =
        world.store.compare_and_swap(&key, written.version(), nothing, Duration::from_secs(3600)).await;
    assert!(matches!(lost, Ok(CasOutcome::Applied(_))), "{lost:?}");
    world.clock.sleep(SECOND).await;

    let held = other_process.account(&id("b")).refresh().await;
    let is_held = held.as_ref().is_ok_and(|held| matches!(held.error, Some(QuotaError::OnHold { .. })))
        || matches!(held, Err(QuotaError::OnHold { .. }));
    assert!(is_held, "{held:?}");
    assert_eq!(quiet_until(&world.store.read(&key).await.unwrap()), quiet_until(&written));
}

fn quiet_until(reading: &StoreRead) -> Option<Timestamp> {
    let document = reading.document.as_ref()?;
    ProviderCooldown::decode(&document.body).unwrap().at(reading.now).map(|hold| hold.until)
}

#[tokio::test(start_paused = true)]
async fn an_account_that_is_kept_fresh_outlasts_a_hold_of_a_clock_that_was_ahead() {
    let world = world();
    let _guard = world.quota.account(&id("main")).keep_fresh();
    world.clock.sleep(SECOND * 10).await;
    let tomorrow = noon() + jiff::SignedDuration::from_hours(24);
    let hold = Hold::new(tomorrow, tomorrow + MINUTE, HoldReason::RateLimited);
    let key = StoreKey::account(&id("main"));
    let document = world.store.read(&key).await.unwrap().document.unwrap();
    let mut record = Record::decode(&document.body).unwrap();
    let _ = record.seed(tomorrow, &Seed::new(Snapshot::default()).hold(hold));
    record.bump_revision();
    drop(world.store.compare_and_swap(&key, Some(document.version), record.encode(), MINUTE * 60).await);

    world.clock.sleep(MINUTE * 10).await;

    assert!(world.provider.calls() > 1, "the hold was to last a minute");
}

#[tokio::test(start_paused = true)]
async fn a_hold_of_a_clock_that_was_ahead_ends_in_its_own_time() {
    let clock = Clock::anchored(noon());
    let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::with_clock(clock.clone()));
    let key = StoreKey::account(&id("main"));
    let tomorrow = noon() + jiff::SignedDuration::from_hours(24);
    let (mut record, policy) = (Record::default(), Policy::default());
    let ask = LeaseRequest::new(RequestId::random(), MaxStaleness::StartedAfter(tomorrow));
    let LeaseDecision::Granted(lease) = record.begin(tomorrow, &ask, &policy) else { panic!("it is free") };
    drop(record.fail(tomorrow, &lease, &FetchError::unavailable("the line was down"), &policy));
    drop(store.compare_and_swap(&key, None, record.encode(), Duration::from_secs(48 * 3600)).await);
    let world = world_on(store, clock, policy);
    let main = world.quota.account(&id("main"));
    assert!(main.sync().await.hold().is_none(), "what it meant cannot be told");

    let at_first = main.get().await;
    world.clock.sleep(MINUTE * 2).await;
    let later = main.get().await;

    assert!(matches!(at_first, Err(QuotaError::OnHold { .. })), "{at_first:?}");
    assert_eq!(five_hours(&later.unwrap()), Some(40.0));
}
