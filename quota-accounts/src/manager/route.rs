//! Giving a request an account: the choice on the newest numbers, the refreshes it is worth waiting for, the credential.
//! The choice itself is a pure function in `routing`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use quota_core::{AccountId, Credential, CredentialError, LoginInfo, RequestId, bounded_wait};

use super::look::{Look, MOST_PASSED, MOST_RECHECKS, NEXT_IS_KNOWN_IN};
use super::member::Member;
use super::reserving::Reserved;
use super::{FallbackAccountManager, Inner};
use crate::Request;
use crate::routing::{Choice, Rule, Standing, Verdict, judge, judge_when};

/// The account that a request goes to, and why.
#[derive(Debug)]
#[must_use]
pub struct Route {
    pub(super) account: AccountId,
    pub(super) at: usize,
    pub(super) credential: Option<Credential>,
    pub(super) request: Request,
    pub(super) rule: Rule,
    pub(super) passed: Vec<Passed>,
    pub(super) reservation: Option<RequestId>,
    pub(super) is_reported: AtomicBool,
}

/// An account that was refused on the way, and by which rule.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Passed {
    /// The account.
    pub account: AccountId,
    /// The rule that refused it.
    pub rule: Rule,
    /// When that ends, if it does so by itself.
    pub until: Option<Timestamp>,
}

impl Route {
    /// The account.
    #[must_use]
    pub fn account(&self) -> &AccountId {
        &self.account
    }

    /// The credential to send the request with; `None` if the manager was given no source of credentials.
    #[must_use]
    pub fn credential(&self) -> Option<&Credential> {
        self.credential.as_ref()
    }

    /// The request it was chosen for.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// The rule by which the account was taken.
    #[must_use]
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// The accounts that were refused, as far as they were looked at; no more than a few.
    /// [`FallbackAccountManager::explain`] tells of all of them.
    #[must_use]
    pub fn passed(&self) -> &[Passed] {
        &self.passed
    }
}

/// Why a request was given no account.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// No account may serve it.
    #[error("no account can serve this request{}", again(*retry_after))]
    #[non_exhaustive]
    Nobody {
        /// How long until one may again; `None` if somebody has to do something first.
        retry_after: Option<Duration>,
        /// The accounts that were refused, and why; no more than a few.
        passed: Vec<Passed>,
    },
    /// The session's account is out for a moment: waiting is better than moving.
    #[error("{account} is out for {} s, and the session stays with it", whole_seconds(*retry_after))]
    #[non_exhaustive]
    Wait {
        /// The account.
        account: AccountId,
        /// How long.
        retry_after: Duration,
    },
}

/// Rounded up: a program that waits so long is not early.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0))
}

fn again(retry_after: Option<Duration>) -> String {
    retry_after.map_or_else(String::new, |span| format!("; try again in {} s", whole_seconds(span)))
}

impl RouteError {
    /// How long to wait before asking again; `None` if somebody has to do something first.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Nobody { retry_after, .. } => *retry_after,
            Self::Wait { retry_after, .. } => Some(*retry_after),
        }
    }
}

impl FallbackAccountManager {
    /// Gives a request the account that has room and is preferred, with its credential.
    ///
    /// The numbers are those of this moment. If none are known of the account, or those that refuse a better one are
    /// stale, it waits for a refresh, as far as one is allowed; numbers that pass are refreshed behind its back. Each account's
    /// credential is waited for as long as [the policy](crate::RoutingPolicy#structfield.credential_timeout) says. Dropping
    /// the future is safe.
    ///
    /// Every route is to be [reported](Self::report), whatever came of it: what it has reserved ends with that, or after ten
    /// minutes.
    ///
    /// # Errors
    ///
    /// [`RouteError`] if no account may serve; it says when one may again. One request waits for four refreshes at most: if
    /// there are more accounts of which nothing is known, and may not be used unknown, they are asked about behind its back, and it
    /// is told to come back in two seconds.
    pub async fn route(&self, request: Request) -> Result<Route, RouteError> {
        self.inner.load().await;
        self.inner.route(request, &[]).await
    }
}

/// What one request has found on its way.
#[derive(Debug, Default)]
struct Search {
    /// Accounts it has waited for.
    asked: Vec<usize>,
    /// Accounts whose reservations it has read.
    read: Vec<usize>,
    /// Accounts that turned out not to serve though their numbers would let them.
    unusable: Vec<(usize, Verdict)>,
}

impl Inner {
    /// Routes among the accounts that are not in `without`.
    pub(super) async fn route(
        self: &Arc<Self>,
        request: Request,
        without: &[usize],
    ) -> Result<Route, RouteError> {
        let mut search = Search::default();
        loop {
            let look = self.look_well(&request, without, &mut search).await;
            let at = match look.choice {
                Choice::Take { at } => at,
                Choice::Wait { at, until } => {
                    let account = self.members[at].id.clone();
                    return Err(RouteError::Wait { account, retry_after: between(look.now, until) });
                }
                Choice::Nobody { retry_at } => {
                    // Accounts that turned out not to serve were not weighed the last time.
                    let others = search.unusable.iter().filter_map(|(_, verdict)| verdict.until);
                    let unasked = self.known_soon(&look).map(|(_, verdict)| verdict.until);
                    let retry_at = retry_at.into_iter().chain(others).chain(unasked.flatten()).min();
                    let retry_after = retry_at.map(|at| between(look.now, at));
                    let passed = self.passed(look.passed.iter().chain(&search.unusable));
                    return Err(RouteError::Nobody { retry_after, passed });
                }
            };
            let reserved = match self.reserve(&request, at).await {
                Ok(reserved) => reserved,
                Err(verdict) => {
                    search.unusable.push((at, verdict));
                    continue;
                }
            };
            match self.credential(&request, at, look.now).await {
                Ok(credential) => {
                    if self.members[at].usage.is_stale_for(request.model_name()) {
                        self.refresh_in_background(at, false, &request);
                    }
                    self.pin(&request, at, &search.unusable, look.now);
                    return Ok(Route {
                        account: self.members[at].id.clone(),
                        at,
                        credential,
                        rule: look.rule,
                        passed: self.passed(look.passed.iter().chain(&search.unusable)),
                        request,
                        reservation: reserved.map(Reserved::keep),
                        is_reported: AtomicBool::new(false),
                    });
                }
                Err(verdict) => search.unusable.push((at, verdict)),
            }
        }
    }

    /// The accounts that turn out not to serve though their numbers would let them, up to the one that a request would go to.
    /// Numbers are refreshed as for a request; nothing is reserved, and no session is remembered.
    pub(super) async fn rehearse(self: &Arc<Self>, request: &Request) -> Vec<(usize, Verdict)> {
        let mut search = Search::default();
        loop {
            let look = self.look_well(request, &[], &mut search).await;
            let Choice::Take { at } = look.choice else {
                search.unusable.extend(self.known_soon(&look));
                return search.unusable;
            };
            match self.credential(request, at, look.now).await {
                Ok(_) => return search.unusable,
                Err(verdict) => search.unusable.push((at, verdict)),
            }
        }
    }

    /// Accounts that were not asked about before nobody was found, because the request has waited for enough of them.
    fn known_soon(&self, look: &Look) -> impl Iterator<Item = (usize, Verdict)> {
        let until = look.now.checked_add(NEXT_IS_KNOWN_IN).ok();
        look.unasked.iter().map(move |at| (*at, Verdict::refused(Rule::UnknownClosed, until)))
    }

    /// Looks at all accounts, and again until nothing is worth asking or reading first.
    async fn look_well(self: &Arc<Self>, request: &Request, without: &[usize], search: &mut Search) -> Look {
        let Search { asked, read, unusable } = search;
        loop {
            let is_out = |at| without.contains(&at) || unusable.iter().any(|(out, _)| *out == at);
            let look = self.look(request, &is_out, asked, read);
            if self.look_at_credentials(&look.worth_a_look).await {
                continue;
            }
            let may_ask = asked.len() < MOST_RECHECKS && !self.is_out_of_time();
            if let Some(at) = look.worth_asking.first().filter(|_| may_ask) {
                asked.push(*at);
                if let Err(error) = self.freshen(*at, request.model_name()).await {
                    tracing::debug!(account = %self.members[*at].id, %error, "going by what is known");
                }
                self.keep_soon();
                continue;
            }
            if let Some(at) = look.worth_reading.first().filter(|_| read.len() < MOST_RECHECKS) {
                read.push(*at);
                self.read_reservations(*at).await;
                continue;
            }
            if let Choice::Nobody { .. } = look.choice {
                // One of the others may have room: whoever comes back finds it known.
                self.refresh_in_turn(&look.unasked, request);
            }
            return look;
        }
    }

    /// Looks whether the credentials of accounts that are of no use are others by now; whether any is.
    pub(super) async fn look_at_credentials(self: &Arc<Self>, places: &[usize]) -> bool {
        let mut any = false;
        for at in places {
            let member = &self.members[*at];
            if let Some(Ok(credential)) = self.read_credential(member).await {
                any |= member.lift_for(&credential.login);
                any |= self.enter(member, &credential.login).await;
            }
        }
        any
    }

    /// Gives the account to this login, if another one's numbers are here; whether that was so.
    async fn enter(self: &Arc<Self>, member: &Member, login: &LoginInfo) -> bool {
        let Some(lineage) = login.lineage.as_ref().filter(|lineage| member.is_of_another(lineage)) else {
            return false;
        };
        tracing::debug!(account = %member.id, "another login");
        // The fetcher is asked for the login only where a call would be made.
        let mut asked = member.refresh().await;
        if member.is_of_another(lineage) {
            member.is_told.store(true, Ordering::Release);
            member.usage.set_login(lineage.clone());
            asked = member.freshen_for(None).await;
        }
        if let Err(error) = asked {
            tracing::debug!(account = %member.id, %error, "going on without numbers");
        }
        self.keep_soon();
        true
    }

    /// Gets the credential, and looks once more at what is known by now; the verdict if the account cannot serve after all.
    async fn credential(
        self: &Arc<Self>,
        request: &Request,
        at: usize,
        before: Timestamp,
    ) -> Result<Option<Credential>, Verdict> {
        let member = &self.members[at];
        let credential = self.read_credential(member).await.transpose().map_err(|error| {
            tracing::debug!(account = %member.id, %error, "no credential");
            self.without_credential(&error)
        })?;
        if let Some(credential) = &credential {
            member.lift_for(&credential.login);
            let is_another = self.enter(member, &credential.login).await;
            // Reading it may have taken a while, and what is known by now counts.
            let now = self.now();
            if is_another || now != before {
                // It has its share by now: what is reserved is no reason any more, and must not hide one that is.
                let candidate = member.candidate().reserved([]);
                if judge(&candidate, request, now, &self.policy).standing == Standing::Refused {
                    return Err(judge_when(&candidate, request, now, &self.policy));
                }
            }
        }
        Ok(credential)
    }

    /// What follows for an account from having no credential: only one that nobody is logged in to waits for somebody.
    fn without_credential(&self, error: &CredentialError) -> Verdict {
        let (rule, wait) = match error {
            CredentialError::NotLoggedIn { .. } => return Verdict::refused(Rule::LoginDead, None),
            CredentialError::TemporarilyUnavailable { retry_after, .. } => (Rule::LoginNotYet, *retry_after),
            // A locked keychain, a file that is being rewritten, a command that failed once; or what a newer source says.
            _ => (Rule::NotReadable, None),
        };
        Verdict::refused(rule, self.now().checked_add(wait.map_or(self.policy.pause, bounded_wait)).ok())
    }

    fn passed<'a>(&self, passed: impl Iterator<Item = &'a (usize, Verdict)>) -> Vec<Passed> {
        passed
            .take(MOST_PASSED)
            .map(|(at, verdict)| Passed {
                account: self.members[*at].id.clone(),
                rule: verdict.rule,
                until: verdict.until,
            })
            .collect()
    }
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}
