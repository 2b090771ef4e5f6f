//! Readings without timestamps: when one raises a window, and when an idle session only repeats old numbers. The tests in
//! `laws` check that the order of arrival makes no difference.

use super::joined;
use super::poll as answer;
use crate::model::{Presence, Snapshot, Source, UsageReport, Window, WindowId, WindowReading};
use crate::record::Record;
use crate::record::tests::support::*;

/// A five-hour window of the period that ends in an hour.
fn of_period(used: u32) -> WindowReading {
    five_hour(used).length(HOUR * 5).resets_at(at(3600))
}

/// A statusline that a session prints at this second.
fn line<const N: usize>(second: i64, windows: [WindowReading; N]) -> Snapshot {
    Snapshot::of(&UsageReport::from_statusline(windows, at(second)), at(second))
}

/// The reading of the five-hour window that a reader sees, which must not depend on the order of arrival.
fn shown(snapshots: &[Snapshot]) -> (Source, u32) {
    let all = joined(snapshots);
    assert_eq!(joined(snapshots.iter().rev()), all);
    let window = all.window(&WindowId::five_hour()).expect("it was reported");
    (window.source(), window.used().basis_points() / 100)
}

#[test]
fn a_repeated_old_line_does_not_raise_a_lowered_reading() {
    let high = answer(0, [of_period(42)]);
    let low = answer(10, [of_period(3)]);

    assert_eq!(shown(&[high, low, line(20, [of_period(42)])]), (Source::Poll, 3));
}

#[test]
fn a_value_above_the_peak_counts() {
    let polls = [answer(0, [of_period(42)]), answer(10, [of_period(3)])];
    let line = line(20, [of_period(43)]);

    assert_eq!(shown(&[polls[0].clone(), polls[1].clone(), line]), (Source::Statusline, 43));
}

#[test]
fn a_value_above_the_peak_counts_until_the_next_poll() {
    let raised = [answer(0, [of_period(42)]), line(20, [of_period(43)]), answer(30, [of_period(4)])];

    assert_eq!(shown(&raised), (Source::Poll, 4));
    let again = joined(raised.iter().chain([&line(40, [of_period(43)])]));
    assert_eq!(again, joined(&raised));
}

#[test]
fn polls_and_repeated_lines_do_not_alternate() {
    let mut known = joined([&answer(0, [of_period(42)])]);
    for round in 1..4 {
        known.join(&answer(round * 20, [of_period(3)]));
        known.join(&line(round * 20 + 10, [of_period(42)]));

        assert_eq!(known.window(&WindowId::five_hour()).map(Window::used), Some(percent(3)), "{round}");
    }
}

#[test]
fn headers_lower_a_window_like_a_poll() {
    let headers = headers(at(10), [of_period(3)]);

    assert_eq!(
        shown(&[answer(0, [of_period(42)]), headers, line(20, [of_period(42)])]),
        (Source::Headers, 3)
    );
}

#[test]
fn a_file_with_a_date_lowers_a_window() {
    let file = Snapshot::of(&UsageReport::from_local([of_period(3)], at(10)), at(10));

    assert_eq!(shown(&[answer(0, [of_period(42)]), file]), (Source::Local, 3));
}

#[test]
fn a_line_without_any_other_reading_is_shown() {
    assert_eq!(shown(&[line(0, [of_period(42)])]), (Source::Statusline, 42));
}

#[test]
fn the_higher_of_two_lines_is_shown() {
    assert_eq!(shown(&[line(0, [of_period(42)]), line(10, [of_period(41)])]), (Source::Statusline, 42));
}

#[test]
fn a_repeated_line_does_not_refresh_a_reading() {
    let polled = answer(0, [of_period(42)]);

    assert_eq!(joined([&polled, &line(10, [of_period(42)])]), polled);
}

#[test]
fn only_a_line_above_the_peak_changes_the_snapshot() {
    let known = joined(&[answer(0, [of_period(42)]), answer(10, [of_period(3)])]);
    let changes = |used| {
        let line = UsageReport::from_statusline([of_period(used)], at(20));
        known.is_changed_by(&line, at(20))
    };

    assert_eq!([3, 41, 42, 43].map(changes), [false, false, false, true]);
}

#[test]
fn a_line_without_a_reset_belongs_to_the_period_of_its_arrival() {
    let mut record = polled(at(0), [of_period(42)]);
    let line = |second, used| line(second, [five_hour(used)]);
    let shown = |record: &Record| record.snapshot().window(&WindowId::five_hour()).map(Window::used);

    let _ = record.observe(at(10), &line(10, 41), None, None);
    assert_eq!(shown(&record), Some(percent(42)));
    let _ = record.observe(at(20), &line(20, 43), None, None);
    assert_eq!(shown(&record), Some(percent(43)));
    poll(&mut record, at(30), &UsageReport::polled([of_period(4)]));
    let _ = record.observe(at(40), &line(40, 43), None, None);
    assert_eq!(shown(&record), Some(percent(4)));
}

#[test]
fn a_line_without_a_reset_assumes_no_reset_beyond_its_length() {
    let mut record = polled(at(0), [five_hour(0).resets_at(at(2 * 3600))]);

    let _ = record.observe(at(10), &line(10, [five_hour(100).length(HOUR)]), None, None);

    assert_eq!(stored(&record), record);
    assert_eq!(record.snapshot().window(&WindowId::five_hour()).map(Window::used), Some(percent(0)));
    poll(&mut record, at(20), &UsageReport::polled([]));
    assert_eq!(stored(&record), record);
}

#[test]
fn a_line_without_a_reset_assumes_a_reset_within_its_length() {
    let mut record = polled(at(0), [five_hour(0).resets_at(at(3600))]);

    let _ = record.observe(at(10), &line(10, [five_hour(100).length(HOUR)]), None, None);

    let window = record.snapshot().window(&WindowId::five_hour()).expect("it was reported");
    assert_eq!((window.used(), window.resets_at()), (percent(100), Some(at(3600))));
    assert_eq!(stored(&record), record);
}

#[test]
fn a_lower_line_of_a_later_period_is_shown() {
    let next = five_hour(1).length(HOUR * 5).resets_at(at(6 * 3600));

    assert_eq!(shown(&[answer(0, [of_period(42)]), line(3700, [next])]), (Source::Statusline, 1));
}

#[test]
fn resets_less_than_half_a_length_apart_are_one_period() {
    let nearly = five_hour(41).length(HOUR * 5).resets_at(at(3600 + 8999));
    let half = five_hour(41).length(HOUR * 5).resets_at(at(3600 + 9000));

    assert_eq!(shown(&[answer(0, [of_period(42)]), line(10, [nearly])]), (Source::Poll, 42));
    assert_eq!(shown(&[answer(0, [of_period(42)]), line(10, [half])]), (Source::Statusline, 41));
}

#[test]
fn without_a_length_resets_within_one_minute_are_one_period() {
    let window = |used, second| five_hour(used).resets_at(at(second));

    assert_eq!(shown(&[answer(0, [window(42, 3600)]), line(10, [window(41, 3629)])]), (Source::Poll, 42));
    assert_eq!(
        shown(&[answer(0, [window(42, 3600)]), line(10, [window(41, 3630)])]),
        (Source::Statusline, 41)
    );
}

#[test]
fn a_line_raises_a_window_that_has_not_started_for_the_provider() {
    assert_eq!(shown(&[answer(0, [five_hour(0)]), line(10, [of_period(12)])]), (Source::Statusline, 12));
}

#[test]
fn a_line_never_lowers_a_window_of_unknown_period() {
    assert_eq!(shown(&[answer(0, [five_hour(80)]), line(10, [of_period(40)])]), (Source::Poll, 80));
}

#[test]
fn a_line_of_an_ended_period_is_not_shown() {
    let left_open_overnight = five_hour(97).length(HOUR * 5).resets_at(at(-9 * 3600));

    assert_eq!(shown(&[answer(0, [five_hour(0)]), line(10, [left_open_overnight])]), (Source::Poll, 0));
}

#[test]
fn a_repeated_line_does_not_restore_a_removed_window() {
    let removed = [answer(0, [of_period(42)]), answer(10, [])];
    let repeated = joined(removed.iter().chain([&line(20, [of_period(42)])]));

    assert_eq!(repeated.presence(&WindowId::five_hour()), Presence::Absent);
    let above = joined(removed.iter().chain([&line(20, [of_period(43)])]));
    assert_eq!(above.window(&WindowId::five_hour()).map(Window::used), Some(percent(43)));
}

#[test]
fn a_peak_is_removed_after_its_period() {
    let mut known = joined(&[answer(0, [of_period(42)]), answer(10, [of_period(3)])]);
    let mut removed = joined(&[answer(0, [of_period(42)]), answer(10, [])]);

    known.forget_peaks(at(3629));
    removed.forget_peaks(at(3629));
    assert_ne!(known, answer(10, [of_period(3)]));
    assert_ne!(removed, answer(10, []));
    known.forget_peaks(at(3630));
    removed.forget_peaks(at(3630));
    assert_eq!((known, removed), (answer(10, [of_period(3)]), answer(10, [])));
}

#[test]
fn a_line_repeated_in_the_last_seconds_of_a_period_is_ignored() {
    let of_period = |used| of_period(used).resets_at(at(3629));
    let mut known = joined(&[answer(0, [of_period(42)]), answer(10, [of_period(3)])]);

    known.forget_peaks(at(3628));

    assert_eq!(shown(&[known, line(3628, [of_period(42)])]), (Source::Poll, 3));
}

#[test]
fn a_rising_reading_stores_no_separate_peak() {
    let grown = joined(&[answer(0, [of_period(3)]), line(5, [of_period(3)]), answer(10, [of_period(42)])]);

    assert_eq!(grown, answer(10, [of_period(42)]));
}

#[test]
fn a_reset_milliseconds_off_stores_no_separate_peak() {
    let off = of_period(42).resets_at(at(3600) + std::time::Duration::from_millis(282));

    assert_eq!(joined(&[answer(0, [off]), answer(10, [of_period(42)])]), answer(10, [of_period(42)]));
}

#[test]
fn the_peaks_of_removed_windows_are_limited() {
    let mut known = Snapshot::default();
    for second in 0..100 {
        let id = WindowId::new(&format!("window_{second}")).unwrap();
        known.join(&answer(second, [WindowReading::new(id, percent(1)).resets_at(at(3600))]));
        known.forget_peaks(at(second));
    }

    let stored = serde_json::to_value(&known).unwrap();
    assert_eq!(stored["peaks"].as_object().map(serde_json::Map::len), Some(32));
}

#[test]
fn an_implausible_stored_window_is_dropped() {
    let mut stored = serde_json::to_value(answer(0, [of_period(42), seven_day(17)])).unwrap();
    stored["windows"][0]["used_bp"] = serde_json::json!(4_294_967_295_u32);

    let read: Snapshot = serde_json::from_value(stored).unwrap();

    assert_eq!(read, {
        let mut only = answer(0, [of_period(42), seven_day(17)]);
        only.windows.remove(0);
        only
    });
}

#[test]
fn an_implausible_stored_peak_is_dropped() {
    let lowered = joined(&[answer(0, [of_period(42)]), answer(10, [of_period(3)])]);
    for (field, value) in [("used_bp", 4_294_967_295_i64), ("resets_ms", 253_402_207_200_000)] {
        let mut stored = serde_json::to_value(&lowered).unwrap();
        stored["windows"][0]["peak"][field] = serde_json::json!(value);

        let read: Snapshot = serde_json::from_value(stored).unwrap();

        assert_eq!(read, answer(10, [of_period(3)]), "{field}");
    }
}

#[test]
fn an_implausible_stored_peak_of_a_removed_window_is_dropped() {
    let removed = joined(&[line(0, [of_period(42), seven_day(17)]), answer(10, [])]);
    for (field, value) in [("used_bp", 4_294_967_295_i64), ("resets_ms", 253_402_207_200_000)] {
        let mut stored = serde_json::to_value(&removed).unwrap();
        stored["peaks"]["five_hour"][field] = serde_json::json!(value);

        let read: Snapshot = serde_json::from_value(stored).unwrap();

        assert_eq!(read, joined(&[line(0, [seven_day(17)]), answer(10, [])]), "{field}");
    }
}

#[test]
fn an_implausible_stored_length_is_dropped() {
    let polled = answer(0, [of_period(42)]);
    let mut stored = serde_json::to_value(&polled).unwrap();
    stored["windows"][0]["length_ms"] = serde_json::json!(0);

    let read: Snapshot = serde_json::from_value(stored).unwrap();

    assert_eq!(read, answer(0, [five_hour(42).resets_at(at(3600))]));
}

#[test]
fn an_implausible_stored_reset_is_dropped() {
    let mut polled = serde_json::to_value(answer(0, [of_period(42)])).unwrap();
    let mut lined = serde_json::to_value(line(0, [of_period(42)])).unwrap();
    for stored in [&mut polled, &mut lined] {
        stored["windows"][0]["resets_ms"] = serde_json::json!(253_402_207_200_000_i64);
    }

    let polled: Snapshot = serde_json::from_value(polled).unwrap();
    let lined: Snapshot = serde_json::from_value(lined).unwrap();

    let window = polled.window(&WindowId::five_hour()).expect("a poll keeps its window");
    assert_eq!((window.used(), window.resets_at()), (percent(42), None));
    assert!(lined.windows().is_empty());
}
