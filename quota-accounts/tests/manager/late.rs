//! Answers that are reported later than they came.

use std::time::Duration;

use jiff::SignedDuration;
use quota_accounts::{Request, RequestOutcome, RetryAdvice, RoutingPolicy};

use crate::reports::{reading, served, spent};
use crate::support::*;

#[tokio::test(start_paused = true)]
async fn headers_of_an_answer_that_is_reported_late_do_not_replace_newer_ones() {
    for kind in BOTH {
        let (world, accounts) = reading(kind).await;
        let stream = accounts.route(Request::new()).await.unwrap();
        let answered = world.clock.now();
        minutes(&world.clock, 1).await;
        let other = accounts.route(Request::new()).await.unwrap();
        let _ = accounts.report(&other, served("77")).await.unwrap();
        minutes(&world.clock, 1).await;

        let _ = accounts.report(&stream, served("42").received_at(answered)).await.unwrap();

        assert_eq!(used(&accounts, "main"), Some(77.0), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_report_of_exhaustion_does_not_outlive_a_newer_reading() {
    for kind in BOTH {
        let (world, accounts) = reading(kind).await;
        let late = accounts.route(Request::new()).await.unwrap();
        let answered = world.clock.now();
        minutes(&world.clock, 1).await;
        let other = accounts.route(Request::new()).await.unwrap();
        let _ = accounts.report(&other, served("3")).await.unwrap();

        let _ = accounts.report(&late, spent("account").received_at(answered)).await.unwrap();

        assert_eq!(accounts.route(Request::new()).await.unwrap().account(), &id("main"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_counted_from_the_answer_and_not_from_the_report() {
    for kind in BOTH {
        let world = world(kind);
        let accounts = world.accounts();
        let late = accounts.route(Request::new()).await.unwrap();
        let answered = world.clock.now();
        minutes(&world.clock, 1).await;

        let throttled = RequestOutcome::from_response(429, [("retry-after", "120")]).received_at(answered);
        let _ = accounts.report(&late, throttled).await.unwrap();

        let verdict = accounts.explain(&Request::new()).accounts()[0].clone();
        assert_eq!(verdict.retry_at, Some(answered + SignedDuration::from_mins(2)), "{kind:?}");
    }
}

/// What to do about a request that is told of so many minutes after its answer, and was to be tried again two after it.
async fn next_try(kind: Kind, status: u16, late: u64) -> RetryAdvice {
    let mut world = world(kind);
    world.policy = RoutingPolicy::default().fallback_on([]);
    let accounts = world.accounts();
    let route = accounts.route(Request::new()).await.expect("an account has room");
    let answered = world.clock.now();
    minutes(&world.clock, late).await;
    let outcome = RequestOutcome::from_response(status, [("retry-after", "120")]).received_at(answered);
    accounts.report(&route, outcome).await.expect("it is our route").next
}

#[tokio::test(start_paused = true)]
async fn a_wait_is_counted_from_the_answer_and_is_over_if_the_report_comes_after_it() {
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
async fn what_is_not_to_be_waited_for_is_not_when_it_is_told_late_either() {
    for kind in BOTH {
        assert_eq!(next_try(kind, 400, 3).await, RetryAdvice::DoNotRetry, "{kind:?}");
        assert_eq!(next_try(kind, 200, 3).await, RetryAdvice::Done, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_served_before_the_login_was_refused_does_not_say_that_it_works() {
    for kind in BOTH {
        let (world, accounts) = reading(kind).await;
        let [stream, other] = [(); 2].map(|()| accounts.route(Request::new()));
        let (stream, other) = (stream.await.unwrap(), other.await.unwrap());
        let answered = world.clock.now();
        minutes(&world.clock, 1).await;
        let _ = accounts.report(&other, RequestOutcome::from_response(403, [("a", "b")])).await.unwrap();

        let _ = accounts.report(&stream, served("42").received_at(answered)).await.unwrap();

        assert_eq!(accounts.route(Request::new()).await.unwrap().account(), &id("b"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_from_the_future_is_one_of_now() {
    for kind in BOTH {
        let (world, accounts) = reading(kind).await;
        let [first, other] = [(); 2].map(|()| accounts.route(Request::new()));
        let (first, other) = (first.await.unwrap(), other.await.unwrap());
        let ahead = world.clock.now() + SignedDuration::from_secs(20);

        let _ = accounts.report(&first, served("42").received_at(ahead)).await.unwrap();
        world.clock.sleep(Duration::from_secs(1)).await;
        let _ = accounts.report(&other, served("77")).await.unwrap();

        assert_eq!(used(&accounts, "main"), Some(77.0), "{kind:?}");
    }
}
