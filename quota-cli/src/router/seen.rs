//! What is shown of a decision: every account with its readings and the rule that took or refused it, as plain values.
//! How it looks is each command's own business.

use std::time::Duration;

use jiff::Timestamp;
use quota::accounts::{Choice, Decision, Eligibility, Evaluated, Passed, Reason, Role, Route};
use quota::{AccountId, AccountUsage, Percent, Window};

use super::Router;
use crate::config::AccountSettings;
use crate::reset_grace::PendingReset;
use crate::view::account::{WindowView, why};

/// A decision.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// When it was taken, by the clock that the readings are by.
    pub(crate) now: Timestamp,
    pub(crate) outcome: Outcome,
    /// How long until it is worth asking again, if nobody serves now and that can be told.
    pub(crate) retry_after: Option<Duration>,
    /// In their order, the main one first.
    pub(crate) accounts: Vec<SeenAccount>,
}

/// What it came to. Accounts are named by their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The request goes to this one.
    Take(usize),
    /// The session's own account is out for a moment, and the session stays with it.
    Wait(usize),
    /// No account may serve.
    Nobody,
}

/// One account.
#[derive(Debug, Clone)]
pub(crate) struct SeenAccount {
    pub(crate) id: AccountId,
    pub(crate) is_main: bool,
    pub(crate) standing: Eligibility,
    pub(crate) rule: Reason,
    /// The window that the rule is about, if it is about one.
    pub(crate) window: Option<WindowView>,
    /// The window that is not known, if the rule is about one of which there is no reading.
    pub(crate) unread: Option<String>,
    /// How much was to be left of that window.
    pub(crate) limit: Option<Percent>,
    /// What keeps it from being refreshed, if that window has just reset.
    pub(crate) pending: Option<PendingReset>,
    /// When a refusal ends by itself, if it does.
    pub(crate) until: Option<Timestamp>,
    pub(crate) windows: Vec<WindowView>,
    /// Why its numbers are not newer, if a refresh was tried.
    pub(crate) not_refreshed: Option<String>,
    /// Whether nothing is known of it because another account has room, and nobody had to ask.
    pub(crate) is_unneeded: bool,
    /// What to do where a login is refused or missing.
    pub(crate) advice: String,
}

impl Seen {
    /// What a decision says.
    pub(crate) fn of(decision: &Decision, router: &Router<'_>) -> Self {
        let now = decision.now();
        let accounts = decision.accounts().iter().zip(&router.config.accounts);
        let outcome = match decision.choice() {
            Choice::Use { at, .. } => Outcome::Take(at),
            Choice::Wait { at, .. } => Outcome::Wait(at),
            _ => Outcome::Nobody,
        };
        let accounts = accounts.map(|(weighed, settings)| account(weighed, settings, router)).collect();
        Self { now, outcome, retry_after: decision.retry_after(), accounts }.with_unneeded()
    }

    fn with_unneeded(mut self) -> Self {
        let is_taken = matches!(self.outcome, Outcome::Take(_));
        for account in &mut self.accounts {
            account.is_unneeded =
                is_taken && account.rule == Reason::UnknownDenied && account.not_refreshed.is_none();
        }
        self
    }

    /// What there is to say of a request that was given an account.
    pub(crate) fn of_route(route: &Route, router: &Router<'_>) -> Self {
        let mut seen = Self::of(&router.known(), router);
        seen.pass(route.passed());
        let at = seen.accounts.iter().position(|account| account.id == *route.account());
        // The request's own account counts, whatever has become known in the meantime.
        seen.outcome = at.map_or(Outcome::Nobody, Outcome::Take);
        seen.retry_after = None;
        seen.with_unneeded()
    }

    /// Takes over what only the request itself has found out: accounts without a login, or whose login could not be read.
    pub(super) fn pass(&mut self, passed: &[Passed]) {
        let is_of_login = |rule| {
            matches!(rule, Reason::LoginRejected | Reason::LoginRenewing | Reason::CredentialUnavailable)
        };
        for passed in passed.iter().filter(|passed| is_of_login(passed.reason)) {
            if let Some(account) = self.accounts.iter_mut().find(|account| account.id == passed.account) {
                (account.rule, account.standing) = (passed.reason, Eligibility::Ineligible);
                (account.window, account.limit, account.until) = (None, None, passed.until);
                (account.unread, account.pending) = (None, None);
            }
        }
    }

    /// The account that the request goes to.
    pub(crate) fn chosen(&self) -> Option<&SeenAccount> {
        match self.outcome {
            Outcome::Take(at) => self.accounts.get(at),
            _ => None,
        }
    }
}

fn account(weighed: &Evaluated, settings: &AccountSettings, router: &Router<'_>) -> SeenAccount {
    let readings = weighed.readings().iter();
    let mut windows: Vec<_> = readings.map(|reading| WindowView::of(&reading.window, reading.used)).collect();
    windows.sort_by_key(WindowView::rank);
    let verdict = weighed.verdict();
    let id = weighed.window().map(Window::id);
    let answer = router.quota.account(weighed.id()).peek();
    SeenAccount {
        id: weighed.id().clone(),
        is_main: weighed.role() == Role::Main,
        standing: verdict.eligibility,
        rule: verdict.reason,
        window: id.and_then(|id| windows.iter().find(|window| window.id == id.as_str()).cloned()),
        unread: weighed.unread().map(ToString::to_string),
        pending: router.pending_reset(weighed),
        limit: weighed.limit(),
        until: verdict.until,
        windows,
        not_refreshed: not_refreshed(&answer),
        is_unneeded: false,
        advice: settings.login.advice(),
    }
}

/// Why nothing newer is known: what this process has met, or else what keeps everybody from asking.
fn not_refreshed(answer: &AccountUsage) -> Option<String> {
    let trouble = || answer.last_failure().map(|trouble| trouble.message.clone());
    let hold = || answer.hold().map(|hold| format!("not asked: {}", hold.reason));
    answer.error().map(why).or_else(|| match (hold(), trouble()) {
        (Some(hold), Some(trouble)) => Some(format!("{hold}, {trouble}")),
        (hold, trouble) => hold.or(trouble),
    })
}
