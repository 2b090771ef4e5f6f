//! A state of the model: the store, the hosts, and the history that the checker needs.

use crate::pool::Id;
use crate::rules::{EMPTY, Ms, Outcome, Work};

/// The largest number of hosts.
pub(crate) const MAX_HOSTS: usize = 3;

/// The number of accounts. Both belong to one provider.
pub(crate) const ACCOUNTS: usize = 2;

/// The whole system at one point in time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// The store's time.
    pub(crate) now: Ms,
    /// The records in the store; [`EMPTY`] if there is no document. The number of a record is its version.
    pub(crate) store: [Id; ACCOUNTS],
    /// The records before the last write, which a failover brings back.
    pub(crate) previous: [Id; ACCOUNTS],
    /// The cooldown in the store.
    pub(crate) cooldown: Id,
    /// Whether the store responds to no host.
    pub(crate) is_down: bool,
    pub(crate) hosts: [Host; MAX_HOSTS],
    /// The number of faults that may still occur.
    pub(crate) faults_left: u8,
    pub(crate) past: Past,
    /// The property that the last step broke. The model stops there.
    pub(crate) violation: Option<Violation>,
}

/// The history that the checker needs. Hosts cannot see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Past {
    /// The calls that the provider has received, and those that it rejected with 429.
    pub(crate) calls: [u8; ACCOUNTS],
    pub(crate) rejected: [u8; ACCOUNTS],
    /// The highest fence whose readings were stored.
    pub(crate) committed: [u32; ACCOUNTS],
    /// Whether the store has lost a write.
    pub(crate) has_lost: bool,
    /// Whether the store has lost a write, and no host has written since.
    pub(crate) has_just_lost: bool,
    /// Whether a host was suspended, or a write was applied after its timeout.
    pub(crate) had_delay: bool,
    /// Whether a host has changed its copy without the store.
    pub(crate) was_standalone: bool,
}

/// A long-lived process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Host {
    /// Its copy of the record.
    pub(crate) base: Id,
    pub(crate) sync: Sync,
    pub(crate) step: Step,
    /// The number of its current attempt.
    pub(crate) attempt: u8,
    /// The cooldown that it knows.
    pub(crate) cooldown: Id,
    /// Whether it is suspended, like a closed laptop.
    pub(crate) is_suspended: bool,
    /// A write that timed out, and that the store may still apply.
    pub(crate) late: Option<Swap>,
    /// The hold in the last record that the store returned: its start and its end.
    pub(crate) reported_hold: Option<(Ms, Ms)>,
    /// The end of the last cooldown that the store returned.
    pub(crate) reported_cooldown: Ms,
}

impl Host {
    /// A process that has just started, and whose next attempt has this number.
    pub(crate) fn started(attempt: u8) -> Self {
        Self {
            base: EMPTY,
            sync: Sync::Unsynced,
            step: Step::Idle,
            attempt,
            cooldown: EMPTY,
            is_suspended: false,
            late: None,
            reported_hold: None,
            reported_cooldown: 0,
        }
    }
}

/// How a host's copy relates to the store's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Sync {
    /// The host has not read the record.
    Unsynced,
    /// The copy is a record that the store had.
    Synced,
    /// The copy has changes that the store does not have.
    Standalone,
}

/// The current activity of a host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Idle,
    /// It has sent a compare-and-swap, and waits for the answer.
    Swapping(Swap),
    /// It has called the provider, and waits for the response.
    Calling {
        lease: Id,
        since: Ms,
        /// Whether the store granted the lease, and has lost nothing since, and the host was not suspended since its request.
        is_exclusive: bool,
    },
    /// It must write the provider's cooldown.
    Publishing,
}

/// A compare-and-swap of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Swap {
    pub(crate) expected: Id,
    pub(crate) next: Id,
    pub(crate) work: Work,
    pub(crate) outcome: Outcome,
    /// This process's copy that was merged into `next`.
    pub(crate) own: Option<Id>,
    /// Whether the first answer was lost.
    pub(crate) is_repeated: bool,
    /// Whether the host was not suspended since its decision.
    pub(crate) is_prompt: bool,
}

/// A step that the protocol must not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Violation {
    /// The store granted a lease while a call with an earlier one was running.
    TwoCalls,
    /// A host called although the last record that it read had a hold.
    CallUnderHold,
    /// A host called although the last cooldown that it read was in force.
    CallUnderCooldown,
    /// The provider received more calls than the budget allows.
    OverBudget,
    /// A call stored its readings after a call with a higher fence did.
    OlderFence,
    /// A write replaced readings with older ones.
    OlderReadings,
    /// A write did not raise the revision.
    OlderRevision,
    /// A repeated swap granted a second lease, or counted a failure again.
    CountedTwice,
    /// A merge lost a hold, a call or readings of the merged copy.
    LostByMerge,
}

impl Violation {
    /// The property that the step breaks.
    pub(crate) fn property(self) -> &'static str {
        match self {
            Self::TwoCalls => "at most one call per account",
            Self::CallUnderHold => "no call under a reported hold",
            Self::CallUnderCooldown => "no call under a reported cooldown",
            Self::OverBudget => "the budget limits calls",
            Self::OlderFence => "no commit of an older fence",
            Self::OlderReadings => "readings never get older",
            Self::OlderRevision => "the revision rises",
            Self::CountedTwice => "nothing counts twice",
            Self::LostByMerge => "a merge loses nothing",
        }
    }
}
