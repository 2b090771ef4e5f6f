//! The output at several terminal widths, and the JSON.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use quota::Percent;
use quota_journal::Sample;
use quota_journal::pace::{Estimate, Period};
use quota_view::pace::{WindowPace, summary};

use super::*;
use crate::view::window_name::window_name_of_id;

const HOUR: i64 = 3600;
/// 2027-01-15 08:00 UTC.
const START: i64 = 1_800_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(START + second).expect("a valid time")
}

fn local() -> LocalTime {
    LocalTime { now: at(3 * HOUR), zone: TimeZone::UTC }
}

/// A window of `hours` that began at [`START`], with a reading every five minutes until now.
fn window(id: &str, hours: i64, used: impl Fn(i64) -> u32) -> WindowPace {
    let resets_at = Some(at(hours * HOUR));
    let samples: Vec<_> = (0..=3 * HOUR)
        .step_by(300)
        .map(|second| Sample {
            at_s: START + second,
            used_bp: used(second),
            resets_s: Some(START + hours * HOUR),
        })
        .collect();
    let length = Some(Duration::from_secs(u64::try_from(hours * HOUR).expect("above zero")));
    let period = Period::current(&samples, resets_at);
    let last = *samples.last().expect("there are some");
    WindowPace {
        id: id.into(),
        name: window_name_of_id(id),
        used: samples.last().map(|sample| Percent::from_basis_points(sample.used_bp)),
        is_stale: false,
        observed_at: at(3 * HOUR),
        resets_at,
        length,
        estimate: Estimate::new(&period, last, resets_at, length, local().now),
        samples,
    }
}

fn steady(per_hour_bp: i64) -> impl Fn(i64) -> u32 {
    move |second| u32::try_from(second * per_hour_bp / HOUR).expect("above zero")
}

fn all() -> Vec<AccountPace> {
    let mut rolled_over = window("monthly", 2, steady(10));
    rolled_over.used = None;
    rolled_over.estimate = Estimate::rolled_over();
    rolled_over.samples.clear();
    let main = vec![window("five_hour", 5, steady(2_500)), window("seven_day", 168, steady(60)), rolled_over];
    let account = |name: &str, windows| AccountPace { account: name.parse().expect("a valid name"), windows };
    vec![account("anthropic/main", main), account("anthropic/new", Vec::new())]
}

fn shown(width: usize, with_plot: bool) -> String {
    Screen::DEFAULT.show(&text::lines(&all(), &local(), width, with_plot))
}

#[test]
fn text_at_80_columns() {
    insta::assert_snapshot!(shown(80, false));
}

#[test]
fn an_average_is_labeled() {
    let of = |used_bp: u32| {
        let (resets_at, length) = (Some(at(5 * HOUR)), Some(Duration::from_secs(6 * 3600)));
        let resets_s = resets_at.map(Timestamp::as_second);
        let reading = Sample { at_s: local().now.as_second(), used_bp, resets_s };
        let period = Period { samples: vec![reading], is_lowered: false };
        let estimate = Estimate::new(&period, reading, resets_at, length, local().now);
        summary(&WindowPace { resets_at, length, estimate, ..window("five_hour", 5, steady(100)) }, &local())
    };

    insta::assert_snapshot!(format!("{}\n{}", of(8_000), of(2_000)), @"
    20 % per hour: runs out in 1 h (12:00), 1 h early, on track for 120 % (average since the window began)
    5 % per hour: on track for 30 % (average since the window began)
    ");
}

#[test]
fn plots_at_80_and_120_columns() {
    insta::assert_snapshot!(format!("{}\n{}", shown(80, true), shown(120, true)));
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for width in [24, 40, 80, 120, 200] {
        let shown = shown(width, true);
        let long: Vec<_> = shown.lines().filter(|line| line.chars().count() > width).collect();
        assert!(long.is_empty(), "{width}: {long:#?}");
    }
}

#[test]
fn json() {
    insta::assert_snapshot!(super::json(&all(), &local()));
}

#[test]
fn an_svg_has_a_chart_for_each_window_and_a_dark_mode() {
    let drawing = svg::render(&all(), &local());

    assert_eq!(drawing.matches("<g ").count(), 3);
    assert_eq!(drawing.matches("class=\"used\"").count(), 2);
    assert!(drawing.contains("prefers-color-scheme:dark"));
}

#[test]
fn provider_names_are_escaped_in_svg() {
    let mut all = all();
    all[0].windows[0].name = "<script>&\"".into();

    let drawing = svg::render(&all, &local());

    assert!(drawing.contains("&lt;script&gt;&amp;&quot;") && !drawing.contains("<script"), "{drawing}");
}

#[test]
fn a_single_reading_is_drawn() {
    let mut one = window("five_hour", 5, steady(100));
    one.samples.truncate(1);
    one.resets_at = None;
    one.length = None;
    let account = AccountPace { account: "anthropic/main".parse().unwrap(), windows: vec![one] };

    let drawing = svg::render(&[account], &local());

    assert!(!drawing.contains("NaN") && !drawing.contains("inf"), "{drawing}");
}
