//! Shrinks a failing plan: removes processes, callers and faults as long as the same rule is violated.

use std::time::Duration;

use crate::fleet::run;
use crate::plan::{MachinePlan, Network, Plan};

/// Returns a plan that violates `rule` like `plan`, with as few parts as simple removals find.
#[must_use]
pub fn shrink(plan: &Plan, rule: &str) -> Plan {
    let mut smallest = plan.clone();
    loop {
        let smaller = candidates(&smallest).into_iter().find(|candidate| violates(candidate, rule));
        match smaller {
            Some(smaller) => smallest = smaller,
            None => return smallest,
        }
    }
}

fn violates(plan: &Plan, rule: &str) -> bool {
    run(plan, false).violations.iter().any(|violation| violation.rule == rule)
}

/// Plans with one part less, large parts first.
fn candidates(plan: &Plan) -> Vec<Plan> {
    let mut candidates = Vec::new();
    let half = plan.processes.len() / 2;
    if half > 0 {
        candidates.push(Plan { processes: plan.processes[..half].to_vec(), ..plan.clone() });
        candidates.push(Plan { processes: plan.processes[half..].to_vec(), ..plan.clone() });
    }
    for at in 0..plan.faults.len() {
        let mut smaller = plan.clone();
        smaller.faults.remove(at);
        candidates.push(smaller);
    }
    if plan.processes.len() > 1 {
        for at in 0..plan.processes.len() {
            let mut smaller = plan.clone();
            smaller.processes.remove(at);
            candidates.push(smaller);
        }
    }
    for at in 0..plan.processes.len() {
        for caller in 0..plan.processes[at].callers.len() {
            let mut smaller = plan.clone();
            smaller.processes[at].callers.remove(caller);
            candidates.push(smaller);
        }
    }
    for at in 0..plan.machines.len() {
        if plan.machines[at] != MachinePlan::default() {
            let mut smaller = plan.clone();
            smaller.machines[at] = MachinePlan::default();
            candidates.push(smaller);
        }
    }
    if plan.network != Network::RELIABLE {
        candidates.push(Plan { network: Network::RELIABLE, ..plan.clone() });
    }
    if plan.length > Duration::from_secs(120) {
        let length = plan.length / 2;
        let mut smaller = Plan { length, ..plan.clone() };
        smaller.faults.retain(|fault| fault.at < length);
        candidates.push(smaller);
    }
    candidates
}
