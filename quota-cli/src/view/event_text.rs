//! An event as a line for people.

use quota::{AccountId, LastFailureKind, Percent};

use crate::format::{self, LocalTime};
use crate::sanitize::sanitize;
use crate::term::wrap_hanging;
use quota_journal::{Direction, EventKind, JournalEvent};

/// Between two columns.
const GAP: usize = 2;

/// The line, without a line break.
pub(crate) fn line(account: &AccountId, event: &JournalEvent, local: &LocalTime) -> String {
    format!("{}  {account}  {}", time(event, local), words_of(&event.kind, local))
}

/// The same for a terminal, with a line break wherever there is no more room for it.
pub(crate) fn lines(account: &AccountId, event: &JournalEvent, local: &LocalTime, width: usize) -> String {
    let (time, words) = (time(event, local), words_of(&event.kind, local));
    let account = account.as_str();
    let indent = time.chars().count() + GAP;
    let begun = indent + account.chars().count() + GAP;
    if begun <= width {
        let told = wrap_hanging(&words, begun, indent, width);
        let gap = if told.starts_with('\n') { "" } else { "  " };
        return format!("{time}  {account}{gap}{told}");
    }
    // Of a name that is so long nothing is lost either.
    format!("{time}  {}", wrap_hanging(&format!("{account} {words}"), indent, indent, width))
}

fn time(event: &JournalEvent, local: &LocalTime) -> String {
    event.at.to_zoned_datetime(local.zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// What happened, in words.
pub(crate) fn words_of(what: &EventKind, local: &LocalTime) -> String {
    let percent = |basis_points| format::percent(Percent::from_basis_points(basis_points));
    let told = match what {
        EventKind::Refreshed => "was read".to_owned(),
        EventKind::Throttled { until } => {
            format!("was asked to slow down, until {}", local.time_of_day_with_seconds(*until))
        }
        EventKind::Held { until, reason } => {
            format!("is not asked until {}: {reason}", local.time_of_day_with_seconds(*until))
        }
        EventKind::HoldEnded => "may be asked again".to_owned(),
        EventKind::Reset { window } => format!("{window} began anew"),
        EventKind::Threshold { window, threshold_bp, used_bp, direction } => {
            let passed = match direction {
                Direction::Up => "passed",
                Direction::Down => "fell below",
            };
            format!("{window} {passed} {}: {} used", percent(*threshold_bp), percent(*used_bp))
        }
        EventKind::LoginChanged => "holds another login".to_owned(),
        EventKind::Failing { reason } => match reason {
            LastFailureKind::Throttled => "could not be read: too many calls".to_owned(),
            LastFailureKind::Failing => "could not be read: the provider fails".to_owned(),
            LastFailureKind::Unreachable => "refresh failed: the provider could not be reached".to_owned(),
            LastFailureKind::TimedOut => "refresh failed: provider timed out".to_owned(),
            LastFailureKind::Unauthorized => "could not be read: the login is refused".to_owned(),
            LastFailureKind::Forbidden => "could not be read: the provider forbids it".to_owned(),
            LastFailureKind::MissingScope => "could not be read: the token may not read usage".to_owned(),
            _ => "could not be read".to_owned(),
        },
        EventKind::Newer(_) => "something that only a newer quota knows".to_owned(),
    };
    sanitize(&told)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use jiff::tz::TimeZone;
    use quota::HoldReason;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn everything_that_can_happen_is_told_in_a_line() {
        let account: AccountId = "anthropic/main".parse().unwrap();
        let local = LocalTime { now: at(0), zone: TimeZone::UTC };
        let window = || "five_hour".to_owned();
        let passed = |direction| EventKind::Threshold {
            window: window(),
            threshold_bp: 7500,
            used_bp: 7620,
            direction,
        };
        let all = [
            EventKind::Refreshed,
            EventKind::Throttled { until: at(60) },
            EventKind::Held { until: at(60), reason: HoldReason::Failing },
            EventKind::HoldEnded,
            EventKind::Reset { window: window() },
            passed(Direction::Up),
            passed(Direction::Down),
            EventKind::LoginChanged,
            EventKind::Failing { reason: LastFailureKind::Throttled },
            EventKind::Failing { reason: LastFailureKind::Failing },
            EventKind::Failing { reason: LastFailureKind::Unauthorized },
            EventKind::Failing { reason: LastFailureKind::Forbidden },
            EventKind::Failing { reason: LastFailureKind::MissingScope },
        ];

        let told = all.map(|what| line(&account, &JournalEvent::new(at(0), what), &local));

        insta::assert_snapshot!(told.join("\n"));
    }

    /// What is told at a terminal of so many columns.
    fn told(account: &str, what: EventKind, width: usize) -> String {
        let local = LocalTime { now: at(0), zone: TimeZone::UTC };
        lines(&account.parse().unwrap(), &JournalEvent::new(at(0), what), &local, width)
    }

    fn passed() -> EventKind {
        let direction = Direction::Up;
        EventKind::Threshold {
            window: "seven_day/opus".to_owned(),
            threshold_bp: 7500,
            used_bp: 7620,
            direction,
        }
    }

    #[test]
    fn what_has_room_is_a_line_at_a_terminal_too() {
        let told = told("anthropic/main", EventKind::Refreshed, 50);

        assert_eq!(told, "2027-01-15 08:00:00  anthropic/main  was read");
    }

    #[test]
    fn what_has_no_room_goes_on_below_the_account() {
        assert_eq!(
            told("anthropic/main", passed(), 50),
            "2027-01-15 08:00:00  anthropic/main\n\
             \u{20}                    seven_day/opus passed 75 %:\n\
             \u{20}                    76.2 % used"
        );
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_whatever_the_account_is_called() {
        let account = format!("anthropic/{}", "a".repeat(60));
        for width in [40, 50, 80, 120] {
            for what in [passed(), EventKind::Refreshed, EventKind::LoginChanged] {
                let told = told(&account, what, width);

                assert!(told.lines().all(|line| line.chars().count() <= width), "{width}:\n{told}");
            }
        }
    }

    #[test]
    fn a_window_with_a_name_that_would_garble_the_terminal_is_told_without_harm() {
        let local = LocalTime { now: at(0), zone: TimeZone::UTC };
        let told = words_of(&EventKind::Reset { window: "a\u{202e}\u{1b}[2J".into() }, &local);

        assert_eq!(told, "a??[2J began anew");
    }
}
