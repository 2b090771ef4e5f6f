//! The end of a call: it stores the readings, or arms a hold after a failure.

use jiff::Timestamp;

use super::{Hold, HoldReason, LastFailure, LastFailureKind, Lease, Record};
use crate::model::{CredentialFingerprint, Snapshot, UsageReport};
use crate::policy::Policy;
use crate::provider::{FetchError, bounded_wait};
use crate::time::{self, UnixMillis};

/// The outcome of committing readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub enum CommitOutcome {
    /// The readings are stored.
    Stored,
    /// The readings are stored, and the record's login has changed.
    LoginChanged,
    /// The commit is too late, because another process holds the lease or the account has another login. Nothing was changed.
    TooLate,
    /// The account was removed during the call. Nothing was changed.
    Forgotten,
    /// The report was empty, so the previous readings are kept. Report it as [`FetchError::malformed`].
    Empty,
}

/// The outcome of recording a failure.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
#[non_exhaustive]
pub enum FailOutcome {
    /// The failure is stored.
    Stored {
        /// The hold that the failure armed, or a longer one that was in force; `None` if there is none.
        hold: Option<Hold>,
        /// The cooldown for all accounts of the provider.
        cooldown: Option<Hold>,
    },
    /// The failure is too late. Nothing was changed.
    TooLate,
}

impl Record {
    /// Stores the readings of a call, clears an earlier hold, and releases the lease.
    ///
    /// The age of the readings counts from the start of the call, or from an earlier time in the report.
    ///
    /// Committing the same readings twice stores them once, so a commit with a lost response can be retried.
    pub fn commit(&mut self, now: Timestamp, lease: &Lease, usage: &UsageReport) -> CommitOutcome {
        if !self.holds(lease) {
            let is_done = self.is_over(lease) && self.has_succeeded(lease.fence);
            return match () {
                () if is_done => CommitOutcome::Stored,
                () if self.forgotten_at >= Some(lease.granted_at.into()) => CommitOutcome::Forgotten,
                () => CommitOutcome::TooLate,
            };
        }
        if usage.is_empty() {
            return CommitOutcome::Empty;
        }
        let now = time::truncate_ms(now);
        self.repair_clock(now);
        // A response with a different owner and no login belongs to the login of the request.
        let login_id = usage.login_id.clone().or_else(|| self.owner.login_id.clone());
        let (login_id, owner_id) = (login_id.as_ref(), usage.owner_id.as_ref());
        let changed = self.owner.contradicts(login_id, owner_id);
        if changed {
            self.reset_for_owner(login_id, owner_id);
        }
        self.owner.adopt(login_id, owner_id);

        // Use at most `now`, because the clock may have been set back during the call.
        let started = lease.granted_at.min(self.next_call_time(now));
        let observed_at = usage.observed_at.map_or(started, |observed| observed.min(started));
        self.snapshot.join(&Snapshot::of(usage, observed_at));
        self.refreshed(started.into(), lease.fingerprint);
        self.record_success(lease.fence, lease.fingerprint);
        self.clear_hold_before(now, started);
        self.last_failure = None;
        self.retain_unscoped(|refusal| refusal.fingerprint != lease.fingerprint);
        self.lease = None;
        if changed { CommitOutcome::LoginChanged } else { CommitOutcome::Stored }
    }

    /// Stores the readings of a call like [`commit`](Self::commit), and arms a hold if the provider rate limited a part of it.
    pub(crate) fn commit_throttled(
        &mut self,
        now: Timestamp,
        lease: &Lease,
        usage: &UsageReport,
        policy: &Policy,
    ) -> CommitOutcome {
        let (is_first, streak) = (self.holds(lease), self.rate_limit_streak);
        let outcome = self.commit(now, lease, usage);
        let is_stored = matches!(outcome, CommitOutcome::Stored | CommitOutcome::LoginChanged);
        // A commit that is repeated after a lost response must not count twice.
        if let Some(throttled) = usage.throttled.filter(|_| is_first && is_stored) {
            // For the rate limit, the call was not a success.
            self.rate_limit_streak = streak;
            let error = FetchError::throttled(throttled.retry_after);
            let _ = self.arm_hold(time::truncate_ms(now), lease, &error, policy);
        }
        outcome
    }

    /// Records the start of the last successful call, and its credential.
    pub(super) fn refreshed(&mut self, at: UnixMillis, fingerprint: Option<CredentialFingerprint>) {
        if self.refreshed_at < Some(at) {
            (self.refreshed_at, self.refreshed_with) = (Some(at), fingerprint);
        }
    }

    /// Clears holds from before `started`. A later hold is newer information than the response.
    pub(super) fn clear_hold_before(&mut self, now: Timestamp, started: Timestamp) {
        self.hold.take_if(|hold| hold.since <= started || !hold.is_live(now));
        if self.hold.is_none() {
            self.end_streak();
        }
    }

    /// Records a failed call, arms a hold, and releases the lease. The readings stay and keep their age.
    ///
    /// Recording the same failure twice counts it once.
    pub fn fail(
        &mut self,
        now: Timestamp,
        lease: &Lease,
        error: &FetchError,
        policy: &Policy,
    ) -> FailOutcome {
        let now = time::truncate_ms(now);
        let cooldown = Self::cooldown_after(now, error, policy);
        if !self.holds(lease) {
            let is_done = self.is_over(lease) && self.has_failed(lease.fence);
            let hold = || self.hold().filter(|hold| hold.is_live(now)).cloned();
            return if is_done {
                FailOutcome::Stored { hold: hold(), cooldown }
            } else {
                FailOutcome::TooLate
            };
        }
        self.repair_clock(now);
        self.lease = None;
        if error.is_before_request() {
            // Another host may have a credential.
            self.withdraw_call(lease);
            return FailOutcome::Stored { hold: None, cooldown: None };
        }
        let failure =
            LastFailure::of(error, lease.granted_at.min(now), lease.fingerprint).of_call(lease.fence);
        if failure.kind == LastFailureKind::MissingScope && failure.fingerprint.is_some() {
            self.record_unscoped(&failure);
        }
        self.record_failure(&failure);
        self.last_failure = Some(Box::new(failure));
        let hold = self.arm_hold(now, lease, error, policy);
        FailOutcome::Stored { hold, cooldown }
    }

    /// The cooldown for all accounts of the provider after a 429.
    pub(crate) fn cooldown_after(now: Timestamp, error: &FetchError, policy: &Policy) -> Option<Hold> {
        let throttled = matches!(error, FetchError::Throttled { .. });
        throttled.then(|| {
            Hold::new(
                now,
                time::saturating_add(now, policy.cooldown.duration),
                HoldReason::ProviderRateLimited,
            )
        })
    }

    /// Records a call whose fetcher panicked, and releases the lease. The first failure in a row arms no hold, so the next refresh calls
    /// again. Every further one arms the hold of a malformed response: otherwise reads would call until the budget is used up.
    ///
    /// Recording the same panic twice counts it once.
    pub fn panicked(&mut self, now: Timestamp, lease: &Lease, policy: &Policy) -> FailOutcome {
        if self.failures > 0 || !self.holds(lease) {
            return self.fail(now, lease, &Self::panic_failure(), policy);
        }
        self.lease = None;
        self.failures = 1;
        self.streak_fence = self.streak_fence.max(lease.fence);
        FailOutcome::Stored { hold: None, cooldown: None }
    }

    /// The failure of a call whose fetcher panicked.
    pub(crate) fn panic_failure() -> FetchError {
        FetchError::malformed("the fetcher panicked")
    }

    /// Releases the lease without a result, because the call was cancelled.
    pub fn release(&mut self, lease: &Lease) {
        if self.holds(lease) {
            self.lease = None;
        }
    }

    /// Withdraws a call that sent no request: it releases the lease and does not count toward the budget.
    pub(crate) fn withdraw(&mut self, lease: &Lease) {
        if self.holds(lease) {
            self.lease = None;
            self.withdraw_call(lease);
        }
    }

    /// Removes the call of a lease that sent no request.
    fn withdraw_call(&mut self, lease: &Lease) {
        let call = self.calls.iter().rfind(|attempt| attempt.fence == lease.fence).cloned();
        self.give_back(call.as_slice());
        if let Some(hold) = &mut self.hold {
            hold.unmet_by(lease.fingerprint);
        }
    }

    fn arm_hold(
        &mut self,
        now: Timestamp,
        lease: &Lease,
        error: &FetchError,
        policy: &Policy,
    ) -> Option<Hold> {
        let (backoff, reason, in_a_row) = match error {
            FetchError::Throttled { .. } => {
                (policy.rate_limit_backoff, HoldReason::RateLimited, &mut self.rate_limit_streak)
            }
            FetchError::Unavailable { .. } | FetchError::TimedOut | FetchError::Malformed { .. } => {
                (policy.error_backoff, HoldReason::Failing, &mut self.failures)
            }
            FetchError::Unauthorized
            | FetchError::Forbidden { .. }
            | FetchError::MissingScope { .. }
            | FetchError::NotLoggedIn { .. }
            | FetchError::CredentialUnavailable { .. } => return None,
        };
        *in_a_row = in_a_row.saturating_add(1);
        let in_a_row = *in_a_row;
        // The new hold must outrank a hold that was cleared during the call.
        let fence = lease.fence.max(self.cleared_fence.saturating_add(1));
        self.streak_fence = self.streak_fence.max(fence);
        let retry_after = error.retry_after();
        // `Retry-After` is a lower bound. A short one does not shorten the backoff.
        let floor = bounded_wait(retry_after.unwrap_or_default());
        let delay = backoff.delay(in_a_row, lease.attempt.jitter_unit()).max(floor);
        let mut hold =
            Hold::new(now, time::saturating_add(now, delay), reason).retry_after(retry_after).armed_by(fence);
        // If an admitted credential was rate limited too, it encountered the same hold, even if that hold is now
        // longer.
        let before = self.hold().filter(|hold| hold.is_live(now)).map(Hold::fingerprints);
        hold.met_by(before.unwrap_or_default().iter().copied().chain(lease.fingerprint));
        self.extend_hold(now, Some(&hold));
        self.hold().cloned()
    }

    /// Whether this is the last granted lease and it was released.
    fn is_over(&self, lease: &Lease) -> bool {
        self.is_writable() && self.lease.is_none() && self.fence == lease.fence
    }

    /// Whether this is the last granted lease and it was not released.
    fn holds(&self, lease: &Lease) -> bool {
        self.is_writable()
            && self
                .lease
                .as_ref()
                .is_some_and(|held| held.fence == lease.fence && held.attempt == lease.attempt)
    }
}
