//! Runs simulations: `simulate SEED`, or `simulate FIRST COUNT [--shrink]`.

use std::process::ExitCode;
use std::time::Instant;

use simulation::{Plan, run, shrink};

#[expect(clippy::print_stdout, reason = "a program prints its results")]
fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        let is_simulated = panic.payload().downcast_ref::<&str>().is_some_and(|text| text.contains("simulated"));
        if !is_simulated {
            println!("{panic}");
        }
    }));
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let wants_shrink = std::env::args().any(|argument| argument == "--shrink");
    let (first, count) = (numbers.first().copied().unwrap_or(0), numbers.get(1).copied());
    let Some(count) = count else {
        let mut plan = Plan::from_seed(first);
        if wants_shrink && let Some(violation) = run(&plan, false).violations.first() {
            plan = shrink(&plan, violation.rule);
        }
        let report = run(&plan, true);
        for line in &report.lines {
            println!("{line}");
        }
        println!("{plan:#?}");
        println!("{} events, {} calls, hash {:x}", report.events, report.calls, report.trace_hash);
        for violation in &report.violations {
            println!("{violation}");
        }
        return ExitCode::from(u8::from(!report.violations.is_empty()));
    };
    let (mut failed, mut events, mut calls) = (0, 0, 0);
    let began = Instant::now();
    for seed in first..first + count {
        let report = run(&Plan::from_seed(seed), false);
        events += report.events;
        calls += report.calls;
        if !report.violations.is_empty() {
            failed += 1;
            for violation in &report.violations {
                println!("seed {seed}: {violation}");
            }
        }
    }
    println!("{count} seeds, {failed} failed, {events} events, {calls} calls, {:.1} s", began.elapsed().as_secs_f64());
    ExitCode::from(u8::from(failed > 0))
}
