//! Group `local`: whole processes of the program, compared with an empty program and with Node. The provider counts the calls
//! of many processes.

mod fixture;
mod herd;
mod killed;
pub(crate) mod outages;
mod process;

use crate::measure::median;
use crate::row::Row;
use fixture::Fixture;
use process::Process;

/// How often each process is run. The figure is the median.
const RUNS: usize = 200;
/// The memory limit of a statusline.
const MAX_MEMORY_MIB: f64 = 12.0;
const MANY_ACCOUNTS: usize = 20;
/// The size of Claude Code's state file after a few months of use.
const LARGE_STATE_FILE: usize = 5 << 20;
/// How often a statusline is run for each size of the configuration.
const RUNS_BY_SIZE: usize = 20;

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = times();
    rows.extend(by_accounts());
    rows.push(herd::cold());
    rows.extend(killed::row());
    rows.push(herd::statuslines());
    rows
}

fn times() -> Vec<Row> {
    let (one, many) = (Fixture::warm(1), Fixture::warm(MANY_ACCOUNTS));
    let login = Fixture::warm_login(LARGE_STATE_FILE);
    let nothing = Process::built("empty", []);
    let statusline = one.process(["statusline"]);
    let status = many.process(["status"]);
    let node = Process::in_path("node", ["-e", "0"]);

    let large_login = login.process(["statusline"]);

    let mut routines = vec![&nothing, &statusline, &status, &large_login];
    routines.extend(node.as_ref());
    let figures = interleaved(&routines, RUNS);

    let in_ms = |at: usize| (figures[at], "ms");
    let mut rows = vec![
        Row::at_most("statusline.warm", in_ms(1), ("an empty program", figures[0]), 2.5),
        Row::at_most("status.warm", in_ms(2), ("an empty program", figures[0]), 4.0),
        Row::at_most("statusline.large_login", in_ms(3), ("statusline.warm", figures[1]), 1.2),
    ];
    if node.is_some() {
        rows.push(Row::faster("statusline.warm.node", in_ms(1), ("node -e 0", figures[4]), 10.0));
    }
    if let Some(memory) = statusline.peak_memory_mib() {
        let target = format!("≤ {MAX_MEMORY_MIB} MiB");
        rows.push(Row::absolute("statusline.memory", (memory, "MiB"), &target, memory <= MAX_MEMORY_MIB));
    }
    rows
}

/// `quota status` with two accounts of each provider, compared with one account.
pub(crate) fn status_of_many_providers() -> Row {
    const ACCOUNTS_OF_EACH: usize = 2;
    let providers = quota_sim::providers();
    let names =
        providers.iter().flat_map(|provider| (0..ACCOUNTS_OF_EACH).map(move |number| (*provider, number)));
    let accounts = names
        .map(|(provider, number)| quota_sim::Account::new(format!("{provider}-{number}")).provider(provider));
    let (one, many) = (Fixture::warm(1), Fixture::warm_with(accounts));
    let (one, many) = (one.process(["status"]), many.process(["status"]));
    let figures = interleaved(&[&one, &many], RUNS);
    Row::at_most("status.many", (figures[1], "ms"), ("status with one account", figures[0]), 2.0)
}

/// How the time of a statusline grows with the number of configured accounts. It shows one account, but reads the configuration
/// of all.
fn by_accounts() -> Vec<Row> {
    let sizes = [20, 1_000, 20_000];
    let fixture = Fixture::warm(1);
    let lines = sizes.map(|accounts| fixture.process_among(accounts, ["statusline"]));
    let figures = interleaved(&lines.each_ref(), RUNS_BY_SIZE);

    let name = |at: usize| format!("statusline.accounts.{}", sizes[at]);
    let row = |at: usize| {
        let growth = sizes[at] as f64 / sizes[at - 1] as f64;
        Row::at_most(&name(at), (figures[at], "ms"), (&name(at - 1), figures[at - 1]), growth)
    };
    let first = Row::absolute(&name(0), (figures[0], "ms"), "reported", true);
    vec![first, row(1), row(2)]
}

/// The milliseconds of each process. Each round runs the processes one after another.
fn interleaved(routines: &[&Process], runs: usize) -> Vec<f64> {
    let mut figures = vec![Vec::with_capacity(runs); routines.len()];
    for round in 0..=runs {
        for (routine, figures) in routines.iter().zip(&mut figures) {
            let figure = routine.time_ms();
            // The first round is a warm-up.
            if round > 0 {
                figures.push(figure);
            }
        }
    }
    figures.into_iter().map(median).collect()
}
