//! The shared state of one login, and the rules that change it.
//! The rules do no I/O and read no clock. The manager calls them.

mod begin;
mod cooldown;
mod due;
mod effective_hold;
mod ended_call;
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
/// let request = LeaseRequest::new(RequestId::random(), MaxStaleness::Age(policy.max_age));
/// let LeaseDecision::Granted(lease) = record.begin(now, &request, &policy) else { panic!("no other process holds the lease") };
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
    /// The number of stored changes.
    revision: u64,
    // Boxed because nearly all of a million accounts have none of these three.
    lease: Option<Box<Lease>>,
    hold: Option<Box<Hold>>,
    /// The number of rate limits in a row and of other failures in a row. Each has its own backoff.
    rate_limit_streak: u32,
    failures: u32,
    /// The fence of the last call that either counter includes.
    streak_fence: u64,
    /// Holds and failures up to this fence were cleared, and are not merged again.
    cleared_fence: u64,
    last_failure: Option<Box<LastFailure>>,
    /// The last rejection of each credential without a required scope. Other credentials may call the account, and their
    /// success does not clear these rejections.
    #[expect(clippy::box_collection, reason = "almost always absent, and then a pointer instead of a list")]
    unscoped: Option<Box<Vec<LastFailure>>>,
    /// The calls of the trailing hour, oldest first.
    calls: Vec<CallRecord>,
    /// Withdrawn calls of the trailing hour, which were never made. Another process that still counts them cannot add
    /// them again.
    #[expect(clippy::box_collection, reason = "almost always absent, and then a pointer instead of a list")]
    given_back: Option<Box<Vec<CallRecord>>>,
    /// The last calls of this record that ended, by their fences. A merge does not raise them; see `ended_call`.
    succeeded: Option<Box<ended_call::SucceededCall>>,
    failed: Option<Box<LastFailure>>,
    /// When the last successful call started, and its credential. The age of the readings counts from it.
    refreshed_at: Option<UnixMillis>,
    refreshed_with: Option<CredentialFingerprint>,
    /// When the account was removed. Earlier readings are not merged again.
    forgotten_at: Option<UnixMillis>,
    snapshot: Snapshot,
    unknown: ExtraFields,
}

/// The period whose calls count toward a budget.
const BUDGET_WINDOW: Duration = Duration::from_secs(3600);

/// The maximum number of calls in a record. Any number of processes that ran without the store may merge their calls.
const MAX_CALLS: usize = 1000;

/// How many changes a follower may have missed before a notice that it accepts. After more, it reads the record.
const MAX_MISSED_CHANGES: u64 = 1000;

/// The maximum number of credentials without a scope. If more credentials share the account, they evict each other.
const MAX_UNSCOPED: usize = 64;

/// The maximum number of withdrawn calls. If an older one is merged again, it counts, which costs one call.
const MAX_GIVEN_BACK: usize = 100;

/// The outcome of clearing a hold.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
#[non_exhaustive]
pub enum Cleared {
    /// A hold was in force and is cleared.
    Lifted(Hold),
    /// No hold was in force.
    NoHold,
    /// A newer program wrote the record, so this program must not change it.
    UnsupportedFormat,
}

impl Record {
    /// The merged readings.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The hold, if one was armed and not cleared. It may have expired.
    #[must_use]
    pub fn hold(&self) -> Option<&Hold> {
        self.hold.as_deref()
    }

    /// The lease, if one was granted and not released. It may have expired.
    #[must_use]
    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_deref()
    }

    /// The highest granted fence.
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.fence
    }

    /// The number of stored changes, unless the store lost some.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Counts a change that is about to be stored. Call this before a compare-and-swap of a changed record.
    pub fn bump_revision(&mut self) {
        self.revision = self.revision.saturating_add(1);
    }

    /// Whether the store lost `cached`, which it contained before.
    ///
    /// In a store without losses, a different state has a higher revision. A loss stays undetected if a failover lost some
    /// writes and then accepted more new ones.
    #[must_use]
    pub fn is_behind(&self, cached: &Self) -> bool {
        cached.revision > 0 && self.revision <= cached.revision && self != cached
    }

    /// Whether this record, from a change notice, is newer than the `known` one; `None` if only a read can show that.
    ///
    /// A notice may be late, so only a higher revision is newer, and a lower one does not prove a loss. Programs with
    /// another format may count their changes differently, or not at all.
    ///
    /// A revision far above the known one proves nothing either. If it was damaged or forged, each later read would
    /// look like a loss, and this process would restore it.
    pub(crate) fn is_newer_than(&self, known: &Self) -> Option<bool> {
        let is_counted = self.is_writable() && known.is_writable() && self.revision > 0;
        let is_plausible = self.revision <= known.revision.saturating_add(MAX_MISSED_CHANGES);
        (is_counted && is_plausible).then_some(self.revision > known.revision)
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
        // A user who clears a hold wants another call, regardless of the result of the last one.
        let is_cleared = |last_failure: &LastFailure| last_failure.order() <= self.cleared_fence;
        let failed = self
            .last_failure()
            .filter(|last_failure| last_failure.fingerprint == fingerprint && !is_cleared(last_failure));
        let failed = failed
            .map(|last_failure| RecentCall { at: last_failure.at, failure: Some(last_failure.clone()) });
        [succeeded, failed].into_iter().flatten().max_by_key(|call| call.at)
    }

    /// The number of rate limits and other failures in a row.
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

    /// The owner that the provider reported.
    #[must_use]
    pub fn owner_id(&self) -> Option<&OwnerId> {
        self.owner.owner_id.as_ref()
    }

    /// When the last complete response was requested; `None` if there was none.
    #[must_use]
    pub fn complete_at(&self) -> Option<Timestamp> {
        self.refreshed_at.map(UnixMillis::timestamp).max(self.snapshot.complete_at())
    }

    /// An empty record of this login.
    pub(crate) fn of_login(login_id: &LoginId) -> Self {
        let mut record = Self::default();
        record.owner.adopt(Some(login_id), None);
        record
    }

    /// Sets the login of the account, and returns whether it changed. A different login clears the state of the previous one.
    ///
    /// A record without a login keeps its state and gets this login.
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

    /// The time of the next call's readings: `now`, or just after the last call or removal if that has a later timestamp. Readings
    /// are merged by their time, so those of the second of two calls must be newer although clocks differ slightly.
    fn next_call_time(&self, now: Timestamp) -> Timestamp {
        let last = self.refreshed_at.max(self.forgotten_at);
        let after = last.map(|at| time::saturating_add(at.timestamp(), ONE_STAMP));
        after.map_or(now, |after| now.max(after))
    }

    /// Whether both records state an owner, and the owners differ.
    pub(crate) fn is_of_another_login(&self, other: &Self) -> bool {
        self.owner.contradicts(other.login_id(), other.owner_id())
    }

    /// Releases spare capacity, because records live long and rarely change.
    pub(crate) fn shrink(&mut self) {
        self.calls.shrink_to_fit();
        self.snapshot.shrink();
    }

    /// Repairs timestamps from the future, which a wrong clock wrote. Each rule that changes a record calls this first.
    ///
    /// Otherwise a hold would last for years, and readings from the future would override correct ones. If `now` comes from a
    /// clock that was never set (see [`is_from_future`]), nothing changes.
    pub(crate) fn repair_clock(&mut self, now: Timestamp) {
        if now < EARLIEST_RECORD {
            return;
        }
        // As stored, so that the repaired record equals its stored form.
        let now = time::truncate_ms(now);
        let limit = latest_plausible(now);
        if let Some(hold) = &mut self.hold {
            hold.repair_clock(now);
        }
        if let Some(lease) = &mut self.lease {
            // The call has the real time of the grant; `granted_at` can be later (see `next_call_time`).
            let call = self.calls.iter().rfind(|call| call.fence == lease.fence);
            if call.map_or(lease.granted_at, |call| call.at) > limit {
                // Expire the lease but keep it. Its holder may still commit, because the fence protects the record.
                lease.until = lease.until.min(now);
            }
        }
        self.last_failure.take_if(|last_failure| last_failure.at > limit);
        self.retain_unscoped(|rejection| rejection.at <= limit && rejection.blocks_at(now));
        if self.refreshed_at.is_some_and(|at| at.timestamp() > limit) {
            (self.refreshed_at, self.refreshed_with) = (None, None);
        }
        if self.forgotten_at.is_some_and(|at| at.timestamp() > limit) {
            // Use a time just before now, so that the removal hides no recent reading.
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
    /// Readers see the stored record. Until a refresh repairs it, they treat such readings as stale and ignore such a hold. No
    /// refresh repairs the hold of a record of a newer format, so it does not count.
    pub(crate) fn needs_clock_repair(&self, now: Timestamp) -> bool {
        let hold = self.hold().filter(|_| self.is_writable());
        let timestamps = [self.complete_at(), self.snapshot.newest(), hold.map(|hold| hold.since)];
        timestamps.into_iter().flatten().any(|at| is_from_future(at, now))
    }

    /// Removes the account for all processes: its readings, its owner and its last failure.
    ///
    /// Limits on the next call stay until they end: the hold, the calls of the last hour and the fence. Removing an account
    /// and adding it again therefore clears no hold and resets no budget.
    ///
    /// A call in flight loses its lease, and its response is not stored. Earlier readings of other processes are not merged
    /// again.
    pub fn forget(&mut self, now: Timestamp) -> MergeOutcome {
        if !self.is_writable() {
            return MergeOutcome::UnsupportedFormat;
        }
        let now = time::truncate_ms(now);
        self.repair_clock(now);
        // Clocks differ slightly, so a reading with a slightly later timestamp also predates the removal.
        let stamps =
            [self.complete_at(), self.snapshot.newest(), self.last_failure().map(|failure| failure.at)];
        // The repair keeps a lease from the future, which must not move the removal into the future.
        let granted_at = self.lease().map(|lease| lease.granted_at).filter(|at| !is_from_future(*at, now));
        let newest = stamps.into_iter().chain([granted_at]).flatten().fold(now, Timestamp::max);
        self.lease = None;
        self.hold.take_if(|hold| !hold.is_live(now));
        self.snapshot = Snapshot::default();
        self.forget_until(newest.into());
        MergeOutcome::Merged
    }

    /// Drops all data from `at` or before, and prevents later merges of it.
    fn forget_until(&mut self, at: UnixMillis) {
        let timestamp = at.timestamp();
        self.snapshot.drop_until(timestamp);
        self.last_failure.take_if(|failure| failure.at <= timestamp);
        self.retain_unscoped(|rejection| rejection.at > timestamp);
        self.lease.take_if(|lease| lease.granted_at <= timestamp);
        self.forget_ended_calls();
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
    /// A process that still has the hold does not merge it again. A later failure arms a new hold. The provider's cooldown,
    /// the budget and a rejected credential stay.
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

    /// Records that a credential lacks a scope. Only the newest [`MAX_UNSCOPED`] are stored.
    fn record_unscoped(&mut self, rejection: &LastFailure) {
        let unscoped = self.unscoped.get_or_insert_default();
        unscoped.retain(|known| known.fingerprint != rejection.fingerprint);
        unscoped.push(rejection.clone());
        unscoped.sort_by_key(|known| (known.at, known.fingerprint));
        retain_last(unscoped, MAX_UNSCOPED);
    }

    fn unscoped(&self) -> &[LastFailure] {
        self.unscoped.as_deref().map_or(&[], Vec::as_slice)
    }

    fn retain_unscoped(&mut self, is_kept: impl FnMut(&LastFailure) -> bool) {
        if let Some(unscoped) = &mut self.unscoped {
            unscoped.retain(is_kept);
        }
        self.unscoped.take_if(|unscoped| unscoped.is_empty());
    }

    /// Applies the lists of rejections and withdrawn calls. Older programs preserve them without applying them.
    fn apply_lists(&mut self) {
        let (at, fingerprint) = (self.refreshed_at, self.refreshed_with);
        let has_succeeded =
            |rejection: &LastFailure| rejection.fingerprint == fingerprint && at > Some(rejection.at.into());
        self.retain_unscoped(|rejection| !has_succeeded(rejection));
        if let Some(unscoped) = &mut self.unscoped {
            retain_last(unscoped, MAX_UNSCOPED);
        }
        if let Some(given_back) = &mut self.given_back {
            retain_last(given_back, MAX_GIVEN_BACK);
            self.calls.retain(|attempt| given_back.binary_search(attempt).is_err());
        }
    }

    /// Drops all but the newest calls. These decide any budget of up to [`MAX_CALLS`].
    fn bound_attempts(&mut self) {
        self.calls.sort_unstable();
        retain_last(&mut self.calls, MAX_CALLS);
    }

    /// Records withdrawn calls of this record or of another one.
    fn give_back(&mut self, calls: &[CallRecord]) {
        if calls.is_empty() {
            return;
        }
        let given_back = self.given_back.get_or_insert_default();
        given_back.extend_from_slice(calls);
        given_back.sort_unstable();
        given_back.dedup();
        retain_last(given_back, MAX_GIVEN_BACK);
        self.calls.retain(|attempt| given_back.binary_search(attempt).is_err());
    }

    fn given_back(&self) -> &[CallRecord] {
        self.given_back.as_deref().map_or(&[], Vec::as_slice)
    }

    /// Clears the state of the previous owner.
    ///
    /// The calls of the last hour stay. Otherwise alternating logins could make unlimited calls.
    fn reset_for_owner(&mut self, login_id: Option<&LoginId>, owner_id: Option<&OwnerId>) {
        self.owner = RecordOwner::default();
        self.owner.adopt(login_id, owner_id);
        self.lease = None;
        self.hold = None;
        self.end_streak();
        self.last_failure = None;
        self.unscoped = None;
        self.forget_ended_calls();
        (self.refreshed_at, self.refreshed_with) = (None, None);
        self.snapshot = Snapshot::default();
    }
}

/// Removes all but the last `limit` items.
fn retain_last<T>(items: &mut Vec<T>, limit: usize) {
    items.drain(..items.len().saturating_sub(limit));
}

/// The resolution of timestamps.
const ONE_STAMP: Duration = Duration::from_millis(1);

#[cfg(test)]
pub(crate) mod tests;
