//! Store errors other than an outage: a foreign key, rejected writes, lost cooldowns, and timestamps from the future.

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
use quota_core::store::{CasOutcome, StoreError, StoreKey, StoreRead};
use quota_core::testing::{HookedStore, StoreCall, StoreHooks};
use quota_core::{Clock, FetchError, MemoryStore, Policy, QuotaError, QuotaStore};

/// A foreign document under one key. The store can also reject all writes, or hang.
#[derive(Debug)]
struct Faults {
    clock: Clock,
    foreign: StoreKey,
    is_full: AtomicBool,
    hangs: AtomicBool,
}

type FaultyStore = HookedStore<MemoryStore, Faults>;

#[async_trait]
impl StoreHooks for Faults {
    async fn before(&self, call: StoreCall<'_>) -> Result<(), StoreError> {
        if self.hangs.load(Ordering::SeqCst) {
            return std::future::pending().await;
        }
        if *call.key() == self.foreign {
            return Err(StoreError::corrupt("foreign document"));
        }
        if call.is_swap() && self.is_full.load(Ordering::SeqCst) {
            self.clock.sleep(Duration::from_millis(100)).await;
            return Err(StoreError::rejected("the disk is full"));
        }
        Ok(())
    }
}

fn env_with_faulty_store(policy: Policy) -> (Env, Arc<FaultyStore>) {
    let clock = Clock::virtual_at(noon());
    let faults = Faults {
        clock: clock.clone(),
        foreign: StoreKey::account(&id("foreign")),
        is_full: AtomicBool::new(false),
        hangs: AtomicBool::new(false),
    };
    let store = Arc::new(HookedStore::new(MemoryStore::with_clock(clock.clone()), faults));
    (env_on(Arc::clone(&store) as Arc<dyn QuotaStore>, clock, policy), store)
}

#[tokio::test(start_paused = true)]
async fn a_foreign_key_does_not_keep_the_store_unavailable() {
    let (env, store) = env_with_faulty_store(no_rate_limit());
    let (main, foreign) = (env.quota.account(&id("main")), env.quota.account(&id("foreign")));
    drop((main.get().await, foreign.get().await));
    env.clock.sleep(MINUTE * 6).await;
    store.hooks.hangs.store(true, Ordering::SeqCst);
    // The call that detects the outage is for the foreign key, so the probes read that key.
    drop(foreign.refresh().await);
    drop(main.refresh().await);
    assert!(main.peek().store_unavailable_since().is_some());

    store.hooks.hangs.store(false, Ordering::SeqCst);
    env.clock.sleep(SECOND * 5).await;

    drop(main.sync().await);
    assert_eq!(main.peek().store_unavailable_since(), None);
}

#[tokio::test(start_paused = true)]
async fn a_concurrent_sync_keeps_changes_whose_write_was_rejected() {
    let (env, store) = env_with_faulty_store(no_rate_limit());
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    env.clock.sleep(MINUTE * 6).await;
    env.provider.answer(polled(70.0));
    drop(env.provider.clone().with_delay(SECOND));

    let fill_later = async {
        env.clock.sleep(SECOND / 2).await;
        store.hooks.is_full.store(true, Ordering::SeqCst);
        // The store is rejecting the refresh's write now.
        env.clock.sleep(Duration::from_millis(550)).await;
        drop(main.sync().await);
    };
    let (refreshed, ()) = tokio::join!(main.refresh(), fill_later);

    assert!(refreshed.unwrap().fetched);
    assert_eq!(last_read(&main.peek()), Some(70.0));
}

/// Writes the lease of another process, whose call may take `timeout`.
async fn write_lease(env: &Env, timeout: Duration) -> Lease {
    let key = StoreKey::account(&id("main"));
    let (mut record, now) = (Record::default(), env.clock.now());
    let policy = Policy::default().fetch_timeout(timeout);
    let lease_request = LeaseRequest::new(RequestId::random(), MaxStaleness::NewCall);
    let LeaseDecision::Granted(lease) = record.begin(now, &lease_request, &policy) else {
        panic!("the lease is not free")
    };
    let outcome =
        env.store.compare_and_swap(&key, None, record.encode(), Duration::from_secs(24 * 3600)).await;
    assert!(matches!(outcome, Ok(CasOutcome::Applied(_))), "{outcome:?}");
    lease
}

#[tokio::test(start_paused = true)]
async fn a_waiter_waits_no_longer_than_its_own_lease_would_last() {
    let env = env();
    write_lease(&env, Duration::from_secs(3600)).await;

    let result = env.clock.bounded(MINUTE * 2, env.quota.account(&id("main")).get()).await;

    assert!(matches!(result, Some(Err(QuotaError::InProgress { .. }))), "{result:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_holder_ends_when_the_store_becomes_unavailable() {
    let (env, store) = env_with_faulty_store(no_rate_limit());
    write_lease(&env, Duration::from_secs(30)).await;
    let (main, other) = (env.quota.account(&id("main")), env.quota.account(&id("other")));
    let start = env.clock.now();

    let hang_later = async {
        env.clock.sleep(SECOND).await;
        store.hooks.hangs.store(true, Ordering::SeqCst);
        drop(other.refresh().await);
    };
    let (result, ()) = tokio::join!(main.get(), hang_later);

    let waited = Duration::try_from(env.clock.now().duration_since(start)).unwrap();
    assert!(matches!(result, Err(QuotaError::InProgress { .. })), "{result:?}");
    assert!(waited < SECOND * 10, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_cooldown_lost_by_the_store_is_restored() {
    let env = env();
    let other_process = another_process(&env.store, &env.clock, &env.provider, Policy::default());
    drop(other_process.account(&id("b")).sync().await);
    env.provider.then_fail(FetchError::throttled(None));
    drop(env.quota.account(&id("main")).refresh().await);
    run_ready_tasks().await;
    let key = StoreKey::provider(id("main").provider());
    let written = env.store.read(&key).await.unwrap();
    assert!(cooldown_end(&written).is_some(), "no cooldown is in force");

    let empty = ProviderCooldown::default().encode();
    let lost = env.store.compare_and_swap(&key, written.version(), empty, Duration::from_secs(3600)).await;
    assert!(matches!(lost, Ok(CasOutcome::Applied(_))), "{lost:?}");
    env.clock.sleep(SECOND).await;

    let held = other_process.account(&id("b")).refresh().await;
    let is_held = held.as_ref().is_ok_and(|held| matches!(held.error, Some(QuotaError::OnHold { .. })))
        || matches!(held, Err(QuotaError::OnHold { .. }));
    assert!(is_held, "{held:?}");
    assert_eq!(cooldown_end(&env.store.read(&key).await.unwrap()), cooldown_end(&written));
}

fn cooldown_end(reading: &StoreRead) -> Option<Timestamp> {
    let document = reading.document.as_ref()?;
    ProviderCooldown::decode(&document.body).unwrap().at(reading.now).map(|hold| hold.until)
}

#[tokio::test(start_paused = true)]
async fn keep_fresh_continues_after_a_hold_from_the_future() {
    let env = env();
    let _guard = env.quota.account(&id("main")).keep_fresh();
    env.clock.sleep(SECOND * 10).await;
    let tomorrow = noon() + jiff::SignedDuration::from_hours(24);
    let hold = Hold::new(tomorrow, tomorrow + MINUTE, HoldReason::RateLimited);
    change_stored(&env, |record| {
        let _ = record.seed(tomorrow, &Seed::new(Snapshot::default()).hold(hold));
    })
    .await;

    env.clock.sleep(MINUTE * 10).await;

    assert!(env.provider.calls() > 1, "the hold lasts only a minute");
}

#[tokio::test(start_paused = true)]
async fn keep_fresh_continues_after_readings_from_the_future() {
    let env = env();
    let _guard = env.quota.account(&id("main")).keep_fresh();
    env.clock.sleep(SECOND * 10).await;
    let tomorrow = noon() + jiff::SignedDuration::from_hours(24);
    change_stored(&env, |record| {
        let _ = record.seed(tomorrow, &Seed::new(Snapshot::of(&polled(50.0), tomorrow)));
    })
    .await;

    env.clock.sleep(MINUTE * 10).await;

    assert!(env.provider.calls() > 1, "{}", env.provider.calls());
}

#[tokio::test(start_paused = true)]
async fn keep_fresh_continues_after_a_rejection_from_the_future() {
    let env = env();
    let _guard = env.quota.account(&id("main")).keep_fresh();
    env.clock.sleep(SECOND * 10).await;
    let tomorrow = noon() + jiff::SignedDuration::from_hours(24);
    change_stored(&env, |record| {
        let policy = Policy::default();
        let request = LeaseRequest::new(RequestId::random(), MaxStaleness::NewCall);
        let LeaseDecision::Granted(lease) = record.begin(tomorrow, &request, &policy) else {
            panic!("no other process has the lease")
        };
        drop(record.fail(tomorrow, &lease, &FetchError::Unauthorized, &policy));
    })
    .await;

    env.clock.sleep(MINUTE * 10).await;

    assert!(env.provider.calls() > 1, "{}", env.provider.calls());
}

#[tokio::test(start_paused = true)]
async fn a_newer_record_is_fresh_despite_a_hold_from_the_future() {
    let env = env();
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    let key = StoreKey::account(&id("main"));
    let document = env.store.read(&key).await.unwrap().document.unwrap();
    let mut newer: serde_json::Value = serde_json::from_slice(&document.body).unwrap();
    let tomorrow = (noon() + jiff::SignedDuration::from_hours(24)).as_millisecond();
    newer["format"] = 1_000.into();
    newer["revision"] = 1_000.into();
    newer["hold"] =
        serde_json::json!({ "since_ms": tomorrow, "until_ms": tomorrow + 60_000, "reason": "rate_limited" });
    let newer = Bytes::from(newer.to_string());
    drop(env.store.compare_and_swap(&key, Some(document.version), newer, MINUTE * 60).await);

    assert!(!main.sync().await.is_stale());
}

/// Changes the stored record of `main`, as another process does.
async fn change_stored(env: &Env, change: impl FnOnce(&mut Record)) {
    let key = StoreKey::account(&id("main"));
    let document = env.store.read(&key).await.unwrap().document.unwrap();
    let mut record = Record::decode(&document.body).unwrap();
    change(&mut record);
    record.bump_revision();
    drop(env.store.compare_and_swap(&key, Some(document.version), record.encode(), MINUTE * 60).await);
}

#[tokio::test(start_paused = true)]
async fn a_hold_from_the_future_ends_after_its_duration() {
    let clock = Clock::virtual_at(noon());
    let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::with_clock(clock.clone()));
    let key = StoreKey::account(&id("main"));
    let tomorrow = noon() + jiff::SignedDuration::from_hours(24);
    let (mut record, policy) = (Record::default(), Policy::default());
    let lease_request = LeaseRequest::new(RequestId::random(), MaxStaleness::NewCall);
    let LeaseDecision::Granted(lease) = record.begin(tomorrow, &lease_request, &policy) else {
        panic!("the lease is not free")
    };
    drop(record.fail(tomorrow, &lease, &FetchError::unavailable("connection lost"), &policy));
    drop(store.compare_and_swap(&key, None, record.encode(), Duration::from_secs(48 * 3600)).await);
    let env = env_on(store, clock, policy);
    let main = env.quota.account(&id("main"));
    assert!(main.sync().await.hold().is_none(), "a hold from the future is not in force");

    let at_first = main.get().await;
    env.clock.sleep(MINUTE * 2).await;
    let later = main.get().await;

    assert!(matches!(at_first, Err(QuotaError::OnHold { .. })), "{at_first:?}");
    assert_eq!(five_hours(&later.unwrap()), Some(40.0));
}
