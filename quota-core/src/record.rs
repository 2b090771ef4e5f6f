//! The shared state of one login, and the rules that change it.
//! No I/O and no clock: the manager calls these rules.

mod begin;
mod cooldown;
mod due;
mod effective_hold;
mod finish;
mod hold;
mod lease;
mod merge;
mod wire;

use std::time::Duration;

use jiff::Timestamp;

pub use self::cooldown::{ProviderCooldown, provider_cooldown};
pub use self::due::Counted;
pub use self::finish::{CommitOutcome, FailOutcome};
pub use self::hold::{Hold, HoldReason, LastFailure, LastFailureKind};
pub use self::lease::{CallRecord, Lease, LeaseDecision, LeaseRequest, MaxStaleness, Priority, RecentCall};
pub use self::merge::{MergeOutcome, Seed};
pub use self::wire::DecodeError;

use crate::model::extra_fields::ExtraFields;
use crate::model::login::RecordOwner;
use crate::model::{CredentialFingerprint, LoginId, OwnerId, Snapshot};
use crate::time::{self, CLOCK_SLACK, EARLIEST_RECORD, UnixMillis, is_from_future, latest_plausible};

/// All shared state of one login: readings, lease, hold, budget and last failure.
///
/// Every rule is a function of the record, the time and an event. The update loop runs it between a read and a compare-and-swap,
/// so every store obeys the same rules.
///
/// ```
/// use std::time::Duration;
/// use quota_core::{Percent, Policy, UsageReport, WindowId, WindowReading};
/// use quota_core::model::RequestId;
/// use quota_core::record::{LeaseDecision, LeaseRequest, MaxStaleness, Record};
///
/// let policy = Policy::default();
/// let now: jiff::Timestamp = "2026-01-01T12:00:00Z".parse()?;
/// let mut record = Record::default();
///
/// let ask = LeaseRequest::new(RequestId::random(), MaxStaleness::Age(policy.max_age));
/// let LeaseDecision::Granted(lease) = record.begin(now, &ask, &policy) else { panic!("no other process calls") };
///
/// let used = Percent::from_percent(30.0).unwrap();
/// let usage = UsageReport::polled([WindowReading::new(WindowId::five_hour(), used)]);
/// let _ = record.commit(now, &lease, &usage);
///
/// let again = LeaseRequest::new(RequestId::random(), MaxStaleness::Age(policy.max_age));
/// assert_eq!(record.begin(now, &again, &policy), LeaseDecision::NotNeeded);
/// # Ok::<(), jiff::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record {
    format: wire::Format,
    owner: RecordOwner,
    fence: u64,
    /// How many changes were stored.
    revision: u64,
    // Boxed, because nearly all of a million accounts have none of these three.
    lease: Option<Box<Lease>>,
    hold: Option<Box<Hold>>,
    /// Rate limits in a row, and other failures in a row: each has its own backoff.
    rate_limit_streak: u32,
    failures: u32,
    /// The fence of the last call that either counts.
    streak_fence: u64,
    /// Holds and failures at or below this fence were cleared, and are not merged again.
    cleared_fence: u64,
    last_failure: Option<Box<LastFailure>>,
    /// The last rejection of each credential without a required scope. Other credentials may call the account; their success says
    /// nothing about these.
    unscoped: Vec<LastFailure>,
    /// The calls of the trailing hour, oldest first.
    calls: Vec<CallRecord>,
    /// Calls of the trailing hour that were not made after all. A process that still counts them does not add them again.
    #[expect(clippy::box_collection, reason = "almost always absent, and then a pointer instead of a list")]
    given_back: Option<Box<Vec<CallRecord>>>,
    /// When the last successful call started, and its credential.
    refreshed_at: Option<UnixMillis>,
    refreshed_with: Option<CredentialFingerprint>,
    /// When the account was removed: earlier readings are not merged again.
    forgotten_at: Option<UnixMillis>,
    snapshot: Snapshot,
    unknown: ExtraFields,
}

/// Budgets count the calls of this period.
const BUDGET_WINDOW: Duration = Duration::from_secs(3600);

/// The maximum number of calls in a record. Processes that ran without the store merge theirs, and there may be many.
const MAX_CALLS: usize = 1000;

/// The maximum number of credentials without a scope. If more share the account, they evict each other.
const MAX_UNSCOPED: usize = 64;

/// The maximum number of withdrawn calls. An older one that is merged again counts, which costs one call.
const MAX_GIVEN_BACK: usize = 100;

/// The outcome of clearing a hold.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
#[non_exhaustive]
pub enum Cleared {
    /// This hold was in force and is cleared.
    Lifted(Hold),
    /// No hold was in force.
    NoHold,
    /// A newer program wrote the record, so it must not be changed.
    UnsupportedFormat,
}

impl Record {
    /// The merged readings.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The hold, if one was armed and not cleared. It may have ended.
    #[must_use]
    pub fn hold(&self) -> Option<&Hold> {
        self.hold.as_deref()
    }

    /// The lease, if one was granted and not released. It may have expired.
    #[must_use]
    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_deref()
    }

    /// The highest fence that was granted.
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.fence
    }

    /// How many changes were stored, unless the store lost some.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Counts a change that is about to be stored. Call this before a compare-and-swap of a changed record.
    pub fn bump_revision(&mut self) {
        self.revision = self.revision.saturating_add(1);
    }

    /// Whether the store lost `cached`, which it had before.
    ///
    /// In a store that loses nothing, another state is a later one with a higher revision. (After a failover that lost some
    /// writes and accepted more new ones, the loss is not noticed.)
    pub(crate) fn is_behind(&self, cached: &Self) -> bool {
        cached.revision > 0 && self.revision <= cached.revision && self != cached
    }

    /// Why the last call failed; `None` if it succeeded.
    #[must_use]
    pub fn last_failure(&self) -> Option<&LastFailure> {
        self.last_failure.as_deref()
    }

    /// The last finished call with this credential, whether it succeeded or failed. A running or abandoned call does not count.
    #[must_use]
    pub fn last_call(&self, fingerprint: Option<CredentialFingerprint>) -> Option<RecentCall> {
        let succeeded = self.refreshed_at.filter(|_| self.refreshed_with == fingerprint);
        let succeeded = succeeded.map(|at| RecentCall { at: at.timestamp(), failure: None });
        // A person who clears a hold wants another call, whatever the last one returned.
        let is_cleared = |last_failure: &LastFailure| last_failure.order() <= self.cleared_fence;
        let failed = self
            .last_failure()
            .filter(|last_failure| last_failure.fingerprint == fingerprint && !is_cleared(last_failure));
        let failed = failed
            .map(|last_failure| RecentCall { at: last_failure.at, failure: Some(last_failure.clone()) });
        [succeeded, failed].into_iter().flatten().max_by_key(|call| call.at)
    }

    /// Rate limits and other failures in a row, together.
    #[must_use]
    pub fn consecutive_failures(&self) -> u32 {
        self.rate_limit_streak.saturating_add(self.failures)
    }

    /// The calls of the trailing hour, oldest first.
    #[must_use]
    pub fn calls(&self) -> &[CallRecord] {
        &self.calls
    }

    /// The login of this record, if it was stated.
    #[must_use]
    pub fn login_id(&self) -> Option<&LoginId> {
        self.owner.login_id.as_ref()
    }

    /// The owner that the provider named.
    #[must_use]
    pub fn owner_id(&self) -> Option<&OwnerId> {
        self.owner.owner_id.as_ref()
    }

    /// When the last complete response was requested; `None` if there was none.
    #[must_use]
    pub fn complete_at(&self) -> Option<Timestamp> {
        self.refreshed_at.map(UnixMillis::timestamp).max(self.snapshot.complete_at())
    }

    /// Sets the login of the account. Another login than before clears everything that the old one left.
    ///
    /// A record without a login keeps its contents and gets this one. Returns whether the login changed.
    pub fn new_login(&mut self, login_id: &LoginId) -> bool {
        if !self.is_writable() {
            return false;
        }
        let changed = self.owner.contradicts(Some(login_id), None);
        if changed {
            self.reset_for_owner(Some(login_id), None);
        }
        self.owner.adopt(Some(login_id), None);
        changed
    }

    /// The time for the next call: `now`, or just after the last call or removal if that is stamped later. Clocks of processes
    /// differ a little, and of two calls in sequence the second must be newer.
    fn next_call_time(&self, now: Timestamp) -> Timestamp {
        let last = self.refreshed_at.max(self.forgotten_at);
        let after = last.map(|at| time::saturating_add(at.timestamp(), ONE_STAMP));
        after.map_or(now, |after| now.max(after))
    }

    /// Whether both records state an owner, and the owners differ.
    pub(crate) fn is_of_another_login(&self, other: &Self) -> bool {
        self.owner.contradicts(other.login_id(), other.owner_id())
    }

    /// Releases spare capacity: records live long and change seldom.
    pub(crate) fn shrink(&mut self) {
        self.calls.shrink_to_fit();
        self.unscoped.shrink_to_fit();
        self.snapshot.shrink();
    }

    /// Repairs timestamps that a clock in the future wrote. Each rule that changes a record calls it first.
    ///
    /// Otherwise a hold would last for years, and readings would win over all true ones. A clock that was never set (see
    /// [`is_from_future`]) changes nothing.
    pub(crate) fn repair_clock(&mut self, now: Timestamp) {
        if now < EARLIEST_RECORD {
            return;
        }
        let limit = latest_plausible(now);
        if let Some(hold) = &mut self.hold {
            hold.repair_clock(now);
        }
        if let Some(lease) = &mut self.lease {
            // The call has the real time of the grant; `granted_at` can be later (see `next_call_time`).
            let call = self.calls.iter().rfind(|call| call.fence == lease.fence);
            if call.map_or(lease.granted_at, |call| call.at) > limit {
                // It expires and stays: its holder may still commit, because the fence protects the record.
                lease.until = lease.until.min(now);
            }
        }
        self.last_failure.take_if(|last_failure| last_failure.at > limit);
        self.unscoped.retain(|refusal| refusal.at <= limit && refusal.bars_at(now));
        if self.refreshed_at.is_some_and(|at| at.timestamp() > limit) {
            (self.refreshed_at, self.refreshed_with) = (None, None);
        }
        if self.forgotten_at.is_some_and(|at| at.timestamp() > limit) {
            // Just before now, so that the removal hides no recent reading.
            self.forgotten_at = Some(time::saturating_sub(now, CLOCK_SLACK).into());
        }
        let counts =
            |attempt: &CallRecord| attempt.at <= limit && time::elapsed(attempt.at, now) < BUDGET_WINDOW;
        self.calls.retain(counts);
        if let Some(given_back) = &mut self.given_back {
            given_back.retain(counts);
        }
        self.given_back.take_if(|given_back| given_back.is_empty());
        self.snapshot.drop_after(limit);
        self.snapshot.forget_peaks(now);
    }

    /// Whether a reading or the hold is from the future.
    ///
    /// Readers see the record as it is stored: until a refresh repairs it, such readings are stale and such a hold is ignored.
    pub(crate) fn needs_clock_repair(&self, now: Timestamp) -> bool {
        let timestamps = [self.complete_at(), self.snapshot.newest(), self.hold().map(|hold| hold.since)];
        timestamps.into_iter().flatten().any(|at| is_from_future(at, now))
    }

    /// Removes the account for all processes: its readings, its owner and its last failure.
    ///
    /// What limits the next call stays until it ends: the hold, the calls of the last hour and the fence. So removing an account
    /// and adding it again clears no hold and resets no budget. A call in flight loses its lease, and its answer is not stored.
    /// Readings that other processes have from before are not merged again.
    pub fn forget(&mut self, now: Timestamp) -> MergeOutcome {
        if !self.is_writable() {
            return MergeOutcome::UnsupportedFormat;
        }
        let now = time::truncate_ms(now);
        self.repair_clock(now);
        // Clocks differ a little: a reading stamped slightly later is from before, too.
        let stamps =
            [self.complete_at(), self.snapshot.newest(), self.last_failure().map(|failure| failure.at)];
        let granted_at = self.lease().map(|lease| lease.granted_at);
        let newest = stamps.into_iter().chain([granted_at]).flatten().fold(now, Timestamp::max);
        self.hold.take_if(|hold| !hold.is_live(now));
        self.snapshot = Snapshot::default();
        self.forget_until(newest.into());
        MergeOutcome::Merged
    }

    /// Drops everything from `at` or before, and keeps it from being merged again.
    fn forget_until(&mut self, at: UnixMillis) {
        let moment = at.timestamp();
        self.snapshot.drop_until(moment);
        self.last_failure.take_if(|failure| failure.at <= moment);
        self.unscoped.retain(|refusal| refusal.at > moment);
        self.lease.take_if(|lease| lease.granted_at <= moment);
        if self.refreshed_at <= Some(at) {
            (self.refreshed_at, self.refreshed_with) = (None, None);
        }
        if self.refreshed_at.is_none() && self.snapshot.is_empty() {
            self.owner = RecordOwner::default();
        }
        if self.hold.is_none() {
            self.end_streak();
        }
        self.forgotten_at = self.forgotten_at.max(Some(at));
    }

    /// Clears the account's hold and failure streak for all processes.
    ///
    /// A process that still has the hold does not merge it again; a later failure arms a new one. The provider's cooldown, the
    /// budget and a rejected credential stay.
    pub fn clear_hold(&mut self, now: Timestamp) -> Cleared {
        if !self.is_writable() {
            return Cleared::UnsupportedFormat;
        }
        let now = time::truncate_ms(now);
        self.repair_clock(now);
        let armed = self.hold().map_or(0, Hold::order);
        let fences = [self.fence, time::as_fence(now), armed, self.streak_fence];
        self.cleared_fence = fences.into_iter().fold(self.cleared_fence, u64::max);
        let hold = self.hold.take().filter(|hold| hold.is_live(now));
        self.end_streak();
        hold.map_or(Cleared::NoHold, |hold| Cleared::Lifted(*hold))
    }

    /// Drops a hold and a failure streak that another process cleared.
    fn drop_cleared(&mut self, cleared_fence: u64) {
        self.cleared_fence = self.cleared_fence.max(cleared_fence);
        if self.cleared_fence == 0 {
            return;
        }
        let cleared = self.cleared_fence;
        self.hold.take_if(|hold| hold.order() <= cleared);
        if self.streak_fence <= cleared {
            self.end_streak();
        }
    }

    fn end_streak(&mut self) {
        (self.rate_limit_streak, self.failures, self.streak_fence) = (0, 0, 0);
    }

    /// Records that a credential lacks a scope; only the newest are stored.
    fn note_unscoped(&mut self, refusal: &LastFailure) {
        self.unscoped.retain(|known| known.fingerprint != refusal.fingerprint);
        self.unscoped.push(refusal.clone());
        self.unscoped.sort_by_key(|known| (known.at, known.fingerprint));
        keep_last(&mut self.unscoped, MAX_UNSCOPED);
    }

    /// Applies the lists of rejections and withdrawn calls, which an older program carries along without applying them.
    fn apply_lists(&mut self) {
        let (at, fingerprint) = (self.refreshed_at, self.refreshed_with);
        let has_succeeded =
            |refusal: &LastFailure| refusal.fingerprint == fingerprint && at > Some(refusal.at.into());
        self.unscoped.retain(|refusal| !has_succeeded(refusal));
        keep_last(&mut self.unscoped, MAX_UNSCOPED);
        if let Some(given_back) = &mut self.given_back {
            keep_last(given_back, MAX_GIVEN_BACK);
            self.calls.retain(|attempt| given_back.binary_search(attempt).is_err());
        }
    }

    /// Keeps the newest calls only. They decide any budget of up to [`MAX_CALLS`].
    fn bound_attempts(&mut self) {
        self.calls.sort_unstable();
        keep_last(&mut self.calls, MAX_CALLS);
    }

    /// Records withdrawn calls, of this record or another one.
    fn give_back(&mut self, calls: &[CallRecord]) {
        if calls.is_empty() {
            return;
        }
        let given_back = self.given_back.get_or_insert_default();
        given_back.extend_from_slice(calls);
        given_back.sort_unstable();
        given_back.dedup();
        keep_last(given_back, MAX_GIVEN_BACK);
        self.calls.retain(|attempt| given_back.binary_search(attempt).is_err());
    }

    fn given_back(&self) -> &[CallRecord] {
        self.given_back.as_deref().map_or(&[], Vec::as_slice)
    }

    /// Clears everything that belongs to the previous owner.
    ///
    /// The calls of the last hour stay, so that alternating logins cannot call without bound.
    fn reset_for_owner(&mut self, login_id: Option<&LoginId>, owner_id: Option<&OwnerId>) {
        self.owner = RecordOwner::default();
        self.owner.adopt(login_id, owner_id);
        self.lease = None;
        self.hold = None;
        self.end_streak();
        self.last_failure = None;
        self.unscoped.clear();
        (self.refreshed_at, self.refreshed_with) = (None, None);
        self.snapshot = Snapshot::default();
    }
}

/// Removes all but the last `most` items.
fn keep_last<T>(items: &mut Vec<T>, most: usize) {
    items.drain(..items.len().saturating_sub(most));
}

/// The resolution of timestamps.
const ONE_STAMP: Duration = Duration::from_millis(1);

#[cfg(test)]
pub(crate) mod tests;
