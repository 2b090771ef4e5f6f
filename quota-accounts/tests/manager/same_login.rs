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
