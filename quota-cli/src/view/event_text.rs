//! A journal event as a line of text.

use quota::AccountId;
pub(crate) use quota_view::event::describe;

use super::line::{Line, Style};
use crate::format::LocalTime;
use quota_journal::JournalEvent;

/// Between two columns.
const GAP: usize = 2;

/// The event in one line, without a line break.
pub(crate) fn line(account: &AccountId, event: &JournalEvent, local: &LocalTime) -> String {
    format!("{}  {account}  {}", time(event, local), describe(&event.kind, local))
}

/// The event, wrapped to the width of a terminal.
pub(crate) fn wrapped_lines(
    account: &AccountId,
    event: &JournalEvent,
    local: &LocalTime,
    width: usize,
) -> Vec<Line> {
    let description = describe(&event.kind, local);
    let time = Line::plain(format!("{}{:GAP$}", time(event, local), ""));
    let indent = time.width();
    let head = time.clone().with(Style::Plain, format!("{account}{:GAP$}", ""));
    if head.width() <= width {
        return head.hanging(Style::Plain, &description, indent, width);
    }
    // A name that is longer than the terminal is wrapped, not truncated.
    time.hanging(Style::Plain, &format!("{account} {description}"), indent, width)
}

fn time(event: &JournalEvent, local: &LocalTime) -> String {
    event.at.to_zoned_datetime(local.zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use jiff::tz::TimeZone;
    use quota::record::{HoldReason, LastFailureKind};
    use quota_journal::{Direction, EventKind};

    use super::*;
    use crate::view::line::print;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn each_event_is_one_line() {
        let account: AccountId = "anthropic/main".parse().unwrap();
        let local = LocalTime { now: at(0), zone: TimeZone::UTC };
        let window = || "five_hour".to_owned();
        let crossed = |direction| EventKind::Threshold {
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
            crossed(Direction::Up),
            crossed(Direction::Down),
            EventKind::LoginChanged,
            EventKind::Failing { reason: LastFailureKind::Throttled },
            EventKind::Failing { reason: LastFailureKind::Failing },
            EventKind::Failing { reason: LastFailureKind::Unauthorized },
            EventKind::Failing { reason: LastFailureKind::Forbidden },
            EventKind::Failing { reason: LastFailureKind::MissingScope },
        ];

        let lines = all.map(|kind| line(&account, &JournalEvent::new(at(0), kind), &local));

        insta::assert_snapshot!(lines.join("\n"));
    }

    fn shown(account: &str, kind: EventKind, width: usize) -> String {
        let local = LocalTime { now: at(0), zone: TimeZone::UTC };
        let event = JournalEvent::new(at(0), kind);
        print(&wrapped_lines(&account.parse().unwrap(), &event, &local, width), false)
    }

    fn crossed() -> EventKind {
        let direction = Direction::Up;
        EventKind::Threshold {
            window: "seven_day/opus".to_owned(),
            threshold_bp: 7500,
            used_bp: 7620,
            direction,
        }
    }

    #[test]
    fn an_event_that_fits_the_terminal_is_one_line() {
        let text = shown("anthropic/main", EventKind::Refreshed, 50);

        assert_eq!(text, "2027-01-15 08:00:00  anthropic/main  refreshed\n");
    }

    #[test]
    fn a_longer_event_continues_below_the_account() {
        assert_eq!(
            shown("anthropic/main", crossed(), 41),
            "2027-01-15 08:00:00  anthropic/main\n\
             \u{20}                    7-day Opus window\n\
             \u{20}                    crossed 75 %: 76.2 %\n\
             \u{20}                    used\n"
        );
    }

    #[test]
    fn a_long_account_name_is_wrapped_to_the_terminal() {
        let account = format!("anthropic/{}", "a".repeat(60));
        for width in [40, 50, 80, 120] {
            for kind in [crossed(), EventKind::Refreshed, EventKind::LoginChanged] {
                let text = shown(&account, kind, width);

                assert!(text.lines().all(|line| line.chars().count() <= width), "{width}:\n{text}");
            }
        }
    }

    #[test]
    fn a_window_name_cannot_control_the_terminal() {
        let local = LocalTime { now: at(0), zone: TimeZone::UTC };
        let text = describe(&EventKind::Reset { window: "a\u{202e}\u{1b}[2J".into() }, &local);

        assert_eq!(text, "a??[2J window reset");
    }
}
