//! The one line that says why nobody serves a request.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use quota::accounts::Eligibility;
use quota::{Source, Used};

use super::*;
use crate::reset_grace::PendingReset;
use crate::router::Seen;
use crate::view::account::WindowView;

/// 11:55 on the wall of somebody in Greenwich.
fn local() -> LocalTime {
    LocalTime { now: "2026-11-23T11:55:00Z".parse().unwrap(), zone: TimeZone::UTC }
}

fn account(name: &str, rule: Reason, minutes: impl Into<Option<u64>>) -> SeenAccount {
    SeenAccount {
        id: format!("anthropic/{name}").parse().unwrap(),
        is_main: name == "main",
        standing: Eligibility::Ineligible,
        rule,
        window: None,
        unread: None,
        pending: None,
        limit: None,
        until: minutes.into().map(|minutes| local().now + Duration::from_secs(60 * minutes)),
        windows: Vec::new(),
        not_refreshed: None,
        is_unneeded: false,
        advice: "log in again".to_owned(),
    }
}

fn refused(accounts: Vec<SeenAccount>) -> Refusal {
    let until = accounts.iter().filter_map(|account| account.until).min();
    let retry_after = until.map(|until| format::between(local().now, until));
    Refusal::of(Seen { now: local().now, outcome: Outcome::Nobody, retry_after, accounts })
}

fn told(accounts: Vec<SeenAccount>) -> (Exit, String) {
    let refusal = refused(accounts);
    (refusal.exit, nobody(&refusal, &local()))
}

#[test]
fn of_one_account_it_is_said_what_is_the_matter_with_it() {
    let dead = told(vec![account("main", Reason::LoginRejected, None)]);
    let spent = told(vec![account("main", Reason::QuotaExhausted, 10)]);

    assert_eq!(dead, (Exit::Unavailable, "anthropic/main: log in again".to_owned()));
    assert_eq!(
        spent,
        (Exit::Incomplete, "anthropic/main: turned away: quota spent, again in 10 min (12:05)".to_owned())
    );
}

#[test]
fn where_all_accounts_are_disabled_one_can_be_enabled() {
    let off = |name| account(name, Reason::Disabled, None);

    let one = "anthropic/main is disabled; enable it with: quota accounts enable anthropic/main";
    assert_eq!(told(vec![off("main")]), (Exit::NoAccount, one.to_owned()));
    let several = "all accounts are disabled; enable one with: quota accounts enable anthropic/main";
    assert_eq!(told(vec![off("main"), off("work")]), (Exit::NoAccount, several.to_owned()));
}

#[test]
fn a_window_that_has_just_reset_is_named_with_the_next_refresh() {
    let (now, seconds) = (local().now, Duration::from_secs);
    let pending = PendingReset { reset_at: now - seconds(3), refresh_at: now + seconds(12) };
    let account = SeenAccount {
        window: Some(week(0)),
        pending: Some(pending),
        ..account("main", Reason::UnknownDenied, None)
    };

    let (exit, line) = told(vec![account]);

    assert_eq!(exit, Exit::Unavailable);
    assert_eq!(
        line,
        "anthropic/main: 7-day Opus: has reset at 11:54:57, asked again in 12 s (11:55:12); \
         to go on anyway, give --unknown allow"
    );
}

fn week(used: u32) -> WindowView {
    WindowView {
        id: "seven_day/opus".to_owned(),
        used: Used::Exact(Percent::from_basis_points(used)),
        resets_at: None,
        observed_at: local().now,
        source: Source::Poll,
        scope: None,
        length: None,
    }
}

#[test]
fn a_model_at_its_very_limit_is_not_called_below_it() {
    let told = |used| {
        let (window, limit) = (Some(week(used)), Some(Percent::from_basis_points(500)));
        reason(&SeenAccount { window, limit, ..account("main", Reason::BelowKillswitch, None) }, &local())
    };

    assert!(told(9500).ends_with("at the killswitch of 5 %"), "{}", told(9500));
    assert!(told(9600).ends_with("below the killswitch of 5 %"), "{}", told(9600));
}

#[test]
fn a_window_without_a_reading_is_named() {
    let unread = Some("seven_day/opus".to_owned());
    let account = SeenAccount { unread, ..account("main", Reason::UnknownDenied, None) };

    assert_eq!(reason(&account, &local()), "not known, so not used: seven_day/opus");
}

#[test]
fn of_several_the_first_to_have_room_is_named() {
    let accounts = vec![
        account("main", Reason::QuotaExhausted, 90),
        account("work", Reason::Throttled, 10),
        account("dead", Reason::LoginRejected, None),
    ];

    let line = "no account has room; anthropic/work is the first to have some again, in 10 min (12:05)";
    assert_eq!(told(accounts), (Exit::Incomplete, line.to_owned()));
}

#[test]
fn a_block_until_the_end_of_time_is_shown() {
    let forever =
        || SeenAccount { until: Some(Timestamp::MAX), ..account("main", Reason::QuotaExhausted, None) };
    let refusal = refused(vec![forever(), account("work", Reason::Disabled, None)]);

    // The wait is rounded up somewhere on its way here, so that it ends after the last moment there is.
    for wait in [refusal.seen.retry_after.unwrap(), Duration::MAX] {
        let seen = Seen { retry_after: Some(wait), ..refusal.seen.clone() };
        let line = nobody(&Refusal::of(seen), &local());

        assert!(line.ends_with("(9999-12-30)"), "{line}");
    }
    assert!(reason(&forever(), &local()).ends_with("(9999-12-30)"));
}

#[test]
fn one_that_is_not_known_says_more_than_those_that_are_spent() {
    let silent = SeenAccount {
        not_refreshed: Some("the provider did not answer in time".to_owned()),
        ..account("work", Reason::UnknownDenied, None)
    };

    let (exit, line) = told(vec![account("main", Reason::QuotaExhausted, 90), silent]);

    assert_eq!(exit, Exit::Unavailable);
    assert_eq!(
        line,
        "no account can be used; anthropic/work: not known, so not used (the provider did not answer in time); \
         to go on anyway, give --unknown allow; more: quota explain"
    );
}

#[test]
fn one_whose_login_cannot_be_read_for_now_is_no_account_without_room() {
    let locked = SeenAccount {
        not_refreshed: Some("the keychain is locked".to_owned()),
        ..account("work", Reason::CredentialUnavailable, 1)
    };

    let (exit, line) = told(vec![account("main", Reason::QuotaExhausted, 90), locked]);

    assert_eq!(exit, Exit::Unavailable);
    assert_eq!(
        line,
        "no account can be used; anthropic/work: login cannot be read for now, again in 1 min (11:56) \
         (the keychain is locked); more: quota explain"
    );
}

#[test]
fn a_session_that_waits_is_told_for_what() {
    let accounts = vec![account("main", Reason::QuotaExhausted, 1), account("work", Reason::Disabled, None)];
    let refusal = refused(accounts);
    let seen = Seen { outcome: Outcome::Wait(0), ..refusal.seen };
    let refusal = Refusal::of(seen);

    let line = "the session stays with anthropic/main, which has room again in 1 min (11:56)";
    assert_eq!((refusal.exit, nobody(&refusal, &local())), (Exit::Incomplete, line.to_owned()));
}

#[test]
fn what_was_said_elsewhere_cannot_garble_the_line() {
    let silent = SeenAccount {
        not_refreshed: Some("a\u{1b}[2Jb".to_owned()),
        ..account("main", Reason::UnknownDenied, None)
    };

    assert!(!reason(&silent, &local()).contains('\u{1b}'));
}
