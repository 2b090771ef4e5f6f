//! Checks the protocol within large bounds. `scripts/test` checks it within small ones.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser;
use protocol_model::{Case, Report, check, suite};

/// Check every order of steps and faults of quota's protocol within bounds, and print the number of states.
#[derive(Debug, Parser)]
struct Args {
    /// Check only the small bounds, as the tests do
    #[arg(long)]
    small: bool,
    /// Check only cases whose name contains this text
    case: Option<String>,
}

fn main() -> io::Result<ExitCode> {
    let args = Args::parse();
    let cases = if args.small { suite::small() } else { suite::large() };
    let mut is_broken = false;
    let mut out = io::stdout().lock();
    writeln!(out, "{:30} {:>10} {:>11} {:>6} {:>8}", "case", "states", "steps", "depth", "seconds")?;
    for Case { name, bounds } in cases {
        if args.case.as_ref().is_some_and(|text| !name.contains(text)) {
            continue;
        }
        let Report { states, steps, depth, elapsed, counterexamples, .. } = check(bounds, None);
        writeln!(out, "{name:30} {states:>10} {steps:>11} {depth:>6} {:>8.1}", elapsed.as_secs_f64())?;
        for counterexample in counterexamples {
            is_broken = true;
            writeln!(out, "{counterexample:#?}")?;
        }
    }
    Ok(if is_broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
