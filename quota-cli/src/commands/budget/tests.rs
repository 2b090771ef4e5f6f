//! What is counted, and what the rules say of the next call.

use std::sync::Arc;

use jiff::tz::TimeZone;
use quota::{
    Budget, LeaseDecision, LeaseRequest, MaxStaleness, Percent, RequestId, UsageReport, WindowId,
    WindowReading,
};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a moment")
}

fn account() -> AccountId {
    "anthropic/main".parse().expect("a valid name")
}

fn policy() -> Policy {
    Policy::default().budget(Budget::new(4, 1))
}

/// An account of which these have asked, each at its second.
fn asked(calls: &[(&str, i64)]) -> Record {
    let mut record = Record::default();
    for (by, second) in calls {
        let ask = LeaseRequest::new(RequestId::random(), MaxStaleness::StartedAfter(at(*second)))
            .by(Arc::from(*by));
        let LeaseDecision::Granted(lease) = record.begin(at(*second), &ask, &policy()) else {
            panic!("it may be asked");
        };
        let reading = WindowReading::new(WindowId::five_hour(), Percent::ZERO);
        let _ = record.commit(at(*second), &lease, &UsageReport::polled([reading]));
    }
    record
}

fn spent(record: &Record, second: i64) -> Spent {
    Spent::of(&account(), record, None, at(second), &policy())
}

#[test]
fn calls_are_counted_by_who_made_them_for_an_hour() {
    let record = asked(&[("quota status", 0), ("router", 1000), ("quota status", 2000)]);

    let now = spent(&record, 2500);
    let later = spent(&record, 3700);

    assert_eq!((now.made, now.left()), (3, 1));
    let callers: Vec<_> = now.callers.iter().map(|caller| (&*caller.by, caller.made)).collect();
    assert_eq!(callers, [("quota status", 2), ("router", 1)]);
    assert_eq!(later.made, 2);
}

#[test]
fn the_reserve_is_for_those_who_wait() {
    let now = spent(&asked(&[("a", 0), ("a", 100), ("a", 200)]), 300);

    assert_eq!(now.next, None);
    assert_eq!(now.next_in_background.unwrap().until, at(3600));
}

#[test]
fn when_all_is_spent_the_oldest_call_decides() {
    let now = spent(&asked(&[("a", 0), ("a", 100), ("a", 200), ("a", 300)]), 400);

    assert_eq!(now.next.unwrap().until, at(3600));
}

#[test]
fn a_neighbours_quiet_time_counts() {
    let quiet = Hold::new(at(0), at(60), quota::HoldReason::ProviderRateLimited);

    let now = Spent::of(&account(), &Record::default(), Some(&quiet), at(1), &policy());

    assert_eq!(now.next.map(|hold| hold.until), Some(at(60)));
}

#[test]
fn a_look_at_the_budget_is_no_call() {
    let record = asked(&[("a", 0)]);

    assert_eq!(spent(&record, 10), spent(&record, 10));
    assert_eq!(record.calls().len(), 1);
}

#[test]
fn it_is_shown_to_people_and_programs() {
    let local = LocalTime { now: at(400), zone: TimeZone::UTC };
    let all = [
        spent(&asked(&[("quota status", 0), ("", 100), ("quota status", 200), ("quota status", 300)]), 400),
        Spent::of(&"anthropic/new".parse().unwrap(), &Record::default(), None, at(400), &policy()),
    ];

    insta::assert_snapshot!("text", text::render(&all, &local, Screen::DEFAULT));
    insta::assert_snapshot!("json", json::render(&all, &local));
}
