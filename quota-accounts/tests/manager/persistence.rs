//! Writing what was learned: in order, no more often than something is new, and whatever becomes of those who wait.

use std::time::Duration;

use quota_accounts::{Request, RequestOutcome, RoutingMode, RoutingPolicy};
use quota_core::FetchError;

use crate::reports::{reading, served};
use crate::support::*;

async fn millis(world: &World, millis: u64) {
    world.clock.sleep(Duration::from_millis(millis)).await;
}

#[tokio::test(start_paused = true)]
async fn a_block_that_was_lifted_before_it_was_written_does_not_come_back() {
    for kind in BOTH {
        let (world, accounts) = reading(kind).await;
        let first = accounts.route(Request::new()).await.unwrap();
        let second = accounts.route(Request::new()).await.unwrap();
        let lock = world.locked();
        let _ = accounts.report(&first, RequestOutcome::from_response(403, [("a", "b")])).await.unwrap();

        // That writer has only the first response, and polls the lock at other times.
        millis(&world, 5).await;
        let _ = accounts.report(&second, served("41")).await.unwrap();
        millis(&world, 3_007).await;
        drop(lock);
        accounts.flush().await.unwrap();

        assert!(!world.kept().contains("not_allowed"), "{kind:?} {}", world.kept());
        let restarted = world.restarted().accounts();
        assert_eq!(restarted.route(Request::new()).await.unwrap().account(), &id("main"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_many_failures_left_is_written_once() {
    for kind in BOTH {
        let (world, accounts) = reading(kind).await;
        let mut routes = Vec::new();
        for _ in 0..5 {
            routes.push(accounts.route(Request::new()).await.unwrap());
        }
        let lock = world.locked();
        for route in &routes {
            let _ = accounts.report(route, RequestOutcome::from_response(403, [("a", "b")])).await.unwrap();
            // They look for the lock at different moments.
            millis(&world, 1).await;
        }
        std::fs::remove_file(world.state_path()).unwrap();
        drop(lock);
        while world.kept().is_empty() {
            millis(&world, 1).await;
        }

        std::fs::remove_file(world.state_path()).unwrap();
        minutes(&world.clock, 1).await;
        accounts.flush().await.unwrap();

        assert_eq!(world.kept(), "", "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_flush_that_is_given_up_ends_nothing_that_is_under_way() {
    for kind in BOTH {
        let (world, accounts) = reading(kind).await;
        let route = accounts.route(Request::new()).await.unwrap();
        let _ = accounts.report(&route, served("77.77")).await.unwrap();

        let lock = world.locked();
        let flushed = world.clock.bounded(Duration::from_secs(1), accounts.flush()).await;
        drop(lock);
        minutes(&world.clock, 1).await;

        assert!(flushed.is_none(), "{kind:?}");
        assert!(world.kept().contains("7777"), "{kind:?} {}", world.kept());

        // The next report is written as well, without a flush.
        let route = accounts.route(Request::new()).await.unwrap();
        let _ = accounts.report(&route, served("88.88")).await.unwrap();
        minutes(&world.clock, 1).await;

        assert!(world.kept().contains("8888"), "{kind:?} {}", world.kept());
    }
}

/// A runtime of one thread, on which time stands still.
fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().expect("there is room for a thread")
}

#[test]
fn a_runtime_that_ends_before_a_refresh_began_leaves_the_account_to_the_next() {
    for kind in BOTH {
        let first = runtime();
        let (world, accounts) = first.block_on(reading(kind));
        let before = world.provider.calls();
        first.block_on(async {
            minutes(&world.clock, 6).await;
            let _ = accounts.route(Request::new()).await.unwrap();
        });
        assert_eq!(world.provider.calls(), before, "{kind:?}: it never began");
        drop(first);

        runtime().block_on(async {
            // By the clock of this one, what was read is as old as this.
            minutes(&world.clock, 9).await;
            let _ = accounts.route(Request::new()).await.unwrap();
            minutes(&world.clock, 1).await;
        });

        assert_eq!(world.provider.calls(), before + 1, "{kind:?}");
    }
}

#[test]
fn a_runtime_that_ends_before_what_is_due_was_written_leaves_it_to_the_next() {
    for kind in BOTH {
        let first = runtime();
        let (world, accounts) = first.block_on(reading(kind));
        let report = async {
            let route = accounts.route(Request::new()).await.unwrap();
            let _ = accounts.report(&route, served("77.77")).await.unwrap();
        };
        first.block_on(report);
        drop(first);

        runtime().block_on(async {
            minutes(&world.clock, 1).await;
            let route = accounts.route(Request::new()).await.unwrap();
            let _ = accounts.report(&route, served("88.88")).await.unwrap();
            minutes(&world.clock, 1).await;
        });

        assert!(world.kept().contains("8888"), "{kind:?} {}", world.kept());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_brings_nothing_writes_nothing() {
    for kind in BOTH {
        let mut world = world(kind);
        world.policy = RoutingPolicy::default().mode(RoutingMode::StickyBalanced);
        let accounts = world.accounts();
        accounts.refresh_quota_for_due_accounts().await;
        minutes(&world.clock, 6).await;
        (0..200).for_each(|_| world.provider.then_fail(FetchError::not_logged_in("no login")));
        let request = || Request::new().with_session("a-session");
        let _ = accounts.route(request()).await.unwrap();
        accounts.flush().await.unwrap();
        std::fs::remove_file(world.state_path()).unwrap();

        for _ in 0..5 {
            let _ = accounts.route(request()).await.unwrap();
            accounts.flush().await.unwrap();
        }

        assert_eq!(world.kept(), "", "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn when_sessions_were_used_is_written_once_in_seconds_although_every_refresh_fails() {
    for kind in BOTH {
        let mut world = world(kind);
        world.policy = RoutingPolicy::default().mode(RoutingMode::StickyBalanced);
        let accounts = world.accounts();
        accounts.refresh_quota_for_due_accounts().await;
        minutes(&world.clock, 6).await;
        (0..200).for_each(|_| world.provider.then_fail(FetchError::not_logged_in("no login")));
        let mut writes = 0;

        for _ in 0..30 {
            let _ = accounts.route(Request::new().with_session("a-session")).await.unwrap();
            millis(&world, 100).await;
            writes += usize::from(std::fs::remove_file(world.state_path()).is_ok());
        }

        assert!(writes <= 2, "{kind:?}: {writes}");
    }
}
