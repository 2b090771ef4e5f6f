//! Decides whether a caller may use the last read of a credential. The rules are pure functions; `credential_cache`
//! runs the reads.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::Instant;
use crate::model::CredentialFingerprint;
use crate::provider::{Credential, CredentialError, SourceVersion};
use crate::time;

/// How long a credential is used if its source cannot detect changes.
const UNDETECTABLE_MAX_AGE: Duration = Duration::from_secs(5 * 60);
/// The shortest time between two reads of a source that is expensive or fails.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The longest time between two reads of a failing source. A user who logs in again waits at most this long.
const MAX_RETRY_INTERVAL: Duration = Duration::from_secs(60);
/// From this time before its expiry, a credential is read again after the [`CHECK_INTERVAL`].
const EXPIRY_MARGIN: Duration = Duration::from_secs(60);
/// How many rejected credentials are remembered. A source has a few at most.
const MAX_REJECTED: usize = 32;

/// The credential that a caller needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Demand {
    /// The current credential.
    Current,
    /// The current credential, for a user who may have just fixed the login. An earlier failure does not satisfy this
    /// demand.
    Retry,
    /// A credential other than the rejected one with this fingerprint.
    Replacement(Option<CredentialFingerprint>),
}

impl Demand {
    pub(crate) fn is_replacement(self) -> bool {
        matches!(self, Self::Replacement(_))
    }
}

/// Why there is no credential.
#[derive(Debug, Clone)]
pub(crate) enum ReadFailure {
    /// The error of the source.
    Failed(CredentialError),
    /// The source panicked.
    Panicked,
    /// The source did not respond within the timeout of the read.
    TimedOut,
    /// The caller timed out, and the read continues. This is never the outcome of a read, because it gives no
    /// information about the source.
    StillReading,
}

impl From<ReadFailure> for CredentialError {
    fn from(failure: ReadFailure) -> Self {
        match failure {
            ReadFailure::Failed(error) => error,
            ReadFailure::Panicked => {
                Self::unreadable("the credential source panicked", io::Error::other("it panicked"))
            }
            ReadFailure::TimedOut => Self::timed_out("the credential source timed out"),
            ReadFailure::StillReading => Self::temporarily_unavailable(STILL_READING, None),
        }
    }
}

/// The message for a caller that timed out before the read ended.
const STILL_READING: &str = "the credential is still being read; try again";

/// The outcome of a read, which all its callers share.
pub(crate) type ReadOutcome = Result<Credential, ReadFailure>;

/// The credentials that the provider has rejected, the last one last.
///
/// One is not enough, because a late report about an older credential must not clear the rejection of the current one.
#[derive(Debug, Default)]
pub(crate) struct Rejected(VecDeque<CredentialFingerprint>);

impl Rejected {
    /// Returns whether the rejection is new.
    pub(crate) fn insert(&mut self, fingerprint: CredentialFingerprint) -> bool {
        if self.contains(fingerprint) {
            return false;
        }
        if self.0.len() == MAX_REJECTED {
            self.0.pop_front();
        }
        self.0.push_back(fingerprint);
        true
    }

    /// Removes a credential that the provider has accepted.
    pub(crate) fn remove(&mut self, fingerprint: CredentialFingerprint) {
        self.0.retain(|rejected| *rejected != fingerprint);
    }

    fn contains(&self, fingerprint: CredentialFingerprint) -> bool {
        self.0.contains(&fingerprint)
    }
}

/// The last read that ended.
#[derive(Debug)]
pub(crate) struct LastRead {
    pub(crate) outcome: ReadOutcome,
    /// The demand of the caller that started it.
    pub(crate) demand: Demand,
    /// Reads are numbered in the order of their start.
    pub(crate) number: u64,
    /// The version before the read; `None` if the source states none.
    pub(crate) version: Option<SourceVersion>,
    pub(crate) ended_at: Instant,
    /// How many reads in a row, up to this one, found no credential or a rejected one.
    pub(crate) futile: u32,
}

/// Whether a caller may use the outcome of the last read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reuse {
    Yes,
    /// Yes, if the files of the source are unchanged.
    IfUnchanged,
    No,
}

impl LastRead {
    /// Continues the count of futile reads since `previous`.
    pub(crate) fn after(mut self, previous: Option<&Self>, rejected: &Rejected) -> Self {
        let before = previous.map_or(0, |previous| previous.futile);
        self.futile = if self.is_usable(rejected) { 0 } else { before.saturating_add(1) };
        self
    }

    pub(crate) fn fingerprint(&self) -> Option<CredentialFingerprint> {
        self.outcome.as_ref().ok()?.login.fingerprint
    }

    /// Whether the provider has rejected the credential. Without a fingerprint, the answer to a rejection may be the rejected one.
    pub(crate) fn is_rejected(&self, rejected: &Rejected) -> bool {
        let is_rejected = |fingerprint: CredentialFingerprint| rejected.contains(fingerprint);
        self.outcome.is_ok() && self.fingerprint().map_or(self.demand.is_replacement(), is_rejected)
    }

    fn is_usable(&self, rejected: &Rejected) -> bool {
        self.outcome.is_ok() && !self.is_rejected(rejected)
    }

    /// Whether the outcome satisfies a caller at `now`, which is `wall_time` by the wall clock. `asked` is the number
    /// of the first read that could begin after its call.
    pub(crate) fn reuse(
        &self,
        demand: Demand,
        asked: u64,
        rejected: &Rejected,
        now: Instant,
        wall_time: Timestamp,
    ) -> Reuse {
        let has_files = self.version.as_ref().is_some_and(SourceVersion::has_files);
        let unless_changed = if has_files { Reuse::IfUnchanged } else { Reuse::Yes };
        let age = now.saturating_since(self.ended_at);
        let if_younger = |max_age| if age < max_age { unless_changed } else { Reuse::No };
        if demand == Demand::Retry && self.number < asked && !self.is_usable(rejected) {
            return Reuse::No;
        }
        if self.outcome.is_err() {
            return match (self.demand.is_replacement(), demand.is_replacement()) {
                // A failed renewal does not satisfy a plain read, because the source may still have the rejected
                // credential.
                (true, false) => Reuse::No,
                // The source may be able to renew a credential that it cannot read.
                (_, true) if demand != self.demand => if_younger(CHECK_INTERVAL),
                _ => if_younger(self.max_age(rejected, wall_time)),
            };
        }
        if let Demand::Replacement(replaced) = demand {
            // The source has just responded to the same rejection.
            let max_age = match self.is_rejected(rejected) {
                true => self.max_age(rejected, wall_time),
                false => CHECK_INTERVAL,
            };
            if self.demand == demand && age < max_age {
                return unless_changed;
            }
            // A credential that was not rejected is newer than the rejected one, because that came from this cache too.
            if replaced.is_none() || self.fingerprint().is_none() || self.is_rejected(rejected) {
                return Reuse::No;
            }
        }
        match &self.version {
            None => Reuse::No,
            Some(version) if version.is_undetectable() => if_younger(self.max_age(rejected, wall_time)),
            Some(_) => unless_changed,
        }
    }

    /// How long the outcome is used, if its source cannot detect changes.
    fn max_age(&self, rejected: &Rejected, wall_time: Timestamp) -> Duration {
        let credential = match &self.outcome {
            Err(ReadFailure::Failed(CredentialError::TemporarilyUnavailable {
                retry_after: Some(retry_after),
                ..
            })) => return (*retry_after).clamp(CHECK_INTERVAL, MAX_RETRY_INTERVAL),
            Ok(credential) if !self.is_rejected(rejected) => credential,
            _ => return retry_interval(self.futile),
        };
        let soon = time::saturating_add(wall_time, EXPIRY_MARGIN);
        match credential.expires_at {
            // Another program will renew it soon. If it expired long ago, a renewal is unlikely.
            Some(expiry) if expiry <= soon => {
                (time::elapsed(expiry, wall_time) / 8).clamp(CHECK_INTERVAL, MAX_RETRY_INTERVAL)
            }
            _ => UNDETECTABLE_MAX_AGE,
        }
    }
}

/// The time until the next read after this many futile ones: it doubles, because a dead login may stay dead for days.
fn retry_interval(futile: u32) -> Duration {
    let doubled = 1_u32.checked_shl(futile.saturating_sub(1)).unwrap_or(u32::MAX);
    CHECK_INTERVAL.saturating_mul(doubled).min(MAX_RETRY_INTERVAL)
}

/// Converts the outcome of a read for a caller. A rejected credential cannot replace another rejected one.
pub(crate) fn answer(demand: Demand, outcome: ReadOutcome, rejected: &Rejected) -> ReadOutcome {
    let credential = outcome?;
    if let (Demand::Replacement(replaced), Some(fingerprint)) = (demand, credential.login.fingerprint)
        && replaced != Some(fingerprint)
        && rejected.contains(fingerprint)
    {
        let reason = "the provider has rejected this login; log in again";
        return Err(ReadFailure::Failed(CredentialError::not_logged_in(reason)));
    }
    Ok(credential)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::model::LoginInfo;

    fn fingerprint(hash: u64) -> CredentialFingerprint {
        CredentialFingerprint::from_hash(hash)
    }

    fn read_of(hash: u64, clock: &Clock) -> LastRead {
        let credential = Credential::new("n33dle").login(LoginInfo::unknown().fingerprint(fingerprint(hash)));
        LastRead {
            outcome: Ok(credential),
            demand: Demand::Current,
            number: 0,
            version: Some(SourceVersion::undetectable()),
            ended_at: clock.instant(),
            futile: 0,
        }
    }

    fn rejections(hashes: &[u64]) -> Rejected {
        let mut rejected = Rejected::default();
        for hash in hashes {
            rejected.insert(fingerprint(*hash));
        }
        rejected
    }

    fn reuse(last: &LastRead, demand: Demand, rejected: &Rejected, clock: &Clock) -> Reuse {
        last.reuse(demand, 1, rejected, clock.instant(), clock.now())
    }

    #[tokio::test(start_paused = true)]
    async fn a_cached_secret_is_not_in_the_debug_output() {
        assert!(!format!("{:?}", read_of(1, &Clock::system())).contains("n33dle"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wall_clock_set_back_does_not_extend_the_reuse() {
        let clock = Clock::system();
        let last = read_of(1, &clock);
        clock.sleep(UNDETECTABLE_MAX_AGE).await;

        let reuse =
            last.reuse(Demand::Current, 1, &Rejected::default(), clock.instant(), Timestamp::UNIX_EPOCH);

        assert_eq!(reuse, Reuse::No);
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_returned_the_rejected_credential_is_not_repeated_at_once() {
        let clock = Clock::system();
        let (demand, rejected) = (Demand::Replacement(Some(fingerprint(1))), rejections(&[1]));
        let last = LastRead { demand, version: None, ..read_of(1, &clock) }.after(None, &rejected);

        assert_eq!(reuse(&last, demand, &rejected, &clock), Reuse::Yes);
        assert_eq!(reuse(&last, Demand::Current, &rejected, &clock), Reuse::No);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejected_credential_replaces_no_other() {
        let clock = Clock::system();
        let last = read_of(1, &clock);
        let demand = Demand::Replacement(Some(fingerprint(2)));

        assert_eq!(reuse(&last, demand, &rejections(&[2]), &clock), Reuse::Yes);
        assert_eq!(reuse(&last, demand, &rejections(&[1, 2]), &clock), Reuse::No);
        assert!(answer(demand, last.outcome, &rejections(&[1, 2])).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_answers_the_rejected_credential_again_has_no_other() {
        let last = read_of(1, &Clock::system());

        assert!(answer(Demand::Replacement(Some(fingerprint(1))), last.outcome, &rejections(&[1])).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_accepts_a_credential_but_no_earlier_failure() {
        let clock = Clock::system();
        let none = Rejected::default();
        let failed = LastRead { outcome: Err(ReadFailure::TimedOut), ..read_of(1, &clock) };
        let later = LastRead { outcome: Err(ReadFailure::TimedOut), number: 1, ..read_of(1, &clock) };

        let of = |last: &LastRead| reuse(last, Demand::Retry, &none, &clock);

        assert_eq!([of(&read_of(1, &clock)), of(&failed)], [Reuse::Yes, Reuse::No]);
        assert_eq!(of(&later.after(None, &none)), Reuse::Yes);
    }

    #[test]
    fn the_time_between_futile_reads_doubles_up_to_a_minute() {
        let seconds: Vec<u64> = (1..9).map(|futile| retry_interval(futile).as_secs()).collect();

        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(retry_interval(u32::MAX), MAX_RETRY_INTERVAL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_credential_is_read_seldom_once_it_has_long_expired() {
        let clock = Clock::system();
        let max_age = |since: i64| {
            let mut last = read_of(1, &clock);
            let expiry = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(1_000_000 - since);
            last.outcome = last.outcome.map(|credential| credential.expires_at(expiry));
            let now = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(1_000_000);
            last.max_age(&Rejected::default(), now).as_secs()
        };

        assert_eq!([-61, -60, 0, 80, 86_400].map(max_age), [300, 1, 1, 10, 60]);
    }

    #[test]
    fn the_number_of_remembered_rejections_is_bounded() {
        let hashes: Vec<u64> = (0..100).collect();
        let rejected = rejections(&hashes);

        assert_eq!(rejected.0.len(), MAX_REJECTED);
        assert!(rejected.contains(fingerprint(99)) && !rejected.contains(fingerprint(0)));
    }
}
