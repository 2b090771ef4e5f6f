//! Calls the rules of `quota_core::record`, and remembers their results, because they are pure functions.
//! [`Broken`] replaces one rule, so that tests can show that the checker finds its absence.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use quota_core::model::RequestId;
use quota_core::policy::{Backoff, Budget, CooldownPolicy, CooldownScope};
use quota_core::record::{
    CommitOutcome, FailOutcome, Hold, HoldReason, Lease, LeaseDecision, LeaseRequest, MaxStaleness,
    ProviderCooldown, Record,
};
use quota_core::{FetchError, Percent, Policy, UsageReport, WindowId, WindowReading};

use crate::pool::{FIRST, Id, Pool};

/// Milliseconds since the start of the model.
pub(crate) type Ms = u32;

/// The wall clock at the start of the model.
const START_MS: i64 = 1_800_000_000_000;

/// The timeout of a call. The lease lasts two seconds longer.
pub(crate) const FETCH_TIMEOUT: Ms = 2000;

/// A rule that is replaced by a wrong one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Broken {
    /// A commit compares no fence: the holder of an older lease stores its readings too.
    FenceComparison,
    /// A refresh that loses a compare-and-swap does not check the hold of the other process's record.
    HoldAfterConflict,
    /// A live lease of another process stops no refresh.
    LiveLease,
    /// The repeated swap of a failure counts it again.
    FailureOnce,
    /// The merge after an outage drops the hold of the process's own copy.
    MergedHold,
    /// The merge after an outage drops the calls of the process's own copy.
    MergedCalls,
    /// A process never detects that the store has lost its last record.
    LossDetection,
    /// A swap replaces any document, regardless of its version.
    CompareAndSwap,
    /// A refresh does not check the provider's cooldown.
    Cooldown,
    /// The budget does not limit calls.
    Budget,
    /// A lease has no attempt id: the repeated request of a lost answer is another request.
    AttemptId,
}

/// A change of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    /// Request the lease for this attempt, under this cooldown.
    Begin { attempt: u16, cooldown: Id },
    /// Store the readings of a call.
    Commit { lease: Id },
    /// Store the rate limit that ended a call.
    Fail { lease: Id },
    /// Change nothing: only merge this process's copy.
    Merge,
}

/// The result of a [`Work`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    /// The process must call the provider with this lease.
    Granted(Id),
    /// The process must not call now.
    Refused,
    /// The result of the call is stored.
    Stored,
    /// Another process had a newer lease, so the result is not stored.
    TooLate,
    /// The copy is merged.
    Merged,
}

/// The record after a [`Work`], and its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decided {
    pub(crate) next: Id,
    pub(crate) has_changed: bool,
    pub(crate) outcome: Outcome,
}

/// The input of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Decision {
    /// The store's record, or this process's copy.
    pub(crate) base: Id,
    /// This process's copy with changes that the store does not have.
    pub(crate) own: Option<Id>,
    pub(crate) work: Work,
    pub(crate) now: Ms,
    /// Whether the next record is written to the store, so that its revision rises.
    pub(crate) is_stored: bool,
    /// Whether another process's swap was applied before this one.
    pub(crate) after_conflict: bool,
}

/// The rules, with the records, leases and cooldowns that occurred.
#[derive(Debug)]
pub(crate) struct Rules {
    broken: Option<Broken>,
    policy: Policy,
    records: Pool<Record>,
    leases: Pool<Option<Lease>>,
    cooldowns: Pool<ProviderCooldown>,
    decided: Mutex<HashMap<Decision, Decided>>,
    behind: Mutex<HashMap<(Id, Id), bool>>,
}

impl Rules {
    /// The rules, one of them broken or none.
    pub(crate) fn new(budget: u32, broken: Option<Broken>) -> Self {
        let budget = if broken == Some(Broken::Budget) { 1000 } else { budget };
        let second = Duration::from_secs(1);
        let policy = Policy::default()
            .fetch_timeout(Duration::from_millis(FETCH_TIMEOUT.into()))
            // Two steps of the model's clock, then four.
            .rate_limit_backoff(Backoff::doubling(second * 4, second * 8).jitter(0.0))
            .cooldown(CooldownPolicy::new(second * 4, CooldownScope::Provider))
            .budget(Budget::new(budget, 0));
        let (record, cooldown) = (Record::default(), ProviderCooldown::default());
        let (stored_record, stored_cooldown) = (record.encode(), cooldown.encode());
        Self {
            broken,
            policy,
            records: Pool::starting_with(record, &stored_record),
            leases: Pool::starting_with(None, b"null"),
            cooldowns: Pool::starting_with(cooldown, &stored_cooldown),
            decided: Mutex::default(),
            behind: Mutex::default(),
        }
    }

    /// Whether this rule is the broken one.
    pub(crate) fn lacks(&self, rule: Broken) -> bool {
        self.broken == Some(rule)
    }

    /// The record with this number.
    pub(crate) fn record(&self, id: Id) -> Arc<Record> {
        self.records.value(id)
    }

    /// The lease with this number.
    pub(crate) fn lease(&self, id: Id) -> Lease {
        self.leases.value(id).as_ref().clone().expect("only a granted lease has a number")
    }

    /// The number of records that occurred.
    pub(crate) fn record_count(&self) -> usize {
        self.records.len()
    }

    /// Whether the store's record `shared` lacks what this process has read or written before.
    pub(crate) fn is_behind(&self, shared: Id, cached: Id) -> bool {
        if shared == cached || self.lacks(Broken::LossDetection) {
            return false;
        }
        let known = || self.record(shared).is_behind(&self.record(cached));
        *self.behind.lock().entry((shared, cached)).or_insert_with(known)
    }

    /// Decides on a change, as one attempt of the update loop does.
    pub(crate) fn decide(&self, decision: Decision) -> Decided {
        if let Some(known) = self.decided.lock().get(&decision) {
            return *known;
        }
        let decided = self.compute(decision);
        self.decided.lock().insert(decision, decided);
        decided
    }

    fn compute(&self, Decision { base, own, work, now, is_stored, after_conflict }: Decision) -> Decided {
        let base_record = self.record(base);
        let mut record = (*base_record).clone();
        let now = at(now);
        if let Some(own) = own {
            let own = self.broken_copy(&self.record(own));
            let _ = record.merge_standalone(now, &own, None);
        }
        let outcome = match work {
            Work::Begin { attempt, cooldown } => {
                self.begin(&mut record, now, attempt, cooldown, after_conflict)
            }
            Work::Commit { lease } => self.commit(&mut record, now, &self.lease(lease)),
            Work::Fail { lease } => self.fail(&mut record, now, &self.lease(lease)),
            Work::Merge => Outcome::Merged,
        };
        let has_changed = record != *base_record;
        if has_changed && is_stored {
            record.bump_revision();
        }
        Decided { next: self.number(&record), has_changed, outcome }
    }

    fn begin(
        &self,
        record: &mut Record,
        now: Timestamp,
        attempt: u16,
        cooldown: Id,
        after_conflict: bool,
    ) -> Outcome {
        let cooldown = self.cooldowns.value(cooldown).at(now).filter(|_| !self.lacks(Broken::Cooldown));
        if self.lacks(Broken::HoldAfterConflict) && after_conflict {
            *record = edited(record, |json| drop(json.remove("hold")));
        }
        let is_own =
            record.lease().is_some_and(|lease| lease.attempt == RequestId::from(u128::from(attempt)));
        if self.lacks(Broken::LiveLease) && !is_own || self.lacks(Broken::AttemptId) && is_own {
            *record = edited(record, |json| drop(json.remove("lease")));
        }
        let request = LeaseRequest::new(RequestId::from(u128::from(attempt)), MaxStaleness::NewCall)
            .by(format!("host {}", attempt / 256).into())
            .cooldown(cooldown);
        match record.begin(now, &request, &self.policy) {
            LeaseDecision::Granted(lease) => Outcome::Granted(self.number_of_lease(lease)),
            _ => Outcome::Refused,
        }
    }

    fn commit(&self, record: &mut Record, now: Timestamp, lease: &Lease) -> Outcome {
        let used = Percent::from_percent(10.0).expect("it is a percentage");
        let usage = UsageReport::polled([WindowReading::new(WindowId::five_hour(), used)]);
        if self.lacks(Broken::FenceComparison) {
            hold_again(record, lease);
        }
        match record.commit(now, lease, &usage) {
            CommitOutcome::Stored => Outcome::Stored,
            _ => Outcome::TooLate,
        }
    }

    fn fail(&self, record: &mut Record, now: Timestamp, lease: &Lease) -> Outcome {
        let is_repeated = record.lease().is_none() && record.fence() == lease.fence;
        if self.lacks(Broken::FailureOnce) && is_repeated {
            hold_again(record, lease);
        }
        match record.fail(now, lease, &FetchError::throttled(None), &self.policy) {
            FailOutcome::Stored { .. } => Outcome::Stored,
            _ => Outcome::TooLate,
        }
    }

    /// A process's own copy, without what a broken merge drops.
    fn broken_copy(&self, own: &Record) -> Record {
        match self.broken {
            Some(Broken::MergedHold) => edited(own, |json| drop(json.remove("hold"))),
            Some(Broken::MergedCalls) => {
                edited(own, |json| drop(json.insert("calls_ms".to_owned(), serde_json::json!({}))))
            }
            _ => own.clone(),
        }
    }

    /// The cooldown that a rate limit at `now` starts, joined with a known one.
    pub(crate) fn cooldown_after_rate_limit(&self, known: Id, now: Ms) -> Id {
        let until = at(now) + self.policy.cooldown.duration;
        self.join_cooldown(known, &Hold::new(at(now), until, HoldReason::ProviderRateLimited), now)
    }

    /// The cooldown `known`, extended by another one.
    pub(crate) fn join_cooldowns(&self, known: Id, other: Id, now: Ms) -> Id {
        let other = self.cooldowns.value(other).at(at(now));
        other.map_or(known, |hold| self.join_cooldown(known, &hold, now))
    }

    fn join_cooldown(&self, known: Id, hold: &Hold, now: Ms) -> Id {
        let mut cooldown = (*self.cooldowns.value(known)).clone();
        cooldown.extend(at(now), hold);
        let stored = cooldown.encode();
        self.cooldowns.number(&stored, || cooldown)
    }

    /// The end of a cooldown that is in force at `now`.
    pub(crate) fn cooldown_until(&self, cooldown: Id, now: Ms) -> Option<Ms> {
        self.cooldowns.value(cooldown).at(at(now)).map(|hold| ms(hold.until))
    }

    fn number(&self, record: &Record) -> Id {
        let stored = record.encode();
        // As another process reads it.
        self.records.number(&stored, || Record::decode(&stored).expect("an encoded record can be decoded"))
    }

    fn number_of_lease(&self, lease: Lease) -> Id {
        let stored = serde_json::to_vec(&lease).expect("a lease has only string keys");
        self.leases.number(&stored, || Some(lease))
    }
}

/// The record of a process that never read one; no document in the store.
pub(crate) const EMPTY: Id = FIRST;

/// The time of the model as a timestamp.
pub(crate) fn at(now: Ms) -> Timestamp {
    Timestamp::from_millisecond(START_MS + i64::from(now)).expect("the model lasts some hours")
}

/// A timestamp as a time of the model; zero if it is earlier.
pub(crate) fn ms(at: Timestamp) -> Ms {
    Ms::try_from(at.as_millisecond() - START_MS).unwrap_or(0)
}

/// A fence as a number of the model. A fence is at least the time of its lease.
pub(crate) fn small_fence(fence: u64) -> u32 {
    u32::try_from(fence.saturating_sub(START_MS.unsigned_abs())).expect("the model lasts some hours")
}

/// Puts a lease back into the record, as if it were in force.
fn hold_again(record: &mut Record, lease: &Lease) {
    let lease = serde_json::to_value(lease).expect("a lease has only string keys");
    *record = edited(record, |json| drop(json.insert("lease".to_owned(), lease)));
}

fn edited(record: &Record, edit: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) -> Record {
    let mut json: serde_json::Value = serde_json::from_slice(&record.encode()).expect("a record is JSON");
    edit(json.as_object_mut().expect("a record is an object"));
    Record::decode(json.to_string().as_bytes()).expect("the edited record is a record")
}
