//! The calls of the trailing hour: their identity, their effect on the budget, and their stored form. The tests of the budget
//! are in `asking`. Random sequences are in `laws`.

use jiff::SignedDuration;
use serde_json::json;

use super::support::*;
use crate::model::UsageReport;
use crate::provider::FetchError;
use crate::record::{HoldReason, LeaseDecision, Record};

const MILLISECOND: SignedDuration = SignedDuration::from_millis(1);

/// A call that was granted a millisecond before the last successful one, so that its readings have a later timestamp than its
/// grant.
fn granted_by_a_slow_clock() -> (Record, crate::record::Lease) {
    let mut record = polled(at(0), [five_hour(40)]);
    let LeaseDecision::Granted(lease) = begin(&mut record, at(0) - MILLISECOND, &explicit_request(9)) else {
        panic!("nothing known is as young as that")
    };
    (record, lease)
}

#[test]
fn a_call_counts_from_its_grant_not_from_its_readings() {
    let (record, lease) = granted_by_a_slow_clock();

    let call = record.calls().iter().find(|attempt| attempt.fence == lease.fence).unwrap();

    assert_eq!((call.at, lease.granted_at), (at(0) - MILLISECOND, at(0) + MILLISECOND));
}

#[test]
fn a_call_leaves_the_budget_an_hour_after_its_grant() {
    let (mut record, lease) = granted_by_a_slow_clock();
    record.release(&lease);
    let frugal = policy().budget(crate::policy::Budget::new(2, 0));

    let LeaseDecision::OnHold(hold) = record.begin(at(1), &explicit_request(9), &frugal) else {
        panic!("2 are allowed")
    };

    assert_eq!((hold.reason, hold.until), (HoldReason::BudgetExhausted, at(3600) - MILLISECOND));
}

#[test]
fn a_call_without_a_login_is_withdrawn_by_its_fence() {
    let (mut record, lease) = granted_by_a_slow_clock();

    let _ = record.fail(at(1), &lease, &FetchError::not_logged_in("no file"), &policy());

    let left: Vec<_> = record.calls().iter().map(|attempt| attempt.at).collect();
    assert_eq!(left, [at(0)]);
}

#[test]
fn simultaneous_calls_of_two_standalone_processes_count_twice() {
    let call_of = |by: &str| {
        let mut standalone = Record::default();
        let LeaseDecision::Granted(lease) = begin(&mut standalone, at(0), &explicit_request(1).by(by.into()))
        else {
            panic!("no other process holds the lease")
        };
        let _ = standalone.commit(at(1), &lease, &UsageReport::polled([five_hour(10)]));
        standalone
    };
    let mut record = call_of("host-1");

    let _ = record.merge_standalone(at(2), &call_of("host-2"), None);
    let _ = record.merge_standalone(at(2), &call_of("host-2"), None);

    assert_eq!(record.calls().len(), 2);
    assert_eq!(record.calls()[0].fence, record.calls()[1].fence);
}

#[test]
fn a_standalone_process_does_not_remove_a_lease_of_equal_fence() {
    let mut record = Record::default();
    let LeaseDecision::Granted(lease) = begin(&mut record, at(0), &explicit_request(1).by("host-1".into()))
    else {
        panic!("no other process calls")
    };
    let mut standalone = Record::default();
    let LeaseDecision::Granted(other) =
        begin(&mut standalone, at(0), &explicit_request(2).by("host-2".into()))
    else {
        panic!("no other process holds the lease")
    };
    let _ = standalone.commit(at(1), &other, &UsageReport::polled([five_hour(10)]));

    let _ = record.merge_standalone(at(2), &standalone, None);

    assert_eq!((record.lease(), lease.fence), (Some(&lease), other.fence));
}

#[test]
fn the_fence_of_a_call_is_stored_only_if_it_differs_from_its_time() {
    let mut record = Record::default();
    for _ in 0..2 {
        let lease = grant(&mut record, at(0));
        record.release(&lease);
    }
    let ms = at(0).as_millisecond();

    assert_eq!(document(&record)["calls_ms"], json!({ "": [ms, [ms, 1]] }));
    assert_eq!(stored(&record), record);
}

/// The copy of a process that made `calls` calls without the store, one per second.
fn standalone(process: i64, calls: i64) -> Record {
    let generous = policy().budget(crate::policy::Budget::new(u32::MAX, 0));
    let mut record = Record::default();
    for call in 0..calls {
        let request = explicit_request(9).by(format!("host-{process}").into());
        let LeaseDecision::Granted(lease) = record.begin(at(call), &request, &generous) else {
            panic!("no other process holds the lease")
        };
        record.release(&lease);
    }
    record
}

#[test]
fn the_calls_of_many_standalone_processes_are_limited() {
    let mut record = Record::default();

    for process in 0..60 {
        let _ = record.merge_standalone(at(100), &standalone(process, 50), None);
    }

    assert_eq!(record.calls().len(), 1000);
    assert!(record.calls().iter().all(|attempt| attempt.at >= at(33)), "the newest stay");
}

#[test]
fn the_limit_of_stored_calls_does_not_affect_the_budget() {
    let mut record = Record::default();
    for process in 0..60 {
        let _ = record.merge_standalone(at(100), &standalone(process, 50), None);
    }

    for (budget, second) in [(28, 49), (60, 49), (61, 48), (600, 40), (1000, 33)] {
        let frugal = policy().budget(crate::policy::Budget::new(budget, 0));
        let begun = record.clone().begin(at(100), &explicit_request(1), &frugal);

        // Of 60 calls per second, the last ones that the budget allows start at this second.
        let LeaseDecision::OnHold(hold) = begun else { panic!("{budget} are used up") };
        assert_eq!(hold.until, at(second + 3600), "{budget}");
    }
}

#[test]
fn granted_calls_are_limited() {
    let record = standalone(1, 1500);

    assert_eq!(record.calls().len(), 1000);
    assert_eq!(record.calls()[0].at, at(500));
}
