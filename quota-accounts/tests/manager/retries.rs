//! Trying on one account after the other.

use std::cell::RefCell;

use quota_accounts::{Idempotency, Request, RequestOutcome, RetryAdvice, RoutingPolicy};

use crate::support::*;

/// Sends by answering each try with the next status, and tells which accounts were tried.
async fn run(kind: Kind, repeat: Idempotency, statuses: &[u16]) -> (Vec<String>, u16, RetryAdvice) {
    run_in(&world(kind), repeat, statuses).await
}

/// The same in this world.
async fn run_in(world: &World, repeat: Idempotency, statuses: &[u16]) -> (Vec<String>, u16, RetryAdvice) {
    let accounts = world.accounts();
    accounts.refresh_quota_for_due_accounts().await;
    let tried = RefCell::new(Vec::new());
    let send = |route: &quota_accounts::Route| {
        let at = tried.borrow().len();
        tried.borrow_mut().push(route.account().name().to_owned());
        let status = statuses[at.min(statuses.len() - 1)];
        async move { (status, RequestOutcome::from_response(status, [("a", "b")])) }
    };

    let (got, report) =
        accounts.send_with_retry(Request::new(), repeat, send).await.expect("there are accounts");

    (tried.into_inner(), got, report.next)
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_served_is_sent_once() {
    for kind in BOTH {
        assert_eq!(
            run(kind, Idempotency::Idempotent, &[200]).await,
            (vec!["main".to_owned()], 200, RetryAdvice::Done)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_turned_away_is_tried_elsewhere() {
    for kind in BOTH {
        let (tried, got, _) = run(kind, Idempotency::Idempotent, &[429, 403, 200]).await;

        assert_eq!((tried, got), (["main", "b", "c"].map(str::to_owned).to_vec(), 200), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_account_is_tried_twice_for_one_reason() {
    for kind in BOTH {
        let (tried, got, _) = run(kind, Idempotency::Idempotent, &[429]).await;

        assert_eq!((tried, got), (["main", "b", "c"].map(str::to_owned).to_vec(), 429), "{kind:?}");
    }
}

// An overload leaves no block, so nothing else keeps the account away.
#[tokio::test(start_paused = true)]
async fn no_account_is_tried_twice_although_nothing_is_held_against_it() {
    for kind in BOTH {
        let mut world = world(kind);
        world.policy = RoutingPolicy::default().fallback_on([529]);
        let (tried, got, next) = run_in(&world, Idempotency::Idempotent, &[529]).await;

        let all = ["main", "b", "c"].map(str::to_owned).to_vec();
        assert_eq!((tried, got, next), (all, 529, RetryAdvice::OtherAccount), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_must_not_be_repeated_is_sent_once() {
    for kind in BOTH {
        let (tried, got, next) = run(kind, Idempotency::NotIdempotent, &[429, 200]).await;

        assert_eq!((tried.len(), got, next), (1, 429, RetryAdvice::OtherAccount), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_at_fault_everywhere_is_sent_once() {
    for kind in BOTH {
        let (tried, _, next) = run(kind, Idempotency::Idempotent, &[400, 200]).await;

        assert_eq!((tried.len(), next), (1, RetryAdvice::DoNotRetry), "{kind:?}");
    }
}
