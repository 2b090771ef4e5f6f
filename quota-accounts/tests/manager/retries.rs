//! Retries on one account after the other.

use std::cell::RefCell;

use quota_accounts::{Idempotency, Request, RequestOutcome, RetryAdvice, RoutingPolicy};

use crate::support::*;

/// Responds to each attempt with the next status. Returns the attempted accounts, the last status and the advice.
async fn run(kind: Kind, repeat: Idempotency, statuses: &[u16]) -> (Vec<String>, u16, RetryAdvice) {
    run_in(&env(kind), repeat, statuses).await
}

/// The same in this environment.
async fn run_in(env: &Env, repeat: Idempotency, statuses: &[u16]) -> (Vec<String>, u16, RetryAdvice) {
    let accounts = env.accounts();
    accounts.refresh_quota_for_due_accounts().await;
    let tried = RefCell::new(Vec::new());
    let send = |route: &quota_accounts::Route| {
        let at = tried.borrow().len();
        tried.borrow_mut().push(route.account().name().to_owned());
        let status = statuses[at.min(statuses.len() - 1)];
        async move { (status, RequestOutcome::from_response(status, [("a", "b")])) }
    };

    let (got, report) =
        accounts.send_with_retry(Request::new(), repeat, send).await.expect("a valid configuration");

    (tried.into_inner(), got, report.next)
}

#[tokio::test(start_paused = true)]
async fn a_successful_request_is_sent_once() {
    for kind in BOTH {
        assert_eq!(
            run(kind, Idempotency::Idempotent, &[200]).await,
            (vec!["main".to_owned()], 200, RetryAdvice::Done)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejected_request_is_retried_on_other_accounts() {
    for kind in BOTH {
        let (tried, got, _) = run(kind, Idempotency::Idempotent, &[429, 403, 200]).await;

        assert_eq!((tried, got), (["main", "b", "c"].map(str::to_owned).to_vec(), 200), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_account_is_tried_twice_for_the_same_rejection() {
    for kind in BOTH {
        let (tried, got, _) = run(kind, Idempotency::Idempotent, &[429]).await;

        assert_eq!((tried, got), (["main", "b", "c"].map(str::to_owned).to_vec(), 429), "{kind:?}");
    }
}

// An overload leaves no block, so only the list of attempts excludes the account.
#[tokio::test(start_paused = true)]
async fn no_account_is_tried_twice_even_without_a_block() {
    for kind in BOTH {
        let mut env = env(kind);
        env.policy = RoutingPolicy::default().fallback_on([529]);
        let (tried, got, next) = run_in(&env, Idempotency::Idempotent, &[529]).await;

        let all = ["main", "b", "c"].map(str::to_owned).to_vec();
        assert_eq!((tried, got, next), (all, 529, RetryAdvice::OtherAccount), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_idempotent_is_sent_once() {
    for kind in BOTH {
        let (tried, got, next) = run(kind, Idempotency::NotIdempotent, &[429, 200]).await;

        assert_eq!((tried.len(), got, next), (1, 429, RetryAdvice::OtherAccount), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_invalid_request_is_sent_once() {
    for kind in BOTH {
        let (tried, _, next) = run(kind, Idempotency::Idempotent, &[400, 200]).await;

        assert_eq!((tried.len(), next), (1, RetryAdvice::DoNotRetry), "{kind:?}");
    }
}
