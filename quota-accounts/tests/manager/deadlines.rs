//! A request waits for refreshes only until its timeout. The refreshes continue, and accounts that cannot be refreshed cost no wait.

use std::time::Duration;

use quota_accounts::{Request, UnknownUsage};
use quota_core::policy::Budget;

use crate::support::*;

/// The default timeout of a request's refreshes.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Accounts without readings, whose provider takes eight seconds for each call.
fn slow(kind: Kind, unknown: UnknownUsage) -> Env {
    let mut env = env(kind);
    env.provider = env.provider.with_delay(Duration::from_secs(8));
    env.policy.when_unknown = unknown;
    env
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_all_refreshes_together_at_most_for_the_timeout() {
    for kind in BOTH {
        let env = slow(kind, UnknownUsage::Deny);
        let (accounts, before) = (env.accounts(), env.clock.now());

        let error = accounts.route(Request::new()).await.expect_err("no account has readings");

        assert_eq!(env.clock.now(), before + TIMEOUT, "{kind:?}");
        assert_eq!(error.retry_after(), Some(Duration::from_secs(2)), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_the_timeout_the_request_is_served_by_what_is_known() {
    for kind in BOTH {
        let env = slow(kind, UnknownUsage::Allow);
        let (accounts, before) = (env.accounts(), env.clock.now());

        let route = accounts.route(Request::new()).await.expect("unknown usage is allowed");

        assert_eq!((route.account(), env.clock.now()), (&id("main"), before + TIMEOUT), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_outlives_its_request_is_saved() {
    for kind in BOTH {
        let env = slow(kind, UnknownUsage::Allow);
        let accounts = env.accounts();
        let _ = accounts.route(Request::new()).await.expect("unknown usage is allowed");
        env.clock.sleep(Duration::from_secs(4)).await;
        accounts.flush().await.expect("the file can be written");

        let restarted = env.restarted();
        let again = restarted.accounts();
        again.load().await.expect("the file can be read");

        let used = again.explain(&Request::new()).accounts()[0].windows.len();
        assert_eq!(used, 1, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn accounts_that_cannot_be_refreshed_do_not_use_up_the_refreshes_of_a_request() {
    let mut env = env(Kind::With);
    env.usage_policy = env.usage_policy.clone().budget(Budget::new(1, 0));
    env.policy.when_unknown = UnknownUsage::Deny;
    env.refresh_every(0);
    for name in ["d", "e", "f"] {
        env.config = env.config.clone().fallback(id(name));
    }
    env.set_usage(100.0);
    let exhausted = ["main", "b", "c", "d", "e"].map(|name| env.quota.account(&id(name)));
    for account in &exhausted {
        drop(account.get().await);
    }
    env.clock.sleep(Duration::from_secs(360)).await;
    for account in &exhausted {
        drop(account.get().await);
    }
    env.set_usage(10.0);

    let route = env.accounts().route(Request::new()).await.expect("one account has quota left");

    assert_eq!(route.account(), &id("f"));
}
