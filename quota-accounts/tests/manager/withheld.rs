//! Accounts whose owner is unknown.

use quota_accounts::{Reason, Request, RouteError, RoutingPolicy, UnknownUsage};
use quota_core::CredentialError;
use quota_core::model::LoginInfo;

use crate::logins::{next, stop_at};
use crate::support::*;

const NAMES: [&str; 3] = ["main", "b", "c"];

/// Makes the owners of all logins unknown, as while a keychain is locked.
fn lock(env: &Env) {
    let locked = || CredentialError::unreadable("the keychain is locked", std::io::Error::other("locked"));
    NAMES.iter().for_each(|name| env.provider.set_login(&id(name), Err(locked())));
}

fn unlock(env: &Env) {
    NAMES.iter().for_each(|name| env.provider.set_login(&id(name), Ok(LoginInfo::unknown())));
}

fn rules(error: &RouteError) -> Vec<Reason> {
    let RouteError::NoAccountAvailable { skipped, .. } = error else { panic!("{error:?}") };
    skipped.iter().map(|skipped| skipped.reason).collect()
}

#[tokio::test(start_paused = true)]
async fn the_killswitch_counts_while_the_owner_is_unknown() {
    for kind in BOTH {
        let mut env = env(kind);
        env.policy = stop_at(5.0);
        let accounts = env.accounts();
        env.set_usage(97.0);
        accounts.refresh_quota_for_due_accounts().await;
        minutes(&env.clock, 6).await;
        lock(&env);

        let error = accounts.route(Request::new()).await.expect_err("all are killed");

        assert_eq!(rules(&error), [Reason::BelowKillswitch; 3], "{kind:?}");
        assert_eq!(accounts.usable_fallback_accounts().await, [], "{kind:?}");
        assert_eq!(used(&accounts, "main"), None, "{kind:?}: the readings are not shown");

        unlock(&env);
        env.set_usage(10.0);
        // The credential was checked a moment ago.
        env.clock.sleep(std::time::Duration::from_secs(1)).await;
        assert_eq!((next(&accounts).await, used(&accounts, "main")), (id("main"), Some(10.0)), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn exhaustion_counts_while_the_owner_is_unknown() {
    for kind in BOTH {
        let env = env(kind);
        let accounts = env.accounts();
        env.set_usage(100.0);
        accounts.refresh_quota_for_due_accounts().await;
        minutes(&env.clock, 6).await;
        lock(&env);

        let error = accounts.route(Request::new()).await.expect_err("all accounts are exhausted");

        assert_eq!(rules(&error), [Reason::Exhausted; 3], "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_owners_are_excluded_if_the_policy_denies_unknown_usage() {
    for kind in BOTH {
        let mut env = env(kind);
        env.policy = RoutingPolicy::default().when_unknown(UnknownUsage::Deny);
        let accounts = env.accounts();
        env.set_usage(40.0);
        accounts.refresh_quota_for_due_accounts().await;
        minutes(&env.clock, 6).await;
        lock(&env);
        accounts.refresh_quota_for_due_accounts().await;

        let error = accounts.route(Request::new()).await.expect_err("no account has readings");

        assert_eq!(rules(&error), [Reason::OwnerUnknown; 3], "{kind:?}");
    }
}
