//! The preference among eligible accounts: the weight of an account, the score of a session, and the latest reset.

use jiff::SignedDuration;
use quota_core::{WindowId, WindowReading};

use super::support::*;
use crate::routing::balance::{latest_reset, rendezvous_score, weight};
use crate::routing::{Candidate, Role};
use crate::{Request, RoutingPolicy};

fn candidate(given: &Given) -> Candidate<'_> {
    Candidate::new(&given.id, Role::Main, &given.snapshot, FRESH)
        .limits(&given.limits)
        .reserved(given.reserved.clone())
}

fn weight_of(given: &Given) -> f64 {
    weight(&candidate(given), &Request::new(), now(), &RoutingPolicy::default())
}

fn score_of(session: &str, weight: f64) -> u64 {
    let given = Given::new("main", []);
    rendezvous_score(&candidate(&given), &Request::new().with_session(session), weight)
}

fn latest_reset_of(given: &Given) -> i64 {
    latest_reset(&candidate(given), &Request::new(), now())
}

#[test]
fn the_weight_is_what_remains_per_second_until_the_reset() {
    assert_eq!(weight_of(&Given::new("main", [five_hour(50.0)])), 5000.0 / 7200.0);
}

#[test]
fn the_scarcest_window_decides_the_weight() {
    assert_eq!(weight_of(&Given::new("main", [five_hour(50.0), seven_day(10.0)])), 1000.0 / 259_200.0);
}

#[test]
fn a_window_of_another_model_does_not_change_the_weight() {
    assert_eq!(weight_of(&Given::new("main", [five_hour(50.0), opus_week(1.0)])), 5000.0 / 7200.0);
}

#[test]
fn a_window_without_a_reset_counts_as_if_it_lasted_five_hours() {
    let window = WindowReading::new(WindowId::five_hour(), percent(50.0));

    assert_eq!(weight_of(&Given::new("main", [window])), 5000.0 / 18_000.0);
}

#[test]
fn a_reset_within_a_minute_counts_as_a_minute() {
    let soon = with_left(WindowId::five_hour(), 50.0, now() + SignedDuration::from_secs(2));

    assert_eq!(weight_of(&Given::new("main", [soon])), 5000.0 / 60.0);
}

#[test]
fn an_account_without_readings_counts_as_full_for_a_day() {
    assert_eq!(weight_of(&Given::new("main", [])), 10_000.0 / 86_400.0);
}

#[test]
fn an_exhausted_account_has_the_smallest_weight() {
    assert_eq!(weight_of(&Given::new("main", [five_hour(0.0)])), 1e-9);
}

#[test]
fn what_requests_in_flight_have_reserved_does_not_count() {
    let mut given = Given::new("main", [five_hour(50.0)]);
    given.reserved = vec![(WindowId::five_hour(), percent(20.0))];

    assert_eq!(weight_of(&given), 3000.0 / 7200.0);
}

#[test]
fn the_score_of_a_session_is_the_same_in_every_version() {
    // Other hosts of a fleet run other versions, and must choose the same account.
    assert_eq!(f64::from_bits(score_of("session a", 1.0)), 2.851_642_007_658_015);
    assert_eq!(f64::from_bits(score_of("session b", 1.0)), 3.351_305_973_976_094);
}

#[test]
fn twice_the_weight_halves_the_score() {
    assert_eq!(f64::from_bits(score_of("session a", 2.0)) * 2.0, f64::from_bits(score_of("session a", 1.0)));
}

#[test]
fn without_a_session_the_score_depends_on_the_weight_only() {
    let [a, b] = [Given::new("a", []), Given::new("b", [])];
    let score = |given| f64::from_bits(rendezvous_score(&candidate(given), &Request::new(), 4.0));

    assert_eq!([score(&a), score(&b)], [0.25; 2]);
}

#[test]
fn the_latest_reset_decides() {
    assert_eq!(
        latest_reset_of(&Given::new("main", [five_hour(50.0), seven_day(10.0)])),
        hours(72).as_millisecond()
    );
}

#[test]
fn a_reset_that_has_passed_is_unknown() {
    let at = |reset| Given::read_at("main", hours(-1), [with_left(WindowId::five_hour(), 50.0, reset)]);

    assert_eq!(latest_reset_of(&at(now())), i64::MAX);
    assert_eq!(latest_reset_of(&at(minutes(1))), minutes(1).as_millisecond());
}
