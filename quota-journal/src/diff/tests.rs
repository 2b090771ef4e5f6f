//! Tests which events follow from which change, and that each event is found once.

use std::time::Duration;

use quota_core::model::{LoginId, RequestId};
use quota_core::record::{Hold, HoldReason, LeaseDecision, LeaseRequest, MaxStaleness, Record};
use quota_core::{FetchError, Percent, Policy, UsageReport, WindowId, WindowReading};

use super::*;

/// A time well after the epoch, so that no timestamp is repaired as implausible.
const START: i64 = 1_800_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(START + second).expect("a valid timestamp")
}

/// An account whose calls the test makes, and its last observation.
#[derive(Default)]
struct Story {
    record: Record,
    observed: Option<Observation>,
    cooldown: Option<Hold>,
}

impl Story {
    fn observed() -> Self {
        let mut story = Self::default();
        story.events(0);
        story
    }

    fn call(&mut self, second: i64, outcome: Result<&UsageReport, &FetchError>) {
        let policy = Policy::default();
        let request = LeaseRequest::new(RequestId::from(0), MaxStaleness::NewCall);
        let LeaseDecision::Granted(lease) = self.record.begin(at(second), &request, &policy) else {
            panic!("the lease is free");
        };
        match outcome {
            Ok(usage) => drop(self.record.commit(at(second), &lease, usage)),
            Err(error) => drop(self.record.fail(at(second), &lease, error, &policy)),
        }
    }

    /// A successful call, with the use of the five-hour window in percent and the second of its reset.
    fn read(&mut self, second: i64, percent: f64, resets: i64) {
        self.call(second, Ok(&usage(percent, resets)));
    }

    fn hold_at(&self, second: i64) -> Option<Hold> {
        let cooldown = self.cooldown.as_ref().filter(|hold| hold.is_live(at(second)));
        self.record.effective_hold(cooldown, at(second), &Policy::default())
    }

    /// Observes the account, and returns the events since the last observation.
    fn events(&mut self, second: i64) -> Vec<String> {
        let observation = Observation::new(&self.record, self.hold_at(second).as_ref(), at(second));
        let (events, observed) = diff(self.observed.as_ref(), observation, at(second), &DEFAULT_THRESHOLDS);
        self.observed = Some(observed);
        let describe = |event: &JournalEvent| {
            let second = event.at.as_second() - START;
            match &event.kind {
                EventKind::Threshold { threshold_bp, direction, .. } => {
                    format!("{} {} {second}", direction.as_str(), threshold_bp / 100)
                }
                kind => format!("{} {second}", kind.as_str()),
            }
        };
        events.iter().map(describe).collect()
    }
}

fn usage(percent: f64, resets: i64) -> UsageReport {
    let used = Percent::from_percent(percent).expect("a valid percentage");
    let reading = WindowReading::new(WindowId::five_hour(), used).resets_at(at(resets));
    UsageReport::polled([reading.length(Duration::from_secs(5 * 3600))])
}

#[test]
fn the_first_observation_has_no_events() {
    let mut story = Story::default();
    story.read(10, 95.0, 5000);

    assert!(story.events(20).is_empty());
}

#[test]
fn the_first_reading_crosses_no_threshold() {
    let mut story = Story::observed();
    story.read(10, 95.0, 5000);

    assert_eq!(story.events(11), ["refreshed 10"]);
}

#[test]
fn a_refresh_is_one_event() {
    let mut story = Story::observed();
    story.read(10, 10.0, 5000);

    assert_eq!(story.events(20), ["refreshed 10"]);
    assert!(story.events(21).is_empty());
}

#[test]
fn every_crossed_threshold_is_one_event() {
    let mut story = Story::observed();
    story.read(10, 40.0, 5000);
    story.events(11);

    story.read(400, 80.0, 5000);

    assert_eq!(story.events(401), ["refreshed 400", "up 50 400", "up 75 400"]);
    story.read(800, 81.0, 5000);
    assert_eq!(story.events(801), ["refreshed 800"]);
}

#[test]
fn a_use_around_a_threshold_crosses_it_once() {
    let mut story = Story::observed();
    story.read(10, 75.2, 5000);
    story.events(11);
    story.read(400, 74.9, 5000);

    assert_eq!(story.events(401), ["refreshed 400"]);
    story.read(800, 75.1, 5000);
    assert_eq!(story.events(801), ["refreshed 800"]);
}

#[test]
fn a_slow_decline_crosses_thresholds_downwards() {
    let mut story = Story::observed();
    story.read(10, 76.0, 5000);
    story.events(11);
    story.read(400, 74.5, 5000);
    assert_eq!(story.events(401), ["refreshed 400"]);

    story.read(800, 73.0, 5000);

    assert_eq!(story.events(801), ["refreshed 800", "down 75 800"]);
}

#[test]
fn a_use_lowered_within_its_period_is_one_reset() {
    let mut story = Story::observed();
    story.read(10, 96.0, 5000);
    story.events(11);

    story.read(400, 0.0, 5000);

    assert_eq!(story.events(401), ["refreshed 400", "reset 400"]);
    assert!(story.events(402).is_empty());
    story.read(800, 1.0, 5000);
    assert_eq!(story.events(801), ["refreshed 800"]);
}

#[test]
fn a_lowered_use_can_cross_only_thresholds_above_it_again() {
    let mut story = Story::observed();
    story.read(10, 91.0, 5000);
    story.events(11);
    story.read(400, 60.0, 5000);

    assert_eq!(story.events(401), ["refreshed 400", "reset 400"]);
    story.read(2400, 76.0, 5000);
    assert_eq!(story.events(2401), ["refreshed 2400", "up 75 2400"]);
}

#[test]
fn contradicting_readings_cause_no_event_storm() {
    let mut story = Story::observed();
    story.read(10, 96.0, 5000);
    story.events(11);
    let mut all = Vec::new();
    for second in (400..3600).step_by(400) {
        let percent = if second % 800 == 0 { 96.0 } else { 3.0 };
        story.read(second, percent, 5000);
        all.extend(story.events(second + 1).into_iter().filter(|event| !event.starts_with("refreshed")));
    }

    assert_eq!(all, ["reset 400", "up 50 800", "up 75 800", "up 90 800"]);
}

#[test]
fn a_lowered_period_still_resets_at_its_time() {
    let mut story = Story::observed();
    story.read(10, 96.0, 5000);
    story.events(11);
    story.read(400, 0.0, 5000);
    story.events(401);

    assert_eq!(story.events(5001), ["reset 5000"]);
}

#[test]
fn a_reset_needs_no_call() {
    let mut story = Story::observed();
    story.read(10, 91.0, 5000);
    story.events(11);

    assert!(story.events(4999).is_empty());
    assert_eq!(story.events(5100), ["reset 5000"]);
    assert!(story.events(5200).is_empty());
}

#[test]
fn a_reset_is_not_a_decline_and_restarts_the_thresholds() {
    let mut story = Story::observed();
    story.read(10, 91.0, 5000);
    story.events(11);
    story.read(5100, 55.0, 23_000);

    assert_eq!(story.events(5101), ["reset 5000", "refreshed 5100", "up 50 5100"]);
}

#[test]
fn an_early_reset_is_one_event() {
    let mut story = Story::observed();
    story.read(10, 91.0, 5000);
    story.events(11);
    story.read(2000, 1.0, 20_000);

    assert_eq!(story.events(2001), ["refreshed 2000", "reset 2000"]);
}

#[test]
fn resets_a_few_seconds_apart_are_one_reset() {
    let mut story = Story::observed();
    story.read(10, 20.0, 5000);
    story.events(11);
    story.read(400, 21.0, 5003);

    assert_eq!(story.events(401), ["refreshed 400"]);
}

#[test]
fn a_due_reset_postponed_by_seconds_is_one_event() {
    let mut story = Story::observed();
    story.read(10, 95.0, 5000);
    story.events(11);
    story.read(5001, 96.0, 5004);

    assert_eq!(story.events(5002), ["refreshed 5001"]);
    assert_eq!(story.events(5100), ["reset 5004"]);
    assert!(story.events(5200).is_empty());
}

#[test]
fn a_reported_reset_postponed_by_seconds_is_not_repeated() {
    let mut story = Story::observed();
    story.read(10, 95.0, 5000);
    story.events(11);
    assert_eq!(story.events(5001), ["reset 5000"]);

    story.read(5002, 96.0, 5005);

    assert_eq!(story.events(5003), ["refreshed 5002"]);
    assert!(story.events(5100).is_empty());
}

#[test]
fn the_period_after_a_postponed_reset_has_its_own_reset() {
    let mut story = Story::observed();
    story.read(10, 95.0, 5000);
    story.events(11);
    story.read(5001, 96.0, 5004);
    story.events(5100);
    story.read(6000, 60.0, 23_000);

    assert_eq!(story.events(6001), ["refreshed 6000", "up 50 6000"]);
    assert_eq!(story.events(23_001), ["reset 23000"]);
}

#[test]
fn a_window_no_longer_reported_still_resets() {
    let mut story = Story::observed();
    story.read(10, 20.0, 5000);
    story.events(11);
    let other = WindowReading::new(WindowId::monthly(), Percent::ZERO);
    story.call(400, Ok(&UsageReport::polled([other])));
    story.events(401);

    assert_eq!(story.events(5001), ["reset 5000"]);
}

#[test]
fn a_429_causes_a_failure_a_hold_and_its_end() {
    let mut story = Story::observed();
    story.call(10, Err(&FetchError::throttled(Some(Duration::from_secs(100)))));

    assert_eq!(story.events(11), ["failing 10", "throttled 10"]);
    assert!(story.events(12).is_empty());
    assert_eq!(story.events(500), ["hold_ended 110"]);
    assert!(story.events(501).is_empty());
}

#[test]
fn a_hold_lasts_as_long_as_the_cooldown() {
    let mut story = Story::observed();
    story.call(10, Err(&FetchError::throttled(Some(Duration::from_secs(100)))));
    story.cooldown = Some(Hold::new(at(50), at(400), HoldReason::ProviderRateLimited));

    assert_eq!(story.events(51), ["failing 10", "throttled 10"]);
    assert!(story.events(200).is_empty(), "its own hold has ended, but the cooldown has not");
    assert_eq!(story.events(500), ["hold_ended 400"]);
}

#[test]
fn a_cooldown_alone_is_a_hold() {
    let mut story = Story::observed();
    story.read(10, 40.0, 5000);
    story.events(11);
    story.cooldown = Some(Hold::new(at(50), at(110), HoldReason::ProviderRateLimited));

    assert_eq!(story.events(51), ["held 50"]);
    assert!(story.events(52).is_empty());
    assert_eq!(story.events(111), ["hold_ended 110"]);
}

#[test]
fn a_used_up_budget_is_one_hold_since_its_last_call() {
    let mut story = Story::observed();
    let calls = i64::from(Policy::default().budget.per_hour);
    for call in 0..calls {
        story.read(10 * call, 40.0, 15_000);
    }
    let last = 10 * (calls - 1);

    let events = story.events(last + 1);
    assert!(events.contains(&format!("held {last}")), "{events:?}");
    assert!(story.events(last + 100).is_empty());
    assert_eq!(story.events(3601), ["hold_ended 3600"]);
}

#[test]
fn equal_consecutive_failures_are_one_event_until_a_success() {
    let mut story = Story::observed();
    story.call(10, Err(&FetchError::Unauthorized));
    assert_eq!(story.events(11), ["failing 10"]);
    story.call(400, Err(&FetchError::Unauthorized));
    assert!(story.events(401).is_empty());

    story.read(800, 1.0, 5000);
    story.call(1200, Err(&FetchError::Unauthorized));

    assert_eq!(story.events(1201), ["refreshed 800", "failing 1200"]);
}

#[test]
fn another_login_is_an_event_and_restarts_its_windows() {
    let mut story = Story::observed();
    story.record.new_login(&LoginId::new("one"));
    story.read(10, 95.0, 5000);
    story.events(11);
    story.record.new_login(&LoginId::new("two"));
    story.read(400, 1.0, 9000);

    assert_eq!(story.events(401), ["login_changed 400", "refreshed 400"]);
}

#[test]
fn the_first_known_login_is_not_a_change() {
    let mut story = Story::observed();
    story.read(10, 5.0, 5000);
    story.events(11);
    story.record.new_login(&LoginId::new("one"));

    assert!(story.events(12).is_empty());
}
