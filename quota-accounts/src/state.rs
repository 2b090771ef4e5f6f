//! The state file: readings, holds, blocks and sessions, stored from one run to the next.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use quota_core::model::LoginId;
use quota_core::record::{Hold, MergeOutcome, Record, Seed};
use quota_core::{AccountId, Snapshot};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::routing::{Block, Session};
use quota_core::clock::is_from_future;
use quota_core::file::JsonContent;

/// All that is kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct AccountsState {
    #[serde(default)]
    version: u32,
    #[serde(default)]
    pub(crate) accounts: BTreeMap<AccountId, AccountState>,
    #[serde(rename = "pins", default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) sessions: Vec<SessionAffinity>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl JsonContent for AccountsState {
    const VERSION: u32 = 1;

    fn version(&self) -> u32 {
        self.version
    }
}

/// What is kept of one account.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct AccountState {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "lineage")]
    pub(crate) login_id: Option<LoginId>,
    #[serde(default)]
    pub(crate) snapshot: Snapshot,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hold: Option<Hold>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) blocks: Vec<Block>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// A session that stays with an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionAffinity {
    pub(crate) session: Session,
    pub(crate) account: AccountId,
    /// When its last request was.
    #[serde(rename = "used_ms", with = "jiff::fmt::serde::timestamp::millisecond::required")]
    pub(crate) used_at: Timestamp,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl SessionAffinity {
    pub(crate) fn new(session: Session, account: AccountId, used_at: Timestamp) -> Self {
        Self { session, account, used_at, unknown: Map::new() }
    }
}

impl AccountState {
    /// What a manager is seeded with.
    pub(crate) fn seed(&self) -> Seed {
        Seed::new(self.snapshot.clone()).hold(self.hold.clone()).login_id(self.login_id.clone())
    }

    /// Brings back what a clock ahead of `now` has left, by the rules of a record that is seeded with it.
    fn clamp_to_now(&mut self, now: Timestamp) {
        let hold = self.hold.as_ref().map(|hold| hold.since);
        if !hold.max(self.snapshot.newest()).is_some_and(|newest| is_from_future(newest, now)) {
            return;
        }
        let mut record = Record::default();
        if record.seed(now, &self.seed()) == MergeOutcome::Merged {
            (self.snapshot, self.hold) = (record.snapshot().clone(), record.hold().cloned());
        }
    }

    /// Puts what one process has learned to what is kept: readings at their own age, and the later hold. Neither counts for
    /// longer, or before others, because it was kept by a clock ahead of `now`.
    ///
    /// Readings of two logins are never mixed. Of two logins the one stands that was read or refused later: one that was
    /// refused may never have been read. `refused` are the blocks of what was seen.
    pub(crate) fn merge(&mut self, seen: &Seed, refused: &[Block], now: Timestamp) {
        self.clamp_to_now(now);
        let differ = matches!((&self.login_id, &seen.login_id), (Some(kept), Some(seen)) if kept != seen);
        if differ {
            let seen_at = last_contact(&seen.snapshot, refused, seen.login_id.as_ref(), now);
            if seen_at < last_contact(&self.snapshot, &self.blocks, self.login_id.as_ref(), now) {
                return;
            }
            (self.snapshot, self.hold) = (Snapshot::default(), None);
            self.blocks.clear();
        }
        if seen.login_id.is_some() {
            self.login_id.clone_from(&seen.login_id);
        }
        self.snapshot.join(&seen.snapshot);
        // A call that ended after the hold began has ended the hold. A process that never saw the hold has not.
        let answered = self.snapshot.complete_at();
        self.hold.take_if(|hold| answered.is_some_and(|at| at > hold.since));
        let until = |hold: &Option<Hold>| hold.as_ref().map(|hold| hold.until);
        if until(&self.hold) < until(&seen.hold) {
            self.hold.clone_from(&seen.hold);
        }
    }

    /// Adds a block, unless it is another login's; whether it was added. Of two about the same thing the one that ends later
    /// stands.
    pub(crate) fn block(&mut self, block: &Block) -> bool {
        let is_own = !block.is_of_another(self.login_id.as_ref());
        if is_own {
            insert_or_extend(&mut self.blocks, block.clone());
        }
        is_own
    }
}

/// When a provider was last heard of a login, whether it told of use or refused a request.
fn last_contact(
    snapshot: &Snapshot,
    blocks: &[Block],
    login_id: Option<&LoginId>,
    now: Timestamp,
) -> Option<Timestamp> {
    // What a clock ahead of this one has made is no later than anything.
    let counts = |block: &&Block| {
        block.is_live(now) && !is_from_future(block.since, now) && !block.is_of_another(login_id)
    };
    let refused_at = blocks.iter().filter(counts).map(|block| block.since).max();
    snapshot.newest().max(refused_at)
}

/// Adds a block to others; of two about the same thing the one that ends later stands.
pub(crate) fn insert_or_extend(blocks: &mut Vec<Block>, block: Block) {
    match blocks.iter_mut().find(|known| known.is_about(&block)) {
        Some(known) if known.until.is_none() => known.since = known.since.max(block.since),
        Some(known) if block.until.is_none() || known.until <= block.until => *known = block,
        Some(known) => known.since = known.since.max(block.since),
        None => blocks.push(block),
    }
}

impl AccountsState {
    /// Makes it one that this program has written.
    pub(crate) fn set_version(&mut self) {
        self.version = Self::VERSION;
    }

    /// Whether anything is kept of the account.
    pub(crate) fn knows(&self, account: &AccountId) -> bool {
        self.accounts.contains_key(account) || self.sessions.iter().any(|pin| pin.account == *account)
    }

    /// Drops what is kept of these accounts.
    pub(crate) fn forget(&mut self, accounts: &[AccountId]) {
        self.set_version();
        self.accounts.retain(|account, _| !accounts.contains(account));
        self.sessions.retain(|pin| !accounts.contains(&pin.account));
    }

    /// Drops blocks that are over.
    pub(crate) fn prune_blocks(&mut self, now: Timestamp) {
        for account in self.accounts.values_mut() {
            account.blocks.retain(|block| block.is_live(now));
        }
    }
}

/// Puts two lists of pins together: the later use of each session stands, with what a newer program keeps of the session; old
/// ones go, and so do the oldest of too many.
pub(crate) fn merge_sessions(
    kept: &[SessionAffinity],
    seen: &[SessionAffinity],
    now: Timestamp,
    keep: Duration,
    most: usize,
) -> Vec<SessionAffinity> {
    let mut latest = BTreeMap::<Session, (Option<Timestamp>, &SessionAffinity)>::new();
    for pin in kept.iter().chain(seen) {
        // What a clock that was ahead has written is no later than anything.
        let used_at = Some(pin.used_at).filter(|at| !is_from_future(*at, now));
        let age = Duration::try_from(now.duration_since(pin.used_at)).unwrap_or_default();
        let is_newer = latest.get(&pin.session).is_none_or(|(known, _)| *known <= used_at);
        if is_newer && age < keep {
            latest.insert(pin.session, (used_at, pin));
        }
    }
    let known = kept.iter().filter(|pin| !pin.unknown.is_empty());
    let unknown: BTreeMap<Session, _> = known.map(|pin| (pin.session, &pin.unknown)).collect();
    let pins = latest.into_values().map(|(used_at, pin)| {
        let mut joined = SessionAffinity { used_at: used_at.unwrap_or(now), ..pin.clone() };
        if let Some(unknown) = unknown.get(&pin.session) {
            joined.unknown.clone_from(unknown);
        }
        joined
    });
    let mut pins: Vec<SessionAffinity> = pins.collect();
    if pins.len() > most {
        pins.sort_unstable_by_key(|pin| std::cmp::Reverse((pin.used_at, pin.session)));
        pins.truncate(most);
    }
    pins
}

#[cfg(test)]
mod tests;
