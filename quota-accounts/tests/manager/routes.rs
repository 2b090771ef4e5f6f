//! Which account a request is given, and what it waits for.

use std::sync::Arc;
use std::time::Duration;

use quota_accounts::routing::Reason;
use quota_accounts::{
    AccountsConfig, FallbackAccountManager, Limits, Request, RequestOutcome, RouteError, RoutingMode,
    RoutingPolicy, UnknownUsage,
};
use quota_core::{CredentialError, FetchError, UsageReport};

use crate::logins::Logins;
use crate::support::*;

#[tokio::test(start_paused = true)]
async fn the_first_request_waits_for_numbers() {
    for kind in BOTH {
        let world = world(kind);
        let accounts = world.accounts();

        let _ = accounts.route(Request::new()).await.unwrap();

        assert_eq!(used(&accounts, "main"), Some(40.0), "{kind:?}");
        assert_eq!(world.provider.called_accounts(), [id("main")], "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn stale_readings_that_pass_delay_no_request() {
    for kind in BOTH {
        let world = world(kind);
        let accounts = world.accounts();
        world.answers(40.0);
        accounts.refresh_quota_for_due_accounts().await;
        minutes(&world.clock, 6).await;
        let asked = world.clock.now();
        world.provider.then_hang();

        let _ = accounts.route(Request::new()).await.unwrap();

        assert_eq!(world.clock.now(), asked, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn numbers_that_are_old_and_exhausted_are_asked_for_before_moving() {
    for kind in BOTH {
        let world = world(kind);
        let accounts = world.accounts();
        world.answers(100.0);
        accounts.refresh_quota_for_due_accounts().await;
        minutes(&world.clock, 6).await;
        world.answers(10.0);

        let route = accounts.route(Request::new()).await.unwrap();

        assert_eq!(route.account(), &id("main"), "{kind:?}");
    }
}

/// Once all numbers are old: whether a request waits for those that refuse it, and who serves it.
async fn waits(world: &World, accounts: &FallbackAccountManager, request: Request) -> (bool, String) {
    minutes(&world.clock, 6).await;
    let begun = world.clock.now();
    world.provider.then_hang();
    let route = accounts.route(request).await.expect("one has room");
    (world.clock.now() != begun, route.account().name().to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_session_does_not_wait_for_the_numbers_of_accounts_that_are_not_its_own() {
    for kind in BOTH {
        let mut world = world(kind);
        world.policy = RoutingPolicy::default().mode(RoutingMode::StickyBalanced);
        let accounts = world.accounts();
        world.answers(40.0);
        accounts.refresh_quota_for_due_accounts().await;
        let request = Request::new().with_session("s");
        let own = accounts.route(request.clone()).await.unwrap().account().clone();
        minutes(&world.clock, 6).await;
        for account in accounts.accounts().cloned().collect::<Vec<_>>() {
            let used = if account == own { 40.0 } else { 100.0 };
            world.provider.then_answer(UsageReport::polled([world.five_hour(used)]));
        }
        accounts.refresh_quota_for_due_accounts().await;

        assert_eq!(waits(&world, &accounts, request).await, (false, own.name().to_owned()), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn fallback_first_does_not_wait_for_the_main_account() {
    for kind in BOTH {
        let mut world = world(kind);
        world.policy = RoutingPolicy::default().mode(RoutingMode::FallbackFirst);
        let accounts = world.accounts();
        world.answers(40.0);
        world.provider.then_answer(UsageReport::polled([world.five_hour(100.0)]));
        accounts.refresh_quota_for_due_accounts().await;
        assert_eq!(used(&accounts, "main"), Some(100.0), "{kind:?}");

        assert_eq!(waits(&world, &accounts, Request::new()).await, (false, "b".to_owned()), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn fresh_numbers_cost_no_call() {
    for kind in BOTH {
        let world = world(kind);
        let accounts = world.accounts();
        accounts.refresh_quota_for_due_accounts().await;
        let before = world.provider.calls();

        for _ in 0..100 {
            let route = accounts.route(Request::new()).await.unwrap();
            let _ = accounts.report(&route, RequestOutcome::from_response(200, [("a", "b")])).await.unwrap();
        }
        accounts.flush().await.unwrap();

        assert_eq!(world.provider.calls(), before, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_fails_does_not_keep_requests_from_an_open_account() {
    for kind in BOTH {
        let world = world(kind);
        let accounts = world.accounts();
        world.provider.then_fail(FetchError::unavailable("it is out of service"));

        let route = accounts.route(Request::new()).await.unwrap();

        assert_eq!((route.account(), route.reason()), (&id("main"), Reason::UnknownAllowed), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_usage_is_denied_where_the_policy_says_so() {
    for kind in BOTH {
        let mut world = world(kind);
        world.policy = RoutingPolicy::default().when_unknown(UnknownUsage::Deny);
        for _ in 0..3 {
            world.provider.then_fail(FetchError::unavailable("it is out of service"));
        }

        let error = world.accounts().route(Request::new()).await.unwrap_err();

        let RouteError::NoAccountAvailable { skipped, .. } = error else { panic!("{kind:?} {error:?}") };
        assert!(
            skipped.iter().all(|skipped| skipped.reason == Reason::UnknownDenied),
            "{kind:?} {skipped:?}"
        );
    }
}

/// How long a request for the only account must wait if unknown usage is denied.
async fn wait_of_one(world: &mut World) -> Option<Duration> {
    world.policy = RoutingPolicy::default().when_unknown(UnknownUsage::Deny);
    world.config = AccountsConfig::new(id("main"));
    let accounts = world.accounts();
    let error = accounts.route(Request::new()).await.expect_err("nothing is known");
    let decided = accounts.decide(&Request::new()).await.retry_after();
    assert_eq!(error.retry_after(), decided, "{:?}: a decision says the same", world.kind);
    decided
}

#[tokio::test(start_paused = true)]
async fn what_is_not_known_is_worth_another_look_when_one_may_ask_about_it_again() {
    for kind in BOTH {
        let mut world = world(kind);
        world.provider.then_fail(FetchError::throttled(Some(Duration::from_secs(600))));

        assert_eq!(wait_of_one(&mut world).await, Some(Duration::from_secs(600)), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_known_and_may_be_asked_about_is_worth_another_look_after_a_pause() {
    for kind in BOTH {
        let mut world = world(kind);
        world.provider.set_login(&id("main"), Err(CredentialError::timed_out("too slow")));

        assert_eq!(wait_of_one(&mut world).await, Some(world.policy.throttle_cooldown), "{kind:?}");
    }
}

// The credential says that it is another login's, and nothing is known of that.
#[tokio::test(start_paused = true)]
async fn a_new_login_of_which_nothing_is_known_is_worth_another_look_too() {
    for kind in BOTH {
        let mut world = world(kind);
        world.policy = RoutingPolicy::default().when_unknown(UnknownUsage::Deny);
        world.config = AccountsConfig::new(id("main"));
        let logins = Arc::new(Logins::default());
        logins.set("main", Some(1), "old");
        let accounts = world.builder_with(logins.clone()).build().expect("there is an account");
        accounts.refresh_quota_for_due_accounts().await;
        logins.set("main", Some(2), "new");
        world.provider.then_fail(FetchError::throttled(Some(Duration::from_secs(600))));

        let error = accounts.route(Request::new()).await.expect_err("nothing is known of the new one");

        assert_eq!(error.retry_after(), Some(Duration::from_secs(600)), "{kind:?} {error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn before_an_account_that_is_low_is_taken_those_that_are_not_known_are_asked_about() {
    for kind in BOTH {
        let mut world = world(kind);
        let policy = RoutingPolicy::default().when_unknown(UnknownUsage::Deny);
        world.policy = policy.min_remaining(Limits::of(percent(20.0)));
        // The main account is refreshed first and is low; the next one has more.
        world.provider.then_answer(UsageReport::polled([world.five_hour(85.0)]));
        world.answers(10.0);

        let route = world.accounts().route(Request::new()).await.expect("one has room");

        assert_eq!((route.account(), route.reason()), (&id("b"), Reason::Available), "{kind:?}");
        assert_eq!(world.provider.calls(), 2, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn when_all_are_spent_the_error_says_when_to_come_back_and_why() {
    for kind in BOTH {
        let world = world(kind);
        world.answers(100.0);
        let accounts = world.accounts();
        accounts.refresh_quota_for_due_accounts().await;

        let error = accounts.route(Request::new()).await.unwrap_err();

        assert_eq!(error.retry_after(), Some(Duration::from_secs(2 * 3600)), "{kind:?}");
        assert_eq!(error.to_string(), "no account can serve this request; try again in 7200 s");
        let RouteError::NoAccountAvailable { skipped, .. } = error else { panic!("{error:?}") };
        assert_eq!(skipped.len(), 3, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_tells_who_was_passed_over_and_why() {
    for kind in BOTH {
        let world = world(kind);
        let accounts = world.accounts();
        world.provider.then_answer(UsageReport::polled([world.five_hour(100.0)]));

        let route = accounts.route(Request::new()).await.unwrap();

        assert_eq!(route.account(), &id("b"), "{kind:?}");
        assert_eq!(route.skipped()[0].account, id("main"));
        assert_eq!(route.skipped()[0].reason, Reason::Exhausted);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_explained_is_what_is_routed() {
    for kind in BOTH {
        let mut world = world(kind);
        world.policy = RoutingPolicy::default().min_remaining(Limits::of(percent(80.0)));
        let accounts = world.accounts();
        accounts.refresh_quota_for_due_accounts().await;

        let explained = accounts.explain(&Request::new()).chosen().unwrap().account.clone();
        let route = accounts.route(Request::new()).await.unwrap();

        assert_eq!((route.account(), route.reason()), (&explained, Reason::BelowMinimum), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_stays_with_its_account_across_a_restart() {
    for kind in BOTH {
        let mut world = world(kind);
        world.policy = RoutingPolicy::default().mode(RoutingMode::StickyBalanced);
        let accounts = world.accounts();
        accounts.refresh_quota_for_due_accounts().await;
        let request = || Request::new().with_session("s");
        let own = accounts.route(request()).await.unwrap().account().clone();
        accounts.flush().await.unwrap();
        // From now on another account would be preferred for a new session.
        let restarted = world.restarted();
        let accounts = restarted.accounts();
        accounts.load().await.unwrap();
        for name in ["main", "b", "c"] {
            let used = if id(name) == own { 99.0 } else { 1.0 };
            restarted
                .quota
                .account(&id(name))
                .observe(&UsageReport::from_headers([world.five_hour(used)]))
                .unwrap();
        }

        assert_eq!(accounts.route(request()).await.unwrap().account(), &own, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_so_many_requests_the_fallback_that_served_is_asked_about_and_not_the_main_account() {
    for kind in BOTH {
        let world = every_fifth(kind);
        let accounts = world.accounts();
        world.provider.then_answer(UsageReport::polled([world.five_hour(100.0)]));
        accounts.refresh_quota_for_due_accounts().await;
        minutes(&world.clock, 2).await;

        for _ in 0..5 {
            let route = accounts.route(Request::new()).await.unwrap();
            assert_eq!(route.account(), &id("b"), "{kind:?}");
            let _ = accounts.report(&route, RequestOutcome::from_response(200, [("a", "b")])).await.unwrap();
        }
        accounts.flush().await.unwrap();

        assert_eq!(world.provider.called_accounts()[3..], [id("b")], "{kind:?}");
    }
}

/// A world in which every fifth request of an account is one after which to ask.
fn every_fifth(kind: Kind) -> World {
    let mut world = world(kind);
    world.counting(5);
    world
}

#[tokio::test(start_paused = true)]
async fn every_so_many_requests_the_account_that_served_is_asked_about() {
    for kind in BOTH {
        let world = every_fifth(kind);
        let accounts = world.accounts();
        accounts.refresh_quota_for_due_accounts().await;
        minutes(&world.clock, 2).await;

        let mut calls = Vec::new();
        for _ in 0..10 {
            let route = accounts.route(Request::new()).await.unwrap();
            let _ = accounts.report(&route, RequestOutcome::from_response(200, [("a", "b")])).await.unwrap();
            world.clock.sleep(Duration::from_secs(10)).await;
            accounts.flush().await.unwrap();
            calls.push(world.provider.calls() - 3);
        }

        assert_eq!(calls, [0, 0, 0, 0, 1, 1, 1, 1, 1, 2], "{kind:?}");
        assert_eq!(world.provider.calls_about(&id("main")), 3, "{kind:?}");
    }
}
