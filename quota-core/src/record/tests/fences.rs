//! Which ended calls satisfy a refresh: those that were running when it read the record, or began later.

use jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;

use super::support::*;
use crate::model::{CredentialFingerprint, LoginInfo, RequestId, Snapshot, UsageReport};
use crate::policy::{Budget, Policy};
use crate::provider::FetchError;
use crate::record::{
    CommitOutcome, FailOutcome, Lease, LeaseDecision, LeaseRequest, MaxStaleness, RecentCall, Record, Seed,
};
use crate::time::CLOCK_SLACK;

/// A login that the source does not state.
fn unstated(credential: u64) -> LoginInfo {
    LoginInfo::unknown().fingerprint(fingerprint(credential))
}

fn fingerprint(credential: u64) -> CredentialFingerprint {
    CredentialFingerprint::from_hash(credential)
}

/// A request that only a new call satisfies.
fn forced(number: u128, credential: u64) -> LeaseRequest {
    explicit_request(number).login(unstated(credential))
}

fn usage() -> UsageReport {
    UsageReport::polled([five_hour(10)])
}

/// Grants a lease for a call with this credential.
fn call(record: &mut Record, now: Timestamp, credential: u64) -> Lease {
    let request = forced(u128::from(record.fence()) + 1, credential);
    match record.begin(now, &request, &generous()) {
        LeaseDecision::Granted(lease) => lease,
        other => panic!("no lease at {now}: {other:?}"),
    }
}

fn generous() -> Policy {
    policy().budget(Budget::new(u32::MAX, 0))
}

/// The decision for a refresh with this credential that has read the record when calls up to `ended_fence` had ended.
fn decide(record: &Record, second: i64, ended_fence: u64, credential: u64) -> LeaseDecision {
    let request = forced(9999, credential).after_fence(Some(ended_fence));
    record.clone().begin(at(second), &request, &generous())
}

fn is_satisfied(decision: &LeaseDecision) -> bool {
    matches!(decision, LeaseDecision::CalledRecently(RecentCall { failure: None, .. }))
}

#[test]
fn the_running_call_satisfies_a_refresh_once_it_succeeds() {
    let mut record = Record::default();
    let lease = call(&mut record, at(0), 1);
    let ended = record.ended_fence(at(1));
    assert!(matches!(decide(&record, 1, ended, 1), LeaseDecision::InProgress { .. }));

    let _ = record.commit(at(2), &lease, &usage());

    let LeaseDecision::CalledRecently(call) = decide(&record, 2, ended, 1) else {
        panic!("the call has ended")
    };
    assert_eq!((call.at, call.failure), (at(0), None));
}

#[test]
fn a_later_call_satisfies_a_refresh() {
    let mut record = polled(at(0), [five_hour(10)]);
    let ended = record.ended_fence(at(1));

    let lease = call(&mut record, at(2), 1);
    let _ = record.commit(at(3), &lease, &usage());

    assert!(is_satisfied(&decide(&record, 3, ended, 1)));
}

#[test]
fn a_call_that_has_ended_does_not_satisfy_a_refresh() {
    let record = polled(at(0), [five_hour(10)]);
    let ended = record.ended_fence(at(1));

    assert!(matches!(decide(&record, 1, ended, 1), LeaseDecision::Granted(_)));
}

#[test]
fn without_a_read_no_ended_call_satisfies_a_refresh() {
    let mut record = polled(at(0), [five_hour(10)]);

    assert!(matches!(begin(&mut record, at(1), &explicit_request(9)), LeaseDecision::Granted(_)));
}

#[test]
fn the_running_call_satisfies_a_refresh_once_it_fails() {
    let mut record = Record::default();
    let lease = call(&mut record, at(0), 1);
    let ended = record.ended_fence(at(1));

    let _ = record.fail(at(2), &lease, &FetchError::Unauthorized, &policy());

    let LeaseDecision::CalledRecently(call) = decide(&record, 2, ended, 1) else {
        panic!("the call has ended")
    };
    assert_eq!((call.at, call.failure.as_ref()), (at(0), record.last_failure()));
}

#[test]
fn a_running_call_that_arms_a_hold_is_reported_as_the_hold() {
    let mut record = Record::default();
    let lease = call(&mut record, at(0), 1);
    let ended = record.ended_fence(at(1));

    let _ = record.fail(at(2), &lease, &FetchError::throttled(None), &policy());

    assert!(matches!(decide(&record, 2, ended, 1), LeaseDecision::OnHold(_)));
    // After the hold, the failure satisfies a refresh that was delayed until then.
    let decision = decide(&record, 600, ended, 1);
    assert!(matches!(decision, LeaseDecision::CalledRecently(RecentCall { failure: Some(_), .. })));
}

#[test]
fn the_failure_of_another_credential_does_not_satisfy_a_refresh() {
    let mut record = Record::default();
    let lease = call(&mut record, at(0), 1);
    let ended = record.ended_fence(at(1));

    let _ = record.fail(at(2), &lease, &FetchError::Unauthorized, &policy());

    assert!(matches!(decide(&record, 2, ended, 2), LeaseDecision::Granted(_)));
}

#[test]
fn the_success_of_another_credential_satisfies_only_with_a_login() {
    let mut record = Record::default();
    let lease = call(&mut record, at(0), 1);
    let ended = record.ended_fence(at(1));
    let mut stated = record.clone();

    let _ = record.commit(at(2), &lease, &usage());
    let _ = stated.commit(at(2), &lease, &usage().login_id(login_id("a")));

    assert!(matches!(decide(&record, 2, ended, 2), LeaseDecision::Granted(_)));
    assert!(is_satisfied(&decide(&stated, 2, ended, 2)));
}

#[test]
fn the_failure_of_one_credential_remains_after_the_success_of_another() {
    let mut record = Record::default();
    let lease = call(&mut record, at(0), 1);
    let ended = record.ended_fence(at(1));
    let _ = record.fail(at(2), &lease, &FetchError::Unauthorized, &policy());

    let lease = call(&mut record, at(3), 2);
    let _ = record.commit(at(4), &lease, &usage());

    let decision = decide(&record, 4, ended, 1);
    assert!(matches!(decision, LeaseDecision::CalledRecently(RecentCall { failure: Some(_), .. })));
}

#[test]
fn a_success_drops_the_failure_that_it_replaces() {
    let mut record = Record::default();
    let lease = call(&mut record, at(0), 1);
    let _ = record.fail(at(1), &lease, &FetchError::Unauthorized, &policy());

    let lease = call(&mut record, at(2), 1);
    let _ = record.commit(at(3), &lease, &usage());

    assert!(document(&record).get("failed").is_none());
}

#[test]
fn of_two_calls_the_success_satisfies_a_refresh() {
    let mut record = Record::default();
    let ended = record.ended_fence(at(0));
    poll(&mut record, at(0), &usage().login_id(login_id("a")));
    let lease = call(&mut record, at(2), 1);
    let _ = record.fail(at(3), &lease, &FetchError::Unauthorized, &policy());

    assert!(is_satisfied(&decide(&record, 3, ended, 1)));
}

#[test]
fn a_call_without_a_request_does_not_satisfy_a_refresh() {
    let mut record = Record::default();
    let lease = call(&mut record, at(0), 1);
    let ended = record.ended_fence(at(1));

    let _ = record.fail(at(2), &lease, &FetchError::not_logged_in("no file"), &policy());

    assert!(matches!(decide(&record, 2, ended, 1), LeaseDecision::Granted(_)));
}

#[test]
fn a_cancelled_call_does_not_satisfy_a_refresh() {
    let mut record = Record::default();
    let lease = call(&mut record, at(0), 1);
    let ended = record.ended_fence(at(1));

    record.release(&lease);

    assert!(matches!(decide(&record, 2, ended, 1), LeaseDecision::Granted(_)));
}

#[test]
fn an_expired_lease_is_no_running_call() {
    let mut record = Record::default();
    let lease = call(&mut record, at(0), 1);

    let last_moment = lease.until - jiff::SignedDuration::from_millis(1);

    assert_eq!(record.ended_fence(last_moment), lease.fence - 1);
    assert_eq!(record.ended_fence(lease.until), lease.fence);
}

#[test]
fn a_failure_still_satisfies_after_its_hold_was_cleared() {
    let mut record = Record::default();
    let lease = call(&mut record, at(0), 1);
    let ended = record.ended_fence(at(1));
    let _ = record.fail(at(2), &lease, &FetchError::throttled(None), &policy());

    let _ = record.clear_hold(at(3));

    let decision = decide(&record, 3, ended, 1);
    assert!(matches!(decision, LeaseDecision::CalledRecently(RecentCall { failure: Some(_), .. })));
}

#[test]
fn a_call_without_the_store_does_not_satisfy_after_its_merge() {
    let mut shared = polled(at(0), [five_hour(10)]);
    let mut alone = shared.clone();
    poll(&mut alone, at(5), &usage());
    let ended = shared.ended_fence(at(10));

    let _ = shared.merge_standalone(at(11), &alone, None);

    assert_eq!(shared.complete_at(), Some(at(5)));
    assert!(matches!(decide(&shared, 11, ended, 1), LeaseDecision::Granted(_)));
}

#[test]
fn a_running_call_without_the_store_satisfies_after_its_merge() {
    let mut shared = Record::default();
    let mut alone = shared.clone();
    let lease = call(&mut alone, at(0), 1);
    let _ = shared.merge_standalone(at(1), &alone, None);
    let ended = shared.ended_fence(at(2));

    let _ = shared.commit(at(3), &lease, &usage());

    assert!(is_satisfied(&decide(&shared, 3, ended, 1)));
}

#[test]
fn a_lost_success_that_is_restored_does_not_satisfy_a_refresh() {
    let mut record = Record::default();
    let lease = call(&mut record, at(0), 1);
    let mut older = record.clone();
    let ended = older.ended_fence(at(1));
    let _ = record.commit(at(2), &lease, &usage());

    // A failover loses the commit, and the process of the call restores the readings.
    let _ = older.merge_standalone(at(3), &record, None);

    assert_eq!(older.lease(), None);
    assert!(matches!(decide(&older, 3, ended, 1), LeaseDecision::Granted(_)));
}

#[test]
fn a_call_below_the_lost_fence_does_not_satisfy_a_refresh() {
    let mut record = Record::default();
    // A clock that was ahead granted this lease, and the store has lost it.
    let lease = call(&mut record, at(20), 1);
    let _ = record.commit(at(21), &lease, &usage());
    let ended = record.ended_fence(at(21));

    let mut lost = Record::default();
    let lease = call(&mut lost, at(5), 1);
    let _ = lost.commit(at(6), &lease, &usage());

    assert!(matches!(decide(&lost, 6, ended, 1), LeaseDecision::Granted(_)));
}

#[test]
fn another_login_satisfies_no_refresh_of_the_former_one() {
    let mut record = Record::default();
    let _ = record.new_login(&login_id("a"));
    let ended = record.ended_fence(at(0));
    poll(&mut record, at(1), &usage());

    let _ = record.new_login(&login_id("b"));

    assert!(matches!(decide(&record, 2, ended, 1), LeaseDecision::Granted(_)));
}

#[test]
fn a_removed_account_satisfies_no_refresh() {
    let mut record = Record::default();
    let ended = record.ended_fence(at(0));
    poll(&mut record, at(1), &usage().login_id(login_id("a")));

    let _ = record.forget(at(3));

    assert!(matches!(decide(&record, 4, ended, 1), LeaseDecision::Granted(_)));
}

#[test]
fn a_record_of_an_older_program_satisfies_no_forced_refresh() {
    let mut record = Record::default();
    let lease = call(&mut record, at(0), 1);
    let ended = record.ended_fence(at(1));
    let _ = record.commit(at(2), &lease, &usage());
    let mut older = document(&record);
    older.as_object_mut().unwrap().remove("succeeded");

    assert!(matches!(decide(&decode(&older), 2, ended, 1), LeaseDecision::Granted(_)));
}

#[test]
fn an_ended_fence_above_the_granted_ones_satisfies_no_refresh() {
    let mut damaged = document(&polled(at(0), [five_hour(10)]));
    damaged["succeeded"]["fence"] = serde_json::json!(u64::MAX);
    let record = decode(&damaged);

    let ended = record.ended_fence(at(1));

    assert!(matches!(decide(&record, 1, ended, 1), LeaseDecision::Granted(_)));
}

#[test]
fn a_success_without_a_time_has_that_of_its_fence() {
    let mut record = Record::default();
    let lease = call(&mut record, at(7), 1);
    let ended = record.ended_fence(at(7));
    let _ = record.commit(at(8), &lease, &usage());
    let mut without = document(&record);
    without.as_object_mut().unwrap().remove("refreshed_ms");

    let LeaseDecision::CalledRecently(call) = decide(&decode(&without), 8, ended, 1) else {
        panic!("the call has ended")
    };

    assert_eq!(call.at, at(7));
}

const PROCESSES: usize = 3;
const WAITERS: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    /// A process requests a lease with this credential, of the store's record or of its own copy.
    Call {
        process: usize,
        credential: u64,
        alone: bool,
    },
    /// The last call of a process ends, in the store's record or in its own copy.
    Commit {
        process: usize,
        alone: bool,
    },
    Fail {
        process: usize,
        alone: bool,
        before_request: bool,
    },
    Release(usize),
    /// A process copies the store's record.
    Copy(usize),
    /// A process merges its copy into the store's record.
    Rejoin(usize),
    /// The store loses its last writes.
    Lose(usize),
    /// A caller with this credential reads the store's record.
    Read {
        waiter: usize,
        credential: u64,
    },
    Login(&'static str),
    Observe,
    Seed,
    ClearHold,
    Forget,
    Wait(u64),
    SetBack(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let process = || 0..PROCESSES;
    let alone = || prop::bool::weighted(0.2);
    prop_oneof![
        8 => (process(), 1_u64..3, alone()).prop_map(|(process, credential, alone)| Step::Call { process, credential, alone }),
        5 => (process(), alone()).prop_map(|(process, alone)| Step::Commit { process, alone }),
        4 => (process(), alone(), prop::bool::weighted(0.2)).prop_map(|(process, alone, before_request)| Step::Fail { process, alone, before_request }),
        1 => process().prop_map(Step::Release),
        2 => process().prop_map(Step::Copy),
        2 => process().prop_map(Step::Rejoin),
        1 => (1_usize..4).prop_map(Step::Lose),
        6 => (0..WAITERS, 1_u64..3).prop_map(|(waiter, credential)| Step::Read { waiter, credential }),
        1 => prop::sample::select(vec!["a", "b"]).prop_map(Step::Login),
        1 => Just(Step::Observe),
        1 => Just(Step::Seed),
        1 => Just(Step::ClearHold),
        1 => Just(Step::Forget),
        3 => (0_u64..16_000).prop_map(Step::Wait),
        1 => (0_u64..29_000).prop_map(Step::SetBack),
    ]
}

/// A call whose end the store's record has.
struct Ended {
    fence: u64,
    credential: u64,
    succeeded: bool,
    at_step: usize,
}

/// A caller of a forced refresh after its first read.
struct Waiter {
    credential: u64,
    ended_fence: u64,
    read_at_step: usize,
    /// The call that was running at the read.
    running: Option<RequestId>,
    /// Whether the store has lost no write since the read.
    is_intact: bool,
    /// Whether a call has ended that satisfies it, and was not replaced.
    must_be_satisfied: bool,
}

/// The store's record, the processes, and a referee that knows all calls.
struct Game {
    record: Record,
    /// The previous states of the record, for a failover.
    history: Vec<Record>,
    copies: [Record; PROCESSES],
    leases: [Option<(Lease, u64, usize)>; PROCESSES],
    waiters: [Option<Waiter>; WAITERS],
    ended: Vec<Ended>,
    now: Timestamp,
    latest: Timestamp,
    step: usize,
}

impl Game {
    fn new() -> Self {
        Self {
            record: Record::default(),
            history: Vec::new(),
            copies: Default::default(),
            leases: Default::default(),
            waiters: Default::default(),
            ended: Vec::new(),
            now: at(0),
            latest: at(0),
            step: 0,
        }
    }

    fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        self.step += 1;
        self.record = stored(&self.record);
        self.history.push(self.record.clone());
        let before = self.record.clone();
        match *step {
            Step::Call { process, credential, alone } => self.call(process, credential, alone),
            Step::Commit { process, alone } => self.commit(process, alone),
            Step::Fail { process, alone, before_request } => self.fail(process, alone, before_request),
            Step::Release(process) => {
                if let Some((lease, ..)) = self.leases[process].take() {
                    self.record.release(&lease);
                }
            }
            Step::Copy(process) => self.copies[process] = self.record.clone(),
            Step::Rejoin(process) => {
                let _ = self.record.merge_standalone(self.now, &self.copies[process], None);
                self.copies[process] = self.record.clone();
            }
            Step::Lose(writes) => {
                let kept = self.history.len().saturating_sub(writes);
                self.history.truncate(kept.max(1));
                self.record = self.history.last().expect("one is left").clone();
                self.waiters.iter_mut().flatten().for_each(|waiter| waiter.is_intact = false);
            }
            Step::Read { waiter, credential } => {
                let running = self.record.lease().filter(|lease| lease.is_live(self.now));
                self.waiters[waiter] = Some(Waiter {
                    credential,
                    ended_fence: self.record.ended_fence(self.now),
                    read_at_step: self.step,
                    running: running.map(|lease| lease.attempt),
                    is_intact: true,
                    must_be_satisfied: false,
                });
            }
            Step::Login(name) => {
                let _ = self.record.new_login(&login_id(name));
            }
            Step::Observe => {
                let _ = merge_headers(&mut self.record, self.now, [five_hour(1)]);
            }
            Step::Seed => {
                let seed = Seed::new(Snapshot::of(&usage(), self.now));
                let _ = self.record.seed(self.now, &seed);
            }
            Step::ClearHold => drop(self.record.clear_hold(self.now)),
            Step::Forget => {
                let _ = self.record.forget(self.now);
            }
            Step::Wait(ms) => {
                self.now += std::time::Duration::from_millis(ms);
                self.latest = self.latest.max(self.now);
            }
            Step::SetBack(ms) => {
                let back = self.now - std::time::Duration::from_millis(ms);
                self.now = back.max(self.latest - CLOCK_SLACK);
            }
        }
        self.check(step, &before)
    }

    fn call(&mut self, process: usize, credential: u64, alone: bool) {
        let request =
            LeaseRequest::new(attempt(self.step as u128), MaxStaleness::NewCall).login(unstated(credential));
        let record = if alone { &mut self.copies[process] } else { &mut self.record };
        if let LeaseDecision::Granted(lease) = record.begin(self.now, &request, &generous()) {
            self.leases[process] = Some((lease, credential, self.step));
        }
    }

    fn commit(&mut self, process: usize, alone: bool) {
        let Some((lease, credential, began)) = self.leases[process].take() else { return };
        if alone {
            let _ = self.copies[process].commit(self.now, &lease, &usage());
            return;
        }
        let before = self.record.clone();
        let outcome = self.record.commit(self.now, &lease, &usage());
        if outcome == CommitOutcome::Stored && self.record != before {
            self.has_ended(&lease, credential, began, true);
        }
    }

    fn fail(&mut self, process: usize, alone: bool, before_request: bool) {
        let Some((lease, credential, began)) = self.leases[process].take() else { return };
        let error =
            if before_request { FetchError::not_logged_in("no file") } else { FetchError::Unauthorized };
        if alone {
            let _ = self.copies[process].fail(self.now, &lease, &error, &generous());
            return;
        }
        let before = self.record.clone();
        let outcome = self.record.fail(self.now, &lease, &error, &generous());
        if !before_request && matches!(outcome, FailOutcome::Stored { .. }) && self.record != before {
            self.has_ended(&lease, credential, began, false);
        }
    }

    fn has_ended(&mut self, lease: &Lease, credential: u64, began: usize, succeeded: bool) {
        let has_login = self.record.login_id().is_some();
        self.ended.push(Ended { fence: lease.fence, credential, succeeded, at_step: self.step });
        for waiter in self.waiters.iter_mut().flatten() {
            let counts = waiter.credential == credential || (succeeded && has_login);
            let is_in_time = waiter.running == Some(lease.attempt) || began > waiter.read_at_step;
            // The record has one success and one failure, so the call of another credential may replace the waiter's own.
            waiter.must_be_satisfied &= waiter.credential == credential || (succeeded && has_login);
            waiter.must_be_satisfied |= waiter.is_intact && counts && is_in_time;
        }
    }

    fn check(&mut self, step: &Step, before: &Record) -> Result<(), TestCaseError> {
        let fences = |record: &Record| (record.succeeded_fence(), record.failed_fence());
        let is_other_login = self.record.login_id() != before.login_id();
        let is_removed = self.record.forgotten_at != before.forgotten_at || matches!(step, Step::Forget);
        let drops = is_other_login || is_removed;
        if drops {
            self.waiters.iter_mut().flatten().for_each(|waiter| waiter.must_be_satisfied = false);
        }
        let (now, then) = (fences(&self.record), fences(before));
        match step {
            Step::Commit { .. } | Step::Fail { .. } => {}
            // A failover may also lose a change of login, which had dropped the calls.
            Step::Lose(_) => {}
            _ if drops => prop_assert!(now.0 <= then.0 && now.1 <= then.1, "{step:?} raised a fence"),
            _ => prop_assert_eq!(now, then, "{:?} changed a fence", step),
        }
        for waiter in self.waiters.iter().flatten() {
            let call = self.record.call_after(waiter.ended_fence, Some(fingerprint(waiter.credential)));
            if let Some(call) = &call {
                let succeeded = call.failure.is_none();
                let fence = if succeeded { now.0 } else { now.1 };
                let is_real = self.ended.iter().any(|ended| {
                    let same = (ended.fence, ended.succeeded) == (fence, succeeded);
                    same && ended.at_step > waiter.read_at_step
                        && (succeeded || ended.credential == waiter.credential)
                });
                prop_assert!(is_real, "satisfied by a call that ended before the read: {call:?}");
            }
            let owed = waiter.must_be_satisfied && waiter.is_intact;
            prop_assert!(!owed || call.is_some(), "not satisfied although its call has ended");
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn a_refresh_is_satisfied_by_the_calls_that_end_after_its_read(steps in vec(step(), 1..80)) {
        let mut game = Game::new();
        for step in &steps {
            game.take(step)?;
        }
    }
}
