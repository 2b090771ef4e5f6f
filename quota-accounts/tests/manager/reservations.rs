//! Bursts of requests that would overrun one account.

use std::sync::Arc;

use quota_accounts::{FallbackAccountManager, Outcome, Request, Route};
use quota_core::testing::FlakyStore;
use quota_core::{MemoryStore, QuotaStore, WindowId};

use crate::support::*;

fn big() -> Request {
    Request::new().estimate(WindowId::five_hour(), percent(2.0))
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
    world.provider.then_answer(quota_core::Usage::polled([world.five_hour(93.0)]));
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
            let _ = accounts.report(&route, Outcome::from_response(200, [("a", "b")])).await.unwrap();
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
    let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::new());
    let (_one_world, one) = nearly_spent(Kind::Without, Some(Arc::clone(&store))).await;
    let (_other_world, other) = nearly_spent(Kind::Without, Some(store)).await;

    let mut routes = Vec::new();
    for _ in 0..2 {
        routes.push(route(&one).await);
        routes.push(route(&other).await);
    }

    assert_eq!(names(&routes), ["main", "main", "main", "b"]);
}

#[tokio::test(start_paused = true)]
async fn what_one_host_gives_back_another_may_use() {
    let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::new());
    let (_one_world, one) = nearly_spent(Kind::Without, Some(Arc::clone(&store))).await;
    let (_other_world, other) = nearly_spent(Kind::Without, Some(store)).await;
    let mut routes = Vec::new();
    for _ in 0..3 {
        routes.push(route(&one).await);
    }
    assert_eq!(route(&other).await.account(), &id("b"));

    let _ = one.report(&routes[0], Outcome::dropped()).await.unwrap();
    one.flush().await.unwrap();

    assert_eq!(route(&other).await.account(), &id("main"));
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
