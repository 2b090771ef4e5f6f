//! One look at all accounts: the choice on what is known at this moment, and what is worth knowing better first.
//! Nothing here waits; what is done about it is in `route`.

use std::time::Duration;

use jiff::Timestamp;
use quota_core::{AccountUsage, Window};

use super::Inner;
use super::member::Member;
use crate::routing::{Choice, Rule, Scale, Standing, Verdict};
use crate::{Mode, Request, Role};

/// How many refused accounts a route tells of.
pub(super) const MOST_PASSED: usize = 8;
/// How many stale accounts one request waits for.
pub(super) const MOST_RECHECKS: usize = 4;
/// When to come back if there are more of which nothing is known: by then the next has been asked about, and whoever comes back
/// waits for the others.
pub(super) const NEXT_IS_KNOWN_IN: Duration = Duration::from_secs(2);

/// What one look at all accounts found.
pub(super) struct Look {
    pub(super) now: Timestamp,
    pub(super) choice: Choice,
    pub(super) rule: Rule,
    pub(super) passed: Vec<(usize, Verdict)>,
    /// Better accounts than the chosen one that are refused by stale numbers, or the chosen one if nothing is known of it.
    pub(super) worth_asking: Vec<usize>,
    /// All that are refused because something is not known of them, and that may be asked about.
    pub(super) unasked: Vec<usize>,
    /// Better accounts that are full of reservations, some of which may have been given back elsewhere.
    pub(super) worth_reading: Vec<usize>,
    /// Better accounts that are refused, and whose credential may be another's by now.
    pub(super) worth_a_look: Vec<usize>,
}

impl Inner {
    /// Chooses on the numbers of this moment, without waiting for anything.
    pub(super) fn look(
        &self,
        request: &Request,
        is_out: &impl Fn(usize) -> bool,
        asked: &[usize],
        read: &[usize],
    ) -> Look {
        let now = self.now();
        let pinned = self.pinned(request);
        let mut scale = Scale::new(request, now, &self.policy);
        let mut places = Vec::new();
        let mut passed = Vec::new();
        let mut stale = Vec::new();
        let mut unasked = Vec::new();
        let mut unread = Vec::new();
        let mut refused = Vec::new();
        for (at, member) in self.members.iter().enumerate() {
            if at % TOUCHED == 0 && self.members.len() > TOUCHED {
                // Of many accounts, each would wait for memory on its own; so a few are fetched at once.
                touch(&self.members[at..]);
            }
            if is_out(at) {
                places.push(at);
                continue;
            }
            let candidate = self.candidate(at, member, pinned);
            let verdict = scale.weigh(&candidate);
            if verdict.standing != Standing::Refused {
                if scale.is_settled() {
                    break;
                }
                continue;
            }
            if passed.len() < MOST_PASSED {
                passed.push((at, verdict));
            }
            let may_look = self.credentials.is_some() && refused.len() < MOST_RECHECKS;
            if may_look
                && !matches!(verdict.rule, Rule::Disabled | Rule::Reserved | Rule::NotReadable)
                && member.is_worth_a_look(now)
            {
                refused.push(at);
            }
            match verdict.rule {
                // Numbers make no account of use whose credential cannot be read.
                Rule::Disabled | Rule::NotReadable => {}
                Rule::Reserved if self.reservations.is_none() || read.contains(&at) => {}
                Rule::Reserved => unread.push(at),
                _ if (stale.len() < MOST_RECHECKS || verdict.is_unknown())
                    && !asked.contains(&at)
                    && candidate.is_stale_for(request.model_name())
                    && !member.is_held() =>
                {
                    if stale.len() < MOST_RECHECKS {
                        stale.push(at);
                    }
                    if verdict.is_unknown() {
                        unasked.push(at);
                    }
                }
                _ => {}
            }
        }
        let again = || self.members.iter().enumerate().filter(|(at, _)| !is_out(*at));
        let choice = scale.choice(|| again().map(|(at, member)| self.candidate(at, member, pinned)));
        let choice = in_places(choice, &places);
        let rule = scale.rule();
        if let Choice::Take { at } = choice {
            let member = &self.members[at];
            let is_low = scale.is_low();
            let is_better = |other: &usize| match self.policy.mode {
                // Of one that is low, any other is better, should it turn out to have room.
                _ if is_low => true,
                Mode::MainFirst => *other < at,
                Mode::FallbackFirst => {
                    self.members[*other].role == Role::Fallback && (member.role == Role::Main || *other < at)
                }
                // Its own account serves a session whatever room others have.
                Mode::StickyBalanced => pinned != Some(at),
                Mode::SoonestResetFirst => true,
            };
            stale.retain(is_better);
            unread.retain(is_better);
            refused.retain(is_better);
            if rule == Rule::NotKnown && !asked.contains(&at) && member.is_unread() && !member.is_held() {
                stale.insert(0, at);
            }
        }
        Look {
            now,
            choice,
            rule,
            passed,
            worth_asking: stale,
            unasked,
            worth_reading: unread,
            worth_a_look: refused,
        }
    }
}

/// How many accounts are fetched from memory at once. As many answers as this a thread takes without counting references.
const TOUCHED: usize = 8;

/// Has the memory of what is known of the first few accounts fetched, without looking at it.
///
/// All answers are taken before the first is read: taking one orders memory, and between two of them nothing is fetched at
/// once.
fn touch(members: &[Member]) {
    let answers: [Option<AccountUsage>; TOUCHED] =
        std::array::from_fn(|at| members.get(at).map(|member| member.usage.peek()));
    for answer in answers.iter().flatten() {
        std::hint::black_box(answer.snapshot().windows().first().map(Window::used));
    }
}

/// From places among those that were weighed to places among all: `out` were left out, in order.
fn in_places(choice: Choice, out: &[usize]) -> Choice {
    let place = |at: usize| {
        let mut place = at;
        for left_out in out {
            place += usize::from(*left_out <= place);
        }
        place
    };
    match choice {
        Choice::Take { at } => Choice::Take { at: place(at) },
        Choice::Wait { at, until } => Choice::Wait { at: place(at), until },
        nobody => nobody,
    }
}
