//! Which happenings follow from which change, and that each is told once.

use std::time::Duration;

use quota_core::{
    Ask, AttemptId, Begin, FetchError, Freshness, Hold, HoldReason, Lineage, Percent, Policy, Record, Usage,
    WindowId, WindowReading,
};

use super::*;
use crate::journal::THRESHOLDS;

/// Well after the beginning of time, so that clocks are believed.
const START: i64 = 1_800_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(START + second).expect("a moment of this century")
}

/// An account whose provider is asked by hand, and what was told of it so far.
#[derive(Default)]
struct Story {
    record: Record,
    seen: Option<Sight>,
    cooldown: Option<Hold>,
}

impl Story {
    fn begun() -> Self {
        let mut story = Self::default();
        story.look(0);
        story
    }

    fn ask(&mut self, second: i64, outcome: Result<&Usage, &FetchError>) {
        let policy = Policy::default();
        let ask = Ask::new(AttemptId::from(0), Freshness::Since(at(second)));
        let Begin::Granted(lease) = self.record.begin(at(second), &ask, &policy) else {
            panic!("it may be asked");
        };
        match outcome {
            Ok(usage) => drop(self.record.commit(at(second), &lease, usage)),
            Err(error) => drop(self.record.fail(at(second), &lease, error, &policy)),
        }
    }

    /// Five hours, so much used, to begin anew at that second.
    fn read(&mut self, second: i64, percent: f64, resets: i64) {
        self.ask(second, Ok(&usage(percent, resets)));
    }

    fn hold_at(&self, second: i64) -> Option<Hold> {
        let cooldown = self.cooldown.as_ref().filter(|hold| hold.is_live(at(second)));
        self.record.effective_hold(cooldown, at(second), &Policy::default())
    }

    /// What has happened since the last look.
    fn look(&mut self, second: i64) -> Vec<String> {
        let sight = Sight::of(&self.record, self.hold_at(second).as_ref());
        let (happenings, seen) = derive(self.seen.as_ref(), sight, at(second), &THRESHOLDS);
        self.seen = Some(seen);
        let told = |happening: &Happening| {
            let second = happening.at.as_second() - START;
            match &happening.what {
                What::Threshold { threshold_bp, direction, .. } => {
                    format!("{} {} {second}", direction.as_str(), threshold_bp / 100)
                }
                what => format!("{} {second}", what.kind()),
            }
        };
        happenings.iter().map(told).collect()
    }
}

fn usage(percent: f64, resets: i64) -> Usage {
    let used = Percent::from_percent(percent).expect("a number");
    let reading = WindowReading::new(WindowId::five_hour(), used).resets_at(at(resets));
    Usage::polled([reading.length(Duration::from_secs(5 * 3600))])
}

#[test]
fn what_is_seen_for_the_first_time_tells_nothing() {
    let mut story = Story::default();
    story.read(10, 95.0, 5000);

    assert!(story.look(20).is_empty());
}

#[test]
fn the_first_answer_of_all_passes_no_threshold() {
    let mut story = Story::begun();
    story.read(10, 95.0, 5000);

    assert_eq!(story.look(11), ["refreshed 10"]);
}

#[test]
fn an_answer_is_told_once() {
    let mut story = Story::begun();
    story.read(10, 10.0, 5000);

    assert_eq!(story.look(20), ["refreshed 10"]);
    assert!(story.look(21).is_empty());
}

#[test]
fn every_threshold_that_was_passed_is_told_once() {
    let mut story = Story::begun();
    story.read(10, 40.0, 5000);
    story.look(11);

    story.read(400, 80.0, 5000);

    assert_eq!(story.look(401), ["refreshed 400", "up 50 400", "up 75 400"]);
    story.read(800, 81.0, 5000);
    assert_eq!(story.look(801), ["refreshed 800"]);
}

#[test]
fn a_use_that_wavers_about_a_threshold_passes_it_once() {
    let mut story = Story::begun();
    story.read(10, 75.2, 5000);
    story.look(11);
    story.read(400, 74.9, 5000);

    assert_eq!(story.look(401), ["refreshed 400"]);
    story.read(800, 75.1, 5000);
    assert_eq!(story.look(801), ["refreshed 800"]);
}

#[test]
fn a_use_that_declines_little_by_little_falls_below_its_thresholds() {
    let mut story = Story::begun();
    story.read(10, 76.0, 5000);
    story.look(11);
    story.read(400, 74.5, 5000);
    assert_eq!(story.look(401), ["refreshed 400"]);

    story.read(800, 73.0, 5000);

    assert_eq!(story.look(801), ["refreshed 800", "down 75 800"]);
}

#[test]
fn a_use_that_is_lowered_within_its_period_is_one_reset() {
    let mut story = Story::begun();
    story.read(10, 96.0, 5000);
    story.look(11);

    story.read(400, 0.0, 5000);

    assert_eq!(story.look(401), ["refreshed 400", "reset 400"]);
    assert!(story.look(402).is_empty());
    story.read(800, 1.0, 5000);
    assert_eq!(story.look(801), ["refreshed 800"]);
}

#[test]
fn after_a_use_was_lowered_thresholds_are_passed_again_but_not_those_still_passed() {
    let mut story = Story::begun();
    story.read(10, 91.0, 5000);
    story.look(11);
    story.read(400, 60.0, 5000);

    assert_eq!(story.look(401), ["refreshed 400", "reset 400"]);
    story.read(2400, 76.0, 5000);
    assert_eq!(story.look(2401), ["refreshed 2400", "up 75 2400"]);
}

#[test]
fn readings_that_contradict_each_other_bring_no_storm_of_events() {
    let mut story = Story::begun();
    story.read(10, 96.0, 5000);
    story.look(11);
    let mut told = Vec::new();
    for second in (400..3600).step_by(400) {
        let percent = if second % 800 == 0 { 96.0 } else { 3.0 };
        story.read(second, percent, 5000);
        told.extend(story.look(second + 1).into_iter().filter(|event| !event.starts_with("refreshed")));
    }

    assert_eq!(told, ["reset 400", "up 50 800", "up 75 800", "up 90 800"]);
}

#[test]
fn the_reset_of_a_period_that_was_lowered_is_told_at_its_time() {
    let mut story = Story::begun();
    story.read(10, 96.0, 5000);
    story.look(11);
    story.read(400, 0.0, 5000);
    story.look(401);

    assert_eq!(story.look(5001), ["reset 5000"]);
}

#[test]
fn a_reset_is_told_when_its_time_has_come_and_nobody_has_asked() {
    let mut story = Story::begun();
    story.read(10, 91.0, 5000);
    story.look(11);

    assert!(story.look(4999).is_empty());
    assert_eq!(story.look(5100), ["reset 5000"]);
    assert!(story.look(5200).is_empty());
}

#[test]
fn a_reset_is_no_fall_and_the_new_period_has_thresholds_of_its_own() {
    let mut story = Story::begun();
    story.read(10, 91.0, 5000);
    story.look(11);
    story.read(5100, 55.0, 23_000);

    assert_eq!(story.look(5101), ["reset 5000", "refreshed 5100", "up 50 5100"]);
}

#[test]
fn a_window_that_begins_anew_before_its_time_has_reset() {
    let mut story = Story::begun();
    story.read(10, 91.0, 5000);
    story.look(11);
    story.read(2000, 1.0, 20_000);

    assert_eq!(story.look(2001), ["refreshed 2000", "reset 2000"]);
}

#[test]
fn a_reset_that_is_told_a_few_seconds_apart_is_the_same() {
    let mut story = Story::begun();
    story.read(10, 20.0, 5000);
    story.look(11);
    story.read(400, 21.0, 5003);

    assert_eq!(story.look(401), ["refreshed 400"]);
}

#[test]
fn a_reset_that_is_put_off_by_seconds_when_it_was_due_is_told_once() {
    let mut story = Story::begun();
    story.read(10, 95.0, 5000);
    story.look(11);
    story.read(5001, 96.0, 5004);

    assert_eq!(story.look(5002), ["refreshed 5001"]);
    assert_eq!(story.look(5100), ["reset 5004"]);
    assert!(story.look(5200).is_empty());
}

#[test]
fn a_reset_that_is_put_off_by_seconds_after_it_was_told_is_not_told_again() {
    let mut story = Story::begun();
    story.read(10, 95.0, 5000);
    story.look(11);
    assert_eq!(story.look(5001), ["reset 5000"]);

    story.read(5002, 96.0, 5005);

    assert_eq!(story.look(5003), ["refreshed 5002"]);
    assert!(story.look(5100).is_empty());
}

#[test]
fn the_period_after_one_that_was_put_off_has_a_reset_of_its_own() {
    let mut story = Story::begun();
    story.read(10, 95.0, 5000);
    story.look(11);
    story.read(5001, 96.0, 5004);
    story.look(5100);
    story.read(6000, 60.0, 23_000);

    assert_eq!(story.look(6001), ["refreshed 6000", "up 50 6000"]);
    assert_eq!(story.look(23_001), ["reset 23000"]);
}

#[test]
fn a_window_that_is_not_told_any_more_resets_all_the_same() {
    let mut story = Story::begun();
    story.read(10, 20.0, 5000);
    story.look(11);
    let other = WindowReading::new(WindowId::monthly(), Percent::ZERO);
    story.ask(400, Ok(&Usage::polled([other])));
    story.look(401);

    assert_eq!(story.look(5001), ["reset 5000"]);
}

#[test]
fn a_429_is_told_with_its_hold_and_the_end_of_it() {
    let mut story = Story::begun();
    story.ask(10, Err(&FetchError::throttled(Some(Duration::from_secs(100)))));

    assert_eq!(story.look(11), ["failing 10", "throttled 10"]);
    assert!(story.look(12).is_empty());
    assert_eq!(story.look(500), ["hold_ended 110"]);
    assert!(story.look(501).is_empty());
}

#[test]
fn a_hold_ends_when_the_cooldown_of_the_provider_does() {
    let mut story = Story::begun();
    story.ask(10, Err(&FetchError::throttled(Some(Duration::from_secs(100)))));
    story.cooldown = Some(Hold::new(at(50), at(400), HoldReason::NeighbourRateLimited));

    assert_eq!(story.look(51), ["failing 10", "throttled 10"]);
    assert!(story.look(200).is_empty(), "its own hold is over, and it is held");
    assert_eq!(story.look(500), ["hold_ended 400"]);
}

#[test]
fn a_cooldown_alone_is_told_and_its_end() {
    let mut story = Story::begun();
    story.read(10, 40.0, 5000);
    story.look(11);
    story.cooldown = Some(Hold::new(at(50), at(110), HoldReason::NeighbourRateLimited));

    assert_eq!(story.look(51), ["held 50"]);
    assert!(story.look(52).is_empty());
    assert_eq!(story.look(111), ["hold_ended 110"]);
}

#[test]
fn a_budget_that_is_used_up_is_told_once_since_its_last_call() {
    let mut story = Story::begun();
    let calls = i64::from(Policy::default().budget.per_hour);
    for call in 0..calls {
        story.read(10 * call, 40.0, 15_000);
    }
    let last = 10 * (calls - 1);

    let told = story.look(last + 1);
    assert!(told.contains(&format!("held {last}")), "{told:?}");
    assert!(story.look(last + 100).is_empty());
    assert_eq!(story.look(3601), ["hold_ended 3600"]);
}

#[test]
fn failures_of_one_kind_in_a_row_are_told_once_and_again_after_a_success() {
    let mut story = Story::begun();
    story.ask(10, Err(&FetchError::Unauthorized));
    assert_eq!(story.look(11), ["failing 10"]);
    story.ask(400, Err(&FetchError::Unauthorized));
    assert!(story.look(401).is_empty());

    story.read(800, 1.0, 5000);
    story.ask(1200, Err(&FetchError::Unauthorized));

    assert_eq!(story.look(1201), ["refreshed 800", "failing 1200"]);
}

#[test]
fn another_login_is_told_and_its_windows_are_compared_with_nothing() {
    let mut story = Story::begun();
    story.record.new_login(&Lineage::new("one"));
    story.read(10, 95.0, 5000);
    story.look(11);
    story.record.new_login(&Lineage::new("two"));
    story.read(400, 1.0, 9000);

    assert_eq!(story.look(401), ["login_changed 400", "refreshed 400"]);
}

#[test]
fn a_login_that_is_said_for_the_first_time_is_no_other() {
    let mut story = Story::begun();
    story.read(10, 5.0, 5000);
    story.look(11);
    story.record.new_login(&Lineage::new("one"));

    assert!(story.look(12).is_empty());
}
