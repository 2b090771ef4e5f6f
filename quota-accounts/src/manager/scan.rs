//! One pass over all accounts: the choice by current readings, and which accounts to refresh first.

use std::time::Duration;

use jiff::Timestamp;
use quota_core::AccountUsage;
use quota_core::model::Window;

use super::Inner;
use super::slot::AccountSlot;
use crate::routing::Role;
use crate::routing::{Choice, Eligibility, Evaluated, Reason, Selector};
use crate::{Request, RoutingMode};

/// How many ineligible accounts a route reports.
pub(super) const MAX_REPORTED: usize = 8;
/// How many stale accounts one request waits for.
pub(super) const MAX_REFRESHES: usize = 4;
/// When to try again if there are more accounts of unknown usage. The background refresh has reached the next one by
/// then.
pub(super) const UNKNOWN_RETRY: Duration = Duration::from_secs(2);

/// The result of one pass.
pub(super) struct Scan {
    pub(super) now: Timestamp,
    pub(super) choice: Choice,
    pub(super) reason: Reason,
    /// Ineligible accounts, at most [`MAX_REPORTED`].
    pub(super) rejected: Vec<Evaluated>,
    /// Better accounts than the chosen one that are ineligible by stale readings, or the chosen one if it has none.
    pub(super) refresh_first: Vec<usize>,
    /// All accounts that are ineligible because of unknown usage and may be refreshed.
    pub(super) unknown: Vec<usize>,
    /// Better accounts that are fully reserved. Another host may have released some of it.
    pub(super) reread_reservations: Vec<usize>,
    /// Better accounts that are ineligible, and may have another credential by now.
    pub(super) recheck_credentials: Vec<usize>,
}

impl Inner {
    /// Chooses by the current readings, without waiting.
    pub(super) fn scan(
        &self,
        request: &Request,
        is_out: &impl Fn(usize) -> bool,
        asked: &[usize],
        read: &[usize],
    ) -> Scan {
        let now = self.now();
        let session_account = self.session_account(request);
        let mut selector = Selector::new(request, now, &self.policy);
        let mut places = Vec::new();
        let mut rejected = Vec::new();
        let mut stale = Vec::new();
        let mut unknown = Vec::new();
        let mut unread = Vec::new();
        let mut refused = Vec::new();
        for (at, slot) in self.slots.iter().enumerate() {
            if at % PREFETCHED == 0 && self.slots.len() > PREFETCHED {
                // Of many accounts, each would wait for memory on its own; so a few are fetched at once.
                prefetch(&self.slots[at..]);
            }
            if is_out(at) {
                places.push(at);
                continue;
            }
            let candidate = self.candidate(at, slot, session_account);
            let verdict = selector.consider(&candidate);
            if verdict.eligibility != Eligibility::Ineligible {
                if selector.is_settled() {
                    break;
                }
                continue;
            }
            if rejected.len() < MAX_REPORTED {
                rejected.push(Evaluated::of(&candidate, verdict, request, now, &self.policy));
            }
            if refused.len() < MAX_REFRESHES
                && !matches!(
                    verdict.reason,
                    Reason::Disabled | Reason::Reserved | Reason::CredentialUnavailable
                )
                && slot.should_recheck_credential(now)
                && slot.usage.has_credentials()
            {
                refused.push(at);
            }
            match verdict.reason {
                // Numbers make no account of use whose credential cannot be read.
                Reason::Disabled | Reason::CredentialUnavailable => {}
                Reason::Reserved if self.reservations.is_none() || read.contains(&at) => {}
                Reason::Reserved => unread.push(at),
                _ if (stale.len() < MAX_REFRESHES || verdict.is_unknown())
                    && !asked.contains(&at)
                    && candidate.is_stale_for(request.model())
                    && !slot.is_held() =>
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
        let choice = remap_indices(choice, &places);
        let reason = selector.reason();
        if let Choice::Use { index: at } = choice {
            let slot = &self.slots[at];
            let is_low = selector.is_low();
            let is_better = |other: &usize| match self.policy.mode {
                // Of one that is low, any other is better, should it turn out to have room.
                _ if is_low => true,
                RoutingMode::MainFirst => *other < at,
                RoutingMode::FallbackFirst => {
                    self.slots[*other].role == Role::Fallback && (slot.role == Role::Main || *other < at)
                }
                // Its own account serves a session whatever room others have.
                RoutingMode::StickyBalanced => session_account != Some(at),
                RoutingMode::SoonestResetFirst => true,
            };
            stale.retain(is_better);
            unread.retain(is_better);
            refused.retain(is_better);
            if reason == Reason::UnknownAllowed
                && !asked.contains(&at)
                && slot.has_no_readings()
                && !slot.is_held()
            {
                stale.insert(0, at);
            }
        }
        Scan {
            now,
            choice,
            reason,
            rejected,
            refresh_first: stale,
            unknown,
            reread_reservations: unread,
            recheck_credentials: refused,
        }
    }
}

/// How many accounts are fetched from memory at once. As many answers as this a thread takes without counting references.
const PREFETCHED: usize = 8;

/// Has the memory of what is known of the first few accounts fetched, without looking at it.
///
/// All answers are taken before the first is read: taking one orders memory, and between two of them nothing is fetched at
/// once.
fn prefetch(slots: &[AccountSlot]) {
    let answers: [Option<AccountUsage>; PREFETCHED] =
        std::array::from_fn(|at| slots.get(at).map(|slot| slot.usage.peek()));
    for answer in answers.iter().flatten() {
        std::hint::black_box(answer.snapshot().windows().first().map(Window::used));
    }
}

/// Maps indices among the considered accounts to indices among all. `out` were left out, in order.
fn remap_indices(choice: Choice, out: &[usize]) -> Choice {
    let place = |at: usize| {
        let mut place = at;
        for left_out in out {
            place += usize::from(*left_out <= place);
        }
        place
    };
    match choice {
        Choice::Use { index } => Choice::Use { index: place(index) },
        Choice::Wait { index, until } => Choice::Wait { index: place(index), until },
        no_account => no_account,
    }
}
