//! Accounts of which it cannot be told whose they are.

use quota_accounts::{Reason, Request, RouteError, RoutingPolicy, UnknownUsage};
use quota_core::CredentialError;
use quota_core::model::LoginInfo;

use crate::logins::{next, stop_at};
use crate::support::*;

const NAMES: [&str; 3] = ["main", "b", "c"];

/// From now on the owners of the logins are unknown, such as while a keychain is locked.
fn lock(world: &World) {
    let locked = || CredentialError::unreadable("the keychain is locked", std::io::Error::other("locked"));
    NAMES.iter().for_each(|name| world.provider.set_login(&id(name), Err(locked())));
}

fn unlock(world: &World) {
    NAMES.iter().for_each(|name| world.provider.set_login(&id(name), Ok(LoginInfo::unknown())));
}

fn rules(error: &RouteError) -> Vec<Reason> {
    let RouteError::NoAccountAvailable { skipped, .. } = error else { panic!("{error:?}") };
    skipped.iter().map(|skipped| skipped.reason).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_killed_stays_killed_while_it_cannot_be_told_whose_it_is() {
    for kind in BOTH {
        let mut world = world(kind);
        world.policy = stop_at(5.0);
        let accounts = world.accounts();
        world.answers(97.0);
        accounts.refresh_quota_for_due_accounts().await;
        minutes(&world.clock, 6).await;
        lock(&world);

        let error = accounts.route(Request::new()).await.expect_err("all are killed");

        assert_eq!(rules(&error), [Reason::BelowKillswitch; 3], "{kind:?}");
        assert_eq!(accounts.usable_fallback_accounts().await, [], "{kind:?}");
        assert_eq!(used(&accounts, "main"), None, "{kind:?}: the numbers are withheld");

        unlock(&world);
        world.answers(10.0);
        assert_eq!((next(&accounts).await, used(&accounts, "main")), (id("main"), Some(10.0)), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_exhausted_stays_so_while_it_cannot_be_told_whose_it_is() {
    for kind in BOTH {
        let world = world(kind);
        let accounts = world.accounts();
        world.answers(100.0);
        accounts.refresh_quota_for_due_accounts().await;
        minutes(&world.clock, 6).await;
        lock(&world);

        let error = accounts.route(Request::new()).await.expect_err("all are spent");

        assert_eq!(rules(&error), [Reason::Exhausted; 3], "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn accounts_of_unknown_owners_are_denied_where_the_policy_says_so() {
    for kind in BOTH {
        let mut world = world(kind);
        world.policy = RoutingPolicy::default().when_unknown(UnknownUsage::Deny);
        let accounts = world.accounts();
        world.answers(40.0);
        accounts.refresh_quota_for_due_accounts().await;
        minutes(&world.clock, 6).await;
        lock(&world);
        accounts.refresh_quota_for_due_accounts().await;

        let error = accounts.route(Request::new()).await.expect_err("nothing is known of any");

        assert_eq!(rules(&error), [Reason::OwnerUnknown; 3], "{kind:?}");
    }
}
