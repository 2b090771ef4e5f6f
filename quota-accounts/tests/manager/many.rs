//! More accounts of which nothing is known than one request waits for.

use std::time::Duration;

use quota_accounts::{AccountsConfig, FallbackAccountManager, Request, RoutingPolicy, UnknownUsage};
use quota_core::{
    AccountId, CredentialError, FetchError, MemoryStore, QuotaError, QuotaManager, UsageReport,
};

use crate::logins::next;
use crate::support::*;

/// The time after which a request finds more known.
const SOON: Option<Duration> = Some(Duration::from_secs(2));

/// Ten accounts, none of which serves while its usage is unknown.
fn ten(kind: Kind) -> World {
    many(kind, 10)
}

fn many(kind: Kind, count: usize) -> World {
    let mut world = world(kind);
    world.policy = RoutingPolicy::default().when_unknown(UnknownUsage::Deny);
    let config = AccountsConfig::new(id("0"));
    world.config = (1..count).fold(config, |config, name| config.fallback(id(&name.to_string())));
    world
}

/// Those that are asked about first are spent.
fn spent_but_for_the_last(world: &World, spent: usize) {
    for _ in 0..spent {
        world.provider.then_answer(UsageReport::polled([world.five_hour(100.0)]));
    }
    world.answers(10.0);
}

fn out_of_service(world: &World, calls: usize) {
    for _ in 0..calls {
        world.provider.then_fail(FetchError::unavailable("it is out of service"));
    }
}

async fn refused(accounts: &FallbackAccountManager) -> Option<Duration> {
    accounts.route(Request::new()).await.expect_err("those that were asked about are spent").retry_after()
}

#[tokio::test(start_paused = true)]
async fn an_account_that_was_not_asked_about_is_known_when_the_request_comes_back() {
    for kind in BOTH {
        let world = ten(kind);
        let accounts = world.accounts();
        spent_but_for_the_last(&world, 9);

        assert_eq!(refused(&accounts).await, SOON, "{kind:?}: not for as long as those windows say");
        accounts.flush().await.expect("the disk is in order");

        assert_eq!(next(&accounts).await, id("9"), "{kind:?}");
        assert_eq!(world.provider.calls(), 10, "{kind:?}: each was asked about once");
    }
}

#[tokio::test(start_paused = true)]
async fn accounts_that_cannot_be_told_of_do_not_hide_those_behind_them() {
    for kind in BOTH {
        let world = ten(kind);
        let accounts = world.accounts();
        for name in 0..9 {
            world.provider.set_login(&id(&name.to_string()), Err(CredentialError::timed_out("too slow")));
        }

        assert_eq!(refused(&accounts).await, SOON, "{kind:?}");
        accounts.flush().await.expect("the disk is in order");

        assert_eq!(next(&accounts).await, id("9"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_decision_on_many_accounts_says_what_a_route_would() {
    for kind in BOTH {
        let world = ten(kind);
        let accounts = world.accounts();
        spent_but_for_the_last(&world, 9);

        let decided = accounts.decide(&Request::new()).await.retry_after();

        assert_eq!(decided, SOON, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn once_all_are_known_to_be_spent_a_request_is_told_until_when() {
    for kind in BOTH {
        let world = ten(kind);
        let accounts = world.accounts();
        world.answers(100.0);

        assert_eq!(refused(&accounts).await, SOON, "{kind:?}");
        accounts.flush().await.expect("the disk is in order");

        let wait = refused(&accounts).await;
        assert!(wait > Some(Duration::from_secs(3600)), "{kind:?} {wait:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_requests_that_are_refused_at_once_ask_about_each_account_once() {
    for kind in BOTH {
        let world = ten(kind);
        let accounts = world.accounts();
        world.answers(100.0);

        let mut requests = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let accounts = accounts.clone();
            requests.spawn(async move { accounts.route(Request::new()).await.is_err() });
        }
        assert!(requests.join_all().await.iter().all(|login_rejected| *login_rejected), "{kind:?}");
        accounts.flush().await.expect("the disk is in order");

        assert_eq!(world.provider.calls(), 10, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_accounts_are_refreshed_until_one_can_serve() {
    for kind in BOTH {
        let world = ten(kind);
        let accounts = world.accounts();
        spent_but_for_the_last(&world, 6);

        assert_eq!(accounts.refresh_until_usable(&Request::new()).await, 7, "{kind:?}");
        assert_eq!(world.provider.calls(), 7, "{kind:?}");
        assert_eq!(accounts.refresh_until_usable(&Request::new()).await, 0, "{kind:?}: one can serve");
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_accounts_are_refreshed_once_each_if_none_can_serve() {
    for kind in BOTH {
        let world = many(kind, 1_000);
        let accounts = world.accounts();
        out_of_service(&world, 1_000);

        assert_eq!(accounts.refresh_until_usable(&Request::new()).await, 1_000, "{kind:?}");
        assert_eq!(accounts.refresh_until_usable(&Request::new()).await, 0, "{kind:?}");
        assert_eq!(world.provider.calls(), 1_000, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_hangs_does_not_hold_up_the_next_account() {
    for kind in BOTH {
        let world = ten(kind);
        let accounts = world.accounts();
        spent_but_for_the_last(&world, 1);
        world.provider.then_hang();

        assert_eq!(accounts.refresh_until_usable(&Request::new()).await, 2, "{kind:?}: 0 and 2");
        assert_eq!(next(&accounts).await, id("2"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_further_account_is_tried_once_no_time_is_left_for_a_call() {
    let mut world = many(Kind::With, 200);
    out_of_service(&world, 200);
    let store = MemoryStore::with_clock(world.clock.clone());
    let builder = QuotaManager::builder(store).fetcher(world.provider.clone()).clock(world.clock.clone());
    world.quota = builder.deadline(Duration::from_secs(30)).build().expect("the policy is sound");
    let accounts = world.accounts();

    let refreshed = accounts.refresh_until_usable(&Request::new()).await;
    accounts.route(Request::new()).await.expect_err("nothing is known of any account");
    accounts.flush().await.expect("the disk is in order");

    assert_eq!(world.provider.calls(), refreshed);
    let is_in_vain = |account: &&AccountId| {
        let answer = world.quota.account(account).peek();
        matches!(answer.error(), Some(QuotaError::DeadlineExceeded { .. }))
    };
    let in_vain = accounts.accounts().filter(is_in_vain).count();
    assert!((1..10).contains(&in_vain), "{in_vain}");
}
