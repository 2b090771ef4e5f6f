//! The outcome of a forced refresh is that of a call which was running at the request or began later, in any process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::store_outage::env_with_toggle_store;
use crate::support::*;
use async_trait::async_trait;
use bytes::Bytes;
use quota_core::manager::RefreshOutcome;
use quota_core::model::{CredentialFingerprint, LoginInfo, RequestId};
use quota_core::policy::Budget;
use quota_core::record::{LeaseDecision, LeaseRequest, MaxStaleness, Record};
use quota_core::store::{CasOutcome, StoreError, StoreKey, StoreRead};
use quota_core::testing::{FakeProvider, HookedStore, StoreCall, StoreHooks};
use quota_core::{Clock, FetchError, MemoryStore, Policy, QuotaError, QuotaManager, QuotaStore};
use tokio::task::{JoinHandle, JoinSet};

/// Delays the responses of reads and swaps, and sends no notices.
#[derive(Debug)]
struct Delays {
    clock: Clock,
    read: Duration,
    swap: Duration,
    reads: AtomicUsize,
}

#[async_trait]
impl StoreHooks for Delays {
    async fn before(&self, call: StoreCall<'_>) -> Result<(), StoreError> {
        match call {
            StoreCall::Read(_) => drop(self.reads.fetch_add(1, Ordering::SeqCst)),
            call if call.is_wait() => std::future::pending().await,
            _ => {}
        }
        Ok(())
    }

    async fn after(&self, call: StoreCall<'_>) {
        self.clock.sleep(if call.is_swap() { self.swap } else { self.read }).await;
    }
}

/// Another process, whose reads of the store return after `delay`.
fn slow_process(env: &Env, provider: &FakeProvider, delay: Duration) -> QuotaManager {
    process_on_slow_store(env, provider, delay, Duration::ZERO)
}

fn process_on_slow_store(
    env: &Env,
    provider: &FakeProvider,
    delay: Duration,
    swap_delay: Duration,
) -> QuotaManager {
    let store = slow_store(env, delay, swap_delay);
    another_process(&store, &env.clock, provider, no_rate_limit())
}

/// The store of `env`, whose reads and swaps return after these delays.
pub(crate) fn slow_store(env: &Env, delay: Duration, swap_delay: Duration) -> Arc<dyn QuotaStore> {
    delayed(Arc::clone(&env.store), &env.clock, delay, swap_delay)
}

fn delayed<S: QuotaStore>(
    inner: S,
    clock: &Clock,
    read: Duration,
    swap: Duration,
) -> Arc<HookedStore<S, Delays>> {
    let delays = Delays { clock: clock.clone(), read, swap, reads: AtomicUsize::new(0) };
    Arc::new(HookedStore::new(inner, delays))
}

/// A process whose call of `main` takes a second and is running, and another one that gets no notices.
async fn with_running_call() -> (Env, QuotaManager) {
    let env = env_with(no_rate_limit());
    drop(env.provider.clone().with_delay(SECOND));
    let other = slow_process(&env, &env.provider, Duration::ZERO);
    drop(other.account(&id("main")).sync().await);
    let main = env.quota.account(&id("main"));
    drop(tokio::spawn(async move { main.refresh().await.is_ok() }));
    run_ready_tasks().await;
    assert_eq!(env.provider.calls(), 1);
    (env, other)
}

/// Refreshes `main` in a task.
fn refreshing(quota: &QuotaManager) -> JoinHandle<Result<RefreshOutcome, QuotaError>> {
    let main = quota.account(&id("main"));
    tokio::spawn(async move { main.refresh().await })
}

fn key() -> StoreKey {
    StoreKey::account(&id("main"))
}

#[tokio::test(start_paused = true)]
async fn a_forced_refresh_with_a_late_clock_sample_makes_a_new_call() {
    let env = env_with(no_rate_limit());
    let slow_process = slow_process(&env, &env.provider, SECOND / 5);
    let (local, remote) = (env.quota.account(&id("main")), slow_process.account(&id("main")));
    // Both processes sample the store's clock. The slow process then underestimates it.
    drop(local.sync().await);
    drop(remote.sync().await);
    drop(local.refresh().await.unwrap());
    env.clock.sleep(SECOND / 10).await;
    env.provider.answer(polled(70.0));

    let refreshed = remote.refresh().await.unwrap();

    assert_eq!(five_hours(&refreshed.usage), Some(70.0));
}

#[tokio::test(start_paused = true)]
async fn a_forced_refresh_does_not_join_a_call_that_has_ended() {
    let env = env_with(no_rate_limit());
    let slow = env.provider.clone().with_delay(SECOND);
    let slow_process = slow_process(&env, &slow, Duration::ZERO);
    let (local, remote) = (env.quota.account(&id("main")), slow_process.account(&id("main")));
    let refreshing = tokio::spawn(async move { local.refresh().await.is_ok() });
    run_ready_tasks().await;
    // The other process reads only the lease of the running call.
    drop(remote.sync().await);
    assert!(refreshing.await.unwrap());
    env.provider.answer(polled(70.0));

    let refreshed = remote.refresh().await.unwrap();

    assert_eq!(five_hours(&refreshed.usage), Some(70.0));
}

#[tokio::test(start_paused = true)]
async fn a_call_found_by_a_conflict_satisfies_a_forced_refresh() {
    let (env, other) = with_running_call().await;

    // The copy of this process is older than the call, so its swap for the lease conflicts.
    let refreshed = other.account(&id("main")).refresh().await.unwrap();

    assert_eq!((refreshed.fetched, five_hours(&refreshed.usage)), (false, Some(40.0)));
    assert_eq!(env.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_call_of_another_process_satisfies_a_forced_refresh() {
    let env = env_with(no_rate_limit());
    drop(env.quota.account(&id("main")).get().await);
    env.provider.then_fail(FetchError::Unauthorized);
    drop(env.provider.clone().with_delay(SECOND));
    let failing = refreshing(&env.quota);
    let other = slow_process(&env, &env.provider, Duration::ZERO);
    run_ready_tasks().await;

    let refreshed = other.account(&id("main")).refresh().await.unwrap();

    assert!(matches!(refreshed.error, Some(QuotaError::CalledRecently { .. })), "{:?}", refreshed.error);
    assert!(matches!(failing.await.unwrap().unwrap().error, Some(QuotaError::Fetch { .. })));
    assert_eq!(env.provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failed_call_with_another_credential_is_no_result() {
    let env = env_with(no_rate_limit());
    env.provider.then_fail(FetchError::forbidden("by policy"));
    drop(env.provider.clone().with_delay(SECOND));
    let with =
        |fingerprint| Ok(LoginInfo::unknown().fingerprint(CredentialFingerprint::from_hash(fingerprint)));
    env.provider.set_login(&id("main"), with(1));
    let failing = refreshing(&env.quota);
    run_ready_tasks().await;
    env.provider.set_login(&id("main"), with(2));
    let other = slow_process(&env, &env.provider, Duration::ZERO);

    let refreshed = other.account(&id("main")).refresh().await.unwrap();

    assert!(refreshed.fetched);
    assert!(failing.await.unwrap().is_err());
    assert_eq!(env.provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn callers_that_join_during_the_call_of_another_process_share_it() {
    let (env, other) = with_running_call().await;
    let first = refreshing(&other);
    env.clock.sleep(SECOND / 2).await;

    let second = refreshing(&other);

    for refreshed in [first, second] {
        assert_eq!(five_hours(&refreshed.await.unwrap().unwrap().usage), Some(40.0));
    }
    assert_eq!(env.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_joins_after_the_call_ended_gets_a_new_one() {
    let (env, other) = with_running_call().await;
    let first = refreshing(&other);
    // The call ends after a second. Without notices, the other process polls and has not found its end yet.
    env.clock.sleep(SECOND + SECOND / 100).await;
    assert!(!first.is_finished());
    env.provider.answer(polled(70.0));

    let second = refreshing(&other);

    assert_eq!(five_hours(&second.await.unwrap().unwrap().usage), Some(70.0));
    assert!(!first.await.unwrap().unwrap().fetched);
    assert_eq!(env.provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_joins_while_the_report_is_stored_gets_a_new_call() {
    let env = env_with(no_rate_limit());
    drop(env.provider.clone().with_delay(SECOND));
    let slow = process_on_slow_store(&env, &env.provider, Duration::ZERO, SECOND / 10);
    let first = refreshing(&slow);
    // One swap takes the lease, and another one stores the report.
    env.clock.sleep(SECOND + SECOND * 3 / 20).await;
    assert!(!first.is_finished());
    env.provider.answer(polled(70.0));

    let second = refreshing(&slow);

    assert_eq!(five_hours(&second.await.unwrap().unwrap().usage), Some(70.0));
    assert!(first.await.unwrap().unwrap().fetched);
    assert_eq!(env.provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_callers_that_join_during_the_grant_share_the_call_without_a_read() {
    let env = env_with(no_rate_limit());
    drop(env.provider.clone().with_delay(SECOND));
    let store = delayed(Arc::clone(&env.store), &env.clock, Duration::ZERO, SECOND / 10);
    let shared = Arc::clone(&store) as Arc<dyn QuotaStore>;
    let quota = another_process(&shared, &env.clock, &env.provider, no_rate_limit());
    let first = refreshing(&quota);
    env.clock.sleep(SECOND / 20).await;
    let before = store.hooks.reads.load(Ordering::SeqCst);

    let others: Vec<_> = (0..100).map(|_| refreshing(&quota)).collect();

    for caller in others.into_iter().chain([first]) {
        assert!(caller.await.unwrap().unwrap().fetched);
    }
    // Only the follower reads.
    assert!(store.hooks.reads.load(Ordering::SeqCst) - before <= 2);
    assert_eq!(env.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_joins_during_the_own_call_shares_it_without_a_read() {
    let env = env_with(no_rate_limit());
    drop(env.provider.clone().with_delay(SECOND));
    let first = refreshing(&env.quota);
    env.clock.sleep(SECOND / 2).await;

    let second = refreshing(&env.quota);

    assert!(first.await.unwrap().unwrap().fetched && second.await.unwrap().unwrap().fetched);
    assert_eq!(env.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_forced_refresh_that_joins_a_waiting_read_shares_the_call() {
    let (env, other) = with_running_call().await;
    let main = other.account(&id("main"));
    let reading = tokio::spawn(async move { main.get().await.is_ok() });
    run_ready_tasks().await;

    let refreshed = refreshing(&other).await.unwrap().unwrap();

    assert_eq!(five_hours(&refreshed.usage), Some(40.0));
    assert!(reading.await.unwrap());
    assert_eq!(env.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_record_was_lost_and_restored_satisfies_a_waiter() {
    let (env, other) = with_running_call().await;
    let waiting = refreshing(&other);
    env.clock.sleep(SECOND / 2).await;

    let running = env.store.read(&key()).await.unwrap();
    replace(&env, &running, Record::default().encode()).await;

    let refreshed = waiting.await.unwrap().unwrap();
    assert_eq!((refreshed.fetched, five_hours(&refreshed.usage)), (false, Some(40.0)));
    assert_eq!(env.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_another_process_makes_while_a_refresh_queues_satisfies_it() {
    let env = env_with(Policy::default());
    let other = another_process(&env.store, &env.clock, &env.provider, Policy::default());
    let main = env.quota.account(&id("main"));
    drop(main.sync().await);
    // The only permit of this process is in use for a second.
    drop(env.provider.clone().with_delay(SECOND));
    let busy = env.quota.account(&id("busy"));
    drop(tokio::spawn(async move { busy.refresh().await.is_ok() }));
    run_ready_tasks().await;
    let queued = refreshing(&env.quota);
    run_ready_tasks().await;
    drop(env.provider.clone().with_delay(Duration::ZERO));
    env.provider.answer(polled(70.0));
    drop(other.account(&id("main")).refresh().await);

    let refreshed = queued.await.unwrap().unwrap();

    assert_eq!((refreshed.fetched, five_hours(&refreshed.usage)), (false, Some(70.0)));
    assert_eq!(env.provider.calls_for(&id("main")), 1);
}

#[tokio::test(start_paused = true)]
async fn without_the_store_each_forced_refresh_makes_a_call() {
    let (env, store) = env_with_toggle_store(false, no_rate_limit());
    let main = env.quota.account(&id("main"));
    drop(main.refresh().await);
    store.hooks.set(true);
    drop(main.refresh().await);
    env.provider.answer(polled(70.0));

    let refreshed = main.refresh().await.unwrap();

    assert_eq!((refreshed.fetched, five_hours(&refreshed.usage)), (true, Some(70.0)));
    assert_eq!(env.provider.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_call_made_without_the_store_does_not_satisfy_a_later_refresh() {
    let (env, store) = env_with_toggle_store(false, no_rate_limit());
    let main = env.quota.account(&id("main"));
    drop(main.refresh().await);
    store.hooks.set(true);
    drop(main.refresh().await);
    store.hooks.set(false);
    env.clock.sleep(SECOND * 5).await;
    env.provider.answer(polled(70.0));

    let refreshed = main.refresh().await.unwrap();

    assert_eq!((refreshed.fetched, five_hours(&refreshed.usage)), (true, Some(70.0)));
}

#[tokio::test(start_paused = true)]
async fn the_call_of_an_older_program_leads_to_a_call_of_its_own() {
    let env = env_with(no_rate_limit());
    let mut record = Record::default();
    let request = LeaseRequest::new(RequestId::random(), MaxStaleness::NewCall);
    let LeaseDecision::Granted(lease) = record.begin(env.clock.now(), &request, &no_rate_limit()) else {
        panic!("no other process calls")
    };
    let nothing = env.store.read(&key()).await.unwrap();
    replace(&env, &nothing, record.encode()).await;
    let waiting = refreshing(&env.quota);
    env.clock.sleep(SECOND / 2).await;

    // An older program does not write which call has succeeded.
    let _ = record.commit(env.clock.now(), &lease, &polled(50.0));
    record.bump_revision();
    let mut older: serde_json::Value = serde_json::from_slice(&record.encode()).unwrap();
    older.as_object_mut().unwrap().remove("succeeded").unwrap();
    let running = env.store.read(&key()).await.unwrap();
    replace(&env, &running, Bytes::from(older.to_string())).await;

    let refreshed = waiting.await.unwrap().unwrap();
    assert_eq!((refreshed.fetched, five_hours(&refreshed.usage)), (true, Some(40.0)));
}

/// Replaces the document that was read.
async fn replace(env: &Env, reading: &StoreRead, body: Bytes) {
    let written = env.store.compare_and_swap(&key(), reading.version(), body, MINUTE * 60).await.unwrap();
    assert!(matches!(written, CasOutcome::Applied(_)), "{written:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_forced_refreshes_in_8_processes_return_new_readings() {
    // Real threads and the real clock, for arbitrary interleavings.
    const ROUNDS: u32 = 300;
    let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::new());
    // Calls that take no time start and end within one millisecond.
    let provider = FakeProvider::answering("example", 0.0);
    let policy = no_rate_limit().budget(Budget::new(u32::MAX, 0));
    let process = || another_process(&store, &Clock::system(), &provider, policy.clone());
    let processes: Vec<_> = (0..8).map(|_| process()).collect();

    for round in 0..ROUNDS {
        // Use a new account every 20 rounds, because the record grows with each call.
        let account = id(&format!("account-{}", round / 20));
        let used = f64::from(round % 100);
        provider.answer(polled(used));
        let mut callers = JoinSet::new();
        for quota in &processes {
            let account = quota.account(&account);
            callers.spawn(async move { last_read(&account.refresh().await.unwrap().usage) });
        }

        let read = Clock::system().bounded(policy.lease_ttl() / 2, callers.join_all()).await;

        assert!(read.as_ref().is_some_and(|read| read.iter().all(|read| *read == Some(used))), "{read:?}");
    }
}
