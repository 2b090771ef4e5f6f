//! Failed calls: the cached readings stay, with their own age, and the provider is not called for a while.

use std::time::Duration;

use quota::record::HoldReason;
use quota::{FetchError, QuotaError};
use quota_sim::{Answer, Change};

use crate::fixture::*;

/// Makes one successful call and one failed call. Returns the error, the cached use, and the reason for the hold.
async fn after(answer: Answer) -> (FetchError, Option<f64>, Option<HoldReason>) {
    let simulator = provider([account("main")]).await;
    let store = memory();
    let first = process(&simulator, &store, tokens(["main"]), policy());
    drop(first.account(&id("main")).get().await.unwrap());
    // Only a provider that hangs may cause the timeout. A busy machine can take long for any other response.
    let timeout = if answer == Answer::Hang { Duration::from_millis(500) } else { Duration::from_secs(60) };
    let quota = process(&simulator, &store, tokens(["main"]), policy().fetch_timeout(timeout));
    let main = quota.account(&id("main"));
    let _ = main.sync().await;
    simulator.set("main", Change::answer(answer)).unwrap();

    let refreshed = within_deadline("the refresh", main.refresh()).await.unwrap();
    drop(main.refresh().await);

    assert!(!refreshed.fetched && simulator.stop().await.calls() == 2, "one call, and then a hold");
    let Some(QuotaError::Fetch { error, .. }) = refreshed.error else { panic!("the refresh should fail") };
    (error, five_hours(&main.peek()), main.peek().hold().map(|hold| hold.reason))
}

#[tokio::test]
async fn an_html_page_is_malformed_and_replaces_nothing() {
    let (error, used, hold) = after(Answer::Html).await;

    assert!(matches!(error, FetchError::Malformed { .. }), "{error}");
    assert_eq!((used, hold), (Some(30.0), Some(HoldReason::Failing)));
}

#[tokio::test]
async fn an_empty_object_is_malformed_and_replaces_nothing() {
    let (error, used, hold) = after(Answer::Empty).await;

    assert!(matches!(error, FetchError::Malformed { .. }), "{error}");
    assert_eq!((used, hold), (Some(30.0), Some(HoldReason::Failing)));
}

#[tokio::test]
async fn a_truncated_body_is_malformed_and_replaces_nothing() {
    let (error, used, _) = after(Answer::Garbage).await;

    assert!(matches!(error, FetchError::Malformed { .. }), "{error}");
    assert_eq!(used, Some(30.0));
}

#[tokio::test]
async fn a_body_without_end_is_an_error() {
    let (error, used, _) = after(Answer::Huge).await;

    assert!(matches!(error, FetchError::Malformed { .. }), "{error}");
    assert_eq!(used, Some(30.0));
}

#[tokio::test]
async fn an_overloaded_provider_is_unavailable_and_not_exhausted() {
    let (error, used, hold) = after(Answer::Overloaded).await;

    assert!(matches!(error, FetchError::Unavailable { .. }), "{error}");
    assert_eq!((used, hold), (Some(30.0), Some(HoldReason::Failing)));
}

#[tokio::test]
async fn a_hanging_provider_times_out() {
    let (error, used, hold) = after(Answer::Hang).await;

    assert!(matches!(error, FetchError::TimedOut), "{error}");
    assert_eq!((used, hold), (Some(30.0), Some(HoldReason::Failing)));
}

#[tokio::test]
async fn an_unreachable_provider_is_unavailable() {
    let simulator = provider([account("main")]).await;
    let quota = single_process(&simulator, tokens(["main"]), policy());
    drop(simulator.stop().await);

    let error = quota.account(&id("main")).get().await.unwrap_err();

    assert!(error.report().contains("could not connect"), "{}", error.report());
}
