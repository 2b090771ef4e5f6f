//! Numbers of our own under a clock that was set back.

use jiff::SignedDuration;
use quota_core::testing::FakeProvider;

use super::*;

fn own(clock: &Clock, provider: &FakeProvider) -> Own {
    let id = "example/main".parse().unwrap();
    Own::new(id, Some(Arc::new(provider.clone())), Arc::new(Policy::default()), clock.clone())
}

/// The same numbers an hour before they were made.
fn set_back(own: &Own, provider: &FakeProvider) -> Own {
    let back = self::own(&Clock::anchored(own.now() - SignedDuration::from_hours(1)), provider);
    *back.lock() = own.record();
    back
}

fn clock() -> Clock {
    Clock::anchored("2026-06-01T12:00:00Z".parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn numbers_from_the_future_are_not_fresh() {
    let provider = FakeProvider::answering("example", 40.0);
    let own = own(&clock(), &provider);
    own.refresh(Freshness::Within(own.fresh_for())).await.unwrap();

    let back = set_back(&own, &provider);

    assert_eq!((own.is_stale_for(None), back.is_stale_for(None)), (false, true));
    back.refresh(Freshness::Within(back.fresh_for())).await.unwrap();
    assert_eq!((provider.calls(), back.is_stale_for(None)), (2, false));
}

#[tokio::test(start_paused = true)]
async fn a_hold_from_the_future_keeps_nobody_from_looking_and_lasts_as_long_from_now() {
    let provider = FakeProvider::answering("example", 40.0);
    provider.then_fail(FetchError::throttled(Some(Duration::from_secs(1800))));
    let own = own(&clock(), &provider);
    own.refresh(Freshness::Within(own.fresh_for())).await.unwrap_err();

    let back = set_back(&own, &provider);
    assert_eq!((own.is_held(), back.is_held()), (true, false));
    let held = back.refresh(Freshness::Within(back.fresh_for())).await.unwrap_err();

    assert!(matches!(held, RefreshError::Held { .. }), "{held:?}");
    assert_eq!((provider.calls(), back.is_held()), (1, true));
    back.clock.sleep(Duration::from_secs(1800)).await;
    assert!(!back.is_held());
}
