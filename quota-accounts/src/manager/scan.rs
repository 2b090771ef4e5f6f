//! One pass over all accounts: the choice by current readings, and the accounts to refresh before it.

use std::time::Duration;

use jiff::Timestamp;
use quota_core::AccountUsage;
use quota_core::model::{LoginId, Window};

use super::Inner;
use super::slot::AccountSlot;
use crate::routing::{Candidate, Choice, Eligibility, Evaluated, Reason, Role, Selector, Verdict};
use crate::{Request, RoutingMode};

/// How many ineligible accounts a route reports.
pub(super) const MAX_REPORTED: usize = 8;
/// How many stale accounts one request waits for.
pub(super) const MAX_REFRESHES: usize = 4;
/// The wait if more accounts have unknown usage. By its end, the background refresh has reached the next account.
pub(super) const UNKNOWN_RETRY: Duration = Duration::from_secs(2);

/// The data on which a choice is based.
#[derive(Debug, Clone)]
pub(super) struct ChosenBy {
    pub(super) at: Timestamp,
    /// The login that it held.
    pub(super) login_id: Option<LoginId>,
}

/// The result of one pass.
pub(super) struct Scan {
    pub(super) now: Timestamp,
    pub(super) choice: Choice,
    pub(super) reason: Reason,
    /// The login of the chosen account.
    login_id: Option<LoginId>,
    /// The ineligible accounts, at most [`MAX_REPORTED`].
    pub(super) rejected: Vec<Evaluated>,
    /// The accounts that are better than the chosen one but ineligible because of stale readings. If the chosen account
    /// has no readings, it comes first.
    pub(super) refresh_first: Vec<usize>,
    /// All accounts that are ineligible because of unknown usage, and may be refreshed.
    pub(super) unknown: Vec<usize>,
    /// The better accounts that are fully reserved. Another host may have released a reservation.
    pub(super) reread_reservations: Vec<usize>,
    /// The better accounts that are ineligible but may have a new credential.
    pub(super) recheck_credentials: Vec<usize>,
}

impl Scan {
    pub(super) fn chosen_by(&self) -> ChosenBy {
        ChosenBy { at: self.now, login_id: self.login_id.clone() }
    }
}

impl Inner {
    /// Chooses by the current readings, without waiting. It omits the accounts in `without`, and those that turned out
    /// to be `unusable`.
    pub(super) fn scan(
        &self,
        request: &Request,
        without: &[usize],
        unusable: &[(usize, Verdict)],
        refreshed: &[usize],
        read: &[usize],
    ) -> Scan {
        let now = self.now();
        let session_account = self.session_account(request);
        let mut selector = Selector::new(request, now, &self.policy);
        let verdict_of = |at| unusable.iter().find(|(out, _)| *out == at).map(|(_, verdict)| *verdict);
        let is_out = |at| without.contains(&at) || verdict_of(at).is_some();
        let mut left_out = Vec::new();
        let mut rejected = Vec::new();
        let mut stale = Vec::new();
        let mut unknown = Vec::new();
        let mut reserved = Vec::new();
        let mut recheck = Vec::new();
        let mut prefetched: [Option<AccountUsage>; PREFETCHED] = Default::default();
        for (at, slot) in self.slots.iter().enumerate() {
            if at % PREFETCHED == 0 && self.slots.len() > PREFETCHED {
                // Overlap the cache misses of several accounts. Otherwise each account waits for its own.
                prefetched = prefetch(&self.slots[at..]);
            }
            if is_out(at) {
                left_out.push(at);
                selector.leave_out(&self.candidate(at, slot, session_account), verdict_of(at));
                continue;
            }
            let usage = prefetched[at % PREFETCHED].take().unwrap_or_else(|| slot.usage.peek());
            let usage = self.with_restored_login(at, usage);
            let mut candidate = Candidate::from_usage(&slot.id, slot.role, usage);
            self.complete(&mut candidate, at, session_account);
            let verdict = selector.consider(&candidate);
            if verdict.eligibility != Eligibility::Ineligible {
                if selector.is_settled() {
                    break;
                }
                continue;
            }
            if rejected.len() < MAX_REPORTED {
                rejected.push(selector.evaluated(&candidate, verdict));
            }
            // Use the usage that was read above. While all fast slots of a thread are in use, another `peek` is slow.
            if recheck.len() < MAX_REFRESHES
                && slot.should_recheck_credential_after(verdict.reason, candidate.login_id(), now)
            {
                recheck.push(at);
            }
            match verdict.reason {
                // A refresh does not make these accounts available.
                Reason::Disabled | Reason::SameLogin | Reason::CredentialUnavailable => {}
                Reason::Reserved if self.reservations.is_none() || read.contains(&at) => {}
                Reason::Reserved => reserved.push(at),
                _ if (stale.len() < MAX_REFRESHES || verdict.is_unknown())
                    && !refreshed.contains(&at)
                    && candidate.is_stale_for(request.model())
                    && !slot.is_refused() =>
                {
                    if stale.len() < MAX_REFRESHES {
                        stale.push(at);
                    }
                    if verdict.is_unknown() {
                        unknown.push(at);
                    }
                }
                _ => {}
            }
        }
        let again = || self.slots.iter().enumerate().filter(|(at, _)| !is_out(*at));
        let choice = selector.choice(|| again().map(|(at, slot)| self.candidate(at, slot, session_account)));
        let choice = remap_indices(choice, &left_out);
        let reason = selector.reason();
        if let Choice::Use { index: at } = choice {
            let slot = &self.slots[at];
            let is_low = selector.is_low();
            let is_better = |other: &usize| match self.policy.mode {
                // Any account above its minimum is better than one below.
                _ if is_low => true,
                RoutingMode::MainFirst => *other < at,
                RoutingMode::FallbackFirst => {
                    self.slots[*other].role == Role::Fallback && (slot.role == Role::Main || *other < at)
                }
                // A session prefers its own account to any other.
                RoutingMode::StickyBalanced => {
                    session_account.is_none_or(|own| own != at && !self.have_one_login(own, at))
                }
                RoutingMode::SoonestResetFirst => true,
            };
            stale.retain(is_better);
            reserved.retain(is_better);
            recheck.retain(is_better);
            if reason == Reason::UnknownAllowed
                && !refreshed.contains(&at)
                && slot.has_no_readings()
                && !slot.is_refused()
            {
                stale.insert(0, at);
            }
        }
        // Use the login of these readings, because the account may hold another login now.
        let login_id = selector.login_id().filter(|_| matches!(choice, Choice::Use { .. })).cloned();
        Scan {
            now,
            choice,
            reason,
            login_id,
            rejected,
            refresh_first: stale,
            unknown,
            reread_reservations: reserved,
            recheck_credentials: recheck,
        }
    }
}

/// How many accounts are prefetched at a time. A thread can read this many usages without reference counting.
const PREFETCHED: usize = 8;

/// Reads the usages of the first few accounts, and loads them into the CPU cache.
///
/// It peeks at all usages before it reads the first one. Memory accesses between two peeks cannot overlap, because
/// `peek` orders them.
fn prefetch(slots: &[AccountSlot]) -> [Option<AccountUsage>; PREFETCHED] {
    let usages: [Option<AccountUsage>; PREFETCHED] =
        std::array::from_fn(|at| slots.get(at).map(|slot| slot.usage.peek()));
    for usage in usages.iter().flatten() {
        std::hint::black_box(usage.snapshot().windows().first().map(Window::used));
        // These are in other cache lines of the record.
        std::hint::black_box((usage.login_id().is_some(), usage.last_failure().is_some()));
    }
    usages
}

/// Maps indices among the considered accounts to indices among all. `left_out` has the other accounts, in order.
fn remap_indices(choice: Choice, left_out: &[usize]) -> Choice {
    let remap = |mut index: usize| {
        for out in left_out {
            index += usize::from(*out <= index);
        }
        index
    };
    match choice {
        Choice::Use { index } => Choice::Use { index: remap(index) },
        Choice::Wait { index, until } => Choice::Wait { index: remap(index), until },
        no_account => no_account,
    }
}
