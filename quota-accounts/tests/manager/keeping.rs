//! Writing what was learned: in order, no more often than something is new, and whatever becomes of those who wait.

use std::time::Duration;

use quota_accounts::{Outcome, Request};

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
        let _ = accounts.report(&first, Outcome::from_response(403, [("a", "b")])).await.unwrap();

        // Whoever writes that has seen the first answer only, and looks for the lock at other moments.
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
            let _ = accounts.report(route, Outcome::from_response(403, [("a", "b")])).await.unwrap();
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
