//! A clock that was ahead, and has been set back: what it left lasts no longer than it would from now on.

use std::time::Duration;

use jiff::SignedDuration;
use quota_accounts::{Request, RequestOutcome};
use quota_core::{Clock, FetchError};

use crate::logins::next;
use crate::support::*;

/// The clock that is right: the one of the world was ten days ahead.
fn right(world: &World) -> Clock {
    Clock::anchored(world.clock.now() - SignedDuration::from_hours(240))
}

/// A world that was ahead, and whose main account was throttled for ten minutes.
async fn throttled(kind: Kind) -> World {
    let world = world(kind);
    let accounts = world.accounts();
    accounts.refresh_quota_for_due_accounts().await;
    let route = accounts.route(Request::new()).await.expect("all have room");
    let throttled = RequestOutcome::from_response(429, [("retry-after", "600")]);
    let _ = accounts.report(&route, throttled).await.expect("it is our route");
    accounts.flush().await.expect("the disk is in order");
    world
}

#[tokio::test(start_paused = true)]
async fn a_block_of_a_clock_that_was_ahead_lasts_as_long_from_now() {
    for kind in BOTH {
        let world = throttled(kind).await;
        let accounts = world.restarted_at(&right(&world)).accounts();

        assert_eq!(next(&accounts).await, id("b"), "{kind:?}");
        minutes(&world.clock, 9).await;
        assert_eq!(next(&accounts).await, id("b"), "{kind:?}");
        minutes(&world.clock, 2).await;

        assert_eq!(next(&accounts).await, id("main"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_is_brought_back_once_and_not_at_every_start() {
    for kind in BOTH {
        let world = throttled(kind).await;
        let world = world.restarted_at(&right(&world));
        for _ in 0..2 {
            let accounts = world.restarted().accounts();
            accounts.load().await.expect("the file is in order");
            accounts.flush().await.expect("the disk is in order");
            minutes(&world.clock, 6).await;
        }

        assert_eq!(next(&world.restarted().accounts()).await, id("main"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hold_is_brought_back_once_and_not_at_every_start() {
    for kind in BOTH {
        let mut world = world(kind);
        world.config = quota_accounts::AccountsConfig::new(id("main"));
        world.provider.then_fail(FetchError::throttled(Some(Duration::from_secs(1800))));
        let accounts = world.accounts();
        accounts.refresh_quota_for_due_accounts().await;
        accounts.flush().await.expect("the disk is in order");

        let world = world.restarted_at(&right(&world));
        let mut calls = Vec::new();
        for _ in 0..3 {
            let accounts = world.restarted().accounts();
            accounts.refresh_quota_for_due_accounts().await;
            accounts.flush().await.expect("the disk is in order");
            calls.push(world.provider.calls());
            minutes(&world.clock, 16).await;
        }

        assert_eq!(calls, [1, 1, 2], "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn numbers_of_a_clock_that_was_ahead_do_not_hide_true_ones_from_the_next_start() {
    for kind in BOTH {
        let world = throttled(kind).await;
        let world = world.restarted_at(&right(&world));
        let accounts = world.accounts();
        accounts.refresh_quota_for_due_accounts().await;
        accounts.flush().await.expect("the disk is in order");
        let before = world.provider.calls();
        minutes(&world.clock, 1).await;

        let due = world.restarted().accounts().refresh_quota_for_due_accounts().await;

        assert_eq!((before, world.provider.calls(), due.len()), (6, 6, 0), "{kind:?}");
    }
}
