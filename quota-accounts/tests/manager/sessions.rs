//! Sessions that stay with an account, and what moves them.

use std::sync::Arc;
use std::time::Duration;

use quota_accounts::{
    AccountsConfig, FallbackAccountManager, Request, RequestOutcome, RouteError, RoutingMode, RoutingPolicy,
};
use quota_core::{AccountId, UsageReport};

use crate::logins::Logins;
use crate::support::*;

/// A world whose sessions stay with an account.
fn sticky(kind: Kind) -> World {
    let mut world = world(kind);
    // So that a throttled account is left at once, and not waited for.
    world.policy =
        RoutingPolicy::default().mode(RoutingMode::StickyBalanced).max_session_wait(Duration::ZERO);
    world
}

async fn routed(accounts: &FallbackAccountManager) -> AccountId {
    let request = Request::new().with_session("s");
    accounts.route(request).await.expect("an account has room").account().clone()
}

/// What a session's own account answers, and where the session is then, and two hours later.
async fn answered(
    world: &World,
    accounts: &FallbackAccountManager,
    outcome: RequestOutcome,
) -> [AccountId; 3] {
    accounts.refresh_quota_for_due_accounts().await;
    let route = accounts.route(Request::new().with_session("s")).await.expect("all have room");
    let _ = accounts.report(&route, outcome).await.expect("it is our route");
    let own = route.account().clone();
    // The others could be preferred by now; what counts is where the session belongs.
    let then = routed(accounts).await;
    minutes(&world.clock, 61).await;
    [own, then, routed(accounts).await]
}

#[tokio::test(start_paused = true)]
async fn a_session_that_was_throttled_once_is_served_elsewhere_and_comes_back() {
    for kind in BOTH {
        let world = sticky(kind);
        let accounts = world.accounts();

        let throttled = RequestOutcome::from_response(429, [("retry-after", "60")]);
        let [own, then, later] = answered(&world, &accounts, throttled).await;

        assert_ne!(own, then, "{kind:?}: it is not kept waiting");
        assert_eq!(own, later, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_served_elsewhere_for_a_while_is_remembered_as_in_use() {
    for kind in BOTH {
        let mut world = sticky(kind);
        world.policy = world.policy.sessions(Duration::from_secs(3600), 10);
        let accounts = world.accounts();
        accounts.refresh_quota_for_due_accounts().await;
        let route = accounts.route(Request::new().with_session("s")).await.expect("all have room");
        let throttled = RequestOutcome::from_response(429, [("retry-after", "5000")]);
        let _ = accounts.report(&route, throttled).await.expect("it is our route");

        for _ in 0..9 {
            minutes(&world.clock, 10).await;
            let _ = routed(&accounts).await;
            accounts.flush().await.expect("the disk is in order");
        }

        assert_eq!(&routed(&accounts).await, route.account(), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_account_is_spent_moves_for_good() {
    for kind in BOTH {
        let world = sticky(kind);
        let accounts = world.builder().response_parser(ExampleTraffic).build().expect("there are accounts");

        let spent = RequestOutcome::from_response(429, [("x-ratelimit-rejected", "five_hour=1")]);
        let [own, then, later] = answered(&world, &accounts, spent).await;

        assert_ne!(own, then, "{kind:?}");
        assert_eq!(then, later, "{kind:?}: the account has room again, and the session has moved");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_account_reads_as_exhausted_moves_for_good() {
    for kind in BOTH {
        let world = sticky(kind);
        let accounts = world.accounts();
        accounts.refresh_quota_for_due_accounts().await;
        let own = routed(&accounts).await;
        minutes(&world.clock, 6).await;
        world.provider.then_answer(UsageReport::polled([world.five_hour(100.0)]));

        // The old numbers pass; the new ones do not.
        let _ = routed(&accounts).await;
        accounts.flush().await.expect("the disk is in order");
        let then = routed(&accounts).await;
        minutes(&world.clock, 121).await;

        assert_ne!(own, then, "{kind:?}");
        assert_eq!(routed(&accounts).await, then, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_account_is_not_allowed_or_has_a_dead_login_moves_for_good() {
    for kind in BOTH {
        for status in [401, 403] {
            let world = sticky(kind);
            let accounts = world.accounts();

            let refused = RequestOutcome::from_response(status, [("a", "b")]);
            let [own, then, later] = answered(&world, &accounts, refused).await;

            assert_ne!(own, then, "{kind:?} {status}");
            assert_eq!(then, later, "{kind:?} {status}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_leaves_an_account_without_a_login_for_good() {
    for kind in BOTH {
        let world = sticky(kind);
        let logins = Arc::new(Logins::default());
        let accounts = world.builder_with(logins.clone()).build().expect("there are accounts");
        accounts.refresh_quota_for_due_accounts().await;
        let own = routed(&accounts).await;

        logins.set(own.name(), None, "someone");
        let then = routed(&accounts).await;
        logins.set(own.name(), Some(1), "someone");

        assert_ne!(own, then, "{kind:?}");
        assert_eq!(routed(&accounts).await, then, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_account_is_out_for_a_moment_is_told_how_long_to_wait() {
    for kind in BOTH {
        let mut world = sticky(kind);
        world.policy = RoutingPolicy::default().mode(RoutingMode::StickyBalanced);
        let accounts = world.accounts();
        accounts.refresh_quota_for_due_accounts().await;
        let route = accounts.route(Request::new().with_session("s")).await.expect("all have room");
        let throttled = RequestOutcome::from_response(429, [("retry-after", "90")]);
        let _ = accounts.report(&route, throttled).await.expect("it is our route");

        let error = accounts.route(Request::new().with_session("s")).await.expect_err("it is out");

        let RouteError::SessionAccountUnavailable { account, retry_after, .. } = error else {
            panic!("{kind:?} {error:?}")
        };
        assert_eq!((&account, retry_after), (route.account(), Duration::from_secs(90)), "{kind:?}");
        world.clock.sleep(retry_after).await;
        assert_eq!(&routed(&accounts).await, route.account(), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_session_that_stays_only_a_first_request_and_one_that_old_numbers_refuse_wait() {
    for kind in BOTH {
        let mut world = sticky(kind);
        world.config = AccountsConfig::new(id("main"));
        let accounts = world.accounts();

        let own = routed(&accounts).await;
        assert_eq!((world.provider.calls(), used(&accounts, "main")), (1, Some(40.0)), "{kind:?}: it waited");
        minutes(&world.clock, 6).await;
        world.provider.then_hang();
        let before = world.clock.now();
        assert_eq!(
            (routed(&accounts).await, world.clock.now()),
            (own.clone(), before),
            "{kind:?}: it did not"
        );
        accounts.flush().await.expect("the disk is in order");

        world.provider.then_answer(UsageReport::polled([world.five_hour(100.0)]));
        minutes(&world.clock, 20).await;
        accounts.refresh_quota_for_due_accounts().await;
        minutes(&world.clock, 6).await;
        world.answers(10.0);
        assert_eq!((routed(&accounts).await, used(&accounts, "main")), (own, Some(10.0)), "{kind:?}");
    }
}
