//! The protocol keeps its properties within small bounds, and a missing rule is found.

use protocol_model::{Bounds, Broken, Case, Faults, Report, Witness, check, suite};

fn case(name: &str) -> Bounds {
    let found = suite::small().into_iter().find(|case| case.name == name);
    found.map(|Case { bounds, .. }| bounds).expect("there is a case of this name")
}

/// Checks a case, prints its size, and returns the report of all events.
#[expect(clippy::print_stdout, reason = "the size of the state space shows what was checked")]
fn holds(name: &str) -> Report {
    let report = check(case(name), None);
    println!(
        "{name}: {} states, {} steps, depth {}, {:?}",
        report.states, report.steps, report.depth, report.elapsed
    );
    assert!(report.counterexamples.is_empty(), "{:#?}", report.counterexamples);
    report
}

fn occurred(report: &Report, witness: Witness) -> bool {
    report.witnessed.iter().any(|(event, count)| *event == witness && *count > 0)
}

#[test]
fn three_hosts_without_faults_keep_the_protocol() {
    assert!(occurred(&holds("no fault"), Witness::Refused));
}

#[test]
fn a_cooldown_holds_the_other_account() {
    assert!(occurred(&holds("two accounts, one cooldown"), Witness::Refused));
}

#[test]
fn a_lost_answer_is_recognized_when_it_is_repeated() {
    let report = holds("lost answers and late writes");

    assert!(occurred(&report, Witness::OwnWriteRecognized));
    assert!(occurred(&report, Witness::LateWriteApplied));
}

#[test]
fn the_lease_of_a_stopped_host_is_taken_over() {
    let report = holds("crashes and suspensions");

    assert!(occurred(&report, Witness::TakenOver));
    assert!(occurred(&report, Witness::TooLate));
}

#[test]
fn a_lost_record_is_restored() {
    assert!(occurred(&holds("a lost record"), Witness::LossRepaired));
}

#[test]
fn an_outage_loses_no_hold_and_no_call() {
    let report = holds("an outage");

    assert!(occurred(&report, Witness::StandaloneCall));
    assert!(occurred(&report, Witness::MergedAfterOutage));
}

#[test]
fn two_hosts_keep_the_protocol_with_each_fault() {
    let report = holds("each fault, two hosts");

    assert!(occurred(&report, Witness::LateWriteApplied));
    assert!(occurred(&report, Witness::MergedAfterOutage));
    assert!(occurred(&report, Witness::LossRepaired));
}

/// Checks that the shortest way to a broken property is found if a rule is missing.
#[track_caller]
fn is_found(broken: Broken, bounds: Bounds, property: &str) {
    let report = check(bounds, Some(broken));

    let found: Vec<_> = report.counterexamples.iter().map(|found| found.property).collect();
    assert!(found.contains(&property), "{broken:?}: {found:?} of {} states", report.states);
}

/// Two hosts, one attempt each, two ticks.
fn two_hosts(faults: u8, kinds: Faults) -> Bounds {
    Bounds { hosts: 2, attempts: 1, ticks: 2, faults, kinds, ..case("no fault") }
}

#[test]
fn a_commit_without_a_fence_is_found() {
    let bounds = two_hosts(1, Faults { suspensions: true, ..Faults::NONE });

    is_found(Broken::FenceComparison, bounds, "no commit of an older fence");
}

#[test]
fn a_refresh_that_ignores_a_hold_after_a_conflict_is_found() {
    is_found(Broken::HoldAfterConflict, two_hosts(0, Faults::NONE), "no call under a reported hold");
}

#[test]
fn a_refresh_that_ignores_a_lease_is_found() {
    is_found(Broken::LiveLease, two_hosts(0, Faults::NONE), "at most one call per account");
}

#[test]
fn a_blind_write_is_found() {
    is_found(Broken::CompareAndSwap, two_hosts(0, Faults::NONE), "the revision rises");
}

#[test]
fn an_ignored_cooldown_is_found() {
    let bounds = Bounds { hosts: 3, accounts: [0, 0, 1], ..two_hosts(0, Faults::NONE) };

    is_found(Broken::Cooldown, bounds, "no call under a reported cooldown");
}

#[test]
fn an_ignored_budget_is_found() {
    let bounds = Bounds { budget: 1, ..two_hosts(0, Faults::NONE) };

    is_found(Broken::Budget, bounds, "the budget limits calls");
}

#[test]
fn a_failure_that_counts_twice_is_found() {
    // The other host writes between the two swaps, without a lease: it merges its copy after an outage.
    let bounds = two_hosts(2, Faults { lost_answers: true, outages: true, ..Faults::NONE });

    is_found(Broken::FailureOnce, bounds, "nothing counts twice");
}

#[test]
fn a_request_without_an_attempt_id_is_found() {
    let kinds = Faults { lost_answers: true, outages: true, ..Faults::NONE };

    is_found(Broken::AttemptId, Bounds { budget: 3, ..two_hosts(2, kinds) }, "nothing counts twice");
}

#[test]
fn a_merge_that_drops_a_hold_is_found() {
    let bounds = two_hosts(1, Faults { outages: true, ..Faults::NONE });

    is_found(Broken::MergedHold, bounds, "a merge loses nothing");
}

#[test]
fn a_merge_that_drops_calls_is_found() {
    let bounds = two_hosts(1, Faults { outages: true, ..Faults::NONE });

    is_found(Broken::MergedCalls, bounds, "a merge loses nothing");
}

#[test]
fn a_loss_that_no_host_notices_is_found() {
    let bounds = two_hosts(1, Faults { losses: true, ..Faults::NONE });

    is_found(Broken::LossDetection, bounds, "all hosts agree at last, and may call");
}

#[test]
fn an_estimate_of_the_time_beyond_its_bound_is_found() {
    let report = check(Bounds { skew: [0, 2001, 0], ..two_hosts(0, Faults::NONE) }, None);

    assert_eq!(report.counterexamples[0].property, "at most one call per account");
}
