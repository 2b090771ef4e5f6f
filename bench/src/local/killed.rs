//! The row on a herd whose refreshers are killed in mid call: what it costs the provider, and how long no call may be made.
//! Processes are found and killed as Linux has them; elsewhere there is no such row.

use std::process::Command;
use std::time::Duration;

use quota_sim::{Answer, Change};

use super::herd::run_herd;
use super::world::World;
use crate::row::Row;

/// The length of a lease: two seconds more than a call may take.
const LEASE: Duration = Duration::from_secs(6);
/// A statusline has to come by when the lease is over, start a refresher, and that has to reach the provider.
const SLACK: Duration = Duration::from_secs(3);
const KILLS: u64 = 2;
/// As `World` names the first.
const ACCOUNT: &str = "account-0";

pub(super) fn row() -> Option<Row> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let world = World::cold(1, "fetch_timeout = \"4s\"");
    let line = world.process(["statusline"]);
    answer(&world, Answer::Hang);
    for killed in 1..=KILLS {
        run_herd(&world);
        // Until the lease of one that was killed is over, statuslines come and go.
        while world.simulator.ledger().calls() < killed {
            line.time_ms();
        }
        kill_refreshers(world.config());
        world.until(|ledger| ledger.accounts[ACCOUNT].abandoned == killed);
    }
    answer(&world, Answer::Ok);
    run_herd(&world);
    while world.simulator.ledger().accounts[ACCOUNT].answered(200) == 0 {
        line.time_ms();
    }
    run_herd(&world);

    let ledger = world.simulator.ledger();
    let arrivals = ledger.arrivals();
    let waits = arrivals.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_secs_f64());
    let longest = waits.fold(0.0, f64::max);
    let is_reached =
        ledger.calls() == KILLS + 1 && ledger.max_concurrent == 1 && longest <= (LEASE + SLACK).as_secs_f64();
    let reach =
        format!("{} calls, the next after a lease of {} s ({longest:.2} s)", KILLS + 1, LEASE.as_secs());
    Some(Row::absolute("local.herd_killed", (ledger.calls() as f64, "calls"), &reach, is_reached))
}

fn answer(world: &World, answer: Answer) {
    world.simulator.set(ACCOUNT, Change::answer(answer)).expect("there is such an account");
}

/// Kills, as `kill -9` does, the processes started by statuslines with this configuration.
fn kill_refreshers(config: &str) {
    for process in std::fs::read_dir("/proc").expect("there is one").flatten() {
        let words = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let words: Vec<_> = words.split(|byte| *byte == 0).collect();
        if !words.contains(&&b"refresh-detached"[..]) || !words.contains(&config.as_bytes()) {
            continue;
        }
        // One that already ended needs no killing; the ledger says whether a call was cut off.
        let _ = Command::new("kill").arg("-9").arg(process.file_name()).status();
    }
}
