//! Rows about the calls of many processes on one machine.

use std::process::Child;
use std::time::{Duration, Instant};

use super::fixture::Fixture;
use crate::row::Row;

const HERD: usize = 50;
const STATUSLINES: usize = 40;
const REDRAW_INTERVAL: Duration = Duration::from_millis(300);
const DURATION: Duration = Duration::from_secs(180);
/// The max age in that row. With a shorter one, the hourly budget would be used up after a tenth of the calls.
const INTERVAL: Duration = Duration::from_secs(15);

pub(super) fn cold() -> Row {
    let fixture = Fixture::cold(1, "");
    run_herd(&fixture);
    let ledger =
        fixture.until(|ledger| ledger.calls() > 0 && ledger.accounts.values().all(|one| one.in_flight == 0));
    // A later process must find the reading. Otherwise it makes another call.
    run_herd(&fixture);
    let calls = fixture.simulator.ledger().calls().max(ledger.calls());
    Row::absolute("local.herd", (calls as f64, "calls"), "1 call", calls == 1)
}

pub(super) fn statuslines() -> Row {
    let policy = format!("max_age = \"{}s\"", INTERVAL.as_secs());
    let fixture = Fixture::cold(1, &policy);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..STATUSLINES {
            let line = fixture.process(["statusline"]);
            scope.spawn(move || {
                // Spread the starts over the interval, like sessions that are opened one after another.
                let offset = REDRAW_INTERVAL.mul_f64(number as f64 / STATUSLINES as f64);
                for round in 0u32.. {
                    let due = offset + REDRAW_INTERVAL * round;
                    std::thread::sleep(due.saturating_sub(started.elapsed()));
                    // Stop by the clock, so that a slow machine does not prolong the row.
                    if started.elapsed() > DURATION {
                        break;
                    }
                    line.time_ms();
                }
            });
        }
    });
    let elapsed = started.elapsed();
    let ledger = fixture.simulator.ledger();
    let throttled: u64 = ledger.accounts.values().filter_map(|one| one.answers.get(&429)).sum();
    let most = elapsed.as_secs_f64() / INTERVAL.as_secs_f64() + 1.0;
    let is_reached = (ledger.calls() as f64) <= most && throttled == 0;
    let target = format!("≤ {} calls, no 429 ({throttled})", most as u64);
    Row::absolute("local.statuslines", (ledger.calls() as f64, "calls"), &target, is_reached)
}

/// Fifty statuslines at once. Each of them must succeed.
pub(super) fn run_herd(fixture: &Fixture) {
    let line = fixture.process(["statusline"]);
    let herd: Vec<Child> = (0..HERD).map(|_| line.start()).collect();
    for mut one in herd {
        let ended = one.wait().expect("the process can be awaited");
        assert!(ended.success(), "a statusline ended with {ended}");
    }
}
