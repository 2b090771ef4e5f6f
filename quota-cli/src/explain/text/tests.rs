//! How a decision looks, at widths that terminals have, without colours.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use quota::accounts::Reason;
use quota::{Percent, Source, Used};

use super::*;
use crate::view::account::WindowView;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// 11:55 on the wall of somebody in Greenwich.
fn local() -> LocalTime {
    LocalTime { now: "2026-11-23T11:55:00Z".parse().unwrap(), zone: TimeZone::UTC }
}

fn percent(percent: u32) -> Percent {
    Percent::from_basis_points(percent * 100)
}

fn window(id: &str, hours: u32, used: Used, resets_in: Duration) -> WindowView {
    WindowView {
        id: id.to_owned(),
        used,
        resets_at: Some(local().now + resets_in),
        observed_at: local().now - MINUTE * 3,
        source: Source::Poll,
        scope: None,
        length: Some(HOUR * hours),
    }
}

fn account(name: &str, standing: Eligibility, rule: Reason, windows: &[WindowView]) -> SeenAccount {
    SeenAccount {
        id: name.parse().unwrap(),
        is_main: name.ends_with("main"),
        standing,
        rule,
        window: None,
        unread: None,
        pending: None,
        limit: None,
        until: None,
        windows: windows.to_vec(),
        not_refreshed: None,
        is_unneeded: false,
        advice: "log in again: run `claude`, then /login".to_owned(),
    }
}

/// Main is spent, one is low, one is taken, and the others are out for all reasons there are.
fn seen() -> Seen {
    let five_hour = |used| window("five_hour", 5, used, HOUR * 2 + MINUTE * 10);
    let seven_day = |used| window("seven_day", 168, used, HOUR * 70);
    let spent = five_hour(Used::Exact(percent(100)));
    let low = seven_day(Used::AtLeast(percent(84)));
    let killed = seven_day(Used::Exact(percent(97)));
    let until = |window: &WindowView| window.resets_at.filter(|at: &Timestamp| *at > local().now);
    let accounts = vec![
        SeenAccount {
            until: until(&spent),
            window: Some(spent.clone()),
            ..account(
                "anthropic/main",
                Eligibility::Ineligible,
                Reason::Exhausted,
                &[spent, seven_day(Used::Exact(percent(62)))],
            )
        },
        SeenAccount {
            window: Some(low.clone()),
            limit: Some(percent(20)),
            ..account(
                "anthropic/low",
                Eligibility::LastResort,
                Reason::BelowMinimum,
                &[five_hour(Used::AtLeast(percent(10))), low],
            )
        },
        account(
            "anthropic/work",
            Eligibility::Eligible,
            Reason::Available,
            &[five_hour(Used::Exact(percent(42))), seven_day(Used::Unknown)],
        ),
        account(
            "anthropic/other",
            Eligibility::Eligible,
            Reason::Available,
            &[five_hour(Used::Exact(percent(3)))],
        ),
        SeenAccount {
            until: until(&killed),
            window: Some(killed.clone()),
            limit: Some(percent(5)),
            ..account("anthropic/killed", Eligibility::Ineligible, Reason::BelowKillswitch, &[killed])
        },
        account("anthropic/dead", Eligibility::Ineligible, Reason::LoginRejected, &[]),
        account("anthropic/off", Eligibility::Ineligible, Reason::Disabled, &[]),
        SeenAccount {
            not_refreshed: Some("the provider did not answer in time".to_owned()),
            ..account("anthropic/silent", Eligibility::Ineligible, Reason::UnknownDenied, &[])
        },
        SeenAccount {
            is_unneeded: true,
            ..account("anthropic/later", Eligibility::Ineligible, Reason::UnknownDenied, &[])
        },
    ];
    Seen { now: local().now, outcome: Outcome::Take(2), retry_after: None, accounts }
}

fn at(width: usize) -> String {
    render(&seen(), &local(), Screen { width, ..Screen::DEFAULT })
}

#[test]
fn everything_at_eighty_columns() {
    insta::assert_snapshot!(at(80));
}

#[test]
fn everything_at_a_hundred_and_twenty_columns() {
    insta::assert_snapshot!(at(120));
}

#[test]
fn everything_in_a_narrow_terminal() {
    insta::assert_snapshot!(at(44));
}

#[test]
fn no_line_is_longer_than_the_terminal() {
    for width in 44..=160 {
        let text = at(width);
        let long: Vec<_> = text.lines().filter(|line| line.chars().count() > width).collect();
        assert!(long.is_empty(), "{width}: {long:#?}");
    }
}

#[test]
fn what_is_shown_to_nobody_in_particular_has_no_colours() {
    assert!(!at(80).contains('\u{1b}'));
    let coloured = render(&seen(), &local(), Screen { colour: true, ..Screen::DEFAULT });
    assert!(coloured.contains('\u{1b}'));
}

#[test]
fn where_nobody_has_room_it_says_when_to_come_back() {
    let mut seen = seen();
    seen.accounts.retain(|account| {
        matches!(account.rule, Reason::Exhausted | Reason::BelowKillswitch | Reason::Disabled)
    });
    (seen.outcome, seen.retry_after) = (Outcome::Nobody, Some(HOUR * 2 + MINUTE * 10));

    let text = render(&seen, &local(), Screen { width: 120, ..Screen::DEFAULT });

    let first = text.lines().next().unwrap();
    assert_eq!(
        first,
        "no account has room; anthropic/main is the first to have some again, in 2 h 10 min (14:05)."
    );
}

#[test]
fn programs_read_the_same() {
    let mut seen = seen();
    seen.accounts.truncate(3);
    let request = crate::cli::RequestArgs::default();

    insta::assert_snapshot!(crate::explain::json::render(&seen, &request, &local()));
}
