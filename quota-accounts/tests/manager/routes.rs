//! The account that a request gets, and what it waits for.

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
async fn the_first_request_waits_for_readings() {
    for kind in BOTH {
        let env = env(kind);
        let accounts = env.accounts();

        let _ = accounts.route(Request::new()).await.unwrap();

        assert_eq!(used(&accounts, "main"), Some(40.0), "{kind:?}");
        assert_eq!(env.provider.called_accounts(), [id("main")], "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn stale_readings_that_pass_delay_no_request() {
    for kind in BOTH {
        let env = env(kind);
        let accounts = env.accounts();
        env.set_usage(40.0);
        accounts.refresh_quota_for_due_accounts().await;
        minutes(&env.clock, 6).await;
        let start = env.clock.now();
        env.provider.then_hang();

        let _ = accounts.route(Request::new()).await.unwrap();

        assert_eq!(env.clock.now(), start, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_exhausted_account_is_refreshed_before_moving() {
    for kind in BOTH {
        let env = env(kind);
        let accounts = env.accounts();
        env.set_usage(100.0);
        accounts.refresh_quota_for_due_accounts().await;
        minutes(&env.clock, 6).await;
        env.set_usage(10.0);

        let route = accounts.route(Request::new()).await.unwrap();

        assert_eq!(route.account(), &id("main"), "{kind:?}");
    }
}

/// With stale readings: whether a request waits for a refresh, and which account serves it.
async fn waits(env: &Env, accounts: &FallbackAccountManager, request: Request) -> (bool, String) {
    minutes(&env.clock, 6).await;
    let begun = env.clock.now();
    env.provider.then_hang();
    let route = accounts.route(request).await.expect("one is available");
    (env.clock.now() != begun, route.account().name().to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_session_does_not_wait_for_readings_of_other_accounts() {
    for kind in BOTH {
        let mut env = env(kind);
        env.policy = RoutingPolicy::default().mode(RoutingMode::StickyBalanced);
        let accounts = env.accounts();
        env.set_usage(40.0);
        accounts.refresh_quota_for_due_accounts().await;
        let request = Request::new().with_session("s");
        let own = accounts.route(request.clone()).await.unwrap().account().clone();
        minutes(&env.clock, 6).await;
        for account in accounts.accounts().cloned().collect::<Vec<_>>() {
            let used = if account == own { 40.0 } else { 100.0 };
            env.provider.then_answer(UsageReport::polled([env.five_hour(used)]));
        }
        accounts.refresh_quota_for_due_accounts().await;

        assert_eq!(waits(&env, &accounts, request).await, (false, own.name().to_owned()), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn fallback_first_does_not_wait_for_the_main_account() {
    for kind in BOTH {
        let mut env = env(kind);
        env.policy = RoutingPolicy::default().mode(RoutingMode::FallbackFirst);
        let accounts = env.accounts();
        env.set_usage(40.0);
        env.provider.then_answer(UsageReport::polled([env.five_hour(100.0)]));
        accounts.refresh_quota_for_due_accounts().await;
        assert_eq!(used(&accounts, "main"), Some(100.0), "{kind:?}");

        assert_eq!(waits(&env, &accounts, Request::new()).await, (false, "b".to_owned()), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn fresh_readings_cause_no_call() {
    for kind in BOTH {
        let env = env(kind);
        let accounts = env.accounts();
        accounts.refresh_quota_for_due_accounts().await;
        let before = env.provider.calls();

        for _ in 0..100 {
            let route = accounts.route(Request::new()).await.unwrap();
            let _ = accounts.report(&route, RequestOutcome::from_response(200, [("a", "b")])).await.unwrap();
        }
        accounts.flush().await.unwrap();

        assert_eq!(env.provider.calls(), before, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_usage_endpoint_does_not_block_requests() {
    for kind in BOTH {
        let env = env(kind);
        let accounts = env.accounts();
        env.provider.then_fail(FetchError::unavailable("it is out of service"));

        let route = accounts.route(Request::new()).await.unwrap();

        assert_eq!((route.account(), route.reason()), (&id("main"), Reason::UnknownAllowed), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_usage_is_denied_where_the_policy_says_so() {
    for kind in BOTH {
        let mut env = env(kind);
        env.policy = RoutingPolicy::default().when_unknown(UnknownUsage::Deny);
        for _ in 0..3 {
            env.provider.then_fail(FetchError::unavailable("it is out of service"));
        }

        let error = env.accounts().route(Request::new()).await.unwrap_err();

        let RouteError::NoAccountAvailable { skipped, .. } = error else { panic!("{kind:?} {error:?}") };
        assert!(
            skipped.iter().all(|skipped| skipped.reason == Reason::UnknownDenied),
            "{kind:?} {skipped:?}"
        );
    }
}

/// The wait for the only account if the policy denies unknown usage.
async fn wait_of_one(env: &mut Env) -> Option<Duration> {
    env.policy = RoutingPolicy::default().when_unknown(UnknownUsage::Deny);
    env.config = AccountsConfig::new(id("main"));
    let accounts = env.accounts();
    let error = accounts.route(Request::new()).await.expect_err("the account has no readings");
    let decided = accounts.decide(&Request::new()).await.retry_after();
    assert_eq!(error.retry_after(), decided, "{:?}: the decision agrees", env.kind);
    decided
}

#[tokio::test(start_paused = true)]
async fn unknown_usage_is_retried_when_a_refresh_is_allowed_again() {
    for kind in BOTH {
        let mut env = env(kind);
        env.provider.then_fail(FetchError::throttled(Some(Duration::from_secs(600))));

        assert_eq!(wait_of_one(&mut env).await, Some(Duration::from_secs(600)), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn refreshable_unknown_usage_is_retried_after_the_cooldown() {
    for kind in BOTH {
        let mut env = env(kind);
        env.provider.set_login(&id("main"), Err(CredentialError::timed_out("too slow")));

        assert_eq!(wait_of_one(&mut env).await, Some(env.policy.throttle_cooldown), "{kind:?}");
    }
}

// The credential states another login, which has no readings.
#[tokio::test(start_paused = true)]
async fn a_new_login_without_readings_has_a_wait() {
    for kind in BOTH {
        let mut env = env(kind);
        env.policy = RoutingPolicy::default().when_unknown(UnknownUsage::Deny);
        env.config = AccountsConfig::new(id("main"));
        let logins = Arc::new(Logins::default());
        logins.set("main", Some(1), "old");
        let accounts = env.builder_with(logins.clone()).build().expect("a valid configuration");
        accounts.refresh_quota_for_due_accounts().await;
        logins.set("main", Some(2), "new");
        env.provider.then_fail(FetchError::throttled(Some(Duration::from_secs(600))));

        let error = accounts.route(Request::new()).await.expect_err("the new login has no readings");

        assert_eq!(error.retry_after(), Some(Duration::from_secs(600)), "{kind:?} {error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_accounts_are_refreshed_before_a_low_one_is_chosen() {
    for kind in BOTH {
        let mut env = env(kind);
        let policy = RoutingPolicy::default().when_unknown(UnknownUsage::Deny);
        env.policy = policy.min_remaining(Limits::of(percent(20.0)));
        // The main account is refreshed first and is low. The next one has more.
        env.provider.then_answer(UsageReport::polled([env.five_hour(85.0)]));
        env.set_usage(10.0);

        let route = env.accounts().route(Request::new()).await.expect("one is available");

        assert_eq!((route.account(), route.reason()), (&id("b"), Reason::Available), "{kind:?}");
        assert_eq!(env.provider.calls(), 2, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn exhausted_accounts_give_an_error_with_wait_and_reasons() {
    for kind in BOTH {
        let env = env(kind);
        env.set_usage(100.0);
        let accounts = env.accounts();
        accounts.refresh_quota_for_due_accounts().await;

        let error = accounts.route(Request::new()).await.unwrap_err();

        assert_eq!(error.retry_after(), Some(Duration::from_secs(2 * 3600)), "{kind:?}");
        assert_eq!(error.to_string(), "no account can serve this request; try again in 7200 s");
        let RouteError::NoAccountAvailable { skipped, .. } = error else { panic!("{error:?}") };
        assert_eq!(skipped.len(), 3, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_lists_skipped_accounts_and_reasons() {
    for kind in BOTH {
        let env = env(kind);
        let accounts = env.accounts();
        env.provider.then_answer(UsageReport::polled([env.five_hour(100.0)]));

        let route = accounts.route(Request::new()).await.unwrap();

        assert_eq!(route.account(), &id("b"), "{kind:?}");
        assert_eq!(route.skipped()[0].account, id("main"));
        assert_eq!(route.skipped()[0].reason, Reason::Exhausted);
    }
}

#[tokio::test(start_paused = true)]
async fn explain_agrees_with_route() {
    for kind in BOTH {
        let mut env = env(kind);
        env.policy = RoutingPolicy::default().min_remaining(Limits::of(percent(80.0)));
        let accounts = env.accounts();
        accounts.refresh_quota_for_due_accounts().await;

        let explained = accounts.explain(&Request::new()).chosen().unwrap().account.clone();
        let route = accounts.route(Request::new()).await.unwrap();

        assert_eq!((route.account(), route.reason()), (&explained, Reason::BelowMinimum), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_stays_with_its_account_across_a_restart() {
    for kind in BOTH {
        let mut env = env(kind);
        env.policy = RoutingPolicy::default().mode(RoutingMode::StickyBalanced);
        let accounts = env.accounts();
        accounts.refresh_quota_for_due_accounts().await;
        let request = || Request::new().with_session("s");
        let own = accounts.route(request()).await.unwrap().account().clone();
        accounts.flush().await.unwrap();
        // A new session would now prefer another account.
        let restarted = env.restarted();
        let accounts = restarted.accounts();
        accounts.load().await.unwrap();
        for name in ["main", "b", "c"] {
            let used = if id(name) == own { 99.0 } else { 1.0 };
            restarted
                .quota
                .account(&id(name))
                .observe(&UsageReport::from_headers([env.five_hour(used)]))
                .unwrap();
        }

        assert_eq!(accounts.route(request()).await.unwrap().account(), &own, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_n_requests_the_fallback_that_served_is_refreshed() {
    for kind in BOTH {
        let env = every_fifth(kind);
        let accounts = env.accounts();
        env.provider.then_answer(UsageReport::polled([env.five_hour(100.0)]));
        accounts.refresh_quota_for_due_accounts().await;
        minutes(&env.clock, 2).await;

        for _ in 0..5 {
            let route = accounts.route(Request::new()).await.unwrap();
            assert_eq!(route.account(), &id("b"), "{kind:?}");
            let _ = accounts.report(&route, RequestOutcome::from_response(200, [("a", "b")])).await.unwrap();
        }
        accounts.flush().await.unwrap();

        assert_eq!(env.provider.called_accounts()[3..], [id("b")], "{kind:?}");
    }
}

/// An environment in which every fifth request of an account causes a refresh.
fn every_fifth(kind: Kind) -> Env {
    let mut env = env(kind);
    env.refresh_every(5);
    env
}

#[tokio::test(start_paused = true)]
async fn every_n_requests_the_account_that_served_is_refreshed() {
    for kind in BOTH {
        let env = every_fifth(kind);
        let accounts = env.accounts();
        accounts.refresh_quota_for_due_accounts().await;
        minutes(&env.clock, 2).await;

        let mut calls = Vec::new();
        for _ in 0..10 {
            let route = accounts.route(Request::new()).await.unwrap();
            let _ = accounts.report(&route, RequestOutcome::from_response(200, [("a", "b")])).await.unwrap();
            env.clock.sleep(Duration::from_secs(10)).await;
            accounts.flush().await.unwrap();
            calls.push(env.provider.calls() - 3);
        }

        assert_eq!(calls, [0, 0, 0, 0, 1, 1, 1, 1, 1, 2], "{kind:?}");
        assert_eq!(env.provider.calls_for(&id("main")), 3, "{kind:?}");
    }
}
