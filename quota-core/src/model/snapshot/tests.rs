//! Which of two readings the merge selects. The laws of the merge are in `laws`. The tests of `record` cover how a record
//! uses a snapshot.

mod laws;
mod peaks;

use serde_json::{Value, json};

use super::{Presence, Snapshot};
use crate::model::{
    Coverage, Credits, IgnoredField, Scope, Source, UsageReport, Window, WindowId, WindowReading,
};
use crate::record::tests::support::*;

fn poll<const N: usize>(second: i64, windows: [WindowReading; N]) -> Snapshot {
    Snapshot::of(&UsageReport::polled(windows), at(second))
}

fn joined<'a>(snapshots: impl IntoIterator<Item = &'a Snapshot>) -> Snapshot {
    let mut all = Snapshot::default();
    snapshots.into_iter().for_each(|snapshot| all.join(snapshot));
    all
}

/// The five-hour window after merging two snapshots in either order.
fn both_ways(one: &Snapshot, other: &Snapshot) -> Window {
    let (forward, backward) = (joined([one, other]), joined([other, one]));
    assert_eq!(forward, backward);
    forward.window(&WindowId::five_hour()).unwrap().clone()
}

fn ignoring(second: i64, fields: &[&str]) -> Snapshot {
    let fields = fields.iter().map(|field| IgnoredField::new(*field, "unknown"));
    Snapshot::of(&UsageReport::polled([]).ignored(fields), at(second))
}

#[test]
fn a_response_that_is_not_complete_has_its_ignored_fields() {
    let fields = [IgnoredField::new("limits", "not a list")];
    let usage = UsageReport::polled([five_hour(1)]).coverage(Coverage::Reported).ignored(fields.clone());
    let (before, partial, after) = (ignoring(0, &["a"]), Snapshot::of(&usage, at(1)), ignoring(2, &[]));

    assert_eq!(joined([&partial, &before]).ignored(), fields);
    assert_eq!(joined([&after, &partial]).ignored(), []);
}

#[test]
fn the_ignored_fields_are_those_of_the_last_complete_response() {
    let (first, next, last) = (ignoring(0, &["a", "b"]), ignoring(1, &["b"]), ignoring(2, &[]));

    assert_eq!(joined([&next, &first]).ignored(), [IgnoredField::new("b", "unknown")]);
    assert_eq!(joined([&last, &first, &next]).ignored(), []);
    assert_eq!(joined([&first, &last, &next]), joined([&next, &first, &last]));
}

#[test]
fn the_newer_of_two_readings_wins() {
    let winner = both_ways(&poll(0, [five_hour(90)]), &poll(1, [five_hour(10)]));

    assert_eq!(winner.used(), percent(10));
}

#[test]
fn the_higher_use_wins_at_equal_time_and_source() {
    let winner = both_ways(&poll(0, [five_hour(10)]), &poll(0, [five_hour(11)]));

    assert_eq!(winner.used(), percent(11));
}

#[test]
fn the_later_reset_wins_at_equal_use() {
    let early = poll(0, [five_hour(10).resets_at(at(60))]);
    let late = poll(0, [five_hour(10).resets_at(at(61))]);

    assert_eq!(both_ways(&early, &late).resets_at(), Some(at(61)));
}

#[test]
fn any_other_difference_selects_the_same_winner_in_both_orders() {
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
        let winner = both_ways(&plain, &other);
        assert!(!winner.supersedes(&other.windows()[0]) && winner.supersedes(&plain.windows()[0]));
    }
}

#[test]
fn a_poll_wins_over_headers_and_headers_over_a_file_at_equal_time() {
    let headers = headers(at(0), [five_hour(20)]);
    let file = Snapshot::of(&UsageReport::from_local([five_hour(30)], at(0)), at(0));

    assert_eq!(both_ways(&poll(0, [five_hour(10)]), &headers).source(), Source::Poll);
    assert_eq!(both_ways(&headers, &file).source(), Source::Headers);
}

#[test]
fn any_reading_wins_over_none() {
    let file = Snapshot::of(&UsageReport::from_local([five_hour(30)], at(0)), at(0));

    assert_eq!(both_ways(&file, &Snapshot::default()).used(), percent(30));
}

#[test]
fn headers_win_over_a_poll_that_started_before_them() {
    let winner = both_ways(&poll(100, [five_hour(40)]), &headers(at(110), [five_hour(50)]));

    assert_eq!((winner.used(), winner.source()), (percent(50), Source::Headers));
}

#[test]
fn a_window_omitted_by_a_later_complete_response_is_removed() {
    let all = joined([&poll(0, [five_hour(10), opus(100)]), &poll(1, [five_hour(11)])]);

    assert_eq!(all.window(&opus_id()), None);
}

#[test]
fn only_a_later_reading_restores_a_removed_window() {
    let removed = poll(1, [five_hour(11)]);
    let earlier = Snapshot::of(&UsageReport::polled([opus(1)]).coverage(Coverage::Reported), at(0));
    let later = Snapshot::of(&UsageReport::polled([opus(2)]).coverage(Coverage::Reported), at(2));

    assert_eq!(joined([&removed, &earlier]).window(&opus_id()), None);
    assert_eq!(joined([&removed, &later]).window(&opus_id()).map(Window::used), Some(percent(2)));
}

#[test]
fn a_partial_response_removes_nothing() {
    let partial = Snapshot::of(&UsageReport::polled([five_hour(11)]).coverage(Coverage::Reported), at(1));

    let all = joined([&poll(0, [five_hour(10), seven_day(20)]), &partial]);

    assert_eq!(all.windows().len(), 2);
    assert_eq!(all.complete_at(), Some(at(0)));
}

#[test]
fn an_unreadable_window_keeps_its_last_reading() {
    let except = Coverage::complete_except([WindowId::seven_day()]);
    let unreadable = Snapshot::of(&UsageReport::polled([five_hour(11)]).coverage(except), at(1));

    let all = joined([&poll(0, [five_hour(10), seven_day(20), opus(30)]), &unreadable]);

    assert_eq!(all.window(&WindowId::seven_day()).map(Window::observed_at), Some(at(0)));
    assert_eq!(all.window(&opus_id()), None);
}

#[test]
fn a_removed_window_stays_removed_when_it_is_unreadable() {
    let except = Coverage::complete_except([opus_id()]);
    let unreadable = Snapshot::of(&UsageReport::polled([five_hour(11)]).coverage(except), at(2));

    let all = joined([&poll(1, [five_hour(10)]), &unreadable, &poll(0, [five_hour(1), opus(30)])]);

    assert_eq!(all.window(&opus_id()), None);
}

#[test]
fn a_new_reading_clears_the_unreadable_state() {
    let except = Coverage::complete_except([WindowId::seven_day()]);
    let unreadable = Snapshot::of(&UsageReport::polled([five_hour(11)]).coverage(except), at(0));
    let whole = poll(1, [five_hour(12), seven_day(20)]);

    assert_eq!(joined([&poll(-1, [five_hour(1)]), &unreadable, &whole]), whole);
}

#[test]
fn an_unnamed_window_is_unknown_until_a_complete_response_omits_it() {
    let partial = Snapshot::of(&UsageReport::polled([five_hour(1)]).coverage(Coverage::Reported), at(0));

    assert_eq!(partial.presence(&WindowId::five_hour()), Presence::Read);
    assert_eq!(partial.presence(&opus_id()), Presence::Unknown);
    assert_eq!(joined([&partial, &poll(1, [five_hour(2)])]).presence(&opus_id()), Presence::Absent);
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
fn an_unreadable_window_that_a_later_response_omits_is_absent() {
    let except = Coverage::complete_except([opus_id()]);
    let unreadable = Snapshot::of(&UsageReport::polled([five_hour(1)]).coverage(except), at(0));

    let joined = joined([&unreadable, &poll(1, [five_hour(2)])]);
    assert_eq!(joined.presence(&opus_id()), Presence::Absent);
    assert_eq!(joined.unreadable().count(), 0);
}

#[test]
fn unknown_fields_survive_a_merge_in_either_order() {
    let plain = poll(1, [five_hour(10)]);
    let mut document = serde_json::to_value(&plain).unwrap();
    add_fields(&mut document, 1);
    let newer: Snapshot = serde_json::from_value(document).unwrap();

    assert_ne!(newer, plain);
    assert_eq!(joined([&newer, &plain]), newer);
    assert_eq!(joined([&plain, &newer]), newer);
}

#[test]
fn headers_never_report_a_models_window() {
    assert_eq!(headers(at(0), [five_hour(10), opus(20)]).windows().len(), 1);
}

#[test]
fn headers_never_report_credits() {
    let usage = UsageReport::from_headers([five_hour(10)]).credits(Credits::default());

    assert_eq!(Snapshot::of(&usage, at(0)).credits(), None);
}

#[test]
fn headers_never_have_complete_coverage() {
    let mut usage = UsageReport::from_headers([five_hour(11)]).coverage(Coverage::complete());
    usage.plan = Some("max".to_owned());
    let credits = spending();
    let polled =
        Snapshot::of(&UsageReport::polled([five_hour(10), opus(90)]).credits(credits.clone()), at(0));

    let all = joined([&polled, &Snapshot::of(&usage, at(1))]);

    assert_eq!(all.window(&opus_id()).map(Window::used), Some(percent(90)));
    assert_eq!((all.credits(), all.complete_at()), (Some(&credits), Some(at(0))));
}

#[test]
fn headers_may_name_the_plan() {
    let usage = UsageReport::from_headers([]).plan("pro".to_owned());

    assert_eq!(Snapshot::of(&usage, at(0)).plan(), Some("pro"));
}

#[test]
fn the_later_plan_wins_in_either_order() {
    let pro = Snapshot::of(&UsageReport::polled([]).plan("pro".to_owned()), at(0));
    let max = Snapshot::of(&UsageReport::polled([]).plan("max".to_owned()), at(1));

    assert_eq!(joined([&pro, &max]).plan(), Some("max"));
    assert_eq!(joined([&max, &pro]).plan(), Some("max"));
}

#[test]
fn credits_omitted_by_a_later_complete_response_are_removed() {
    let credits = spending();
    let before = Snapshot::of(&UsageReport::polled([five_hour(1)]).credits(credits), at(0));

    assert_eq!(joined([&before, &poll(1, [five_hour(2)])]).credits(), None);
}

#[test]
fn unreadable_credits_keep_their_last_value() {
    let credits = spending();
    let before = Snapshot::of(&UsageReport::polled([five_hour(1)]).credits(credits.clone()), at(0));
    let unreadable = Coverage::Complete { except: Vec::new(), credits: false };
    let after = Snapshot::of(&UsageReport::polled([five_hour(2)]).coverage(unreadable), at(1));

    assert_eq!(joined([&before, &after]).credits(), Some(&credits));
}

#[test]
fn the_higher_use_wins_if_a_response_names_a_window_twice() {
    let snapshot = poll(0, [five_hour(10), five_hour(20), five_hour(15)]);

    assert_eq!(snapshot.windows().len(), 1);
    assert_eq!(snapshot.windows()[0].used(), percent(20));
}

#[test]
fn a_response_without_windows_has_a_time() {
    assert_eq!(poll(7, []).newest(), Some(at(7)));
    assert_eq!(Snapshot::default().newest(), None);
}

#[test]
fn a_plan_and_credits_after_the_limit_are_dropped() {
    let usage = UsageReport::polled([]).plan("max".to_owned()).credits(spending());
    let mut snapshot = Snapshot::of(&usage, at(1));

    snapshot.drop_after(at(0));

    assert!(snapshot.is_empty());
}

#[test]
fn drop_after_removes_the_unreadable_state_from_the_future() {
    let except = Coverage::complete_except([WindowId::seven_day()]);
    let unreadable = Snapshot::of(&UsageReport::polled([five_hour(11)]).coverage(except), at(9001));
    let mut snapshot = joined([&poll(9000, [five_hour(10)]), &unreadable]);

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
    for pointer in ["/plan", "/watermark", "/watermark/all"] {
        if let Some(fields) = document.pointer_mut(pointer) {
            fields["newer"] = json!(newer);
        }
    }
}
