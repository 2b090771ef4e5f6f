//! Bursts of requests that would overrun one account.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::SignedDuration;
use quota_accounts::routing::Reason;
use quota_accounts::{
    FallbackAccountManager, Idempotency, Limits, Request, RequestOutcome, RetryAdvice, Route, RouteError,
    RoutingPolicy, UnknownUsage,
};
use quota_core::store::{CasOutcome, Notice, StoreError, StoreKey, StoreRead, Version, WriteState};
use quota_core::testing::FlakyStore;
use quota_core::{
    AccountId, Clock, Credential, CredentialError, CredentialSource, MemoryStore, QuotaStore, Secret,
    WindowId,
};
use tokio::sync::Notify;

use crate::support::*;

fn big() -> Request {
    Request::new().with_estimate(WindowId::five_hour(), percent(2.0))
}

async fn route(accounts: &FallbackAccountManager) -> Route {
    accounts.route(big()).await.expect("an account is available")
}

/// The main account has seven percent left, the others more.
async fn nearly_exhausted(kind: Kind, store: Option<Arc<dyn QuotaStore>>) -> (Env, FallbackAccountManager) {
    let env = env(kind);
    let builder = match store {
        Some(store) => env.builder().reservations(store),
        None => env.builder(),
    };
    let accounts = builder.build().expect("a valid configuration");
    env.provider.then_answer(quota_core::UsageReport::polled([env.five_hour(93.0)]));
    let _ = accounts.route(Request::new()).await.expect("an account is available");
    accounts.refresh_quota_for_due_accounts().await;
    (env, accounts)
}

fn names(routes: &[Route]) -> Vec<&str> {
    routes.iter().map(|route| route.account().name()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_burst_fills_one_account_and_then_the_next() {
    for kind in BOTH {
        let (_env, accounts) = nearly_exhausted(kind, None).await;

        let mut routes = Vec::new();
        for _ in 0..5 {
            routes.push(route(&accounts).await);
        }

        assert_eq!(names(&routes), ["main", "main", "main", "b", "b"], "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reported_request_reserves_nothing() {
    for kind in BOTH {
        let (_env, accounts) = nearly_exhausted(kind, None).await;

        for _ in 0..10 {
            let route = route(&accounts).await;
            assert_eq!(route.account(), &id("main"), "{kind:?}");
            let _ = accounts.report(&route, RequestOutcome::from_response(200, [("a", "b")])).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_reservation_of_an_unreported_request_expires() {
    for kind in BOTH {
        let (env, accounts) = nearly_exhausted(kind, None).await;
        for _ in 0..3 {
            let _ = route(&accounts).await;
        }
        assert_eq!(route(&accounts).await.account(), &id("b"), "{kind:?}");

        minutes(&env.clock, 10).await;

        assert_eq!(route(&accounts).await.account(), &id("main"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn hosts_that_share_a_store_do_not_overrun_an_account_together() {
    for kind in BOTH {
        let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::new());
        let (_one_env, one) = nearly_exhausted(kind, Some(Arc::clone(&store))).await;
        let (_other_env, other) = nearly_exhausted(kind, Some(store)).await;

        let mut routes = Vec::new();
        for _ in 0..2 {
            routes.push(route(&one).await);
            routes.push(route(&other).await);
        }

        assert_eq!(names(&routes), ["main", "main", "main", "b"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_share_released_by_one_host_is_available_to_another() {
    for kind in BOTH {
        let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::new());
        let (_one_env, one) = nearly_exhausted(kind, Some(Arc::clone(&store))).await;
        let (_other_env, other) = nearly_exhausted(kind, Some(store)).await;
        let mut routes = Vec::new();
        for _ in 0..3 {
            routes.push(route(&one).await);
        }
        assert_eq!(route(&other).await.account(), &id("b"));

        let _ = one.report(&routes[0], RequestOutcome::cancelled()).await.unwrap();
        one.flush().await.unwrap();

        assert_eq!(route(&other).await.account(), &id("main"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_store_delays_no_request() {
    let store = FlakyStore::new(MemoryStore::new(), 7, 0.9);
    let (_env, accounts) = nearly_exhausted(Kind::Without, Some(Arc::new(store))).await;

    let mut routes = Vec::new();
    for _ in 0..4 {
        routes.push(route(&accounts).await);
    }

    assert_eq!(names(&routes), ["main", "main", "main", "b"]);
}

/// A store with outages and latency that counts round trips and conflicts.
#[derive(Debug)]
struct SlowStore {
    inner: MemoryStore,
    clock: Clock,
    is_unavailable: AtomicBool,
    conflicts: AtomicUsize,
    trips: AtomicUsize,
    /// The latency of each round trip, in milliseconds.
    latency: AtomicU64,
}

impl SlowStore {
    fn on(clock: &Clock) -> Arc<Self> {
        let inner = MemoryStore::with_clock(clock.clone());
        Arc::new(Self {
            inner,
            clock: clock.clone(),
            is_unavailable: AtomicBool::new(false),
            conflicts: AtomicUsize::new(0),
            trips: AtomicUsize::new(0),
            latency: AtomicU64::new(0),
        })
    }

    fn set_unavailable(&self, is_unavailable: bool) {
        self.is_unavailable.store(is_unavailable, Ordering::SeqCst);
    }

    /// Delays a response.
    async fn delay(&self) {
        match self.latency.load(Ordering::SeqCst) {
            0 => tokio::task::yield_now().await,
            latency => self.clock.sleep(Duration::from_millis(latency)).await,
        }
    }

    fn check(&self) -> Result<(), StoreError> {
        self.trips.fetch_add(1, Ordering::SeqCst);
        if self.is_unavailable.load(Ordering::SeqCst) {
            return Err(StoreError::unavailable(WriteState::NotApplied, "the store is unavailable"));
        }
        Ok(())
    }
}

#[async_trait]
impl QuotaStore for SlowStore {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        self.check()?;
        let reading = self.inner.read(key).await;
        self.delay().await;
        reading
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        keep: Duration,
    ) -> Result<CasOutcome, StoreError> {
        self.check()?;
        let swap = self.inner.compare_and_swap(key, expected, body, keep).await;
        if let Ok(CasOutcome::Conflict(_)) = swap {
            self.conflicts.fetch_add(1, Ordering::SeqCst);
        }
        self.delay().await;
        swap
    }

    async fn wait_for_change(&self, key: &StoreKey, seen: Option<Version>) -> Result<Notice, StoreError> {
        self.inner.wait_for_change(key, seen).await
    }
}

/// Two hosts on one store with outages.
async fn two_hosts(kind: Kind) -> (Arc<SlowStore>, [(Env, FallbackAccountManager); 2]) {
    let env = env(kind);
    let store = SlowStore::on(&env.clock);
    let one = nearly_exhausted(kind, Some(store.clone())).await;
    let other = nearly_exhausted(kind, Some(store.clone())).await;
    (store, [one, other])
}

#[tokio::test(start_paused = true)]
async fn reservations_of_an_outage_are_shared_after_it() {
    for kind in BOTH {
        let (store, [(env, one), (_, other)]) = two_hosts(kind).await;
        store.set_unavailable(true);
        let _alone = [route(&one).await, route(&one).await];
        store.set_unavailable(false);
        minutes(&env.clock, 1).await;

        let _third = route(&one).await;

        assert_eq!(route(&other).await.account(), &id("b"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn reservations_of_an_outage_still_count_locally_after_it() {
    for kind in BOTH {
        let (store, [(env, one), (_, other)]) = two_hosts(kind).await;
        let _theirs = route(&other).await;
        store.set_unavailable(true);
        let _alone = [route(&one).await, route(&one).await];
        store.set_unavailable(false);
        minutes(&env.clock, 1).await;

        assert_eq!(route(&one).await.account(), &id("b"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn releases_during_an_outage_are_shared_after_it() {
    for kind in BOTH {
        let (store, [(env, one), (_, other)]) = two_hosts(kind).await;
        let routes = [route(&one).await, route(&one).await, route(&one).await];
        store.set_unavailable(true);
        for route in &routes {
            let _ = one.report(route, RequestOutcome::cancelled()).await.unwrap();
        }
        one.flush().await.unwrap();
        store.set_unavailable(false);

        // This host sends no more requests.
        minutes(&env.clock, 1).await;

        let theirs = [route(&other).await, route(&other).await, route(&other).await];
        assert_eq!(names(&theirs), ["main", "main", "main"], "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_shares_a_burst() {
    for kind in BOTH {
        let (store, [(env, one), (_, other)]) = two_hosts(kind).await;
        // Sixty percent remain, enough for thirty of these requests.
        minutes(&env.clock, 6).await;
        for accounts in [&one, &other] {
            accounts.refresh_quota_for_due_accounts().await;
        }
        store.latency.store(20, Ordering::SeqCst);

        let mut tasks = tokio::task::JoinSet::new();
        for accounts in [&one, &other].into_iter().cycle().take(60) {
            let accounts = accounts.clone();
            tasks.spawn(async move { accounts.route(big()).await });
        }
        let routes: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();

        let on_main = names(&routes).into_iter().filter(|name| *name == "main").count();
        assert_eq!((on_main, routes.len()), (30, 60), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hanging_store_delays_only_the_first_request_and_briefly() {
    for kind in BOTH {
        let (store, [(env, one), _]) = two_hosts(kind).await;
        store.latency.store(3_600_000, Ordering::SeqCst);
        let sync_seq = env.clock.now();

        let _first = route(&one).await;
        let first = env.clock.now();
        let _second = route(&one).await;

        assert_eq!(first.duration_since(sync_seq), SignedDuration::from_millis(250), "{kind:?}");
        assert_eq!(env.clock.now(), first, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_for_reservations_does_not_exceed_the_time_of_a_route() {
    for kind in BOTH {
        let mut env = env(kind);
        let second = Duration::from_secs(1);
        env.policy = env.policy.clone().route_timeout(second).reservation_timeout(second * 30);
        let store = SlowStore::on(&env.clock);
        let accounts = env.builder().reservations(store.clone()).build().expect("a valid configuration");
        let _ = accounts.route(Request::new()).await.expect("an account is available");
        store.latency.store(5_000, Ordering::SeqCst);
        let started_at = env.clock.now();

        let _ = route(&accounts).await;
        let took = env.clock.now().duration_since(started_at);
        let _ = route(&accounts).await;

        assert_eq!(took, SignedDuration::from_secs(1), "{kind:?}");
        assert_eq!(env.clock.now().duration_since(started_at), took, "{kind:?}: the store is not used again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_with_little_time_left_does_not_stop_others_from_sharing() {
    // One or two round trips take longer than the minimum, and both less than the timeout for reservations.
    for (kind, latency) in BOTH.into_iter().flat_map(|kind| [(kind, 60), (kind, 120)]) {
        let mut env = env(kind);
        // A little more than the timeout of a request.
        env.provider = env.provider.with_delay(Duration::from_millis(5_200));
        env.policy.when_unknown = UnknownUsage::Allow;
        let store = SlowStore::on(&env.clock);
        let accounts = env.builder().reservations(store.clone()).build().expect("a valid configuration");
        store.latency.store(latency, Ordering::SeqCst);

        let _late = route(&accounts).await;
        store.trips.store(0, Ordering::SeqCst);
        let _next = route(&accounts).await;

        assert_eq!(store.trips.load(Ordering::SeqCst), 2, "{kind:?}, {latency} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_cancelled_during_its_write_reserves_nothing() {
    for kind in BOTH {
        let (store, [(env, one), (_, other)]) = two_hosts(kind).await;
        store.latency.store(20, Ordering::SeqCst);
        for _ in 0..3 {
            // The write is applied, but its response has not arrived.
            let routing = pin!(one.route(big()));
            assert!(env.clock.bounded(Duration::from_millis(30), routing).await.is_none(), "{kind:?}");
        }
        store.latency.store(0, Ordering::SeqCst);
        minutes(&env.clock, 1).await;

        let theirs = [route(&other).await, route(&other).await, route(&other).await];
        assert_eq!(names(&theirs), ["main", "main", "main"], "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn reservations_stop_at_the_killswitch() {
    for kind in BOTH {
        let (env, warm) = nearly_exhausted(kind, None).await;
        warm.flush().await.unwrap();
        let policy = RoutingPolicy::default().killswitch(Limits::of(percent(3.0)));
        let accounts = env.builder().policy(policy).build().unwrap();

        let routes = [route(&accounts).await, route(&accounts).await, route(&accounts).await];

        assert_eq!(names(&routes), ["main", "main", "b"], "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn concurrent_requests_of_many_hosts_do_not_overrun_an_account() {
    const HOSTS: usize = 8;
    let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::new());
    let mut hosts = Vec::new();
    for _ in 0..HOSTS {
        hosts.push(nearly_exhausted(Kind::Without, Some(Arc::clone(&store))).await);
    }

    let mut tasks = tokio::task::JoinSet::new();
    for (_, accounts) in &hosts {
        for _ in 0..10 {
            let accounts = accounts.clone();
            tasks.spawn(async move { accounts.route(big()).await });
        }
    }
    let routes: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();

    let on_main = names(&routes).into_iter().filter(|name| *name == "main").count();
    // Seven percent remain of the main account and sixty of each other one. Exactly what fits is admitted.
    assert_eq!((on_main, routes.len()), (3, 3 + 30 + 30));
}

#[tokio::test(start_paused = true)]
async fn concurrent_requests_of_one_process_share_store_round_trips() {
    let env = env(Kind::Without);
    let store = SlowStore::on(&env.clock);
    let (_env, accounts) = nearly_exhausted(Kind::Without, Some(store.clone())).await;

    let requests = (0..20).map(|_| {
        let accounts = accounts.clone();
        async move { accounts.route(big()).await }
    });
    let routes = requests.collect::<tokio::task::JoinSet<_>>().join_all().await;

    assert_eq!((routes.len(), store.conflicts.load(Ordering::SeqCst)), (20, 0));
    // For each of the two accounts, one request reads and writes for all, and one reads again before it moves on.
    assert_eq!(store.trips.load(Ordering::SeqCst), 5);
}

/// Reservations expire by the clock of the store.
#[tokio::test(start_paused = true)]
async fn hosts_whose_clocks_differ_see_each_others_reservations() {
    let store = Arc::new(MemoryStore::new());
    let (env, one) = nearly_exhausted(Kind::Without, Some(store.clone())).await;
    let ahead = Clock::virtual_at(env.clock.now() + SignedDuration::from_mins(30));
    let later = env.restarted_at(&ahead);
    later.provider.answer(quota_core::UsageReport::polled([later.five_hour(93.0)]));
    let other = later.builder().reservations(store).build().unwrap();
    other.refresh_quota_for_due_accounts().await;
    let _theirs = [route(&one).await, route(&one).await, route(&one).await];

    let route = other.route(big()).await;

    assert!(
        matches!(route, Err(RouteError::NoAccountAvailable { .. }))
            || route.is_ok_and(|route| *route.account() != id("main"))
    );
}

/// A source that blocks until it is released.
#[derive(Debug, Default)]
struct Slow {
    is_held: AtomicBool,
    released: Notify,
}

#[async_trait]
impl CredentialSource for Slow {
    async fn credential(&self, _account: &AccountId) -> Result<Credential, CredentialError> {
        if self.is_held.load(Ordering::SeqCst) {
            self.released.notified().await;
        }
        Ok(Credential::new(Secret::new("a-token")))
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_cancelled_during_its_route_reserves_nothing() {
    for kind in BOTH {
        let source = Arc::new(Slow::default());
        let (env, warm) = nearly_exhausted(kind, None).await;
        warm.flush().await.unwrap();
        let accounts = env.builder_with(source.clone()).build().unwrap();
        source.is_held.store(true, Ordering::SeqCst);
        for _ in 0..3 {
            let routing = pin!(accounts.route(big()));
            assert!(env.clock.bounded(Duration::from_millis(1), routing).await.is_none(), "{kind:?}");
        }
        source.is_held.store(false, Ordering::SeqCst);
        source.released.notify_waiters();

        assert_eq!(route(&accounts).await.account(), &id("main"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_cancelled_while_it_is_sent_reserves_nothing() {
    for kind in BOTH {
        let (env, accounts) = nearly_exhausted(kind, None).await;
        for _ in 0..3 {
            let sending = accounts.send_with_retry(big(), Idempotency::NotIdempotent, |_| {
                std::future::pending::<((), RequestOutcome)>()
            });
            let sending = pin!(sending);
            assert!(env.clock.bounded(Duration::from_millis(1), sending).await.is_none(), "{kind:?}");
        }

        assert_eq!(route(&accounts).await.account(), &id("main"), "{kind:?}");
    }
}

/// While a credential is read, the report of another request blocks the account.
#[derive(Debug, Default)]
struct ReportDuringRead {
    accounts: Mutex<Option<(FallbackAccountManager, Route)>>,
    clock: Mutex<Option<Clock>>,
}

#[async_trait]
impl CredentialSource for ReportDuringRead {
    async fn credential(&self, _account: &AccountId) -> Result<Credential, CredentialError> {
        let accounts = self.accounts.lock().expect("no thread panics").take();
        if let Some((accounts, route)) = accounts {
            let throttled = RequestOutcome::from_response(429, [("retry-after", "10")]);
            let report = accounts.report(&route, throttled).await.expect("a route of this manager");
            assert!(matches!(report.next, RetryAdvice::After(_) | RetryAdvice::OtherAccount), "{report:?}");
            let clock = self.clock.lock().expect("no thread panics").clone().expect("the clock is set");
            clock.sleep(Duration::from_millis(5)).await;
        }
        Ok(Credential::new(Secret::new("a-token")))
    }
}

#[tokio::test(start_paused = true)]
async fn a_reservation_does_not_hide_a_cooldown_that_ends_sooner() {
    for kind in BOTH {
        let source = Arc::new(ReportDuringRead::default());
        let (env, warm) = nearly_exhausted(kind, None).await;
        warm.flush().await.unwrap();
        let accounts = env.builder_with(source.clone()).build().unwrap();
        let theirs = accounts.route(Request::new()).await.unwrap();
        let _others = [route(&accounts).await, route(&accounts).await];
        *source.clock.lock().unwrap() = Some(env.clock.clone());
        *source.accounts.lock().unwrap() = Some((accounts.clone(), theirs));

        let route = route(&accounts).await;

        assert_eq!(route.account(), &id("b"), "{kind:?}");
        assert!(
            route.skipped().iter().any(|skipped| skipped.reason == Reason::Throttled),
            "{kind:?}: {route:?}"
        );
    }
}
