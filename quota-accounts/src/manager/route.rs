//! Routes a request: chooses an account by the current readings, waits for refreshes, and reads the credential.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use jiff::Timestamp;
use quota_core::{AccountId, Credential};

use super::reservations::{ReservationGuard, ReservationHandle};
use super::scan::{MAX_REFRESHES, MAX_REPORTED, Scan, UNKNOWN_RETRY};
use super::source::Rechecks;
use super::{FallbackAccountManager, Inner};
use crate::Request;
use crate::routing::{Choice, Decision, Evaluated, Reason, Verdict, whole_seconds};

/// The account that a request goes to, and why.
#[derive(Debug)]
#[must_use]
pub struct Route {
    pub(super) account: AccountId,
    pub(super) index: usize,
    pub(super) credential: Option<Credential>,
    pub(super) request: Request,
    pub(super) reason: Reason,
    pub(super) skipped: Vec<Evaluated>,
    pub(super) reservation: Option<ReservationHandle>,
    pub(super) is_reported: AtomicBool,
}

impl Route {
    /// The account.
    #[must_use]
    pub fn account(&self) -> &AccountId {
        &self.account
    }

    /// The credential to send the request with; `None` if the account has no credential source.
    #[must_use]
    pub fn credential(&self) -> Option<&Credential> {
        self.credential.as_ref()
    }

    /// The request that the account was chosen for.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Why the account was selected.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The ineligible accounts that the request considered, at most eight. [`FallbackAccountManager::explain_route`] lists all
    /// accounts.
    #[must_use]
    pub fn skipped(&self) -> &[Evaluated] {
        &self.skipped
    }
}

/// Why a request got no account.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// No account may serve the request.
    #[error("no account can serve this request{}", again(*retry_after))]
    #[non_exhaustive]
    NoAccountAvailable {
        /// The time until an account may serve it; `None` if the user must act first.
        retry_after: Option<Duration>,
        /// The ineligible accounts, at most eight.
        skipped: Vec<Evaluated>,
    },
    /// The session's account is unavailable for a short time: waiting is better than moving.
    #[error("{account} is unavailable for {} s, and the session stays with it", whole_seconds(*retry_after))]
    #[non_exhaustive]
    SessionAccountUnavailable {
        /// The account.
        account: AccountId,
        /// How long to wait.
        retry_after: Duration,
    },
}

fn again(retry_after: Option<Duration>) -> String {
    retry_after.map_or_else(String::new, |wait| format!("; try again in {} s", whole_seconds(wait)))
}

impl RouteError {
    /// How long to wait before the next attempt; `None` if the user must act first.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::NoAccountAvailable { retry_after, .. } => *retry_after,
            Self::SessionAccountUnavailable { retry_after, .. } => Some(*retry_after),
        }
    }

    /// The ineligible accounts that the request considered, at most eight.
    #[must_use]
    pub fn skipped(&self) -> &[Evaluated] {
        match self {
            Self::NoAccountAvailable { skipped, .. } => skipped,
            Self::SessionAccountUnavailable { .. } => &[],
        }
    }
}

impl FallbackAccountManager {
    /// Returns the preferred available account for a request, with its credential.
    ///
    /// The request waits for a refresh if the chosen account has no readings, or if a better account is ineligible
    /// because of stale readings. Before it chooses, the router refreshes at most four accounts, and only those that
    /// can be refreshed now. It waits for at most [`route_timeout`](crate::RoutingPolicy#structfield.route_timeout) in
    /// total. Then it chooses from the available readings, and the refreshes continue. If the chosen account is
    /// eligible but its readings are stale, the refresh runs in the background.
    ///
    /// The request waits for the credential of the chosen account at most
    /// [`credential_timeout`](crate::RoutingPolicy#structfield.credential_timeout). The router reads the credentials of
    /// ineligible accounts in the background, because their logins may have changed. The request waits for these for a
    /// tenth of a second, or if no account is available, for the rest of the `route_timeout`. The `route_timeout`
    /// includes the waits for reservations in the store, which get at least a tenth of a second each. Dropping the
    /// future is safe.
    ///
    /// Every route must be [reported](Self::report). The report ends its reservation, which otherwise expires after ten minutes.
    ///
    /// # Errors
    ///
    /// [`RouteError`] if no account may serve the request, with the time until one may. If more than four accounts have
    /// unknown usage and the policy denies that, the router refreshes the others in the background, and the wait is two
    /// seconds. The wait is also two seconds while the credential of an ineligible account is being read.
    pub async fn route(&self, request: Request) -> Result<Route, RouteError> {
        self.inner.load().await;
        self.inner.route(request, &[]).await
    }

    /// The decision behind a result of [`route`](Self::route): every account with its current readings, and the verdicts about
    /// credentials from that route. It does no I/O and changes nothing.
    pub fn explain_route(&self, request: &Request, routed: Result<&Route, &RouteError>) -> Decision {
        let inner = &self.inner;
        let index_of = |account: &AccountId| inner.index_of.get(account).copied();
        let skipped = match routed {
            Ok(route) => route.skipped(),
            Err(error) => error.skipped(),
        };
        let found = skipped.iter().filter(|account| account.reason.may_be_about_credential());
        let found: Vec<_> =
            found.filter_map(|account| Some((index_of(&account.account)?, account.verdict()))).collect();
        let decision = inner.decision(request, &found);
        let after = |wait: Duration| decision.now().checked_add(wait).unwrap_or(Timestamp::MAX);
        let choice = match routed {
            // The account of the route, even if newer readings would select another one.
            Ok(route) => index_of(route.account()).map(|index| Choice::Use { index }),
            Err(RouteError::SessionAccountUnavailable { account, retry_after }) => {
                index_of(account).map(|index| Choice::Wait { index, until: after(*retry_after) })
            }
            Err(error) => Some(Choice::NoAccount { retry_at: error.retry_after().map(after) }),
        };
        match choice {
            Some(choice) => decision.with_choice(choice),
            None => decision,
        }
    }
}

/// How long a request waits for the sources of ineligible accounts. This is long enough to read a file. A command
/// continues in the background, and the next request gets its outcome.
const RECHECK_GRACE: Duration = Duration::from_millis(100);

/// The progress of one request.
#[derive(Debug, Default)]
pub(super) struct Attempt {
    /// The accounts that it has refreshed.
    pub(super) refreshed: Vec<usize>,
    /// The accounts whose reservations it has read.
    pub(super) read: Vec<usize>,
    /// The accounts that turned out to be unusable, although their readings made them eligible.
    pub(super) unusable: Vec<(usize, Verdict)>,
    /// The accounts whose login differed from the one at the choice, with one entry per occurrence.
    pub(super) moved: Vec<usize>,
    /// The checks for other credentials that it has started.
    pub(super) rechecks: Rechecks,
    /// How long it has waited for refreshes, checks and reservations.
    pub(super) waited: Duration,
}

impl Attempt {
    pub(super) fn is_unusable(&self, at: usize) -> bool {
        self.unusable.iter().any(|(other, _)| *other == at)
    }

    /// Whether to repeat the choice because the account has another login.
    pub(super) fn may_move(&self, at: usize) -> bool {
        self.moved.iter().filter(|other| **other == at).count() < MAX_MOVES
    }
}

/// How often one attempt repeats the choice because an account's login has changed.
const MAX_MOVES: usize = 3;

impl Inner {
    /// Records that the credential of an account cannot be used. Without a verdict, the choice is repeated a limited
    /// number of times. A source that states another login each time is unusable.
    pub(super) fn reject(&self, attempt: &mut Attempt, at: usize, verdict: Option<Verdict>) {
        if verdict.is_none() && attempt.may_move(at) {
            attempt.moved.push(at);
            return;
        }
        let until = || self.now().checked_add(self.policy.throttle_cooldown).ok();
        let verdict = verdict.unwrap_or_else(|| Verdict::ineligible(Reason::CredentialUnavailable, until()));
        attempt.unusable.push((at, verdict));
    }

    /// Routes among the accounts that are not in `without`.
    pub(super) async fn route(
        self: &Arc<Self>,
        request: Request,
        without: &[usize],
    ) -> Result<Route, RouteError> {
        let mut attempt = Attempt::default();
        loop {
            let scan = self.select_account(&request, without, &mut attempt).await;
            let at = match scan.choice {
                Choice::Use { index } => index,
                Choice::Wait { index: at, until } => {
                    let account = self.slots[at].id.clone();
                    return Err(RouteError::SessionAccountUnavailable {
                        account,
                        retry_after: between(scan.now, until),
                    });
                }
                Choice::NoAccount { retry_at } => {
                    // The last scan omitted the accounts that turned out to be unusable.
                    let others = attempt.unusable.iter().filter_map(|(_, verdict)| verdict.retry_at);
                    let unknown = self.retry_soon(&scan).map(|(_, verdict)| verdict.retry_at);
                    // A check that continues reports its outcome to the next attempt.
                    let checked_at = || scan.now.checked_add(UNKNOWN_RETRY).ok();
                    let checked = attempt.rechecks.is_running().then(checked_at).into_iter();
                    let unknown = unknown.chain(checked);
                    let retry_at = retry_at.into_iter().chain(others).chain(unknown.flatten()).min();
                    let retry_after = retry_at.map(|at| between(scan.now, at));
                    let skipped = self.skipped(scan.rejected, &attempt.unusable, &request, scan.now);
                    return Err(RouteError::NoAccountAvailable { retry_after, skipped });
                }
            };
            let reserved = match self.reserve(&request, at, &mut attempt.waited).await {
                Ok(reserved) => reserved,
                Err(verdict) => {
                    attempt.unusable.push((at, verdict));
                    continue;
                }
            };
            match self.credential(&request, at, &scan.chosen_by(), &mut attempt.waited).await {
                Ok(credential) => {
                    if self.slots[at].usage.is_stale_for(request.model()) {
                        self.refresh_in_background(at, false, &request);
                    }
                    self.remember_session(&request, at, &attempt.unusable, scan.now);
                    return Ok(Route {
                        account: self.slots[at].id.clone(),
                        index: at,
                        credential,
                        reason: scan.reason,
                        skipped: self.skipped(scan.rejected, &attempt.unusable, &request, scan.now),
                        request,
                        reservation: reserved.map(ReservationGuard::keep),
                        is_reported: AtomicBool::new(false),
                    });
                }
                Err(verdict) => self.reject(&mut attempt, at, verdict),
            }
        }
    }

    /// Chooses as for a request, and returns the accounts that turned out to be unusable on the way.
    /// Like a request, this refreshes accounts. It makes no reservation and stores no session.
    pub(super) async fn dry_run(self: &Arc<Self>, request: &Request) -> Vec<(usize, Verdict)> {
        let mut attempt = Attempt::default();
        loop {
            let scan = self.select_account(request, &[], &mut attempt).await;
            let Choice::Use { index: at } = scan.choice else {
                attempt.unusable.extend(self.retry_soon(&scan));
                return attempt.unusable;
            };
            match self.credential(request, at, &scan.chosen_by(), &mut attempt.waited).await {
                Ok(_) => return attempt.unusable,
                Err(verdict) => self.reject(&mut attempt, at, verdict),
            }
        }
    }

    /// Accounts that were not refreshed, because the request has waited for enough refreshes.
    fn retry_soon(&self, scan: &Scan) -> impl Iterator<Item = (usize, Verdict)> {
        let until = scan.now.checked_add(UNKNOWN_RETRY).ok();
        scan.unknown.iter().map(move |at| (*at, Verdict::ineligible(Reason::UnknownDenied, until)))
    }

    /// Repeats the scan until no account must be refreshed, and no reservations must be read, before the choice.
    async fn select_account(
        self: &Arc<Self>,
        request: &Request,
        without: &[usize],
        attempt: &mut Attempt,
    ) -> Scan {
        let Attempt { refreshed, read, unusable, rechecks, waited, .. } = attempt;
        loop {
            let scan = self.scan(request, without, unusable, refreshed, read);
            if !scan.recheck_credentials.is_empty() {
                rechecks.start(self, &scan.recheck_credentials);
                if self.wait_for_checks(rechecks, RECHECK_GRACE, waited).await {
                    continue;
                }
            }
            let may_wait = *waited < self.policy.route_timeout;
            let may_refresh = refreshed.len() < MAX_REFRESHES && !self.is_out_of_time();
            if let Some(at) = scan.refresh_first.first().filter(|_| may_refresh && may_wait) {
                refreshed.push(*at);
                let result = self.wait_for_refresh(*at, request, waited).await;
                if let Err(error) = &result {
                    tracing::debug!(account = %self.slots[*at].id, %error, "refresh failed, using cached readings");
                    // Another name for the login may have a credential that can read the usage.
                    if self.slots[*at].usage.peek().is_login_shared() {
                        unusable.extend(self.without_credential_for(error).map(|verdict| (*at, verdict)));
                    }
                }
                self.schedule_save();
                continue;
            }
            if let Some(at) = scan.reread_reservations.first().filter(|_| read.len() < MAX_REFRESHES) {
                read.push(*at);
                self.read_reservations(*at, waited).await;
                continue;
            }
            if !may_wait {
                // The next request will see their new readings.
                self.refresh_sequentially(&scan.refresh_first, request);
            }
            if let Choice::NoAccount { .. } = scan.choice {
                // Only another credential can make these accounts eligible.
                if self.wait_for_checks(rechecks, Duration::MAX, waited).await {
                    continue;
                }
                // One of the accounts with unknown usage may be available. The next attempt will see its new readings.
                self.refresh_sequentially(&scan.unknown, request);
            }
            return scan;
        }
    }

    /// Waits until a check has found another credential, at most for `limit` and for the rest of the request's time. Returns whether one
    /// has. The checks continue.
    pub(super) async fn wait_for_checks(
        &self,
        rechecks: &mut Rechecks,
        limit: Duration,
        waited: &mut Duration,
    ) -> bool {
        let started_at = self.clock.instant();
        let left = self.policy.route_timeout.saturating_sub(*waited);
        let has_changed = self.clock.bounded(limit.min(left), rechecks.any_changed()).await;
        *waited = waited.saturating_add(self.clock.instant().saturating_since(started_at));
        has_changed == Some(true)
    }

    /// The ineligible accounts of a scan, and those that turned out to be unusable.
    fn skipped(
        &self,
        mut rejected: Vec<Evaluated>,
        unusable: &[(usize, Verdict)],
        request: &Request,
        now: Timestamp,
    ) -> Vec<Evaluated> {
        let room = MAX_REPORTED.saturating_sub(rejected.len());
        rejected.extend(unusable.iter().take(room).map(|(index, verdict)| {
            // The index of the window may be invalid by now.
            let verdict = verdict.without_window();
            Evaluated::of(&self.slots[*index].candidate(), verdict, request, now, &self.policy)
        }));
        rejected
    }
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}
