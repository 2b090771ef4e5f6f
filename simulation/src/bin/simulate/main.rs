//! Runs one simulation and prints its trace, or runs many on all cores.

mod campaign;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use simulation::{Plan, reliability, run, shrink};

use self::campaign::Campaign;

/// Simulate fleets of quota, each from one seed.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the trace, the plan and the violations of one seed.
    Trace {
        /// The seed.
        seed: u64,
        /// Shrink the plan first, so that it violates the same rule with fewer parts.
        #[arg(long)]
        shrink: bool,
    },
    /// Print the page about the effects of faults, docs/reliability.md.
    Reliability,
    /// Print the trace of one fault of that page.
    Fault {
        /// The name of the scenario, such as store-down.
        name: String,
    },
    /// Run many seeds and print those that violate a rule.
    Run {
        /// The first seed.
        first: u64,
        /// The number of seeds.
        count: u64,
        /// The number of threads; by default, one for each core.
        #[arg(long)]
        jobs: Option<usize>,
        /// Record the results in this file, and continue from it if it has results of the same code.
        #[arg(long, requires = "code")]
        results: Option<PathBuf>,
        /// The version of the code, which the file of the results states.
        #[arg(long)]
        code: Option<String>,
        /// Stop after the first seed that violates a rule.
        #[arg(long)]
        stop_at_violation: bool,
    },
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a program prints its results")]
fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Trace { seed, shrink } => trace(seed, shrink),
        Command::Reliability => {
            print!("{}", reliability::page());
            ExitCode::SUCCESS
        }
        Command::Fault { name } => {
            match reliability::scenarios().into_iter().find(|scenario| scenario.name == name) {
                Some(scenario) => print_trace(&scenario.plan),
                None => {
                    eprintln!("simulate: no fault is named {name}");
                    ExitCode::from(64)
                }
            }
        }
        Command::Run { first, count, jobs, results, code, stop_at_violation } => {
            let jobs =
                jobs.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
            let results = results.zip(code);
            match (Campaign { first, count, jobs, results, stop_at_violation }).run() {
                Ok(summary) => {
                    println!("{summary}");
                    ExitCode::from(u8::from(summary.failed > 0))
                }
                Err(error) => {
                    eprintln!("simulate: could not record the results: {error}");
                    ExitCode::from(74)
                }
            }
        }
    }
}

fn trace(seed: u64, wants_shrink: bool) -> ExitCode {
    let mut plan = Plan::from_seed(seed);
    if wants_shrink && let Some(violation) = run(&plan, false).violations.first() {
        plan = shrink(&plan, violation.rule);
    }
    print_trace(&plan)
}

#[expect(clippy::print_stdout, reason = "a program prints its results")]
fn print_trace(plan: &Plan) -> ExitCode {
    let report = run(plan, true);
    for line in &report.lines {
        println!("{line}");
    }
    println!("{plan:#?}");
    println!("{} events, {} calls, hash {:x}", report.events, report.calls, report.trace_hash);
    for violation in &report.violations {
        println!("{violation}");
    }
    ExitCode::from(u8::from(!report.violations.is_empty()))
}
