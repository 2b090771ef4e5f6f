//! The screen at several terminal sizes, and the effects of keys.

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent};
use jiff::tz::TimeZone;
use quota::record::{Hold, HoldReason};
use quota::{Percent, Used};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::commands::watch::journal_task::DisplayUpdate;
use crate::commands::watch::state::KeyAction;
use crate::hook_failures::HookFailureReport;
use crate::view::account::{AccountView, WindowView};
use crate::view::fixtures;
use quota_journal::EventKind;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a valid time")
}

fn local() -> LocalTime {
    LocalTime { now: at(0), zone: TimeZone::UTC }
}

fn account(name: &str, percent: f64) -> AccountView {
    let window = |id: &str, used: f64, left: i64| {
        let used = Used::Exact(Percent::from_percent(used).expect("a number"));
        let (resets_at, observed_at) = (Some(at(left)), at(-12));
        WindowView { resets_at, observed_at, ..fixtures::window(id, used, None) }
    };
    let windows = vec![window("five_hour", percent, 7800), window("seven_day", percent / 2.0, 300_000)];
    let (age, plan) = (Some(Duration::from_secs(12)), Some("max 20x".into()));
    AccountView { age, plan, ..fixtures::account(name, windows) }
}

fn state() -> State {
    let mut throttled = account("anthropic/work", 91.0);
    throttled.hold = Some(Hold::new(at(-10), at(50), HoldReason::RateLimited));
    let main = account("anthropic/main", 62.5);
    let mut state = State { views: vec![main, throttled], ..State::default() };
    let event = |second, kind| JournalEvent::new(at(second), kind);
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

fn press(state: &mut State, keys: &str) -> KeyAction {
    let mut last = KeyAction::Nothing;
    for key in keys.chars() {
        let code = if key == '\n' { KeyCode::Enter } else { KeyCode::Char(key) };
        last = state.press(KeyEvent::from(code));
    }
    last
}

#[test]
fn the_screen_at_80_columns() {
    insta::assert_snapshot!(drawn(&mut state(), 80, 24));
}

#[test]
fn the_screen_at_120_columns() {
    insta::assert_snapshot!(drawn(&mut state(), 120, 24));
}

#[test]
fn the_screen_of_a_small_terminal() {
    insta::assert_snapshot!(drawn(&mut state(), 40, 12));
}

#[test]
fn the_smallest_terminal_shows_the_start_of_the_header_or_the_footer() {
    for (width, height, first) in
        [(1, 1, "…"), (2, 3, "q…"), (8, 2, "quota ·…"), (20, 5, "quota · 08:00:00 · …")]
    {
        let drawn = drawn(&mut state(), width, height);

        assert!(drawn.starts_with(&format!("\"{first}\"")), "{width} x {height}:\n{drawn}");
    }
}

#[test]
fn help_lists_the_keys() {
    let mut state = state();
    press(&mut state, "?");

    insta::assert_snapshot!(drawn(&mut state, 80, 24));
}

#[test]
fn a_filter_selects_by_name() {
    let mut state = state();
    press(&mut state, "/work\n");

    let drawn = drawn(&mut state, 80, 24);

    assert!(drawn.contains("1 account,") && !drawn.contains("62.5"), "{drawn}");
}

#[test]
fn r_refreshes_the_selected_account_and_capital_r_all() {
    let mut state = state();
    let [main, work] = [0, 1].map(|at| state.views[at].id.clone());

    assert_eq!(press(&mut state, "jjr"), KeyAction::Refresh(vec![work.clone()]));
    assert_eq!(press(&mut state, "R"), KeyAction::Refresh(vec![main, work]));
}

#[test]
fn s_sorts_by_use() {
    let mut state = state();
    press(&mut state, "s");

    let order: Vec<_> = state.shown().iter().map(|view| view.id.name().to_owned()).collect();
    assert_eq!(order, ["work", "main"]);
}

#[test]
fn q_is_a_letter_while_filtering() {
    let mut state = state();

    assert_eq!(press(&mut state, "/q"), KeyAction::Nothing);
    assert_eq!(press(&mut state, "\nq"), KeyAction::Quit);
}

#[test]
fn each_hook_failure_is_shown_until_a_key_is_pressed() {
    let mut state = state();
    let failures = ["hook 1 failed", "hook 2 failed"]
        .map(|text| HookFailureReport { at: local().now, text: text.into() })
        .to_vec();
    let update = || DisplayUpdate {
        account: "anthropic/removed".parse().unwrap(),
        events: Vec::new(),
        due_at: None,
        hook_failures: failures.clone(),
    };
    let footer = |state: &State| footer(state, local().now, 80);
    state.apply(update());

    assert_eq!(footer(&state), "1 of 2: hook 1 failed, just now");
    press(&mut state, "j");
    assert_eq!(footer(&state), "hook 2 failed, just now");
    // The file may still contain the failure that was read.
    state.apply(update());
    assert_eq!(footer(&state), "hook 2 failed, just now");
    press(&mut state, "/a\n");
    assert!(footer(&state).starts_with("q quit"));
    assert_eq!(state.read_failures, failures);
}

#[test]
fn a_hook_failure_that_another_command_reported_is_not_shown() {
    let mut state = state();
    let of = |hook_failures| DisplayUpdate {
        account: "anthropic/removed".parse().unwrap(),
        events: Vec::new(),
        due_at: None,
        hook_failures,
    };
    state.apply(of(vec![HookFailureReport { at: local().now, text: "hook 1 failed".into() }]));

    state.apply(of(Vec::new()));

    assert_eq!(state.message(local().now), None);
}

#[test]
fn styles_become_ratatui_colors() {
    let line = Line::plain("a ").with(Style::Bad, "red").with(Style::Plain, " end");

    let colored = to_ratatui("", &line, true);

    assert_eq!(colored.to_string(), "a red end");
    assert_eq!(colored.spans[2].style, Color::Red.into());
    assert_eq!(colored.spans[3].style, ratatui::style::Style::default());
    assert_eq!(to_ratatui("", &line, false).spans[2].style, ratatui::style::Style::default());
}
