//! The instrument itself: it repeats exactly, it finds a broken store, and it shrinks what it finds.

use std::process::Command;
use std::time::Duration;

use simulation::{Fault, FaultKind, Plan, run, shrink};

/// A seed with several processes and faults.
fn busy_plan() -> Plan {
    let mut plans = (0..1_000).map(Plan::from_seed);
    let is_busy = |plan: &Plan| plan.processes.len() > 8 && plan.faults.len() > 3;
    plans.find(is_busy).expect("some seeds are busy")
}

#[test]
fn a_second_run_of_a_plan_has_the_same_trace() {
    let plan = busy_plan();
    let first = run(&plan, true);

    assert!(first.calls > 10, "{} calls", first.calls);
    assert_eq!(run(&plan, true), first);
}

#[test]
fn two_processes_print_the_same_trace_of_a_seed() {
    let seed = busy_plan().seed.to_string();
    let trace =
        || Command::new(env!("CARGO_BIN_EXE_simulate")).args(["trace", &seed]).output().unwrap().stdout;

    let first = trace();
    assert!(first.len() > 10_000, "{} bytes", first.len());
    assert!(first == trace());
}

#[test]
fn another_seed_has_another_trace() {
    let hash_of = |seed| run(&Plan::from_seed(seed), false).trace_hash;

    assert_ne!(hash_of(1), hash_of(2));
}

/// A plan with a store that loses updates.
fn broken_plan(seed: u64) -> Plan {
    let mut plan = Plan::from_seed(seed);
    plan.faults.push(Fault { at: Duration::ZERO, lasts: plan.length, kind: FaultKind::StoreIgnoresVersions });
    plan
}

/// The first plan with such a store, and with other faults, that violates the rule.
fn found_plan() -> Option<Plan> {
    let violates = |plan: &Plan| run(plan, false).violations.iter().any(|violation| violation.rule == RULE);
    (0..50).map(broken_plan).filter(|plan| plan.faults.len() > 1).find(violates)
}

const RULE: &str = "revision-rises";

#[test]
fn a_store_that_loses_updates_is_found() {
    assert!(found_plan().is_some());
}

#[test]
fn a_shrunk_plan_has_the_fault_and_at_most_two_processes() {
    let shrunk = shrink(&found_plan().expect("the test above finds one"), RULE);

    let faults: Vec<_> = shrunk.faults.iter().map(|fault| fault.kind.clone()).collect();
    assert_eq!(faults, [FaultKind::StoreIgnoresVersions]);
    assert!(shrunk.processes.len() <= 2, "{shrunk:?}");
}
