//! The choice among several accounts.
//! `evaluate` decides whether an account is eligible.

use std::borrow::Borrow;
use std::collections::HashMap;

use jiff::Timestamp;
use quota_core::AccountId;
use quota_core::model::LoginId;

use super::balance::{latest_reset, rendezvous_score, weight};
use super::evaluate::{Standing, stands_for_login};
use super::{
    Candidate, Choice, Decision, Eligibility, Evaluated, Reason, Request, Role, RoutingMode, RoutingPolicy,
    Verdict, evaluate, evaluate_with_retry,
};

/// Chooses the account for a request among the `candidates`, which are in order with the main one first, by their
/// readings at `now`.
///
/// The same arguments give the same decision. An account that is disabled, exhausted, below its killswitch or without
/// a valid login is never chosen. Of several accounts with one login, only the first usable one is considered; the others are
/// ineligible with [`Reason::SameLogin`]. An account that is disabled, or whose credential alone excludes it, is not usable.
///
/// ```
/// use std::time::Duration;
/// use quota_accounts::{Request, RoutingPolicy};
/// use quota_accounts::routing::{Candidate, Role, Reason, choose};
/// use quota_core::{AccountId, Percent, Snapshot, UsageReport, WindowId, WindowReading};
///
/// let now: jiff::Timestamp = "2026-01-01T12:00:00Z".parse()?;
/// let used = |percent| {
///     let used = Percent::from_percent(percent).unwrap();
///     let reading = WindowReading::new(WindowId::five_hour(), used).resets_at("2026-01-01T14:00:00Z".parse().ok());
///     Snapshot::of(&UsageReport::polled([reading]), now)
/// };
/// let (main, work): (AccountId, AccountId) = ("anthropic/main".parse()?, "anthropic/work".parse()?);
/// let (full, half) = (used(100.0), used(50.0));
/// let max_age = Duration::from_secs(300);
///
/// let candidates = [
///     Candidate::new(&main, Role::Main, &full, max_age),
///     Candidate::new(&work, Role::Fallback, &half, max_age),
/// ];
/// let decision = choose(candidates, &Request::new(), now, &RoutingPolicy::default());
///
/// assert_eq!(decision.chosen().unwrap().account, work);
/// assert_eq!(decision.accounts()[0].reason, Reason::Exhausted);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn choose<'a>(
    candidates: impl IntoIterator<Item = Candidate<'a>>,
    request: &Request,
    now: Timestamp,
    policy: &RoutingPolicy,
) -> Decision {
    let mut selector = Selector::new(request, now, policy);
    let candidates: Vec<_> = candidates.into_iter().collect();
    let evaluated = candidates.iter().map(|candidate| {
        let verdict = selector.consider(candidate);
        let not_refreshed = candidate.not_refreshed();
        Evaluated { not_refreshed, ..selector.evaluated(candidate, verdict) }
    });
    let evaluated = evaluated.collect();
    let choice = selector.choice(|| candidates.iter());
    Decision::new(now, choice, evaluated)
}

/// Evaluates accounts one by one, and keeps only the best.
pub(crate) struct Selector<'a> {
    request: &'a Request,
    now: Timestamp,
    policy: &'a RoutingPolicy,
    evaluated: usize,
    best: Option<Best>,
    /// The session's own account and when it becomes available again, if it is only briefly ineligible.
    wait: Option<(usize, Timestamp)>,
    retry_at: Option<Timestamp>,
    /// Whether an account is ineligible because its usage or its owner is unknown.
    is_unknown: bool,
    /// The logins that several accounts may hold, each with the account that is considered for it.
    logins: HashMap<LoginId, Vec<(AccountId, Standing)>>,
}

/// The best account so far.
struct Best {
    rank: Rank,
    at: usize,
    reason: Reason,
    /// The login of the readings on which the choice was based.
    login_id: Option<LoginId>,
}

/// The rank of an eligible account; the lowest wins.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// [`OWN`], [`OPEN`] or [`LOW`].
    tier: u8,
    preference: u64,
}

/// The session's own account.
const OWN: u8 = 0;
/// Accounts above their minimum.
const OPEN: u8 = 1;
/// Accounts below their minimum.
const LOW: u8 = 2;

impl<'a> Selector<'a> {
    pub(crate) fn new(request: &'a Request, now: Timestamp, policy: &'a RoutingPolicy) -> Self {
        Self {
            request,
            now,
            policy,
            evaluated: 0,
            best: None,
            wait: None,
            retry_at: None,
            is_unknown: false,
            logins: HashMap::new(),
        }
    }

    /// Considers the next account.
    pub(crate) fn consider(&mut self, candidate: &Candidate<'_>) -> Verdict {
        let at = self.evaluated;
        self.evaluated += 1;
        let mut verdict = evaluate(candidate, self.request, self.now, self.policy);
        if let Some(Standing { retry_at }) = self.of_another(candidate, verdict) {
            let retry_at = match verdict.eligibility {
                // The account's own exclusion, such as a rejected credential, must end too.
                Eligibility::Ineligible => retry_at.zip(verdict.retry_at).map(|(login, own)| login.max(own)),
                _ => retry_at,
            };
            verdict = Verdict::ineligible(Reason::SameLogin, retry_at);
        }
        let is_own = candidate.is_session_account && self.policy.mode == RoutingMode::StickyBalanced;
        if verdict.eligibility == Eligibility::Ineligible {
            // Retry when the first account becomes available.
            self.retry_at = [self.retry_at, verdict.retry_at].into_iter().flatten().min();
            self.is_unknown |= verdict.is_unknown();
            if is_own
                && let Some(until) = verdict.retry_at.filter(|until| self.is_soon(*until, verdict.reason))
            {
                self.wait = Some((at, until));
            }
            return verdict;
        }
        let tier = match verdict.eligibility {
            _ if is_own => OWN,
            Eligibility::LastResort => LOW,
            _ => OPEN,
        };
        let rank = Rank { tier, preference: self.preference(candidate) };
        if self.best.as_ref().is_none_or(|best| rank < best.rank) {
            let login_id = candidate.login_id().cloned();
            self.best = Some(Best { rank, at, reason: verdict.reason, login_id });
        }
        verdict
    }

    /// Excludes an account from the choice. Unless only its credential is the reason, every account with its login is
    /// excluded too.
    pub(crate) fn leave_out(&mut self, candidate: &Candidate<'_>, found: Option<Verdict>) {
        if candidate.shared_login().is_some() {
            let verdict = found.unwrap_or_else(|| evaluate(candidate, self.request, self.now, self.policy));
            self.of_another(candidate, verdict);
        }
    }

    /// The verdict on the earlier account that is considered for this login. If there is none, this account may become
    /// it.
    fn of_another(&mut self, candidate: &Candidate<'_>, verdict: Verdict) -> Option<Standing> {
        let login = candidate.shared_login().filter(|_| !candidate.is_disabled)?;
        if let Some((_, standing)) = self.account_of(candidate) {
            return Some(*standing);
        }
        if let Some(standing) = stands_for_login(candidate, verdict, self.request, self.now, self.policy) {
            self.logins.entry(login.clone()).or_default().push((candidate.id.clone(), standing));
        }
        None
    }

    /// The account that is considered for this account's login.
    fn account_of(&self, candidate: &Candidate<'_>) -> Option<&(AccountId, Standing)> {
        // Two providers may use the same login id.
        let accounts = self.logins.get(candidate.shared_login()?)?;
        accounts.iter().find(|(account, _)| account.provider() == candidate.id.provider())
    }

    /// The account with the verdict of [`consider`](Self::consider), for a decision.
    pub(crate) fn evaluated(&self, candidate: &Candidate<'_>, verdict: Verdict) -> Evaluated {
        let evaluated = Evaluated::of(candidate, verdict, self.request, self.now, self.policy);
        let is_same = verdict.reason == Reason::SameLogin;
        let same_login_as =
            self.account_of(candidate).filter(|_| is_same).map(|(account, _)| account.clone());
        Evaluated { same_login_as, ..evaluated }
    }

    /// Whether a session waits for its account instead of moving.
    fn is_soon(&self, until: Timestamp, reason: Reason) -> bool {
        let ends_by_itself = matches!(
            reason,
            Reason::Exhausted | Reason::QuotaExhausted | Reason::Throttled | Reason::BelowKillswitch
        );
        let wait = until.duration_since(self.now);
        ends_by_itself
            && std::time::Duration::try_from(wait).is_ok_and(|wait| wait <= self.policy.max_session_wait)
    }

    /// The preference within a tier; the lowest wins. If accounts are equal, the first one wins.
    fn preference(&self, candidate: &Candidate<'_>) -> u64 {
        match self.policy.mode {
            // The main account comes first among the candidates.
            RoutingMode::MainFirst => 0,
            RoutingMode::FallbackFirst => u64::from(candidate.role == Role::Main),
            RoutingMode::StickyBalanced => rendezvous_score(
                candidate,
                self.request,
                weight(candidate, self.request, self.now, self.policy),
            ),
            RoutingMode::SoonestResetFirst => {
                // Maps i64 to u64, preserving the order.
                latest_reset(candidate, self.request, self.now).cast_unsigned() ^ (1 << 63)
            }
        }
    }

    /// Whether no later account can be better, because the mode prefers accounts in their order.
    pub(crate) fn is_settled(&self) -> bool {
        let is_ordered = matches!(self.policy.mode, RoutingMode::MainFirst | RoutingMode::FallbackFirst);
        is_ordered && self.best.as_ref().is_some_and(|best| best.rank == Rank { tier: OPEN, preference: 0 })
    }

    /// Whether the chosen account is below its minimum.
    pub(crate) fn is_low(&self) -> bool {
        self.best.as_ref().is_some_and(|best| best.rank.tier == LOW)
    }

    /// The reason for the chosen account.
    pub(crate) fn reason(&self) -> Reason {
        self.best.as_ref().map_or(Reason::Available, |best| best.reason)
    }

    /// The login of the readings with which the chosen account was evaluated.
    pub(crate) fn login_id(&self) -> Option<&LoginId> {
        self.best.as_ref()?.login_id.as_ref()
    }

    /// Returns the choice. If no account is eligible, it evaluates the candidates from `again` to determine when one
    /// becomes eligible.
    pub(crate) fn choice<'c, C: Borrow<Candidate<'c>>, I: Iterator<Item = C>>(
        &self,
        again: impl FnOnce() -> I,
    ) -> Choice {
        match (self.wait, &self.best) {
            (Some((at, until)), _) => Choice::Wait { index: at, until },
            (None, Some(best)) => Choice::Use { index: best.at },
            (None, None) if self.is_unknown => {
                let retry_at = |candidate: C| {
                    evaluate_with_retry(candidate.borrow(), self.request, self.now, self.policy).retry_at
                };
                Choice::NoAccount { retry_at: again().filter_map(retry_at).min() }
            }
            (None, None) => Choice::NoAccount { retry_at: self.retry_at },
        }
    }
}
