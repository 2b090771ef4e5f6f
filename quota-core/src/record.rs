//! The shared state of one account and the rules for changing it.
//! Nothing here does I/O or reads a clock; see `manager` for that.

mod begin;
mod effective_hold;
mod finish;
mod merge;
mod wire;

use std::time::Duration;

use jiff::Timestamp;

pub use finish::{CommitOutcome, FailOutcome};
pub use merge::{MergeOutcome, Seed};
pub use wire::DecodeError;

use crate::extra_fields::ExtraFields;
use crate::lease::{CallRecord, RecentCall};
use crate::login::RecordOwner;
use crate::time::{self, CLOCK_SLACK, EARLIEST_RECORD, UnixMillis, latest_plausible};
use crate::{
    CredentialFingerprint, Hold, LastFailure, Lease, LoginId, OwnerId, Policy, Snapshot, Source, Window,
};

/// All shared state of one account: what is known, who is asking, and who must not.
///
/// Every change is a function of the record, the time and what happened; a store runs it in a loop of read, decide and
/// swap. So every backend obeys the same rules, because it runs the same code.
///
/// ```
/// use std::time::Duration;
/// use quota_core::{LeaseRequest, RequestId, LeaseDecision, MaxStaleness, Percent, Policy, Record, UsageReport, WindowId, WindowReading};
///
/// let policy = Policy::default();
/// let now: jiff::Timestamp = "2026-01-01T12:00:00Z".parse()?;
/// let mut record = Record::default();
///
/// let ask = LeaseRequest::new(RequestId::random(), MaxStaleness::Age(policy.max_age));
/// let LeaseDecision::Granted(lease) = record.begin(now, &ask, &policy) else { panic!("nobody else asks") };
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
    /// How many changes of it were stored.
    revision: u64,
    // Boxed, because of a million accounts nearly all have none of these three.
    lease: Option<Box<Lease>>,
    hold: Option<Box<Hold>>,
    /// How often in a row the provider asked to slow down, and how often it failed otherwise: each has its own backoff.
    strikes: u32,
    failures: u32,
    /// The fence of the last call that either of them counts.
    streak_fence: u64,
    /// Holds and failures in a row at or below this fence were cleared, and do not come back.
    cleared_fence: u64,
    last_failure: Option<Box<LastFailure>>,
    /// The last refusal of each credential that lacks a scope. Other credentials may call the account; what they bring says nothing
    /// about these.
    unscoped: Vec<LastFailure>,
    /// The calls of the trailing hour, oldest first.
    calls: Vec<CallRecord>,
    /// Calls of the trailing hour that were never made: a process that still counts them does not bring them back.
    #[expect(clippy::box_collection, reason = "almost always absent, and then a pointer instead of a list")]
    given_back: Option<Box<Vec<CallRecord>>>,
    /// When the last call that brought something was started, and with which credential.
    refreshed_at: Option<UnixMillis>,
    refreshed_with: Option<CredentialFingerprint>,
    /// The account was removed then: nothing that was known before comes back.
    forgotten_at: Option<UnixMillis>,
    snapshot: Snapshot,
    unknown: ExtraFields,
}

/// Budgets count the calls of this long.
const BUDGET_WINDOW: Duration = Duration::from_secs(3600);

/// How many calls a record keeps. Processes that were without the store bring theirs, and there may be many of these.
const MAX_CALLS: usize = 1000;

/// How many refusals of credentials without a scope a record keeps. With fewer than share the account, each evicts another one.
const MAX_UNSCOPED: usize = 64;

/// How many calls that were given back a record keeps. An older one that comes back counts, which costs a call and not a block.
const MAX_GIVEN_BACK: usize = 100;

/// What became of a wish to lift a hold.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
#[non_exhaustive]
pub enum Cleared {
    /// This hold was in force, and is lifted.
    Lifted(Hold),
    /// No hold was in force.
    NoHold,
    /// The record was written by a newer program and must not be changed.
    UnsupportedFormat,
}

impl Record {
    /// What is known of the account's use.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The hold, if one was armed and not cleared; it may be over.
    #[must_use]
    pub fn hold(&self) -> Option<&Hold> {
        self.hold.as_deref()
    }

    /// The lease, if one was given and not returned; it may have run out.
    #[must_use]
    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_deref()
    }

    /// The highest fence that was ever given.
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.fence
    }

    /// How many changes of it were stored, as far as the store has not lost any.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Counts a change that is to be stored; whoever swaps a record that they have changed says so before.
    pub fn bump_revision(&mut self) {
        self.revision = self.revision.saturating_add(1);
    }

    /// Whether a store that shows this has lost `known`, which it had before.
    ///
    /// In a store that loses nothing, another state than the known one is a later one and has the higher revision. (A failover
    /// may also lose some writes and go on with others: if these are more, they cannot be told from later ones.)
    pub(crate) fn is_behind(&self, known: &Self) -> bool {
        known.revision > 0 && self.revision <= known.revision && self != known
    }

    /// What went wrong with the last call, unless it went well.
    #[must_use]
    pub fn last_failure(&self) -> Option<&LastFailure> {
        self.last_failure.as_deref()
    }

    /// The last call with the credential of this mark, whether it succeeded or failed. One that is under way, or whose caller gave
    /// up, has no outcome and is not counted.
    #[must_use]
    pub fn last_call(&self, fingerprint: Option<CredentialFingerprint>) -> Option<RecentCall> {
        let succeeded = self.refreshed_at.filter(|_| self.refreshed_with == fingerprint);
        let succeeded = succeeded.map(|at| RecentCall { at: at.timestamp(), failure: None });
        // A person who lifts a hold wants another call, whatever the last one was answered.
        let is_cleared = |last_failure: &LastFailure| last_failure.order() <= self.cleared_fence;
        let failed = self
            .last_failure()
            .filter(|last_failure| last_failure.fingerprint == fingerprint && !is_cleared(last_failure));
        let failed = failed
            .map(|last_failure| RecentCall { at: last_failure.at, failure: Some(last_failure.clone()) });
        [succeeded, failed].into_iter().flatten().max_by_key(|call| call.at)
    }

    /// How often in a row the provider has turned this account away, or failed.
    #[must_use]
    pub fn strikes(&self) -> u32 {
        self.strikes.saturating_add(self.failures)
    }

    /// The calls of the trailing hour, oldest first.
    #[must_use]
    pub fn calls(&self) -> &[CallRecord] {
        &self.calls
    }

    /// The login this state belongs to, where it was said.
    #[must_use]
    pub fn login_id(&self) -> Option<&LoginId> {
        self.owner.login_id.as_ref()
    }

    /// Who the provider said the account belongs to.
    #[must_use]
    pub fn owner_id(&self) -> Option<&OwnerId> {
        self.owner.owner_id.as_ref()
    }

    /// When everything was last asked for; `None` if it never was.
    #[must_use]
    pub fn asked_at(&self) -> Option<Timestamp> {
        self.refreshed_at.map(UnixMillis::timestamp).max(self.snapshot.complete_at())
    }

    /// When the readings stop being fresh, where they count as fresh for `within`; `None` if there are none.
    ///
    /// That is when the oldest of the windows that `counted` names has that age, or a little after the first of them
    /// resets, or when it is time to ask for everything again, whichever comes first. A window that the last call covered
    /// is as young as that call, even if it could not be read: asking again at once would not help.
    ///
    /// Response headers never name the windows of one model or surface. Those that are not counted are therefore read
    /// again when everything is, after [`full_refresh_interval`](crate::Policy#structfield.full_refresh_interval).
    #[must_use]
    pub fn due_at(&self, within: Duration, counted: Counted<'_>, policy: &Policy) -> Option<Timestamp> {
        let windows = self.snapshot.windows();
        let asked = self.asked_at();
        let asked_since =
            |observed: Timestamp| Some(observed).max(asked).expect("at least the window's own moment");
        let is_counted = |window: &&Window| counted.includes(window);
        let age_of = |window: &Window| asked_since(window.observed_at());

        let oldest = windows.iter().filter(is_counted).map(age_of).min();
        let oldest = oldest.or(asked).or_else(|| windows.iter().map(age_of).min())?;
        // Headers alone never make an account known: they do not speak about all of it.
        let told = windows
            .iter()
            .filter(|window| window.source() != Source::Headers)
            .map(|window| window.observed_at());
        let known = asked.or(told.max())?;
        let rollover = windows.iter().filter(is_counted).filter_map(|window| {
            let asked = asked_since(window.observed_at());
            let reset = window.expires_at().filter(|reset| *reset > asked)?;
            // A provider whose resets are always a moment ahead must not be asked every moment.
            Some(
                time::saturating_add(reset, policy.reset_grace)
                    .max(time::saturating_add(asked, ROLLOVER_FLOOR)),
            )
        });

        let by_age = time::saturating_add(oldest, within)
            .min(time::saturating_add(known, policy.full_refresh_interval.max(within)));
        Some(rollover.min().map_or(by_age, |rollover| by_age.min(rollover)))
    }

    /// Says which login the account holds now. If it is another than before, all that the old one left is cleared.
    ///
    /// A record that belonged to no login yet is adopted, with all that is in it. Returns whether the login changed.
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

    /// `now`, or a later moment if the last call, or the removal of the account, was stamped no earlier: the clocks of two processes differ a little, and of two
    /// calls of which one was granted after the other was answered, the second knows better.
    fn next_call_time(&self, now: Timestamp) -> Timestamp {
        let last = self.refreshed_at.max(self.forgotten_at);
        let after = last.map(|at| time::saturating_add(at.timestamp(), ONE_STAMP));
        after.map_or(now, |after| now.max(after))
    }

    /// Whether both say whose they are, and it is not the same.
    pub(crate) fn is_of_another_login(&self, other: &Self) -> bool {
        self.owner.contradicts(other.login_id(), other.owner_id())
    }

    /// Whether none of the readings claims to be from after `now`.
    pub(crate) fn is_plausible(&self, now: Timestamp) -> bool {
        let newest = self.asked_at().max(self.snapshot.newest());
        newest <= Some(time::saturating_add(now, CLOCK_SLACK))
    }

    /// Gives back the room that growing lists have in reserve: records are kept for long and changed seldom.
    pub(crate) fn shrink(&mut self) {
        self.calls.shrink_to_fit();
        self.unscoped.shrink_to_fit();
        self.snapshot.shrink();
    }

    /// Brings what a wrong clock has left into a form that `now` can deal with.
    ///
    /// A clock that was ahead and has been set back must not hold anybody off for years, nor make its readings beat all
    /// true ones. A clock that has not been set at all has nothing to say.
    pub(crate) fn repair_clock(&mut self, now: Timestamp) {
        if now < EARLIEST_RECORD {
            return;
        }
        let limit = latest_plausible(now);
        if let Some(hold) = &mut self.hold
            && hold.since > limit
        {
            hold.rebase_to(now);
        }
        self.last_failure.take_if(|last_failure| last_failure.at > limit);
        self.unscoped.retain(|refusal| refusal.at <= limit && refusal.bars_at(now));
        if self.refreshed_at.is_some_and(|at| at.timestamp() > limit) {
            (self.refreshed_at, self.refreshed_with) = (None, None);
        }
        self.clamp_forgotten(now);
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

    /// A removal that claims to be from the future was stamped by a clock that was ahead. It was before now, and hides nothing that
    /// was read a short while ago.
    fn clamp_forgotten(&mut self, now: Timestamp) {
        if self.forgotten_at.is_some_and(|at| at.timestamp() > latest_plausible(now)) {
            self.forgotten_at = Some(time::saturating_sub(now, CLOCK_SLACK).into());
        }
    }

    /// Forgets the account for all processes: its readings, whose it is, and why its last call failed.
    ///
    /// What binds the next call stays until it ends: a hold, the calls of the last hour, and the fence. So removing an account and
    /// adding it again lifts no hold and resets no budget. A call in flight loses its lease, and its answer is not stored. What
    /// other processes still know from before is not joined again.
    pub fn forget(&mut self, now: Timestamp) -> MergeOutcome {
        if !self.is_writable() {
            return MergeOutcome::UnsupportedFormat;
        }
        let now = time::truncate_ms(now);
        self.repair_clock(now);
        // Clocks differ a little: what is stamped a moment ahead was known before, too.
        let stamps = [self.asked_at(), self.snapshot.newest(), self.last_failure().map(|failure| failure.at)];
        let granted_at = self.lease().map(|lease| lease.granted_at);
        let newest = stamps.into_iter().chain([granted_at]).flatten().fold(now, Timestamp::max);
        self.hold.take_if(|hold| !hold.is_live(now));
        self.snapshot = Snapshot::default();
        self.forget_until(newest.into());
        MergeOutcome::Merged
    }

    /// Drops what was known at `at` or before, and keeps it from coming back.
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

    /// Lifts the account's hold for all processes, and forgets how often in a row its calls have failed.
    ///
    /// A process that still knows the hold does not bring it back; a call that fails after this arms a new one. The quiet time
    /// of the provider, the budget and the refusal of a credential stay.
    pub fn clear_hold(&mut self, now: Timestamp) -> Cleared {
        if !self.is_writable() {
            return Cleared::UnsupportedFormat;
        }
        let now = time::truncate_ms(now);
        self.repair_clock(now);
        let armed = self.hold().map_or(0, Hold::order);
        let known = [self.fence, time::as_fence(now), armed, self.streak_fence];
        self.cleared_fence = known.into_iter().fold(self.cleared_fence, u64::max);
        let hold = self.hold.take().filter(|hold| hold.is_live(now));
        self.end_streak();
        hold.map_or(Cleared::NoHold, |hold| Cleared::Lifted(*hold))
    }

    /// Drops a hold and failures in a row that were cleared elsewhere.
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
        (self.strikes, self.failures, self.streak_fence) = (0, 0, 0);
    }

    /// Notes that a credential lacks a scope; the newest few are kept.
    fn note_unscoped(&mut self, refusal: &LastFailure) {
        self.unscoped.retain(|known| known.fingerprint != refusal.fingerprint);
        self.unscoped.push(refusal.clone());
        self.unscoped.sort_by_key(|known| (known.at, known.fingerprint));
        keep_last(&mut self.unscoped, MAX_UNSCOPED);
    }

    /// Repairs what an older program left: it carries the lists of refusals and of calls that were given back along, and does not
    /// apply them.
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

    /// Keeps the newest calls only. Any budget up to [`MAX_CALLS`] is decided by these alone: it waits for one of the newest.
    fn bound_attempts(&mut self) {
        self.calls.sort_unstable();
        keep_last(&mut self.calls, MAX_CALLS);
    }

    /// Calls that were given back, by this record or by another one.
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

    /// Whether no hold has to be brought back: one that is would be so anew with each look, and never end.
    pub(crate) fn is_clock_repaired(&self, now: Timestamp) -> bool {
        now < EARLIEST_RECORD || self.hold().is_none_or(|hold| hold.is_plausible(now))
    }

    /// Somebody else holds the account now: what the login before has left says nothing about them.
    ///
    /// The calls of the last hour stay, so that logins which alternate do not ask without bound.
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

/// The windows whose age decides whether an account is fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Counted<'a> {
    /// Those of the whole account: enough for a status, and for a request that names no model.
    Account,
    /// Those of the whole account, and those that count requests for this model, as requests name it.
    Model(&'a str),
    /// All of them.
    All,
}

impl Counted<'_> {
    /// Those that a request for `model` depends on.
    #[must_use]
    pub fn for_model(model: Option<&str>) -> Counted<'_> {
        model.map_or(Counted::Account, Counted::Model)
    }

    fn includes(self, window: &Window) -> bool {
        match self {
            Self::Account => window.scope().is_none(),
            Self::Model(model) => window.applies_to(Some(model)),
            Self::All => true,
        }
    }
}

/// Removes all but the last `most` items.
fn keep_last<T>(items: &mut Vec<T>, most: usize) {
    items.drain(..items.len().saturating_sub(most));
}

/// Stamps are whole milliseconds.
const ONE_STAMP: Duration = Duration::from_millis(1);

/// A reset brings the next call forward to no less than this after the last one.
const ROLLOVER_FLOOR: Duration = Duration::from_secs(60);

#[cfg(test)]
pub(crate) mod tests;
