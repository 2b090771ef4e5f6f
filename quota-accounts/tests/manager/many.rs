//! More accounts of unknown usage than one request waits for.

use std::time::Duration;

use quota_accounts::{AccountsConfig, FallbackAccountManager, Request, RoutingPolicy, UnknownUsage};
use quota_core::{
    AccountId, CredentialError, FetchError, MemoryStore, QuotaError, QuotaManager, UsageReport,
};

use crate::logins::next;
use crate::support::*;

/// The wait after which more accounts have readings.
const SOON: Option<Duration> = Some(Duration::from_secs(2));

/// Ten accounts, none of which serves while its usage is unknown.
fn ten(kind: Kind) -> Env {
    many(kind, 10)
}

fn many(kind: Kind, count: usize) -> Env {
    let mut env = env(kind);
    env.policy = RoutingPolicy::default().when_unknown(UnknownUsage::Deny);
    let config = AccountsConfig::new(id("0"));
    env.config = (1..count).fold(config, |config, name| config.fallback(id(&name.to_string())));
    env
}

/// The first `count` refreshed accounts are exhausted.
fn exhaust_all_but_the_last(env: &Env, count: usize) {
    for _ in 0..count {
        env.provider.then_answer(UsageReport::polled([env.five_hour(100.0)]));
    }
    env.set_usage(10.0);
}

fn out_of_service(env: &Env, calls: usize) {
    for _ in 0..calls {
        env.provider.then_fail(FetchError::unavailable("out of service"));
    }
}

async fn wait_after_rejection(accounts: &FallbackAccountManager) -> Option<Duration> {
    accounts.route(Request::new()).await.expect_err("the refreshed accounts are exhausted").retry_after()
}

#[tokio::test(start_paused = true)]
async fn an_unrefreshed_account_has_readings_at_the_next_attempt() {
    for kind in BOTH {
        let env = ten(kind);
        let accounts = env.accounts();
        exhaust_all_but_the_last(&env, 9);

        assert_eq!(wait_after_rejection(&accounts).await, SOON, "{kind:?}: not until the resets");
        accounts.flush().await.expect("the file can be written");

        assert_eq!(next(&accounts).await, id("9"), "{kind:?}");
        assert_eq!(env.provider.calls(), 10, "{kind:?}: each was refreshed once");
    }
}

#[tokio::test(start_paused = true)]
async fn failed_refreshes_do_not_hide_later_accounts() {
    for kind in BOTH {
        let env = ten(kind);
        let accounts = env.accounts();
        for name in 0..9 {
            env.provider.set_login(&id(&name.to_string()), Err(CredentialError::timed_out("too slow")));
        }

        assert_eq!(wait_after_rejection(&accounts).await, SOON, "{kind:?}");
        accounts.flush().await.expect("the file can be written");

        assert_eq!(next(&accounts).await, id("9"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn decide_agrees_with_route_about_many_accounts() {
    for kind in BOTH {
        let env = ten(kind);
        let accounts = env.accounts();
        exhaust_all_but_the_last(&env, 9);

        let decided = accounts.decide(&Request::new()).await.retry_after();

        assert_eq!(decided, SOON, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn once_all_accounts_are_exhausted_the_error_has_the_reset() {
    for kind in BOTH {
        let env = ten(kind);
        let accounts = env.accounts();
        env.set_usage(100.0);

        assert_eq!(wait_after_rejection(&accounts).await, SOON, "{kind:?}");
        accounts.flush().await.expect("the file can be written");

        let wait = wait_after_rejection(&accounts).await;
        assert!(wait > Some(Duration::from_secs(3600)), "{kind:?} {wait:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn concurrent_rejected_requests_refresh_each_account_once() {
    for kind in BOTH {
        let env = ten(kind);
        let accounts = env.accounts();
        env.set_usage(100.0);

        let mut requests = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let accounts = accounts.clone();
            requests.spawn(async move { accounts.route(Request::new()).await.is_err() });
        }
        assert!(requests.join_all().await.iter().all(|is_rejected| *is_rejected), "{kind:?}");
        accounts.flush().await.expect("the file can be written");

        assert_eq!(env.provider.calls(), 10, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_accounts_are_refreshed_until_one_can_serve() {
    for kind in BOTH {
        let env = ten(kind);
        let accounts = env.accounts();
        exhaust_all_but_the_last(&env, 6);

        assert_eq!(accounts.refresh_until_usable(&Request::new()).await, 7, "{kind:?}");
        assert_eq!(env.provider.calls(), 7, "{kind:?}");
        assert_eq!(accounts.refresh_until_usable(&Request::new()).await, 0, "{kind:?}: one can serve");
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_accounts_are_refreshed_once_each_if_none_can_serve() {
    for kind in BOTH {
        let env = many(kind, 1_000);
        let accounts = env.accounts();
        out_of_service(&env, 1_000);

        assert_eq!(accounts.refresh_until_usable(&Request::new()).await, 1_000, "{kind:?}");
        assert_eq!(accounts.refresh_until_usable(&Request::new()).await, 0, "{kind:?}");
        assert_eq!(env.provider.calls(), 1_000, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hanging_refresh_does_not_delay_the_next_account() {
    for kind in BOTH {
        let env = ten(kind);
        let accounts = env.accounts();
        exhaust_all_but_the_last(&env, 1);
        env.provider.then_hang();

        assert_eq!(accounts.refresh_until_usable(&Request::new()).await, 2, "{kind:?}: 0 and 2");
        assert_eq!(next(&accounts).await, id("2"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_account_is_refreshed_once_no_time_is_left_for_a_call() {
    let mut env = many(Kind::With, 200);
    out_of_service(&env, 200);
    let store = MemoryStore::with_clock(env.clock.clone());
    let builder = QuotaManager::builder(store).fetcher(env.provider.clone()).clock(env.clock.clone());
    env.quota = builder.deadline(Duration::from_secs(30)).build().expect("a valid policy");
    let accounts = env.accounts();

    let refreshed = accounts.refresh_until_usable(&Request::new()).await;
    accounts.route(Request::new()).await.expect_err("no account has readings");
    accounts.flush().await.expect("the file can be written");

    assert_eq!(env.provider.calls(), refreshed);
    let is_in_vain = |account: &&AccountId| {
        let usage = env.quota.account(account).peek();
        matches!(usage.error(), Some(QuotaError::DeadlineExceeded { .. }))
    };
    let in_vain = accounts.accounts().filter(is_in_vain).count();
    assert!((1..10).contains(&in_vain), "{in_vain}");
}
