//! Tests of the counted calls and of the time of the next allowed call.

use std::sync::Arc;

use jiff::tz::TimeZone;
use quota::model::RequestId;
use quota::policy::Budget;
use quota::record::{LeaseDecision, LeaseRequest, MaxStaleness};
use quota::{Percent, UsageReport, WindowId, WindowReading};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a valid time")
}

fn account() -> AccountId {
    "anthropic/main".parse().expect("a valid name")
}

fn policy() -> Policy {
    Policy::default().budget(Budget::new(4, 1))
}

/// A record with these calls, given as caller and second.
fn record_with(calls: &[(&str, i64)]) -> Record {
    let mut record = Record::default();
    for (by, second) in calls {
        let request = LeaseRequest::new(RequestId::random(), MaxStaleness::NewCall).by(Arc::from(*by));
        let LeaseDecision::Granted(lease) = record.begin(at(*second), &request, &policy()) else {
            panic!("a call is allowed");
        };
        let reading = WindowReading::new(WindowId::five_hour(), Percent::ZERO);
        let _ = record.commit(at(*second), &lease, &UsageReport::polled([reading]));
    }
    record
}

fn budget(record: &Record, second: i64) -> CallBudget {
    CallBudget::of(&account(), record, None, at(second), &policy())
}

#[test]
fn calls_are_counted_by_caller_for_an_hour() {
    let record = record_with(&[("quota status", 0), ("router", 1000), ("quota status", 2000)]);

    let now = budget(&record, 2500);
    let later = budget(&record, 3700);

    assert_eq!((now.calls, now.left()), (3, 1));
    let callers: Vec<_> = now.callers.iter().map(|caller| (&*caller.name, caller.calls)).collect();
    assert_eq!(callers, [("quota status", 2), ("router", 1)]);
    assert_eq!(later.calls, 2);
}

#[test]
fn calls_from_the_future_are_not_counted() {
    assert_eq!(budget(&record_with(&[("a", 0)]), -3600).calls, 0);
}

#[test]
fn the_reserve_is_for_interactive_calls() {
    let now = budget(&record_with(&[("a", 0), ("a", 100), ("a", 200)]), 300);

    assert_eq!(now.next, None);
    assert_eq!(now.next_in_background.unwrap().until, at(3600));
}

#[test]
fn an_exhausted_budget_waits_for_the_oldest_call() {
    let now = budget(&record_with(&[("a", 0), ("a", 100), ("a", 200), ("a", 300)]), 400);

    assert_eq!(now.next.unwrap().until, at(3600));
}

#[test]
fn the_providers_cooldown_delays_the_next_call() {
    let cooldown = Hold::new(at(0), at(60), quota::record::HoldReason::ProviderRateLimited);

    let now = CallBudget::of(&account(), &Record::default(), Some(&cooldown), at(1), &policy());

    assert_eq!(now.next.map(|hold| hold.until), Some(at(60)));
}

#[test]
fn reading_the_budget_counts_no_call() {
    let record = record_with(&[("a", 0)]);

    assert_eq!(budget(&record, 10), budget(&record, 10));
    assert_eq!(record.calls().len(), 1);
}

#[test]
fn text_and_json() {
    let local = LocalTime { now: at(400), zone: TimeZone::UTC };
    let all = [
        budget(
            &record_with(&[("quota status", 0), ("", 100), ("quota status", 200), ("quota status", 300)]),
            400,
        ),
        CallBudget::of(&"anthropic/new".parse().unwrap(), &Record::default(), None, at(400), &policy()),
    ];

    insta::assert_snapshot!("text", Screen::DEFAULT.show(&text::lines(&all, &local, 80)));
    insta::assert_snapshot!("json", json::render(&all, &local));
}
