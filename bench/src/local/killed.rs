//! A row with many statuslines at once, whose refreshers are killed during a call. It counts the provider's calls, and
//! measures the time until the next one.
//! Processes are found in /proc, so the row exists only on Linux.

use std::process::Command;
use std::time::Duration;

use quota_sim::{Answer, Change};

use super::fixture::Fixture;
use super::herd::run_herd;
use crate::row::Row;

/// The length of a lease: the fetch timeout plus two seconds.
const LEASE: Duration = Duration::from_secs(6);
/// The tolerance: the time after the lease for a statusline to start, for it to start a refresher, and for the refresher to reach the
/// provider.
const SLACK: Duration = Duration::from_secs(3);
const KILLS: u64 = 2;
/// The first account of `Fixture`.
const ACCOUNT: &str = "account-0";

pub(super) fn row() -> Option<Row> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let fixture = Fixture::cold(1, "fetch_timeout = \"4s\"");
    let line = fixture.process(["statusline"]);
    answer(&fixture, Answer::Hang);
    for killed in 1..=KILLS {
        run_herd(&fixture);
        // Run statuslines until the lease of the killed process has expired.
        while fixture.simulator.ledger().calls() < killed {
            line.time_ms();
        }
        kill_refreshers(fixture.config());
        fixture.until(|ledger| ledger.accounts[ACCOUNT].abandoned == killed);
    }
    answer(&fixture, Answer::Ok);
    run_herd(&fixture);
    while fixture.simulator.ledger().accounts[ACCOUNT].answered(200) == 0 {
        line.time_ms();
    }
    run_herd(&fixture);

    let ledger = fixture.simulator.ledger();
    let arrivals = ledger.arrivals();
    let waits = arrivals.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_secs_f64());
    let longest = waits.fold(0.0, f64::max);
    let is_reached =
        ledger.calls() == KILLS + 1 && ledger.max_concurrent == 1 && longest <= (LEASE + SLACK).as_secs_f64();
    let target =
        format!("{} calls, the next after a lease of {} s ({longest:.2} s)", KILLS + 1, LEASE.as_secs());
    Some(Row::absolute("local.herd_killed", (ledger.calls() as f64, "calls"), &target, is_reached))
}

fn answer(fixture: &Fixture, answer: Answer) {
    fixture.simulator.set(ACCOUNT, Change::answer(answer)).expect("the account exists");
}

/// Kills the refreshers that statuslines with this configuration started, as `kill -9` does.
fn kill_refreshers(config: &str) {
    for process in std::fs::read_dir("/proc").expect("this is Linux").flatten() {
        let words = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let words: Vec<_> = words.split(|byte| *byte == 0).collect();
        if !words.contains(&&b"refresh-detached"[..]) || !words.contains(&config.as_bytes()) {
            continue;
        }
        // A process that has already ended cannot be killed. The ledger shows whether a call was interrupted.
        let _ = Command::new("kill").arg("-9").arg(process.file_name()).status();
    }
}
