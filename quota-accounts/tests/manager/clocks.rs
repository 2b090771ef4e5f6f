//! A clock that was ahead and was set back: stored blocks, holds and readings get no longer life.

use std::time::Duration;

use jiff::SignedDuration;
use quota_accounts::{Request, RequestOutcome};
use quota_core::{Clock, FetchError};

use crate::logins::next;
use crate::support::*;

/// The correct clock. That of the environment is ten days ahead.
fn right(env: &Env) -> Clock {
    Clock::virtual_at(env.clock.now() - SignedDuration::from_hours(240))
}

/// An environment with a fast clock, whose main account is throttled for ten minutes.
async fn throttled(kind: Kind) -> Env {
    let env = env(kind);
    let accounts = env.accounts();
    accounts.refresh_quota_for_due_accounts().await;
    let route = accounts.route(Request::new()).await.expect("all are available");
    let throttled = RequestOutcome::from_response(429, [("retry-after", "600")]);
    let _ = accounts.report(&route, throttled).await.expect("a route of this manager");
    accounts.flush().await.expect("the file can be written");
    env
}

#[tokio::test(start_paused = true)]
async fn a_block_from_a_fast_clock_lasts_its_duration_from_now() {
    for kind in BOTH {
        let env = throttled(kind).await;
        let accounts = env.restarted_at(&right(&env)).accounts();

        assert_eq!(next(&accounts).await, id("b"), "{kind:?}");
        minutes(&env.clock, 9).await;
        assert_eq!(next(&accounts).await, id("b"), "{kind:?}");
        minutes(&env.clock, 2).await;

        assert_eq!(next(&accounts).await, id("main"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_from_a_fast_clock_is_rebased_only_once() {
    for kind in BOTH {
        let env = throttled(kind).await;
        let env = env.restarted_at(&right(&env));
        for _ in 0..2 {
            let accounts = env.restarted().accounts();
            accounts.load().await.expect("the file can be read");
            accounts.flush().await.expect("the file can be written");
            minutes(&env.clock, 6).await;
        }

        assert_eq!(next(&env.restarted().accounts()).await, id("main"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hold_from_a_fast_clock_is_rebased_only_once() {
    for kind in BOTH {
        let mut env = env(kind);
        env.config = quota_accounts::AccountsConfig::new(id("main"));
        env.provider.then_fail(FetchError::throttled(Some(Duration::from_secs(1800))));
        let accounts = env.accounts();
        accounts.refresh_quota_for_due_accounts().await;
        accounts.flush().await.expect("the file can be written");

        let env = env.restarted_at(&right(&env));
        let mut calls = Vec::new();
        for _ in 0..3 {
            let accounts = env.restarted().accounts();
            accounts.refresh_quota_for_due_accounts().await;
            accounts.flush().await.expect("the file can be written");
            calls.push(env.provider.calls());
            minutes(&env.clock, 16).await;
        }

        assert_eq!(calls, [1, 1, 2], "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn readings_from_a_fast_clock_do_not_hide_newer_ones_after_a_restart() {
    for kind in BOTH {
        let env = throttled(kind).await;
        let env = env.restarted_at(&right(&env));
        let accounts = env.accounts();
        accounts.refresh_quota_for_due_accounts().await;
        accounts.flush().await.expect("the file can be written");
        let before = env.provider.calls();
        minutes(&env.clock, 1).await;

        let due = env.restarted().accounts().refresh_quota_for_due_accounts().await;

        assert_eq!((before, env.provider.calls(), due.len()), (6, 6, 0), "{kind:?}");
    }
}
