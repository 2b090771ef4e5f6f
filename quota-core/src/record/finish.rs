//! What follows from a call: its readings, or the hold that its failure arms.

use jiff::Timestamp;

use super::Record;
use crate::time::{self, UnixMillis};
use crate::{
    CredentialFingerprint, FetchError, Hold, HoldReason, LastFailure, LastFailureKind, Lease, Policy,
    Snapshot, UsageReport, bounded_wait,
};

/// What became of a call's readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub enum CommitOutcome {
    /// They are in the record.
    Stored,
    /// They are in the record, and they are somebody else's: the login has changed.
    LoginChanged,
    /// They came too late: somebody else has been given the right to ask, or holds the account now. Nothing was changed.
    TooLate,
    /// The account was removed while the provider was called. Nothing was changed.
    Forgotten,
    /// They said nothing; what was known stays. Report it as [`FetchError::malformed`].
    Empty,
}

/// What became of a call's failure.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
#[non_exhaustive]
pub enum FailOutcome {
    /// It is in the record.
    Stored {
        /// The hold that it armed, or a longer one that stood already; none if it is no reason to wait.
        hold: Option<Hold>,
        /// The quiet time that it imposes on the account's neighbours.
        cooldown: Option<Hold>,
    },
    /// It came too late. Nothing was changed.
    TooLate,
}

impl Record {
    /// Puts the readings of a call into the record, clears a hold from before it, and gives the lease back.
    ///
    /// The readings are as old as the start of the call, or older if they say so themselves; never younger.
    ///
    /// The same readings brought twice are stored once: whoever lost the answer may ask again.
    pub fn commit(&mut self, now: Timestamp, lease: &Lease, usage: &UsageReport) -> CommitOutcome {
        if !self.holds(lease) {
            let is_done = self.is_over(lease) && self.refreshed_at == Some(lease.granted_at.into());
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
        // An answer that names another identity and no login is of the login that was asked with.
        let login_id = usage.login_id.clone().or_else(|| self.owner.login_id.clone());
        let (login_id, owner_id) = (login_id.as_ref(), usage.owner_id.as_ref());
        let changed = self.owner.contradicts(login_id, owner_id);
        if changed {
            self.reset_for_owner(login_id, owner_id);
        }
        self.owner.adopt(login_id, owner_id);

        // Not after now: the clock may have been set back since the call began.
        let started = lease.granted_at.min(self.next_call_time(now));
        let asked_at = usage.observed_at.map_or(started, |observed| observed.min(started));
        self.snapshot.join(&Snapshot::of(usage, asked_at));
        self.refreshed(started.into(), lease.fingerprint);
        self.clear_hold_before(now, started);
        self.last_failure = None;
        self.unscoped.retain(|refusal| refusal.fingerprint != lease.fingerprint);
        self.lease = None;
        if changed { CommitOutcome::LoginChanged } else { CommitOutcome::Stored }
    }

    /// Notes when the last call that brought something was started, and with which credential.
    pub(super) fn refreshed(&mut self, at: UnixMillis, fingerprint: Option<CredentialFingerprint>) {
        if self.refreshed_at < Some(at) {
            (self.refreshed_at, self.refreshed_with) = (Some(at), fingerprint);
        }
    }

    /// An answer to a call that was started then ends a hold. One that was armed after that knows more than the answer does.
    pub(super) fn clear_hold_before(&mut self, now: Timestamp, started: Timestamp) {
        self.hold.take_if(|hold| hold.since <= started || !hold.is_live(now));
        if self.hold.is_none() {
            self.end_streak();
        }
    }

    /// Draws the consequences of a call that failed, and gives the lease back. What was known stays, at its own age.
    ///
    /// The same failure reported twice counts once.
    pub fn fail(
        &mut self,
        now: Timestamp,
        lease: &Lease,
        error: &FetchError,
        policy: &Policy,
    ) -> FailOutcome {
        let now = time::truncate_ms(now);
        let cooldown = Self::quiet_after(now, error, policy);
        if !self.holds(lease) {
            let is_done = self.is_over(lease)
                && self.last_failure().is_some_and(|failure| failure.at == lease.granted_at);
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
            // Another host may well have a credential.
            self.take_attempt_back(lease);
            return FailOutcome::Stored { hold: None, cooldown: None };
        }
        let failure =
            LastFailure::of(error, lease.granted_at.min(now), lease.fingerprint).of_call(lease.fence);
        if failure.kind == LastFailureKind::MissingScope && failure.fingerprint.is_some() {
            self.note_unscoped(&failure);
        }
        self.last_failure = Some(Box::new(failure));
        let hold = self.arm_hold(now, lease, error, policy);
        FailOutcome::Stored { hold, cooldown }
    }

    /// The quiet time that a failure imposes on the account's neighbours: that of a 429.
    pub(crate) fn quiet_after(now: Timestamp, error: &FetchError, policy: &Policy) -> Option<Hold> {
        let throttled = matches!(error, FetchError::Throttled { .. });
        throttled.then(|| {
            Hold::new(
                now,
                time::saturating_add(now, policy.cooldown.duration),
                HoldReason::ProviderRateLimited,
            )
        })
    }

    /// Gives the lease back without a word: the caller was cancelled or broke, and the provider is not to blame.
    pub fn release(&mut self, lease: &Lease) {
        if self.holds(lease) {
            self.lease = None;
        }
    }

    /// Gives the lease back without a request having been sent: the call does not count toward the budget.
    pub(crate) fn withdraw(&mut self, lease: &Lease) {
        if self.holds(lease) {
            self.lease = None;
            self.take_attempt_back(lease);
        }
    }

    /// Takes the attempt of a lease out of the calls that count: the provider was not called.
    fn take_attempt_back(&mut self, lease: &Lease) {
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
                (policy.rate_limit_backoff, HoldReason::RateLimited, &mut self.strikes)
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
        // A hold that was cleared during the call is not this one.
        let fence = lease.fence.max(self.cleared_fence.saturating_add(1));
        self.streak_fence = self.streak_fence.max(fence);
        let retry_after = error.retry_after();
        // What the provider asks for is a floor; that it asks for nothing is no permission.
        let floor = bounded_wait(retry_after.unwrap_or_default());
        let delay = backoff.delay(in_a_row, lease.attempt.jitter_unit()).max(floor);
        let mut hold =
            Hold::new(now, time::saturating_add(now, delay), reason).retry_after(retry_after).armed_by(fence);
        // A credential that was let through and turned away too has met the same hold, however much longer it is now.
        let before = self.hold().filter(|hold| hold.is_live(now)).map(Hold::fingerprints);
        hold.met_by(before.unwrap_or_default().iter().copied().chain(lease.fingerprint));
        self.extend_hold(now, Some(&hold));
        self.hold().cloned()
    }

    /// Whether this lease is the last one that was given, and was given back.
    fn is_over(&self, lease: &Lease) -> bool {
        self.is_writable() && self.lease.is_none() && self.fence == lease.fence
    }

    /// Whether this lease is the last one that was given, and was not given back.
    fn holds(&self, lease: &Lease) -> bool {
        self.is_writable()
            && self
                .lease
                .as_ref()
                .is_some_and(|held| held.fence == lease.fence && held.attempt == lease.attempt)
    }
}
