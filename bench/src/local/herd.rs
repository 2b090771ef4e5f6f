//! Rows on what many processes of one machine do to a provider.

use std::process::Child;
use std::time::{Duration, Instant};

use super::world::World;
use crate::row::Row;

const HERD: usize = 50;
const STATUSLINES: usize = 40;
const EVERY: Duration = Duration::from_millis(300);
const LASTING: Duration = Duration::from_secs(180);
/// The freshness in that row; the budget of an hour would end it otherwise after a tenth of its calls.
const INTERVAL: Duration = Duration::from_secs(15);

pub(super) fn cold() -> Row {
    let world = World::cold(1, "");
    run_herd(&world);
    let ledger =
        world.until(|ledger| ledger.calls() > 0 && ledger.accounts.values().all(|one| one.in_flight == 0));
    // A later process must find the reading, otherwise it would call again.
    run_herd(&world);
    let calls = world.simulator.ledger().calls().max(ledger.calls());
    Row::absolute("local.herd", (calls as f64, "calls"), "1 call", calls == 1)
}

pub(super) fn statuslines() -> Row {
    let policy = format!("freshness = \"{}s\"", INTERVAL.as_secs());
    let world = World::cold(1, &policy);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..STATUSLINES {
            let line = world.process(["statusline"]);
            scope.spawn(move || {
                // Spread over the interval, as sessions are opened one after the other.
                let offset = EVERY.mul_f64(number as f64 / STATUSLINES as f64);
                for round in 0u32.. {
                    let due = offset + EVERY * round;
                    std::thread::sleep(due.saturating_sub(started.elapsed()));
                    // By the clock: a machine that does not keep up must not make it longer.
                    if started.elapsed() > LASTING {
                        break;
                    }
                    line.time_ms();
                }
            });
        }
    });
    let elapsed = started.elapsed();
    let ledger = world.simulator.ledger();
    let throttled: u64 = ledger.accounts.values().filter_map(|one| one.answers.get(&429)).sum();
    let most = elapsed.as_secs_f64() / INTERVAL.as_secs_f64() + 1.0;
    let is_reached = (ledger.calls() as f64) <= most && throttled == 0;
    let reach = format!("≤ {} calls, no 429 ({throttled})", most as u64);
    Row::absolute("local.statuslines", (ledger.calls() as f64, "calls"), &reach, is_reached)
}

/// Fifty statuslines at once; every one of them is to be served.
pub(super) fn run_herd(world: &World) {
    let line = world.process(["statusline"]);
    let herd: Vec<Child> = (0..HERD).map(|_| line.start()).collect();
    for mut one in herd {
        let ended = one.wait().expect("it can be waited for");
        assert!(ended.success(), "a statusline ended with {ended}");
    }
}
