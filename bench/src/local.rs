//! Group `local`: the program as it is run, whole processes beside one that does nothing and one of Node.
//! What many of them do to a provider is counted by the provider.

mod herd;
mod killed;
mod process;
mod world;

use crate::measure::median;
use crate::row::Row;
use process::Process;
use world::World;

/// How often each process is run. The median of these is the figure.
const RUNS: usize = 200;
/// What a statusline may take of memory.
const MOST_MEMORY_MIB: f64 = 12.0;
const MANY_ACCOUNTS: usize = 20;
/// How often a statusline is run with a configuration of each size.
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
    let (one, many) = (World::warm(1), World::warm(MANY_ACCOUNTS));
    let nothing = Process::beside("nothing", []);
    let statusline = one.process(["statusline"]);
    let status = many.process(["status"]);
    let node = Process::found("node", ["-e", "0"]);

    let mut ways = vec![&nothing, &statusline, &status];
    ways.extend(node.as_ref());
    let figures = interleaved(&ways, RUNS);

    let in_ms = |at: usize| (figures[at], "ms");
    let mut rows = vec![
        Row::at_most("statusline.warm", in_ms(1), ("a program that does nothing", figures[0]), 2.5),
        Row::at_most("status.warm", in_ms(2), ("a program that does nothing", figures[0]), 4.0),
    ];
    if node.is_some() {
        rows.push(Row::faster("statusline.warm.node", in_ms(1), ("node -e 0", figures[3]), 10.0));
    }
    if let Some(memory) = statusline.peak_memory_mib() {
        let reach = format!("≤ {MOST_MEMORY_MIB} MiB");
        rows.push(Row::absolute("statusline.memory", (memory, "MiB"), &reach, memory <= MOST_MEMORY_MIB));
    }
    rows
}

/// How the time of a statusline grows with the number of configured accounts: it shows one of them, and reads all.
fn by_accounts() -> Vec<Row> {
    let sizes = [20, 1_000, 20_000];
    let world = World::warm(1);
    let lines = sizes.map(|accounts| world.process_among(accounts, ["statusline"]));
    let figures = interleaved(&lines.each_ref(), RUNS_BY_SIZE);

    let name = |at: usize| format!("statusline.accounts.{}", sizes[at]);
    let row = |at: usize| {
        let growth = sizes[at] as f64 / sizes[at - 1] as f64;
        Row::at_most(&name(at), (figures[at], "ms"), (&name(at - 1), figures[at - 1]), growth)
    };
    let first = Row::absolute(&name(0), (figures[0], "ms"), "reported", true);
    vec![first, row(1), row(2)]
}

/// Milliseconds for each, one after the other in each round.
fn interleaved(ways: &[&Process], runs: usize) -> Vec<f64> {
    let mut figures = vec![Vec::with_capacity(runs); ways.len()];
    for round in 0..=runs {
        for (way, figures) in ways.iter().zip(&mut figures) {
            let figure = way.time_ms();
            // The first round only warms up.
            if round > 0 {
                figures.push(figure);
            }
        }
    }
    figures.into_iter().map(median).collect()
}
