//! How the screen looks, at sizes that terminals have, and what keys do to it.

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent};
use jiff::tz::TimeZone;
use quota::{Hold, HoldReason, Percent, Source, Used};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::commands::watch::state::Act;
use crate::view::account::{AccountView, ViewFreshness, WindowView};
use quota_journal::EventKind;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a moment")
}

fn local() -> LocalTime {
    LocalTime { now: at(0), zone: TimeZone::UTC }
}

fn account(name: &str, percent: f64) -> AccountView {
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    let window = |id: &str, used: f64, length, left: i64| WindowView {
        id: id.into(),
        used: Used::Exact(Percent::from_percent(used).expect("a number")),
        resets_at: Some(at(left)),
        observed_at: at(-12),
        source: Source::Poll,
        scope: None,
        length: Some(length),
    };
    AccountView {
        id: name.parse().expect("a valid name"),
        state: ViewFreshness::Fresh,
        age: Some(Duration::from_secs(12)),
        plan: Some("max 20x".into()),
        windows: vec![
            window("five_hour", percent, hours(5), 7800),
            window("seven_day", percent / 2.0, hours(168), 300_000),
        ],
        credits: None,
        hold: None,
        trouble: None,
        failure: None,
        reason: None,
        not_refreshed: None,
        called_at: None,
        switched_off: false,
    }
}

fn state() -> State {
    let mut throttled = account("anthropic/work", 91.0);
    throttled.hold = Some(Hold::new(at(-10), at(50), HoldReason::RateLimited));
    let main = account("anthropic/main", 62.5);
    let mut state = State { views: vec![main, throttled], ..State::default() };
    let event = |second, what| JournalEvent::new(at(second), what);
    let main = state.views[0].id.clone();
    state.due.insert(main.clone(), at(288));
    state.events.insert(
        main,
        vec![event(-400, EventKind::Reset { window: "five_hour".into() }), event(-12, EventKind::Refreshed)],
    );
    let work = state.views[1].id.clone();
    state.events.insert(work, vec![event(-10, EventKind::Throttled { until: at(50) })]);
    state
}

fn drawn(state: &mut State, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("it draws to memory");
    terminal.draw(|frame| draw(frame, state, &local(), false)).expect("it draws to memory");
    terminal.backend().to_string()
}

fn press(state: &mut State, keys: &str) -> Act {
    let mut last = Act::Nothing;
    for key in keys.chars() {
        let code = if key == '\n' { KeyCode::Enter } else { KeyCode::Char(key) };
        last = state.press(KeyEvent::from(code));
    }
    last
}

#[test]
fn it_fits_eighty_columns() {
    insta::assert_snapshot!(drawn(&mut state(), 80, 24));
}

#[test]
fn it_fits_a_hundred_and_twenty_columns() {
    insta::assert_snapshot!(drawn(&mut state(), 120, 24));
}

#[test]
fn it_fits_a_narrow_and_low_terminal() {
    insta::assert_snapshot!(drawn(&mut state(), 40, 12));
}

#[test]
fn it_fits_the_smallest_terminal_there_is() {
    for (width, height) in [(1, 1), (2, 3), (8, 2), (20, 5)] {
        let _ = drawn(&mut state(), width, height);
    }
}

#[test]
fn help_says_what_the_keys_do() {
    let mut state = state();
    press(&mut state, "?");

    insta::assert_snapshot!(drawn(&mut state, 80, 24));
}

#[test]
fn a_filter_leaves_what_has_it_in_its_name() {
    let mut state = state();
    press(&mut state, "/work\n");

    let drawn = drawn(&mut state, 80, 24);

    assert!(drawn.contains("1 account,") && !drawn.contains("62.5"), "{drawn}");
}

#[test]
fn the_chosen_account_is_refreshed_or_all_that_are_shown() {
    let mut state = state();
    let [main, work] = [0, 1].map(|at| state.views[at].id.clone());

    assert_eq!(press(&mut state, "jjr"), Act::Refresh(vec![work.clone()]));
    assert_eq!(press(&mut state, "R"), Act::Refresh(vec![main, work]));
}

#[test]
fn the_most_used_come_first_if_that_is_asked_for() {
    let mut state = state();
    press(&mut state, "s");

    let order: Vec<_> = state.shown().iter().map(|view| view.id.name().to_owned()).collect();
    assert_eq!(order, ["work", "main"]);
}

#[test]
fn q_is_a_letter_while_a_filter_is_typed() {
    let mut state = state();

    assert_eq!(press(&mut state, "/q"), Act::Nothing);
    assert_eq!(press(&mut state, "\nq"), Act::Leave);
}

#[test]
fn colours_of_a_plain_terminal_become_styles() {
    let line = painted("", "a \u{1b}[31mred\u{1b}[0m end");

    assert_eq!(line.to_string(), "a red end");
    assert_eq!(line.spans[2].style, Style::default().fg(Color::Red));
    assert_eq!(line.spans[3].style, Style::default());
}
