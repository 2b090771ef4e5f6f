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
    RoutingPolicy,
};
use quota_core::store::{CasOutcome, StoreError, StoreKey, StoreRead, Version, WriteState};
use quota_core::testing::FlakyStore;
use quota_core::{
    AccountId, Clock, Credential, CredentialError, CredentialSource, MemoryStore, QuotaStore, Secret,
    WindowId,
};

use crate::support::*;

fn big() -> Request {
    Request::new().with_estimate(WindowId::five_hour(), percent(2.0))
}

async fn route(accounts: &FallbackAccountManager) -> Route {
    accounts.route(big()).await.expect("there are three accounts")
}

/// Main has seven percent left, the others more.
async fn nearly_spent(kind: Kind, store: Option<Arc<dyn QuotaStore>>) -> (World, FallbackAccountManager) {
    let world = world(kind);
    let builder = match store {
        Some(store) => world.builder().reservations(store),
        None => world.builder(),
    };
    let accounts = builder.build().expect("there are accounts");
    world.provider.then_answer(quota_core::UsageReport::polled([world.five_hour(93.0)]));
    let _ = accounts.route(Request::new()).await.expect("there are three accounts");
    accounts.refresh_quota_for_due_accounts().await;
    (world, accounts)
}

fn names(routes: &[Route]) -> Vec<&str> {
    routes.iter().map(|route| route.account().name()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_burst_goes_to_one_account_as_far_as_it_fits_and_then_to_the_next() {
    for kind in BOTH {
        let (_world, accounts) = nearly_spent(kind, None).await;

        let mut routes = Vec::new();
        for _ in 0..5 {
            routes.push(route(&accounts).await);
        }

        assert_eq!(names(&routes), ["main", "main", "main", "b", "b"], "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_result_is_known_reserves_nothing() {
    for kind in BOTH {
        let (_world, accounts) = nearly_spent(kind, None).await;

        for _ in 0..10 {
            let route = route(&accounts).await;
            assert_eq!(route.account(), &id("main"), "{kind:?}");
            let _ = accounts.report(&route, RequestOutcome::from_response(200, [("a", "b")])).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_never_reported_is_forgotten_after_a_while() {
    for kind in BOTH {
        let (world, accounts) = nearly_spent(kind, None).await;
        for _ in 0..3 {
            let _ = route(&accounts).await;
        }
        assert_eq!(route(&accounts).await.account(), &id("b"), "{kind:?}");

        minutes(&world.clock, 10).await;

        assert_eq!(route(&accounts).await.account(), &id("main"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn hosts_that_share_a_store_do_not_overrun_an_account_together() {
    for kind in BOTH {
        let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::new());
        let (_one_world, one) = nearly_spent(kind, Some(Arc::clone(&store))).await;
        let (_other_world, other) = nearly_spent(kind, Some(store)).await;

        let mut routes = Vec::new();
        for _ in 0..2 {
            routes.push(route(&one).await);
            routes.push(route(&other).await);
        }

        assert_eq!(names(&routes), ["main", "main", "main", "b"]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_host_gives_back_another_may_use() {
    for kind in BOTH {
        let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::new());
        let (_one_world, one) = nearly_spent(kind, Some(Arc::clone(&store))).await;
        let (_other_world, other) = nearly_spent(kind, Some(store)).await;
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
async fn a_store_that_fails_holds_no_request_up() {
    let store = FlakyStore::new(MemoryStore::new(), 7, 0.9);
    let (_world, accounts) = nearly_spent(Kind::Without, Some(Arc::new(store))).await;

    let mut routes = Vec::new();
    for _ in 0..4 {
        routes.push(route(&accounts).await);
    }

    assert_eq!(names(&routes), ["main", "main", "main", "b"]);
}

/// A store that can go away, takes its time, and counts who was too late.
#[derive(Debug)]
struct Away {
    inner: MemoryStore,
    clock: Clock,
    is_away: AtomicBool,
    conflicts: AtomicUsize,
    trips: AtomicUsize,
    /// How long each trip takes, in milliseconds.
    takes: AtomicU64,
}

impl Away {
    fn on(clock: &Clock) -> Arc<Self> {
        let inner = MemoryStore::with_clock(clock.clone());
        Arc::new(Self {
            inner,
            clock: clock.clone(),
            is_away: AtomicBool::new(false),
            conflicts: AtomicUsize::new(0),
            trips: AtomicUsize::new(0),
            takes: AtomicU64::new(0),
        })
    }

    fn go(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::SeqCst);
    }

    /// The way back of an answer.
    async fn answer(&self) {
        match self.takes.load(Ordering::SeqCst) {
            0 => tokio::task::yield_now().await,
            takes => self.clock.sleep(Duration::from_millis(takes)).await,
        }
    }

    fn check(&self) -> Result<(), StoreError> {
        self.trips.fetch_add(1, Ordering::SeqCst);
        if self.is_away.load(Ordering::SeqCst) {
            return Err(StoreError::unavailable(WriteState::NotApplied, "it is away"));
        }
        Ok(())
    }
}

#[async_trait]
impl QuotaStore for Away {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        self.check()?;
        let reading = self.inner.read(key).await;
        self.answer().await;
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
        self.answer().await;
        swap
    }

    async fn wait_for_change(&self, key: &StoreKey, seen: Option<Version>) -> Result<(), StoreError> {
        self.inner.wait_for_change(key, seen).await
    }
}

/// Two hosts on one store that can go away.
async fn two_hosts(kind: Kind) -> (Arc<Away>, [(World, FallbackAccountManager); 2]) {
    let world = world(kind);
    let store = Away::on(&world.clock);
    let one = nearly_spent(kind, Some(store.clone())).await;
    let other = nearly_spent(kind, Some(store.clone())).await;
    (store, [one, other])
}

#[tokio::test(start_paused = true)]
async fn what_was_reserved_while_the_store_was_away_counts_everywhere_once_it_is_back() {
    for kind in BOTH {
        let (store, [(world, one), (_, other)]) = two_hosts(kind).await;
        store.go(true);
        let _alone = [route(&one).await, route(&one).await];
        store.go(false);
        minutes(&world.clock, 1).await;

        let _third = route(&one).await;

        assert_eq!(route(&other).await.account(), &id("b"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_reserved_while_the_store_was_away_is_not_forgotten_here() {
    for kind in BOTH {
        let (store, [(world, one), (_, other)]) = two_hosts(kind).await;
        let _theirs = route(&other).await;
        store.go(true);
        let _alone = [route(&one).await, route(&one).await];
        store.go(false);
        minutes(&world.clock, 1).await;

        assert_eq!(route(&one).await.account(), &id("b"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_given_back_while_the_store_was_away_is_told_once_it_is_back() {
    for kind in BOTH {
        let (store, [(world, one), (_, other)]) = two_hosts(kind).await;
        let routes = [route(&one).await, route(&one).await, route(&one).await];
        store.go(true);
        for route in &routes {
            let _ = one.report(route, RequestOutcome::cancelled()).await.unwrap();
        }
        one.flush().await.unwrap();
        store.go(false);

        // This host gets no more requests.
        minutes(&world.clock, 1).await;

        let theirs = [route(&other).await, route(&other).await, route(&other).await];
        assert_eq!(names(&theirs), ["main", "main", "main"], "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_shared_by_a_store_that_takes_its_time() {
    for kind in BOTH {
        let (store, [(world, one), (_, other)]) = two_hosts(kind).await;
        // By now sixty percent are left, which is thirty of these requests.
        minutes(&world.clock, 6).await;
        for accounts in [&one, &other] {
            accounts.refresh_quota_for_due_accounts().await;
        }
        store.takes.store(20, Ordering::SeqCst);

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
async fn a_store_that_hangs_holds_one_request_up_for_a_moment_and_the_next_not_at_all() {
    for kind in BOTH {
        let (store, [(world, one), _]) = two_hosts(kind).await;
        store.takes.store(3_600_000, Ordering::SeqCst);
        let sync_seq = world.clock.now();

        let _first = route(&one).await;
        let first = world.clock.now();
        let _second = route(&one).await;

        assert_eq!(first.duration_since(sync_seq), SignedDuration::from_millis(250), "{kind:?}");
        assert_eq!(world.clock.now(), first, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_while_its_write_is_on_the_way_reserves_nothing() {
    for kind in BOTH {
        let (store, [(world, one), (_, other)]) = two_hosts(kind).await;
        store.takes.store(20, Ordering::SeqCst);
        for _ in 0..3 {
            // The write is applied, and its answer on the way.
            let routing = pin!(one.route(big()));
            assert!(world.clock.bounded(Duration::from_millis(30), routing).await.is_none(), "{kind:?}");
        }
        store.takes.store(0, Ordering::SeqCst);
        minutes(&world.clock, 1).await;

        let theirs = [route(&other).await, route(&other).await, route(&other).await];
        assert_eq!(names(&theirs), ["main", "main", "main"], "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_killswitch_keeps_is_not_reserved() {
    for kind in BOTH {
        let (world, warm) = nearly_spent(kind, None).await;
        warm.flush().await.unwrap();
        let policy = RoutingPolicy::default().killswitch(Limits::of(percent(3.0)));
        let accounts = world.builder().policy(policy).build().unwrap();

        let routes = [route(&accounts).await, route(&accounts).await, route(&accounts).await];

        assert_eq!(names(&routes), ["main", "main", "b"], "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_requests_of_many_hosts_at_once_do_not_overrun_an_account() {
    const HOSTS: usize = 8;
    let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::new());
    let mut hosts = Vec::new();
    for _ in 0..HOSTS {
        hosts.push(nearly_spent(Kind::Without, Some(Arc::clone(&store))).await);
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
    // Seven percent are left of main, and sixty of each of the others: no more than fits, and all that does.
    assert_eq!((on_main, routes.len()), (3, 3 + 30 + 30));
}

#[tokio::test(start_paused = true)]
async fn requests_of_one_process_are_not_in_each_others_way_at_the_store() {
    let world = world(Kind::Without);
    let store = Away::on(&world.clock);
    let (_world, accounts) = nearly_spent(Kind::Without, Some(store.clone())).await;

    let requests = (0..20).map(|_| {
        let accounts = accounts.clone();
        async move { accounts.route(big()).await }
    });
    let routes = requests.collect::<tokio::task::JoinSet<_>>().join_all().await;

    assert_eq!((routes.len(), store.conflicts.load(Ordering::SeqCst)), (20, 0));
    // For each of the two accounts that they went to, one reads and writes for all; and one reads again before it moves on.
    assert_eq!(store.trips.load(Ordering::SeqCst), 5);
}

/// By whose clock a reservation lasts must not matter: it is the store's.
#[tokio::test(start_paused = true)]
async fn hosts_whose_clocks_differ_see_each_others_reservations() {
    let store = Arc::new(MemoryStore::new());
    let (world, one) = nearly_spent(Kind::Without, Some(store.clone())).await;
    let ahead = Clock::anchored(world.clock.now() + SignedDuration::from_mins(30));
    let later = world.restarted_at(&ahead);
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

/// A source that waits until it is let go, for the accounts that it is told.
#[derive(Debug, Default)]
struct Slow {
    is_held: AtomicBool,
}

#[async_trait]
impl CredentialSource for Slow {
    async fn credential(&self, _account: &AccountId) -> Result<Credential, CredentialError> {
        if self.is_held.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        Ok(Credential::new(Secret::new("a-token")))
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_while_it_is_routed_reserves_nothing() {
    for kind in BOTH {
        let source = Arc::new(Slow::default());
        let (world, warm) = nearly_spent(kind, None).await;
        warm.flush().await.unwrap();
        let accounts = world.builder_with(source.clone()).build().unwrap();
        source.is_held.store(true, Ordering::SeqCst);
        for _ in 0..3 {
            let routing = pin!(accounts.route(big()));
            assert!(world.clock.bounded(Duration::from_millis(1), routing).await.is_none(), "{kind:?}");
        }
        source.is_held.store(false, Ordering::SeqCst);

        assert_eq!(route(&accounts).await.account(), &id("main"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_while_it_is_sent_reserves_nothing() {
    for kind in BOTH {
        let (world, accounts) = nearly_spent(kind, None).await;
        for _ in 0..3 {
            let sending = accounts.send_with_retry(big(), Idempotency::NotIdempotent, |_| {
                std::future::pending::<((), RequestOutcome)>()
            });
            let sending = pin!(sending);
            assert!(world.clock.bounded(Duration::from_millis(1), sending).await.is_none(), "{kind:?}");
        }

        assert_eq!(route(&accounts).await.account(), &id("main"), "{kind:?}");
    }
}

/// While a credential is read, another request is told to pause.
#[derive(Debug, Default)]
struct ToldMeanwhile {
    accounts: Mutex<Option<(FallbackAccountManager, Route)>>,
    clock: Mutex<Option<Clock>>,
}

#[async_trait]
impl CredentialSource for ToldMeanwhile {
    async fn credential(&self, _account: &AccountId) -> Result<Credential, CredentialError> {
        let told = self.accounts.lock().expect("no thread panics").take();
        if let Some((accounts, route)) = told {
            let pause = RequestOutcome::from_response(429, [("retry-after", "10")]);
            let report = accounts.report(&route, pause).await.expect("it is its own");
            assert!(matches!(report.next, RetryAdvice::After(_) | RetryAdvice::OtherAccount), "{report:?}");
            let clock = self.clock.lock().expect("no thread panics").clone().expect("it was told");
            clock.sleep(Duration::from_millis(5)).await;
        }
        Ok(Credential::new(Secret::new("a-token")))
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_reserved_does_not_hide_a_pause_that_ends_sooner() {
    for kind in BOTH {
        let source = Arc::new(ToldMeanwhile::default());
        let (world, warm) = nearly_spent(kind, None).await;
        warm.flush().await.unwrap();
        let accounts = world.builder_with(source.clone()).build().unwrap();
        let theirs = accounts.route(Request::new()).await.unwrap();
        let _others = [route(&accounts).await, route(&accounts).await];
        *source.clock.lock().unwrap() = Some(world.clock.clone());
        *source.accounts.lock().unwrap() = Some((accounts.clone(), theirs));

        let route = route(&accounts).await;

        assert_eq!(route.account(), &id("b"), "{kind:?}");
        assert!(
            route.skipped().iter().any(|skipped| skipped.reason == Reason::Throttled),
            "{kind:?}: {route:?}"
        );
    }
}
