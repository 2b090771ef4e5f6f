//! Sessions that stay with an account, and what moves them.

use std::sync::Arc;
use std::time::Duration;

use quota_accounts::{
    AccountsConfig, FallbackAccountManager, Request, RequestOutcome, RouteError, RoutingMode, RoutingPolicy,
};
use quota_core::{AccountId, UsageReport};

use crate::logins::Logins;
use crate::support::*;

/// An environment with sticky sessions.
fn sticky(kind: Kind) -> Env {
    let mut env = env(kind);
    // So that a session leaves a throttled account at once.
    env.policy = RoutingPolicy::default().mode(RoutingMode::StickyBalanced).max_session_wait(Duration::ZERO);
    env
}

async fn routed(accounts: &FallbackAccountManager) -> AccountId {
    let request = Request::new().with_session("s");
    accounts.route(request).await.expect("an account is available").account().clone()
}

/// The account of a session before a response, right after it, and two hours later.
async fn accounts_of_session(
    env: &Env,
    accounts: &FallbackAccountManager,
    outcome: RequestOutcome,
) -> [AccountId; 3] {
    accounts.refresh_quota_for_due_accounts().await;
    let route = accounts.route(Request::new().with_session("s")).await.expect("all are available");
    let _ = accounts.report(&route, outcome).await.expect("a route of this manager");
    let own = route.account().clone();
    // Other accounts may be preferred by now, but the session keeps its own.
    let then = routed(accounts).await;
    minutes(&env.clock, 61).await;
    [own, then, routed(accounts).await]
}

#[tokio::test(start_paused = true)]
async fn a_throttled_session_is_served_elsewhere_and_returns() {
    for kind in BOTH {
        let env = sticky(kind);
        let accounts = env.accounts();

        let throttled = RequestOutcome::from_response(429, [("retry-after", "60")]);
        let [own, then, later] = accounts_of_session(&env, &accounts, throttled).await;

        assert_ne!(own, then, "{kind:?}: it does not wait");
        assert_eq!(own, later, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_served_elsewhere_does_not_expire() {
    for kind in BOTH {
        let mut env = sticky(kind);
        env.policy = env.policy.sessions(Duration::from_secs(3600), 10);
        let accounts = env.accounts();
        accounts.refresh_quota_for_due_accounts().await;
        let route = accounts.route(Request::new().with_session("s")).await.expect("all are available");
        let throttled = RequestOutcome::from_response(429, [("retry-after", "5000")]);
        let _ = accounts.report(&route, throttled).await.expect("a route of this manager");

        for _ in 0..9 {
            minutes(&env.clock, 10).await;
            let _ = routed(&accounts).await;
            accounts.flush().await.expect("the file can be written");
        }

        assert_eq!(&routed(&accounts).await, route.account(), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_with_an_exhausted_account_moves_for_good() {
    for kind in BOTH {
        let env = sticky(kind);
        let accounts = env.builder().response_parser(ExampleParser).build().expect("a valid configuration");

        let exhausted = RequestOutcome::from_response(429, [("x-ratelimit-rejected", "five_hour=1")]);
        let [own, then, later] = accounts_of_session(&env, &accounts, exhausted).await;

        assert_ne!(own, then, "{kind:?}");
        assert_eq!(then, later, "{kind:?}: the account is available again, but the session has moved");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_account_is_exhausted_by_readings_moves_for_good() {
    for kind in BOTH {
        let env = sticky(kind);
        let accounts = env.accounts();
        accounts.refresh_quota_for_due_accounts().await;
        let own = routed(&accounts).await;
        minutes(&env.clock, 6).await;
        env.provider.then_answer(UsageReport::polled([env.five_hour(100.0)]));

        // The stale readings admit the account, the new ones do not.
        let _ = routed(&accounts).await;
        accounts.flush().await.expect("the file can be written");
        let then = routed(&accounts).await;
        minutes(&env.clock, 121).await;

        assert_ne!(own, then, "{kind:?}");
        assert_eq!(routed(&accounts).await, then, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_account_rejects_the_login_moves_for_good() {
    for kind in BOTH {
        for status in [401, 403] {
            let env = sticky(kind);
            let accounts = env.accounts();

            let rejected = RequestOutcome::from_response(status, [("a", "b")]);
            let [own, then, later] = accounts_of_session(&env, &accounts, rejected).await;

            assert_ne!(own, then, "{kind:?} {status}");
            assert_eq!(then, later, "{kind:?} {status}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_leaves_an_account_without_a_login_for_good() {
    for kind in BOTH {
        let env = sticky(kind);
        let logins = Arc::new(Logins::default());
        let accounts = env.builder_with(logins.clone()).build().expect("a valid configuration");
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
async fn a_session_with_a_briefly_unavailable_account_gets_the_wait() {
    for kind in BOTH {
        let mut env = sticky(kind);
        env.policy = RoutingPolicy::default().mode(RoutingMode::StickyBalanced);
        let accounts = env.accounts();
        accounts.refresh_quota_for_due_accounts().await;
        let route = accounts.route(Request::new().with_session("s")).await.expect("all are available");
        let throttled = RequestOutcome::from_response(429, [("retry-after", "90")]);
        let _ = accounts.report(&route, throttled).await.expect("a route of this manager");

        let error = accounts.route(Request::new().with_session("s")).await.expect_err("it is out");

        let RouteError::SessionAccountUnavailable { account, retry_after, .. } = error else {
            panic!("{kind:?} {error:?}")
        };
        assert_eq!((&account, retry_after), (route.account(), Duration::from_secs(90)), "{kind:?}");
        env.clock.sleep(retry_after).await;
        assert_eq!(&routed(&accounts).await, route.account(), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sticky_session_waits_only_without_or_for_excluding_readings() {
    for kind in BOTH {
        let mut env = sticky(kind);
        env.config = AccountsConfig::new(id("main"));
        let accounts = env.accounts();

        let own = routed(&accounts).await;
        assert_eq!(
            (env.provider.calls(), used(&accounts, "main")),
            (1, Some(40.0)),
            "{kind:?}: the request waited"
        );
        minutes(&env.clock, 6).await;
        env.provider.then_hang();
        let before = env.clock.now();
        assert_eq!((routed(&accounts).await, env.clock.now()), (own.clone(), before), "{kind:?}: it did not");
        accounts.flush().await.expect("the file can be written");

        env.provider.then_answer(UsageReport::polled([env.five_hour(100.0)]));
        minutes(&env.clock, 20).await;
        accounts.refresh_quota_for_due_accounts().await;
        minutes(&env.clock, 6).await;
        env.set_usage(10.0);
        assert_eq!((routed(&accounts).await, used(&accounts, "main")), (own, Some(10.0)), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_replacement_takes_over_sessions() {
    for kind in BOTH {
        let env = sticky(kind);
        let accounts = env.accounts();
        accounts.refresh_quota_for_due_accounts().await;
        let next = env.accounts();
        next.load().await.expect("a valid state file");
        // A session that the file does not have yet, and that an empty router would put elsewhere.
        let own = routed(&accounts).await;
        let throttled = RequestOutcome::from_response(429, [("retry-after", "60")]);
        let route = accounts.route(Request::new().with_session("s")).await.expect("all are available");
        let _ = accounts.report(&route, throttled).await.expect("a route of this manager");

        next.take_over(&accounts);

        assert_ne!(routed(&next).await, own, "{kind:?}: blocked");
        minutes(&env.clock, 61).await;
        assert_eq!(routed(&next).await, own, "{kind:?}");
    }
}
