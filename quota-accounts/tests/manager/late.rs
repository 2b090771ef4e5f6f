//! Responses that are reported late.

use std::time::Duration;

use jiff::SignedDuration;
use quota_accounts::{Request, RequestOutcome, RetryAdvice, RoutingPolicy};

use crate::reports::{exhausted, reading, served};
use crate::support::*;

#[tokio::test(start_paused = true)]
async fn headers_of_a_late_report_do_not_replace_newer_readings() {
    for kind in BOTH {
        let (env, accounts) = reading(kind).await;
        let stream = accounts.route(Request::new()).await.unwrap();
        let received_at = env.clock.now();
        minutes(&env.clock, 1).await;
        let other = accounts.route(Request::new()).await.unwrap();
        let _ = accounts.report(&other, served("77")).await.unwrap();
        minutes(&env.clock, 1).await;

        let _ = accounts.report(&stream, served("42").received_at(received_at)).await.unwrap();

        assert_eq!(used(&accounts, "main"), Some(77.0), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_report_of_exhaustion_does_not_outlive_a_newer_reading() {
    for kind in BOTH {
        let (env, accounts) = reading(kind).await;
        let late = accounts.route(Request::new()).await.unwrap();
        let received_at = env.clock.now();
        minutes(&env.clock, 1).await;
        let other = accounts.route(Request::new()).await.unwrap();
        let _ = accounts.report(&other, served("3")).await.unwrap();

        let _ = accounts.report(&late, exhausted("account").received_at(received_at)).await.unwrap();

        assert_eq!(accounts.route(Request::new()).await.unwrap().account(), &id("main"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cooldown_counts_from_the_response_not_from_the_report() {
    for kind in BOTH {
        let env = env(kind);
        let accounts = env.accounts();
        let late = accounts.route(Request::new()).await.unwrap();
        let received_at = env.clock.now();
        minutes(&env.clock, 1).await;

        let throttled = RequestOutcome::from_response(429, [("retry-after", "120")]).received_at(received_at);
        let _ = accounts.report(&late, throttled).await.unwrap();

        let verdict = accounts.explain(&Request::new()).accounts()[0].clone();
        assert_eq!(verdict.retry_at, Some(received_at + SignedDuration::from_mins(2)), "{kind:?}");
    }
}

/// The advice for a report `late` minutes after a response that asks for a wait of two minutes.
async fn next_try(kind: Kind, status: u16, late: u64) -> RetryAdvice {
    let mut env = env(kind);
    env.policy = RoutingPolicy::default().fallback_on([]);
    let accounts = env.accounts();
    let route = accounts.route(Request::new()).await.expect("an account is available");
    let received_at = env.clock.now();
    minutes(&env.clock, late).await;
    let outcome = RequestOutcome::from_response(status, [("retry-after", "120")]).received_at(received_at);
    accounts.report(&route, outcome).await.expect("a route of this manager").next
}

#[tokio::test(start_paused = true)]
async fn a_wait_counts_from_the_response_and_may_have_passed() {
    for kind in BOTH {
        for status in [429, 503] {
            for (late, left) in [(0, 120), (1, 60), (2, 0), (3, 0)] {
                let wait = RetryAdvice::After(Duration::from_secs(left));
                assert_eq!(next_try(kind, status, late).await, wait, "{kind:?} {status} {late} min");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_report_adds_no_wait_to_final_advice() {
    for kind in BOTH {
        assert_eq!(next_try(kind, 400, 3).await, RetryAdvice::DoNotRetry, "{kind:?}");
        assert_eq!(next_try(kind, 200, 3).await, RetryAdvice::Done, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_success_from_before_a_rejection_does_not_end_it() {
    for kind in BOTH {
        let (env, accounts) = reading(kind).await;
        let [stream, other] = [(); 2].map(|()| accounts.route(Request::new()));
        let (stream, other) = (stream.await.unwrap(), other.await.unwrap());
        let received_at = env.clock.now();
        minutes(&env.clock, 1).await;
        let _ = accounts.report(&other, RequestOutcome::from_response(403, [("a", "b")])).await.unwrap();

        let _ = accounts.report(&stream, served("42").received_at(received_at)).await.unwrap();

        assert_eq!(accounts.route(Request::new()).await.unwrap().account(), &id("b"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_from_the_future_counts_as_received_now() {
    for kind in BOTH {
        let (env, accounts) = reading(kind).await;
        let [first, other] = [(); 2].map(|()| accounts.route(Request::new()));
        let (first, other) = (first.await.unwrap(), other.await.unwrap());
        let future = env.clock.now() + SignedDuration::from_secs(20);

        let _ = accounts.report(&first, served("42").received_at(future)).await.unwrap();
        env.clock.sleep(Duration::from_secs(1)).await;
        let _ = accounts.report(&other, served("77")).await.unwrap();

        assert_eq!(used(&accounts, "main"), Some(77.0), "{kind:?}");
    }
}
