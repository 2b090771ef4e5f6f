//! Prints to standard error that a command waits for another process, and until when.

use std::time::Duration;

use jiff::Timestamp;
use quota::{Account, AccountId, Clock, Event, QuotaManager};
use tokio::task::JoinSet;

use crate::format::LocalTime;
use crate::term;

/// Shorter waits are not reported.
const NOTICE_DELAY: Duration = Duration::from_secs(1);

/// Reports each wait of the manager, until it is closed.
pub(super) async fn report(manager: QuotaManager) {
    let mut events = manager.events();
    let mut notices = JoinSet::new();
    while let Some(event) = events.next().await {
        if let Event::Waiting { account, until, .. } = event {
            notices.spawn(report_later(manager.account(&account), until));
        }
    }
}

/// Reports one wait, if it lasts longer than [`NOTICE_DELAY`].
async fn report_later(account: Account, until: Timestamp) {
    let before = call_state(&account);
    Clock::system().sleep(NOTICE_DELAY).await;
    if call_state(&account) == before {
        term::eprint_above(&line(account.id(), until, &LocalTime::now()));
    }
}

/// The values that change when the other process ends its call.
fn call_state(account: &Account) -> impl PartialEq + use<> {
    let answer = account.peek();
    (answer.snapshot().complete_at(), answer.last_failure().map(|failure| failure.at))
}

fn line(account: &AccountId, until: Timestamp, local: &LocalTime) -> String {
    let until = local.time_of_day_with_seconds(until);
    format!("quota: {account}: another process is refreshing, waiting until {until}\n")
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;

    #[test]
    fn a_wait_is_printed_with_its_cause_and_end() {
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        let local = LocalTime { now: at(0), zone: TimeZone::UTC };

        let line = line(&"anthropic/main".parse().unwrap(), at(12), &local);

        assert_eq!(line, "quota: anthropic/main: another process is refreshing, waiting until 08:00:12\n");
    }
}
