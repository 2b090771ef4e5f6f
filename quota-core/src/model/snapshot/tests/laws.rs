//! The laws of the merge: order, grouping and repetition make no difference. The tests next to this file state which of two
//! readings wins.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;

use super::{add_fields, joined, poll};
use crate::model::{Coverage, Percent, Provenance, Snapshot, Source, UsageReport, Window, WindowId};
use crate::record::tests::random::{usage, window_id};
use crate::record::tests::support::*;
use crate::time;

/// Several merged responses, some of them with an unknown field.
fn snapshot() -> impl Strategy<Value = Snapshot> {
    let answer = (usage(), 0_i64..4, prop::option::weighted(0.2, 0_u8..2));
    vec(answer, 0..3).prop_map(|answers| {
        let merged = answers.iter().map(|(usage, second, newer)| {
            let mut document = serde_json::to_value(Snapshot::of(usage, at(*second))).unwrap();
            if let Some(newer) = newer {
                add_fields(&mut document, *newer);
            }
            serde_json::from_value(document).unwrap()
        });
        joined(&merged.collect::<Vec<_>>())
    })
}

/// A response with one reading of a window of unknown length, with any reset.
fn of_unknown_length() -> impl Strategy<Value = Snapshot> {
    let reset = prop::option::weighted(0.9, 0_i64..400);
    let source = prop::sample::select(vec![Source::Statusline, Source::Headers, Source::Poll]);
    (0_u32..4, reset, source, 0_i64..4).prop_map(|(used, reset, source, second)| {
        let mut usage =
            UsageReport::from_headers([five_hour(used).resets_at(reset.map(|reset| at(600 + reset)))]);
        usage.source = source;
        Snapshot::of(&usage, at(second))
    })
}

/// The snapshot after a round trip through a store.
fn stored(snapshot: &Snapshot) -> Snapshot {
    serde_json::from_slice(&serde_json::to_vec(snapshot).unwrap()).unwrap()
}

proptest! {
    #[test]
    fn the_merge_is_commutative(a in snapshot(), b in snapshot()) {
        prop_assert_eq!(joined([&a, &b]), joined([&b, &a]));
    }

    #[test]
    fn the_merge_is_associative(a in snapshot(), b in snapshot(), c in snapshot()) {
        let mut left = a.clone();
        left.join(&b);
        left.join(&c);
        let mut right = b.clone();
        right.join(&c);
        let mut around = a;
        around.join(&right);

        prop_assert_eq!(left, around);
    }

    #[test]
    fn merging_twice_equals_merging_once(a in snapshot(), b in snapshot()) {
        let once = joined([&a, &b]);
        let mut twice = once.clone();
        twice.join(&b);
        twice.join(&a);
        twice.join(&once.clone());

        prop_assert_eq!(twice, once);
    }

    #[test]
    fn a_merge_with_itself_or_an_empty_snapshot_changes_nothing(a in snapshot()) {
        let mut itself = a.clone();
        itself.join(&a);
        itself.join(&Snapshot::default());

        prop_assert_eq!(&itself, &a);
        prop_assert_eq!(joined([&a]), a);
    }

    #[test]
    fn a_merged_snapshot_survives_a_round_trip_through_a_store(a in snapshot(), b in snapshot()) {
        let all = joined([&a, &b]);

        prop_assert_eq!(&stored(&a), &a);
        prop_assert_eq!(&joined([&stored(&a), &stored(&b)]), &all);
        prop_assert_eq!(&stored(&all), &all);
    }

    #[test]
    fn readings_of_unknown_length_merge_in_any_order(a in of_unknown_length(), b in of_unknown_length(), c in of_unknown_length()) {
        let left = joined([&joined([&a, &b]), &c]);
        let right = joined([&a, &joined([&b, &c])]);

        prop_assert_eq!(&left, &right);
        prop_assert_eq!(&joined([&c, &b, &a]), &left);
    }

    #[test]
    fn the_shown_readings_do_not_depend_on_the_order_of_arrival(
        (answers, shuffled) in vec((usage(), 0_i64..6), 0..6)
            .prop_flat_map(|answers| (Just(answers.clone()), Just(answers).prop_shuffle())),
    ) {
        let all = joined(&shuffled.iter().map(|(usage, second)| Snapshot::of(usage, at(*second))).collect::<Vec<_>>());

        let shown: BTreeMap<_, _> =
            all.windows().iter().map(|window| (window.id().clone(), shown(window))).collect();
        prop_assert_eq!(shown, expected(&answers));
    }

    #[test]
    fn values_after_the_limit_have_no_effect(a in snapshot(), limit in 0_i64..4) {
        let mut limited = a.clone();

        limited.drop_after(at(limit));

        prop_assert!(limited.newest().is_none_or(|newest| newest <= at(limit)));
        prop_assert!(limited.windows().iter().all(|window| a.window(window.id()).is_some()));
        let correct = poll(limit, [five_hour(7).resets_at(Timestamp::MAX), seven_day(7), opus(7)]);
        let ids = [WindowId::five_hour(), WindowId::seven_day(), opus_id()];
        limited.join(&correct);
        prop_assert!(ids.iter().all(|id| limited.window(id).map(Window::used) == Some(percent(7))));
    }

    #[test]
    fn windows_are_sorted_by_name(a in snapshot(), id in window_id()) {
        let names: Vec<_> = a.windows().iter().map(Window::id).collect();

        prop_assert!(names.is_sorted_by(|one, other| one < other));
        prop_assert_eq!(a.window(&id).is_some(), names.contains(&&id));
    }
}

/// The fields of a window that a reader sees.
type Shown = (Timestamp, Source, Percent);

fn shown(window: &Window) -> Shown {
    (window.observed_at(), window.source(), window.used())
}

/// The windows that a reader must see, computed from all readings at once.
fn expected(answers: &[(UsageReport, i64)]) -> BTreeMap<WindowId, Shown> {
    let ids = [WindowId::five_hour(), WindowId::seven_day(), opus_id(), WindowId::new("moon phase").unwrap()];
    let mut readings = BTreeMap::<WindowId, Vec<Window>>::new();
    let mut gone = BTreeMap::<WindowId, Provenance>::new();
    for (usage, second) in answers {
        let (at, mut usage) = (at(*second), usage.clone());
        let stamp = Provenance::new(time::truncate_ms(at), usage.source);
        let _ = usage.reject_implausible(at);
        let is_partial = matches!(usage.source, Source::Headers | Source::Statusline);
        for reading in usage.windows.iter().filter(|reading| !is_partial || reading.scope.is_none()) {
            readings.entry(reading.id.clone()).or_default().push(reading.clone().stamped(stamp));
        }
        if let Coverage::Complete { except, .. } = &usage.coverage
            && !is_partial
        {
            for id in ids.iter().filter(|id| !except.contains(id)) {
                let until = gone.entry(id.clone()).or_insert(stamp);
                *until = stamp.max(*until);
            }
        }
    }
    let shown = readings.into_iter().filter_map(|(id, readings)| {
        let shown = expected_of(&readings, gone.get(&id))?;
        Some((id, shown))
    });
    shown.collect()
}

/// The winner of one window: the newest timestamped reading, or an untimed one that exceeds all others of the latest period
/// and arrived after it. A later response that covered the window and did not report it removes both.
fn expected_of(readings: &[Window], gone: Option<&Provenance>) -> Option<Shown> {
    let is_left = |window: &&Window| gone.is_none_or(|gone| window.stamp() >= *gone);
    let timed = readings.iter().filter(|window| window.source().has_time());
    let newest = timed.filter(is_left).reduce(|one, other| if other.supersedes(one) { other } else { one });

    // If the length is unknown, resets within one minute belong to one period.
    let same = if readings.iter().any(|window| window.length().is_some()) { 3600 } else { 60 };
    let period =
        |window: &&Window| window.resets_at().map(|reset| (reset.as_second() + same / 2).div_euclid(same));
    let latest = readings.iter().map(|window| period(&window)).max()?;
    let of_latest = readings.iter().filter(|window| period(window) == latest);
    let top = of_latest.clone().map(Window::used).max()?;
    let at_top = of_latest.filter(|window| window.used() == top);
    let raised = at_top.min_by_key(|window| (window.source().has_time(), window.observed_at()))?;
    let is_known = readings
        .iter()
        .any(|window| window.source().has_time() && period(&window) == latest && window.used() == top);
    let counts = newest.is_none_or(|newest| {
        raised.observed_at() > newest.observed_at() && (newest.resets_at().is_some() || top > newest.used())
    });
    if !is_known && counts && is_left(&raised) { Some(shown(raised)) } else { newest.map(shown) }
}
