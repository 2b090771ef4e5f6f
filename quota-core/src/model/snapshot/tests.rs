//! Which of two readings the merge keeps.
//! The laws of the merge are in `laws`; what a record does with a snapshot is in the tests of `record`.

mod laws;
mod peaks;

use serde_json::{Value, json};

use super::{Presence, Snapshot};
use crate::model::{Coverage, Credits, Scope, Source, UsageReport, Window, WindowId, WindowReading};
use crate::record::tests::support::*;

fn poll<const N: usize>(second: i64, windows: [WindowReading; N]) -> Snapshot {
    Snapshot::of(&UsageReport::polled(windows), at(second))
}

fn joined<'a>(snapshots: impl IntoIterator<Item = &'a Snapshot>) -> Snapshot {
    let mut all = Snapshot::default();
    snapshots.into_iter().for_each(|snapshot| all.join(snapshot));
    all
}

/// What two snapshots say of the window of five hours, in either order.
fn both_ways(one: &Snapshot, other: &Snapshot) -> Window {
    let (forth, back) = (joined([one, other]), joined([other, one]));
    assert_eq!(forth, back);
    forth.window(&WindowId::five_hour()).unwrap().clone()
}

#[test]
fn the_newer_of_two_readings_stands() {
    let stands = both_ways(&poll(0, [five_hour(90)]), &poll(1, [five_hour(10)]));

    assert_eq!(stands.used(), percent(10));
}

#[test]
fn of_one_moment_and_source_the_higher_use_stands() {
    let stands = both_ways(&poll(0, [five_hour(10)]), &poll(0, [five_hour(11)]));

    assert_eq!(stands.used(), percent(11));
}

#[test]
fn of_equal_use_the_later_reset_stands() {
    let early = poll(0, [five_hour(10).resets_at(at(60))]);
    let late = poll(0, [five_hour(10).resets_at(at(61))]);

    assert_eq!(both_ways(&early, &late).resets_at(), Some(at(61)));
}

#[test]
fn of_readings_that_differ_in_whatever_else_one_always_stands() {
    let plain = poll(0, [five_hour(10)]);
    let mut document = serde_json::to_value(&plain).unwrap();
    document["windows"][0]["newer"] = json!(1);
    let others = [
        poll(0, [five_hour(10).length(HOUR)]),
        poll(0, [five_hour(10).scope(Scope::unknown_model())]),
        serde_json::from_value(document).unwrap(),
    ];

    for other in others {
        assert_ne!(other, plain);
        let stands = both_ways(&plain, &other);
        assert!(!stands.supersedes(&other.windows()[0]) && stands.supersedes(&plain.windows()[0]));
    }
}

#[test]
fn of_one_moment_a_poll_beats_headers_and_these_beat_a_file() {
    let headers = headers(at(0), [five_hour(20)]);
    let file = Snapshot::of(&UsageReport::from_local([five_hour(30)], at(0)), at(0));

    assert_eq!(both_ways(&poll(0, [five_hour(10)]), &headers).source(), Source::Poll);
    assert_eq!(both_ways(&headers, &file).source(), Source::Headers);
}

#[test]
fn any_reading_beats_none() {
    let file = Snapshot::of(&UsageReport::from_local([five_hour(30)], at(0)), at(0));

    assert_eq!(both_ways(&file, &Snapshot::default()).used(), percent(30));
}

#[test]
fn headers_beat_a_poll_that_started_before_them() {
    let stands = both_ways(&poll(100, [five_hour(40)]), &headers(at(110), [five_hour(50)]));

    assert_eq!((stands.used(), stands.source()), (percent(50), Source::Headers));
}

#[test]
fn a_window_that_a_later_complete_answer_does_not_report_is_gone() {
    let all = joined([&poll(0, [five_hour(10), opus(100)]), &poll(1, [five_hour(11)])]);

    assert_eq!(all.window(&opus_id()), None);
}

#[test]
fn a_window_that_is_gone_comes_back_with_a_later_reading_only() {
    let gone = poll(1, [five_hour(11)]);
    let earlier = Snapshot::of(&UsageReport::polled([opus(1)]).coverage(Coverage::Reported), at(0));
    let later = Snapshot::of(&UsageReport::polled([opus(2)]).coverage(Coverage::Reported), at(2));

    assert_eq!(joined([&gone, &earlier]).window(&opus_id()), None);
    assert_eq!(joined([&gone, &later]).window(&opus_id()).map(Window::used), Some(percent(2)));
}

#[test]
fn an_answer_that_covers_only_what_it_reports_removes_nothing() {
    let narrow = Snapshot::of(&UsageReport::polled([five_hour(11)]).coverage(Coverage::Reported), at(1));

    let all = joined([&poll(0, [five_hour(10), seven_day(20)]), &narrow]);

    assert_eq!(all.windows().len(), 2);
    assert_eq!(all.complete_at(), Some(at(0)));
}

#[test]
fn a_window_that_stood_there_and_could_not_be_read_stays_as_it_was() {
    let except = Coverage::complete_except([WindowId::seven_day()]);
    let lame = Snapshot::of(&UsageReport::polled([five_hour(11)]).coverage(except), at(1));

    let all = joined([&poll(0, [five_hour(10), seven_day(20), opus(30)]), &lame]);

    assert_eq!(all.window(&WindowId::seven_day()).map(Window::observed_at), Some(at(0)));
    assert_eq!(all.window(&opus_id()), None);
}

#[test]
fn a_window_that_was_gone_before_it_could_not_be_read_stays_gone() {
    let except = Coverage::complete_except([opus_id()]);
    let lame = Snapshot::of(&UsageReport::polled([five_hour(11)]).coverage(except), at(2));

    let all = joined([&poll(1, [five_hour(10)]), &lame, &poll(0, [five_hour(1), opus(30)])]);

    assert_eq!(all.window(&opus_id()), None);
}

#[test]
fn that_a_window_could_not_be_read_is_forgotten_when_it_is_read_again() {
    let except = Coverage::complete_except([WindowId::seven_day()]);
    let lame = Snapshot::of(&UsageReport::polled([five_hour(11)]).coverage(except), at(0));
    let whole = poll(1, [five_hour(12), seven_day(20)]);

    assert_eq!(joined([&poll(-1, [five_hour(1)]), &lame, &whole]), whole);
}

#[test]
fn a_window_no_answer_named_is_unknown_until_a_complete_answer_omits_it() {
    let narrow = Snapshot::of(&UsageReport::polled([five_hour(1)]).coverage(Coverage::Reported), at(0));

    assert_eq!(narrow.presence(&WindowId::five_hour()), Presence::Read);
    assert_eq!(narrow.presence(&opus_id()), Presence::Unknown);
    assert_eq!(joined([&narrow, &poll(1, [five_hour(2)])]).presence(&opus_id()), Presence::Absent);
}

#[test]
fn an_unreadable_window_without_an_earlier_reading_is_unreadable() {
    let except = Coverage::complete_except([opus_id()]);
    let unreadable = Snapshot::of(&UsageReport::polled([five_hour(1)]).coverage(except), at(1));

    assert_eq!(unreadable.presence(&opus_id()), Presence::Unreadable);
    assert_eq!(unreadable.unreadable().collect::<Vec<_>>(), [&opus_id()]);
    assert_eq!(joined([&poll(0, [five_hour(1)]), &unreadable]).presence(&opus_id()), Presence::Unreadable);
    assert_eq!(joined([&poll(0, [opus(1)]), &unreadable]).presence(&opus_id()), Presence::Read);
}

#[test]
fn an_unreadable_window_that_a_later_answer_omits_is_absent() {
    let except = Coverage::complete_except([opus_id()]);
    let unreadable = Snapshot::of(&UsageReport::polled([five_hour(1)]).coverage(except), at(0));

    let joined = joined([&unreadable, &poll(1, [five_hour(2)])]);
    assert_eq!(joined.presence(&opus_id()), Presence::Absent);
    assert_eq!(joined.unreadable().count(), 0);
}

#[test]
fn fields_of_a_newer_program_survive_a_join_in_either_order() {
    let plain = poll(1, [five_hour(10)]);
    let mut document = serde_json::to_value(&plain).unwrap();
    add_fields(&mut document, 1);
    let newer: Snapshot = serde_json::from_value(document).unwrap();

    assert_ne!(newer, plain);
    assert_eq!(joined([&newer, &plain]), newer);
    assert_eq!(joined([&plain, &newer]), newer);
}

#[test]
fn headers_never_speak_of_a_models_window() {
    assert_eq!(headers(at(0), [five_hour(10), opus(20)]).windows().len(), 1);
}

#[test]
fn headers_never_speak_of_money() {
    let usage = UsageReport::from_headers([five_hour(10)]).credits(Credits::default());

    assert_eq!(Snapshot::of(&usage, at(0)).credits(), None);
}

#[test]
fn headers_never_cover_everything_even_if_they_say_so() {
    let mut usage = UsageReport::from_headers([five_hour(11)]).coverage(Coverage::complete());
    usage.plan = Some("max".to_owned());
    let spent = spending();
    let polled = Snapshot::of(&UsageReport::polled([five_hour(10), opus(90)]).credits(spent.clone()), at(0));

    let all = joined([&polled, &Snapshot::of(&usage, at(1))]);

    assert_eq!(all.window(&opus_id()).map(Window::used), Some(percent(90)));
    assert_eq!((all.credits(), all.complete_at()), (Some(&spent), Some(at(0))));
}

#[test]
fn headers_may_name_the_plan() {
    let usage = UsageReport::from_headers([]).plan("pro".to_owned());

    assert_eq!(Snapshot::of(&usage, at(0)).plan(), Some("pro"));
}

#[test]
fn the_later_plan_stands_in_either_order() {
    let pro = Snapshot::of(&UsageReport::polled([]).plan("pro".to_owned()), at(0));
    let max = Snapshot::of(&UsageReport::polled([]).plan("max".to_owned()), at(1));

    assert_eq!(joined([&pro, &max]).plan(), Some("max"));
    assert_eq!(joined([&max, &pro]).plan(), Some("max"));
}

#[test]
fn money_that_a_later_answer_covers_and_does_not_report_is_gone() {
    let spent = spending();
    let rich = Snapshot::of(&UsageReport::polled([five_hour(1)]).credits(spent), at(0));

    assert_eq!(joined([&rich, &poll(1, [five_hour(2)])]).credits(), None);
}

#[test]
fn money_that_could_not_be_read_stays_as_it_was() {
    let spent = spending();
    let rich = Snapshot::of(&UsageReport::polled([five_hour(1)]).credits(spent.clone()), at(0));
    let unread = Coverage::Complete { except: Vec::new(), credits: false };
    let poor = Snapshot::of(&UsageReport::polled([five_hour(2)]).coverage(unread), at(1));

    assert_eq!(joined([&rich, &poor]).credits(), Some(&spent));
}

#[test]
fn of_a_window_that_one_answer_names_twice_the_higher_use_stands() {
    let snapshot = poll(0, [five_hour(10), five_hour(20), five_hour(15)]);

    assert_eq!(snapshot.windows().len(), 1);
    assert_eq!(snapshot.windows()[0].used(), percent(20));
}

#[test]
fn an_answer_without_windows_has_an_age() {
    assert_eq!(poll(7, []).newest(), Some(at(7)));
    assert_eq!(Snapshot::default().newest(), None);
}

#[test]
fn a_plan_and_money_that_claim_to_be_later_than_a_limit_leave_no_trace() {
    let usage = UsageReport::polled([]).plan("max".to_owned()).credits(spending());
    let mut snapshot = Snapshot::of(&usage, at(1));

    snapshot.drop_after(at(0));

    assert!(snapshot.is_empty());
}

#[test]
fn a_window_that_a_clock_ahead_could_not_read_is_read_by_the_next() {
    let except = Coverage::complete_except([WindowId::seven_day()]);
    let lame = Snapshot::of(&UsageReport::polled([five_hour(11)]).coverage(except), at(9001));
    let mut snapshot = joined([&poll(9000, [five_hour(10)]), &lame]);

    snapshot.drop_after(at(0));
    snapshot.join(&poll(0, [seven_day(20)]));

    assert_eq!(snapshot.window(&WindowId::seven_day()).map(Window::used), Some(percent(20)));
}

/// Adds a field to the snapshot, its windows, its plan and its watermark.
fn add_fields(document: &mut Value, newer: u8) {
    document["newer"] = json!(newer);
    for window in document.get_mut("windows").and_then(Value::as_array_mut).into_iter().flatten() {
        window["newer"] = json!(newer);
        if let Some(peak) = window.get_mut("peak") {
            peak["newer"] = json!(newer);
        }
    }
    for (_, peak) in document.get_mut("peaks").and_then(Value::as_object_mut).into_iter().flatten() {
        peak["newer"] = json!(newer);
    }
    for place in ["/plan", "/watermark", "/watermark/all"] {
        if let Some(fields) = document.pointer_mut(place) {
            fields["newer"] = json!(newer);
        }
    }
}
