//! Which of two readings stands, and the laws of joining.
//! What a record does with a snapshot is in the tests of `record`.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::Snapshot;
use crate::record::tests::random::{usage, window_id};
use crate::record::tests::support::*;
use crate::time;
use crate::{Coverage, Credits, Source, Stamp, Usage, Window, WindowId, WindowReading};

fn poll<const N: usize>(second: i64, windows: [WindowReading; N]) -> Snapshot {
    Snapshot::of(&Usage::polled(windows), at(second))
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

// B62
#[test]
fn of_one_moment_a_poll_beats_headers_and_these_beat_a_file() {
    let headers = headers(at(0), [five_hour(20)]);
    let file = Snapshot::of(&Usage::from_local([five_hour(30)], at(0)), at(0));

    assert_eq!(both_ways(&poll(0, [five_hour(10)]), &headers).source(), Source::Poll);
    assert_eq!(both_ways(&headers, &file).source(), Source::Headers);
}

// B62
#[test]
fn any_reading_beats_none() {
    let file = Snapshot::of(&Usage::from_local([five_hour(30)], at(0)), at(0));

    assert_eq!(both_ways(&file, &Snapshot::default()).used(), percent(30));
}

// B61
#[test]
fn headers_beat_a_poll_that_started_before_them() {
    let stands = both_ways(&poll(100, [five_hour(40)]), &headers(at(110), [five_hour(50)]));

    assert_eq!((stands.used(), stands.source()), (percent(50), Source::Headers));
}

// B52
#[test]
fn a_window_that_a_later_complete_answer_does_not_report_is_gone() {
    let all = joined([&poll(0, [five_hour(10), opus(100)]), &poll(1, [five_hour(11)])]);

    assert_eq!(all.window(&opus_id()), None);
}

// B52
#[test]
fn a_window_that_is_gone_comes_back_with_a_later_reading_only() {
    let gone = poll(1, [five_hour(11)]);
    let earlier = Snapshot::of(&Usage::polled([opus(1)]).coverage(Coverage::Reported), at(0));
    let later = Snapshot::of(&Usage::polled([opus(2)]).coverage(Coverage::Reported), at(2));

    assert_eq!(joined([&gone, &earlier]).window(&opus_id()), None);
    assert_eq!(joined([&gone, &later]).window(&opus_id()).map(Window::used), Some(percent(2)));
}

#[test]
fn an_answer_that_covers_only_what_it_reports_removes_nothing() {
    let narrow = Snapshot::of(&Usage::polled([five_hour(11)]).coverage(Coverage::Reported), at(1));

    let all = joined([&poll(0, [five_hour(10), seven_day(20)]), &narrow]);

    assert_eq!(all.windows().len(), 2);
    assert_eq!(all.complete_at(), Some(at(0)));
}

// B73
#[test]
fn a_window_that_stood_there_and_could_not_be_read_stays_as_it_was() {
    let except = Coverage::complete_except([WindowId::seven_day()]);
    let lame = Snapshot::of(&Usage::polled([five_hour(11)]).coverage(except), at(1));

    let all = joined([&poll(0, [five_hour(10), seven_day(20), opus(30)]), &lame]);

    assert_eq!(all.window(&WindowId::seven_day()).map(Window::observed_at), Some(at(0)));
    assert_eq!(all.window(&opus_id()), None);
}

// B73
#[test]
fn a_window_that_was_gone_before_it_could_not_be_read_stays_gone() {
    let except = Coverage::complete_except([opus_id()]);
    let lame = Snapshot::of(&Usage::polled([five_hour(11)]).coverage(except), at(2));

    let all = joined([&poll(1, [five_hour(10)]), &lame, &poll(0, [five_hour(1), opus(30)])]);

    assert_eq!(all.window(&opus_id()), None);
}

// B63
#[test]
fn headers_never_speak_of_a_models_window() {
    assert_eq!(headers(at(0), [five_hour(10), opus(20)]).windows().len(), 1);
}

// B63
#[test]
fn headers_never_speak_of_money() {
    let usage = Usage::from_headers([five_hour(10)]).credits(Credits::default());

    assert_eq!(Snapshot::of(&usage, at(0)).credits(), None);
}

// B63
#[test]
fn headers_never_cover_everything_even_if_they_say_so() {
    let mut usage = Usage::from_headers([five_hour(11)]).coverage(Coverage::complete());
    usage.plan = Some("max".to_owned());
    let spent = spending();
    let polled = Snapshot::of(&Usage::polled([five_hour(10), opus(90)]).credits(spent.clone()), at(0));

    let all = joined([&polled, &Snapshot::of(&usage, at(1))]);

    assert_eq!(all.window(&opus_id()).map(Window::used), Some(percent(90)));
    assert_eq!((all.credits(), all.complete_at()), (Some(&spent), Some(at(0))));
}

#[test]
fn headers_may_name_the_plan() {
    let usage = Usage::from_headers([]).plan("pro".to_owned());

    assert_eq!(Snapshot::of(&usage, at(0)).plan(), Some("pro"));
}

#[test]
fn the_later_plan_stands_in_either_order() {
    let pro = Snapshot::of(&Usage::polled([]).plan("pro".to_owned()), at(0));
    let max = Snapshot::of(&Usage::polled([]).plan("max".to_owned()), at(1));

    assert_eq!(joined([&pro, &max]).plan(), Some("max"));
    assert_eq!(joined([&max, &pro]).plan(), Some("max"));
}

#[test]
fn money_that_a_later_answer_covers_and_does_not_report_is_gone() {
    let spent = spending();
    let rich = Snapshot::of(&Usage::polled([five_hour(1)]).credits(spent), at(0));

    assert_eq!(joined([&rich, &poll(1, [five_hour(2)])]).credits(), None);
}

#[test]
fn money_that_could_not_be_read_stays_as_it_was() {
    let spent = spending();
    let rich = Snapshot::of(&Usage::polled([five_hour(1)]).credits(spent.clone()), at(0));
    let unread = Coverage::Complete { except: Vec::new(), credits: false };
    let poor = Snapshot::of(&Usage::polled([five_hour(2)]).coverage(unread), at(1));

    assert_eq!(joined([&rich, &poor]).credits(), Some(&spent));
}

#[test]
fn of_a_window_that_one_answer_names_twice_the_higher_use_stands() {
    let snapshot = poll(0, [five_hour(10), five_hour(20), five_hour(15)]);

    assert_eq!(snapshot.windows().len(), 1);
    assert_eq!(snapshot.windows()[0].used(), percent(20));
}

// B51
#[test]
fn an_answer_without_windows_has_an_age() {
    assert_eq!(poll(7, []).newest(), Some(at(7)));
    assert_eq!(Snapshot::default().newest(), None);
}

/// A few answers joined, some of them with a field of a newer program.
fn snapshot() -> impl Strategy<Value = Snapshot> {
    let answer = (usage(), 0_i64..4, prop::option::weighted(0.2, 0_u8..2));
    vec(answer, 0..3).prop_map(|answers| {
        let told = answers.iter().map(|(usage, second, newer)| {
            let mut document = serde_json::to_value(Snapshot::of(usage, at(*second))).unwrap();
            if let Some(newer) = newer {
                add_fields(&mut document, *newer);
            }
            serde_json::from_value(document).unwrap()
        });
        joined(&told.collect::<Vec<_>>())
    })
}

/// Adds a field to the snapshot, its windows, its plan and its horizon.
fn add_fields(document: &mut Value, newer: u8) {
    document["newer"] = json!(newer);
    for window in document.get_mut("windows").and_then(Value::as_array_mut).into_iter().flatten() {
        window["newer"] = json!(newer);
    }
    for place in ["/plan", "/horizon", "/horizon/all"] {
        if let Some(fields) = document.pointer_mut(place) {
            fields["newer"] = json!(newer);
        }
    }
}

/// What comes back from a store.
fn stored(snapshot: &Snapshot) -> Snapshot {
    serde_json::from_slice(&serde_json::to_vec(snapshot).unwrap()).unwrap()
}

proptest! {
    #[test]
    fn it_does_not_matter_who_joins_whom(a in snapshot(), b in snapshot()) {
        prop_assert_eq!(joined([&a, &b]), joined([&b, &a]));
    }

    #[test]
    fn it_does_not_matter_who_joins_first(a in snapshot(), b in snapshot(), c in snapshot()) {
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
    fn joining_twice_is_joining_once(a in snapshot(), b in snapshot()) {
        let once = joined([&a, &b]);
        let mut twice = once.clone();
        twice.join(&b);
        twice.join(&a);
        twice.join(&once.clone());

        prop_assert_eq!(twice, once);
    }

    #[test]
    fn a_snapshot_joined_to_itself_or_to_nothing_is_itself(a in snapshot()) {
        let mut itself = a.clone();
        itself.join(&a);
        itself.join(&Snapshot::default());

        prop_assert_eq!(&itself, &a);
        prop_assert_eq!(joined([&a]), a);
    }

    #[test]
    fn joining_goes_through_a_store_unchanged(a in snapshot(), b in snapshot()) {
        let all = joined([&a, &b]);

        prop_assert_eq!(&stored(&a), &a);
        prop_assert_eq!(&joined([&stored(&a), &stored(&b)]), &all);
        prop_assert_eq!(&stored(&all), &all);
    }

    // B95
    #[test]
    fn in_whatever_order_answers_arrive_the_newest_plausible_reading_of_each_window_stands(
        (answers, shuffled) in vec((usage(), 0_i64..6), 0..6)
            .prop_flat_map(|answers| (Just(answers.clone()), Just(answers).prop_shuffle())),
    ) {
        let all = joined(&shuffled.iter().map(|(usage, second)| Snapshot::of(usage, at(*second))).collect::<Vec<_>>());

        let stands: BTreeMap<_, _> =
            all.windows().iter().map(|window| (window.id().clone(), window.clone())).collect();
        prop_assert_eq!(stands, newest(&answers));
    }

    #[test]
    fn what_claims_to_be_later_than_a_limit_leaves_no_trace(a in snapshot(), limit in 0_i64..4) {
        let mut limited = a.clone();

        limited.drop_after(at(limit));

        prop_assert!(limited.newest().is_none_or(|newest| newest <= at(limit)));
        prop_assert!(limited.windows().iter().all(|window| a.window(window.id()) == Some(window)));
    }

    #[test]
    fn windows_stand_in_the_order_of_their_names(a in snapshot(), id in window_id()) {
        let names: Vec<_> = a.windows().iter().map(Window::id).collect();

        prop_assert!(names.is_sorted_by(|one, other| one < other));
        prop_assert_eq!(a.window(&id).is_some(), names.contains(&&id));
    }
}

/// What should stand of these answers, told in plain words: of each window the reading that supersedes all others, unless
/// a later answer that covered the window did not report it.
fn newest(answers: &[(Usage, i64)]) -> BTreeMap<WindowId, Window> {
    let mut newest = BTreeMap::<WindowId, Window>::new();
    let mut gone = BTreeMap::<WindowId, Stamp>::new();
    let ids = [WindowId::five_hour(), WindowId::seven_day(), opus_id(), WindowId::new("moon phase").unwrap()];
    for (usage, second) in answers {
        let stamp = Stamp::new(time::to_ms(at(*second)), usage.source);
        let headers = usage.source == Source::Headers;
        for reading in usage.windows.iter().filter(|reading| !headers || reading.scope.is_none()) {
            let window = reading.clone().stamped(stamp);
            let known = newest.get(&reading.id);
            if known.is_none_or(|known| window.supersedes(known)) {
                newest.insert(reading.id.clone(), window);
            }
        }
        if let Coverage::Complete { except, .. } = &usage.coverage
            && !headers
        {
            for id in ids.iter().filter(|id| !except.contains(id)) {
                let until = gone.entry(id.clone()).or_insert(stamp);
                *until = stamp.max(*until);
            }
        }
    }
    newest.retain(|id, window| gone.get(id).is_none_or(|gone| window.stamp() >= *gone));
    newest
}
