//! Two accounts with one login are one candidate, and two logins under one name share nothing.

use std::sync::Arc;

use quota_accounts::{
    AccountConfig, AccountLimits, AccountsConfig, FallbackAccountManager, Idempotency, Limits, Reason,
    Request, RequestOutcome, RoutingMode,
};

use crate::logins::{Logins, next};
use crate::support::*;

/// A router for `main`, `again` and `other`. The first two hold one login.
pub(crate) fn router(env: &mut Env) -> (Arc<Logins>, FallbackAccountManager) {
    env.config = AccountsConfig::new(id("main")).fallback(id("again")).fallback(id("other"));
    let logins = Arc::new(Logins::default());
    logins.set("main", Some(1), "one");
    logins.set("again", Some(1), "one");
    logins.set("other", Some(3), "two");
    let accounts = env.builder_with(logins.clone()).response_parser(ExampleParser).build();
    (logins, accounts.expect("a valid configuration"))
}

fn reasons(accounts: &FallbackAccountManager) -> Vec<(Reason, Option<String>)> {
    let decision = accounts.explain(&Request::new());
    let of = |account: &quota_accounts::routing::Evaluated| {
        (account.reason, account.same_login_as.as_ref().map(ToString::to_string))
    };
    decision.accounts().iter().map(of).collect()
}

/// Reports that the login of `main` is exhausted, a minute after the last readings.
async fn exhaust_main(env: &Env, accounts: &FallbackAccountManager) {
    minutes(&env.clock, 1).await;
    let route = accounts.route(Request::new()).await.expect("an account is available");
    assert_eq!(route.account(), &id("main"), "{:?}", env.kind);
    let _ = accounts.report(&route, RequestOutcome::from_response(200, [("x-ratelimit-used", "100")])).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_never_goes_from_an_exhausted_login_to_itself() {
    for kind in BOTH {
        let mut env = env(kind);
        let (_logins, accounts) = router(&mut env);
        accounts.refresh_quota_for_due_accounts().await;
        exhaust_main(&env, &accounts).await;

        let route = accounts.route(Request::new()).await.expect("another login is available");

        let skipped: Vec<_> = route.skipped().iter().map(|account| account.reason).collect();
        assert_eq!((route.account(), skipped), (&id("other"), vec![Reason::Exhausted, Reason::SameLogin]));
        let main = Some("example/main".to_owned());
        let expected = [(Reason::Exhausted, None), (Reason::SameLogin, main), (Reason::Available, None)];
        assert_eq!(reasons(&accounts), expected, "{kind:?}");
        assert_eq!(env.provider.calls(), 2, "{kind:?}: one for each login");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_logged_out_leaves_its_login_to_the_next() {
    for kind in BOTH {
        let mut env = env(kind);
        let (logins, accounts) = router(&mut env);
        accounts.refresh_quota_for_due_accounts().await;

        logins.set("main", None, "one");

        assert_eq!(next(&accounts).await, id("again"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_logged_out_name_below_its_killswitch_protects_its_login() {
    for kind in BOTH {
        let mut env = env(kind);
        let (logins, _) = router(&mut env);
        let stop = AccountLimits::none().killswitch(Limits::of(percent(20.0)));
        env.config.upsert(AccountConfig::new(id("main")).limits(stop));
        env.set_usage(90.0);
        let accounts = env.builder_with(logins.clone()).build().expect("a valid configuration");
        accounts.refresh_quota_for_due_accounts().await;
        logins.set("main", None, "one");

        assert_eq!(next(&accounts).await, id("other"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_on_another_account_is_one_with_another_login() {
    for kind in BOTH {
        let mut env = env(kind);
        env.policy = env.policy.clone().fallback_on([529]);
        let (_logins, accounts) = router(&mut env);
        accounts.refresh_quota_for_due_accounts().await;
        let mut tried = Vec::new();

        let sent = accounts.send_with_retry(Request::new(), Idempotency::Idempotent, |route| {
            tried.push(route.account().name().to_owned());
            async { ((), RequestOutcome::from_response(529, [("a", "b")])) }
        });
        let _ = sent.await.expect("an account is available");

        assert_eq!(tried, ["main", "other"], "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_gets_another_login_becomes_a_fallback() {
    for kind in BOTH {
        let mut env = env(kind);
        let (logins, accounts) = router(&mut env);
        accounts.refresh_quota_for_due_accounts().await;
        exhaust_main(&env, &accounts).await;
        logins.set("again", Some(4), "three");
        minutes(&env.clock, 1).await;

        // The login is checked in the background.
        let _ = accounts.route(Request::new()).await.expect("another login is available");
        env.clock.sleep(std::time::Duration::from_millis(1)).await;

        assert_eq!(next(&accounts).await, id("again"), "{kind:?} {:?}", reasons(&accounts));
    }
}

#[tokio::test(start_paused = true)]
async fn sessions_are_spread_over_logins_not_over_names() {
    for kind in BOTH {
        let mut env = env(kind);
        env.policy = env.policy.clone().mode(RoutingMode::StickyBalanced);
        let (_logins, accounts) = router(&mut env);
        accounts.refresh_quota_for_due_accounts().await;
        let mut used = std::collections::BTreeSet::new();
        for session in 0..50 {
            let request = Request::new().with_session(&session.to_string());
            used.insert(accounts.route(request).await.expect("an account is available").account().clone());
        }

        assert_eq!(used.into_iter().collect::<Vec<_>>(), [id("main"), id("other")], "{kind:?}");
    }
}

fn exhausted() -> RequestOutcome {
    RequestOutcome::from_response(429, [("x-ratelimit-exhausted", "account")])
}

#[tokio::test(start_paused = true)]
async fn a_block_counts_under_every_name_of_its_login() {
    for kind in BOTH {
        let mut env = env(kind);
        let (logins, accounts) = router(&mut env);
        accounts.refresh_quota_for_due_accounts().await;
        logins.set("main", None, "one");
        let route = accounts.route(Request::new()).await.expect("the second name is logged in");
        assert_eq!(route.account(), &id("again"), "{kind:?}");
        let _ = accounts.report(&route, exhausted()).await;

        logins.set("main", Some(1), "one");
        minutes(&env.clock, 1).await;

        assert_eq!(next(&accounts).await, id("other"), "{kind:?} {:?}", reasons(&accounts));
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_does_not_count_under_a_name_that_has_left_the_login() {
    for kind in BOTH {
        let mut env = env(kind);
        let (logins, accounts) = router(&mut env);
        accounts.refresh_quota_for_due_accounts().await;
        let route = accounts.route(Request::new()).await.expect("main is available");
        let _ = accounts.report(&route, exhausted()).await;

        logins.set("main", Some(4), "three");
        minutes(&env.clock, 1).await;

        assert_eq!(next(&accounts).await, id("main"), "{kind:?} {:?}", reasons(&accounts));
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_not_tried_under_another_name() {
    for kind in BOTH {
        for (second_token, expected) in [(1, "other"), (2, "again")] {
            let mut env = env(kind);
            let (logins, accounts) = router(&mut env);
            logins.set("again", Some(second_token), "one");
            accounts.refresh_quota_for_due_accounts().await;
            let route = accounts.route(Request::new()).await.expect("main is available");
            let _ = accounts.report(&route, crate::logins::unauthorized()).await;

            assert_eq!(next(&accounts).await, id(expected), "{kind:?} {:?}", reasons(&accounts));
        }
    }
}

/// A request that takes most of the window.
fn most() -> Request {
    Request::new().with_estimate(quota_core::WindowId::five_hour(), percent(40.0))
}

#[tokio::test(start_paused = true)]
async fn a_reservation_counts_under_every_name_of_its_login() {
    for kind in BOTH {
        let mut env = env(kind);
        let (logins, accounts) = router(&mut env);
        accounts.refresh_quota_for_due_accounts().await;
        let first = accounts.route(most()).await.expect("main is available");

        logins.set("main", None, "one");
        let second = accounts.route(most()).await.expect("another login is available");

        assert_eq!((first.account(), second.account()), (&id("main"), &id("other")), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reservation_belongs_to_its_login_after_a_switch() {
    for kind in BOTH {
        let mut env = env(kind);
        let (logins, accounts) = router(&mut env);
        accounts.refresh_quota_for_due_accounts().await;
        let first = accounts.route(most()).await.expect("main is available");

        logins.set("main", Some(4), "three");
        minutes(&env.clock, 1).await;
        // The quota manager notices the other login after this read.
        let _ = accounts.route(Request::new()).await;
        let second = accounts.route(most()).await.expect("main is available");
        assert_eq!(second.account(), &id("main"), "{kind:?}: nothing of its new login is reserved");

        logins.set("main", Some(1), "one");
        minutes(&env.clock, 1).await;
        let _ = accounts.route(Request::new()).await;
        assert_eq!(accounts.route(most()).await.expect("one is left").account(), &id("other"), "{kind:?}");
        let _ = accounts.report(&first, RequestOutcome::from_response(200, [("a", "b")])).await;
        assert_eq!(accounts.route(most()).await.expect("one is left").account(), &id("main"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn hosts_share_the_reservations_of_a_login_and_release_them_after_a_switch() {
    let store: Arc<dyn quota_core::QuotaStore> = Arc::new(quota_core::MemoryStore::new());
    let host = || {
        let mut env = env(Kind::With);
        env.config = AccountsConfig::new(id("main")).fallback(id("other"));
        let logins = Arc::new(Logins::default());
        logins.set("main", Some(1), "one");
        let accounts = env.builder_with(logins.clone()).reservations(Arc::clone(&store)).build();
        (env, logins, accounts.expect("a valid configuration"))
    };
    let ((env, logins, one), (_env, _logins, other)) = (host(), host());
    let first = one.route(most()).await.expect("main is available");
    assert_eq!(other.route(most()).await.expect("the fallback is available").account(), &id("other"));

    logins.set("main", Some(4), "three");
    minutes(&env.clock, 1).await;
    let _ = one.route(Request::new()).await;
    let _ = one.report(&first, RequestOutcome::from_response(200, [("a", "b")])).await;
    one.flush().await.expect("the file can be written");

    assert_eq!(other.route(most()).await.expect("main is available").account(), &id("main"));
}

fn forbidden() -> RequestOutcome {
    RequestOutcome::from_response(403, [("a", "b")])
}

#[tokio::test(start_paused = true)]
async fn a_forbidden_token_is_listed_under_no_name() {
    for kind in BOTH {
        for (second_token, expected) in [(1, "other"), (2, "again")] {
            let mut env = env(kind);
            let (logins, accounts) = router(&mut env);
            logins.set("again", Some(second_token), "one");
            accounts.refresh_quota_for_due_accounts().await;
            let route = accounts.route(Request::new()).await.expect("main is available");
            let _ = accounts.report(&route, forbidden()).await;

            let listed = accounts.usable_fallback_accounts().await;

            assert_eq!(listed.first(), Some(&id(expected)), "{kind:?} {:?}", reasons(&accounts));
            assert_eq!(next(&accounts).await, id(expected), "{kind:?}");
            let decision = accounts.decide(&Request::new()).await;
            assert_eq!(decision.chosen().expect("one is left").account, id(expected), "{kind:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_explanation_of_a_route_refuses_a_forbidden_token_too() {
    for kind in BOTH {
        let mut env = env(kind);
        let (logins, accounts) = router(&mut env);
        logins.set("other", None, "two");
        accounts.refresh_quota_for_due_accounts().await;
        let route = accounts.route(Request::new()).await.expect("main is available");
        let _ = accounts.report(&route, forbidden()).await;

        let routed = accounts.route(Request::new()).await;

        let decision = accounts.explain_route(&Request::new(), routed.as_ref());
        let found: Vec<_> = decision.accounts().iter().map(|account| account.reason).collect();
        assert_eq!(found, [Reason::Forbidden, Reason::Forbidden, Reason::LoginRejected], "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_logged_out_name_with_unknown_usage_leaves_its_login_to_the_next() {
    for kind in BOTH {
        let mut env = env(kind);
        env.policy = env.policy.clone().when_unknown(quota_accounts::UnknownUsage::Deny);
        let (logins, accounts) = router(&mut env);
        accounts.refresh_quota_for_due_accounts().await;
        // The readings expire.
        minutes(&env.clock, 60 * 24).await;
        logins.set("main", None, "one");
        logins.set("other", None, "two");

        assert_eq!(next(&accounts).await, id("again"), "{kind:?} {:?}", reasons(&accounts));
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_after_a_logged_out_main_account_is_listed() {
    for kind in BOTH {
        let mut env = env(kind);
        let (logins, accounts) = router(&mut env);
        accounts.refresh_quota_for_due_accounts().await;
        logins.set("main", None, "one");

        let listed = accounts.usable_fallback_accounts().await;

        assert_eq!(listed, [id("again"), id("other")], "{kind:?}");
        assert_eq!(next(&accounts).await, id("again"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_stays_with_its_login_under_another_name() {
    for kind in BOTH {
        let mut env = env(kind);
        env.policy = env.policy.clone().mode(RoutingMode::StickyBalanced);
        let (logins, accounts) = router(&mut env);
        accounts.refresh_quota_for_due_accounts().await;
        let request = |session: u32| Request::new().with_session(&session.to_string());
        for (name, token) in [("main", None), ("other", None)] {
            logins.set(name, token, if name == "main" { "one" } else { "two" });
        }
        for session in 0..20 {
            let route = accounts.route(request(session)).await.expect("the second name is logged in");
            assert_eq!(route.account(), &id("again"), "{kind:?}");
        }

        logins.set("main", Some(1), "one");
        logins.set("other", Some(3), "two");
        minutes(&env.clock, 1).await;

        for session in 0..20 {
            let route = accounts.route(request(session)).await.expect("an account is available");
            assert_ne!(route.account(), &id("other"), "{kind:?} {session}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_counts_after_its_name_has_left_the_login() {
    for kind in BOTH {
        let mut env = env(kind);
        let (logins, accounts) = router(&mut env);
        accounts.refresh_quota_for_due_accounts().await;
        let route = accounts.route(Request::new()).await.expect("main is available");
        let _ = accounts.report(&route, exhausted()).await;

        logins.set("main", None, "three");
        logins.set("other", None, "two");
        minutes(&env.clock, 1).await;
        logins.set("main", Some(4), "three");
        minutes(&env.clock, 1).await;
        let _ = accounts.route(Request::new()).await;
        logins.set("main", None, "three");

        let routed = accounts.route(Request::new()).await;

        assert!(routed.is_err(), "{kind:?} {routed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reservation_counts_after_its_name_has_left_the_login() {
    for kind in BOTH {
        let mut env = env(kind);
        let (logins, accounts) = router(&mut env);
        accounts.refresh_quota_for_due_accounts().await;
        let first = accounts.route(most()).await.expect("main is available");

        logins.set("main", Some(4), "three");
        minutes(&env.clock, 1).await;
        let _ = accounts.route(Request::new()).await;
        logins.set("main", None, "three");
        let second = accounts.route(most()).await.expect("another login is available");

        assert_eq!((first.account(), second.account()), (&id("main"), &id("other")), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_success_clears_the_rejections_of_the_login_that_served() {
    for kind in BOTH {
        let mut env = env(kind);
        env.config = AccountsConfig::new(id("main"));
        let logins = Arc::new(Logins::default());
        logins.set("main", Some(1), "one");
        let accounts =
            env.builder_with(logins.clone()).response_parser(ExampleParser).build().expect("valid");
        accounts.refresh_quota_for_due_accounts().await;
        let served = accounts.route(Request::new()).await.expect("main is available");
        logins.set("main", Some(4), "three");
        minutes(&env.clock, 1).await;
        let _ = accounts.route(Request::new()).await;
        let rejected = accounts.route(Request::new()).await.expect("main is available");
        let _ = accounts.report(&rejected, forbidden()).await;

        let _ = accounts.report(&served, RequestOutcome::from_response(200, [("a", "b")])).await;

        assert_eq!(reasons(&accounts), [(Reason::Forbidden, None)], "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_switch_back_does_not_restore_a_cleared_block() {
    for kind in BOTH {
        let mut first = env(kind);
        let (logins, accounts) = router(&mut first);
        accounts.refresh_quota_for_due_accounts().await;
        let route = accounts.route(Request::new()).await.expect("main is available");
        let _ = accounts.report(&route, crate::logins::unauthorized()).await;
        accounts.flush().await.expect("the file can be written");
        let env = first.restarted();
        let accounts =
            env.builder_with(logins.clone()).response_parser(ExampleParser).build().expect("valid");
        logins.set("main", Some(4), "three");
        logins.set("again", Some(4), "three");
        let hold = async |token, login| {
            logins.set("main", Some(token), login);
            minutes(&env.clock, 1).await;
            // The quota manager notices the login after the first request.
            let _ = accounts.route(Request::new()).await;
            env.clock.sleep(std::time::Duration::from_millis(1)).await;
            next(&accounts).await
        };
        assert_eq!(hold(4, "three").await, id("main"), "{kind:?}");
        // Another token ends the block of the file.
        assert_eq!(hold(2, "one").await, id("main"), "{kind:?}");
        assert_eq!(hold(4, "three").await, id("main"), "{kind:?}");

        assert_eq!(hold(1, "one").await, id("main"), "{kind:?} {:?}", reasons(&accounts));
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_login_below_its_minimum_is_not_used_before_another_account() {
    for kind in BOTH {
        let mut env = env(kind);
        env.policy = env.policy.clone().min_remaining(Limits::of(percent(20.0)));
        let (logins, accounts) = router(&mut env);
        accounts.refresh_quota_for_due_accounts().await;
        logins.set("main", Some(4), "three");
        logins.set("again", None, "one");
        env.set_usage(95.0);

        assert_eq!(next(&accounts).await, id("other"), "{kind:?} {:?}", reasons(&accounts));
    }
}

#[tokio::test(start_paused = true)]
async fn a_reservation_belongs_to_the_login_that_serves() {
    for kind in BOTH {
        let mut env = env(kind);
        let (logins, accounts) = router(&mut env);
        accounts.refresh_quota_for_due_accounts().await;
        logins.set("main", Some(4), "three");
        let first = accounts.route(most()).await.expect("main is available");
        let second = accounts.route(most()).await.expect("the old login is available");
        assert_eq!((first.account(), second.account()), (&id("main"), &id("again")), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_a_usage_call_rejects_excludes_only_its_own_name() {
    for kind in BOTH {
        let mut env = env(kind);
        let (logins, accounts) = router(&mut env);
        logins.set("again", Some(2), "one");
        accounts.refresh_quota_for_due_accounts().await;
        minutes(&env.clock, 30).await;
        env.provider.then_fail(quota_core::FetchError::Unauthorized);
        let _ = accounts.route(Request::new()).await.expect("main is available");
        env.clock.sleep(std::time::Duration::from_millis(1)).await;

        assert_eq!(next(&accounts).await, id("again"), "{kind:?} {:?}", reasons(&accounts));
    }
}
