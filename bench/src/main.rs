//! Measures quota's performance targets and the alternatives in one run, and prints a table. Run it as `scripts/bench [--only
//! GROUP]`. Machines are shared and noisy, so compare the ratios.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a report is printed")]
#![expect(clippy::disallowed_methods, reason = "a measurement reads a clock, and the tasks are awaited")]

mod core;
mod local;
mod measure;
mod providers;
mod redis;
mod route;
mod row;
mod serve;
mod wrap;

use std::process::ExitCode;

use row::Row;

/// A group of rows, by its name for `--only`.
type Group = (&'static str, fn() -> Vec<Row>);

const GROUPS: [Group; 8] = [
    ("core", core::rows),
    ("local", local::rows),
    ("outage", local::outages::rows),
    ("providers", providers::rows),
    ("redis", redis::rows),
    ("route", route::rows),
    ("serve", serve::rows),
    ("wrap", wrap::rows),
];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let only = match words[..] {
        [] => None,
        ["--only", group] if GROUPS.iter().any(|(name, _)| *name == group) => Some(group),
        _ => {
            let names: Vec<_> = GROUPS.iter().map(|(name, _)| *name).collect();
            eprintln!("usage: scripts/bench [--only GROUP], where GROUP is one of: {}", names.join(", "));
            return ExitCode::from(64);
        }
    };
    let groups = GROUPS.iter().filter(|(name, _)| only.is_none_or(|only| only == *name));
    let rows: Vec<Row> = groups.flat_map(|(_, rows)| rows()).collect();
    print!("{}", row::table(&rows));
    match row::write_json(&rows) {
        Ok(path) => println!("\nwritten to {}", path.display()),
        Err(error) => {
            eprintln!("could not write target/bench.json: {error}");
            return ExitCode::from(74);
        }
    }
    ExitCode::SUCCESS
}
