//! The state file: readings, holds and blocks that survive restarts. `shards` stores the sessions.

mod shards;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use quota_core::model::LoginId;
use quota_core::record::{Hold, MergeOutcome, Record, Seed};
use quota_core::store::StoreKey;
use quota_core::{AccountId, Snapshot};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(crate) use self::shards::{SessionBounds, SessionShards, bit, members, shard_of};
use crate::routing::{Block, Session};
use quota_core::clock::is_from_future;
use quota_core::file::JsonContent;

/// The content of the file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct AccountsState {
    #[serde(default)]
    version: u32,
    #[serde(default)]
    pub(crate) accounts: BTreeMap<AccountId, AccountState>,
    /// The states of logins that no account holds anymore, by the keys of their records. They count again once an
    /// account holds the login.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    logins: BTreeMap<String, AccountState>,
    /// Sessions that an older program stored here. A newer one moves them to their shards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) sessions: Vec<SessionAffinity>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl JsonContent for AccountsState {
    const VERSION: u32 = 2;

    fn version(&self) -> u32 {
        self.version
    }

    /// A file with an older version starts over, because no release wrote one.
    fn parse(text: &[u8]) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Envelope {
            #[serde(default)]
            version: u32,
            #[serde(flatten)]
            _fields: IgnoredAny,
        }
        match serde_json::from_slice(text)? {
            Envelope { version, .. } if version < Self::VERSION => Ok(Self::default()),
            Envelope { .. } => serde_json::from_slice(text),
        }
    }
}

/// The state of one account.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct AccountState {
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
    /// The time of its last request.
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
    /// The readings and the hold, for the quota manager.
    pub(crate) fn seed(&self) -> Seed {
        Seed::new(self.snapshot.clone()).hold(self.hold.clone()).login_id(self.login_id.clone())
    }

    /// Corrects timestamps from a clock ahead of `now`, by the rules that a record applies to a seed.
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

    /// Merges the readings and the hold of a process. Each reading keeps its time, and the later hold wins. Timestamps from a
    /// clock ahead of `now` get no advantage.
    ///
    /// Readings of two logins are never mixed. The login with the later contact wins, and the state of the other one is returned. A
    /// contact is a reading or one of `blocks`, because a rejected login may have no readings. `blocks` belong to `other`.
    pub(crate) fn merge(&mut self, other: &Seed, blocks: &[Block], now: Timestamp) -> Option<Self> {
        self.clamp_to_now(now);
        let differ = matches!((&self.login_id, &other.login_id), (Some(own), Some(other)) if own != other);
        let mut displaced = None;
        if differ {
            let contact = last_contact(&other.snapshot, blocks, other.login_id.as_ref(), now);
            if contact < last_contact(&self.snapshot, &self.blocks, self.login_id.as_ref(), now) {
                let (snapshot, hold) = (other.snapshot.clone(), other.hold.clone());
                return Some(Self { login_id: other.login_id.clone(), snapshot, hold, ..Self::default() });
            }
            let unknown = std::mem::take(&mut self.unknown);
            displaced = Some(std::mem::replace(self, Self { unknown, ..Self::default() }));
        }
        if other.login_id.is_some() {
            self.login_id.clone_from(&other.login_id);
        }
        self.snapshot.join(&other.snapshot);
        // Only a successful call after the start of the hold ends it, not a process that lacks the hold.
        let complete_at = self.snapshot.complete_at();
        self.hold.take_if(|hold| complete_at.is_some_and(|at| at > hold.since));
        let until = |hold: &Option<Hold>| hold.as_ref().map(|hold| hold.until);
        if until(&self.hold) < until(&other.hold) {
            self.hold.clone_from(&other.hold);
        }
        displaced
    }

    /// Adds the state that the same login had earlier.
    fn absorb(&mut self, earlier: &Self, now: Timestamp) {
        let _ = self.merge(&earlier.seed(), &[], now);
        for block in &earlier.blocks {
            self.block(block);
        }
    }

    /// The last relevant time in the state; `None` if there is none.
    fn last_time(&self) -> Option<Timestamp> {
        let held = self.hold.as_ref().map(|hold| hold.until);
        let blocked = self.blocks.iter().map(|block| block.until.unwrap_or(block.since)).max();
        self.snapshot.newest().max(held).max(blocked)
    }

    /// Adds a block, or extends an equal one. Returns whether it belongs to this login; otherwise nothing changes.
    pub(crate) fn block(&mut self, block: &Block) -> bool {
        let is_own = !block.is_of_another(self.login_id.as_ref());
        if is_own {
            insert_or_extend(&mut self.blocks, block.clone());
        }
        is_own
    }
}

/// The last time the provider reported usage of a login or rejected one of its requests.
fn last_contact(
    snapshot: &Snapshot,
    blocks: &[Block],
    login_id: Option<&LoginId>,
    now: Timestamp,
) -> Option<Timestamp> {
    // A block from a clock ahead of `now` does not count as the latest.
    let counts = |block: &&Block| {
        block.is_live(now) && !is_from_future(block.since, now) && !block.is_of_another(login_id)
    };
    let rejected_at = blocks.iter().filter(counts).map(|block| block.since).max();
    snapshot.newest().max(rejected_at)
}

/// Adds a block. Of two blocks of the same kind, model, window and login, the later end wins.
pub(crate) fn insert_or_extend(blocks: &mut Vec<Block>, block: Block) {
    match blocks.iter_mut().find(|other| other.is_about(&block)) {
        Some(other) if other.until.is_some() && (block.until.is_none() || other.until <= block.until) => {
            *other = block;
        }
        Some(other) => other.since = other.since.max(block.since),
        None => blocks.push(block),
    }
}

/// How long the state of a login that no account holds is kept after its last relevant time. It is longer than most
/// windows.
const UNUSED_LOGIN_TTL: Duration = Duration::from_secs(30 * 24 * 3600);

impl AccountsState {
    /// Merges a process's state of an account. The state of another login that the account has held is kept.
    ///
    /// Each block applies to its own login.
    pub(crate) fn merge(
        &mut self,
        id: &AccountId,
        usage: &Seed,
        blocks: &[Block],
        removed: &[Block],
        now: Timestamp,
    ) {
        let account = self.accounts.entry(id.clone()).or_default();
        let displaced = account.merge(usage, blocks, now);
        account.blocks.retain(|block| !removed.contains(block));
        let others: Vec<&Block> = blocks.iter().filter(|block| !account.block(block)).collect();
        if let Some(login) = account.login_id.clone()
            && let Some(earlier) = self.logins.remove(&login_key(id, &login))
        {
            account.absorb(&earlier, now);
            account.blocks.retain(|block| !removed.contains(block));
        }
        if let Some(displaced) = displaced.filter(|displaced| displaced.last_time().is_some())
            && let Some(login) = &displaced.login_id
        {
            self.state_of(id, login).absorb(&displaced, now);
        }
        for login in self.logins.values_mut() {
            login.blocks.retain(|block| !removed.contains(block));
        }
        for block in others {
            if let Some(login) = &block.login_id {
                self.state_of(id, login).block(block);
            }
        }
    }

    /// The state of a login that the account does not hold.
    fn state_of(&mut self, id: &AccountId, login: &LoginId) -> &mut AccountState {
        let state = self.logins.entry(login_key(id, login)).or_default();
        state.login_id = Some(login.clone());
        state
    }

    /// The state of each login, by the key of its record.
    pub(crate) fn of_logins(&self) -> BTreeMap<String, AccountState> {
        let mut logins = self.logins.clone();
        for (id, account) in &self.accounts {
            if let Some(login) = &account.login_id {
                let state = logins.entry(login_key(id, login)).or_default();
                state.login_id = Some(login.clone());
                state.absorb(account, Timestamp::MAX);
            }
        }
        logins
    }

    /// Sets the states of the logins. The next merge moves the state of a login that an account holds to the account.
    pub(crate) fn set_unused_logins(&mut self, logins: &BTreeMap<String, AccountState>) {
        self.logins.clone_from(logins);
    }

    /// Whether the file has logins that no account holds.
    pub(crate) fn has_unused_logins(&self) -> bool {
        !self.logins.is_empty()
    }

    /// Sets the format version of this program.
    pub(crate) fn set_version(&mut self) {
        self.version = Self::VERSION;
    }

    /// Whether the file has an entry or a session of the account.
    pub(crate) fn contains(&self, account: &AccountId) -> bool {
        self.accounts.contains_key(account) || self.sessions.iter().any(|pin| pin.account == *account)
    }

    /// Removes the entries and sessions of these accounts, and all logins of their providers that no account holds,
    /// because it is unknown which account held them.
    pub(crate) fn remove(&mut self, accounts: &[AccountId]) {
        self.set_version();
        self.accounts.retain(|account, _| !accounts.contains(account));
        let of_provider = |key: &str, id: &AccountId| {
            key.strip_prefix(id.provider().as_str()).is_some_and(|rest| rest.starts_with('#'))
        };
        self.logins.retain(|key, _| !accounts.iter().any(|id| of_provider(key, id)));
        self.sessions.retain(|pin| !accounts.contains(&pin.account));
    }

    /// Removes expired blocks, and logins that have not been used for long.
    pub(crate) fn prune(&mut self, now: Timestamp) {
        for account in self.accounts.values_mut().chain(self.logins.values_mut()) {
            account.blocks.retain(|block| block.is_live(now));
        }
        let is_recent =
            |at: Timestamp| Duration::try_from(now.duration_since(at)).unwrap_or_default() < UNUSED_LOGIN_TTL;
        self.logins.retain(|_, login| login.last_time().is_some_and(is_recent));
    }
}

/// The key of the record of a login.
pub(crate) fn login_key(account: &AccountId, login: &LoginId) -> String {
    StoreKey::login(account.provider(), login).as_str().to_owned()
}

/// Merges the sessions of the file and of this process. The later use of a session wins, and unknown fields of the file survive.
/// Sessions that were idle for `ttl` are dropped, and so are the oldest beyond `max_sessions`.
pub(crate) fn merge_sessions(
    stored: &[SessionAffinity],
    current: &[SessionAffinity],
    now: Timestamp,
    ttl: Duration,
    max_sessions: usize,
) -> Vec<SessionAffinity> {
    let mut latest = BTreeMap::<Session, (Option<Timestamp>, &SessionAffinity)>::new();
    for affinity in stored.iter().chain(current) {
        // A last use in the future counts as older than any other.
        let used_at = Some(affinity.used_at).filter(|at| !is_from_future(*at, now));
        let age = Duration::try_from(now.duration_since(affinity.used_at)).unwrap_or_default();
        let is_newer = latest.get(&affinity.session).is_none_or(|(other, _)| *other <= used_at);
        if is_newer && age < ttl {
            latest.insert(affinity.session, (used_at, affinity));
        }
    }
    let with_unknown = stored.iter().filter(|affinity| !affinity.unknown.is_empty());
    let unknown: BTreeMap<Session, _> =
        with_unknown.map(|affinity| (affinity.session, &affinity.unknown)).collect();
    let merged = latest.into_values().map(|(used_at, affinity)| {
        let mut merged = SessionAffinity { used_at: used_at.unwrap_or(now), ..affinity.clone() };
        if let Some(unknown) = unknown.get(&affinity.session) {
            merged.unknown.clone_from(unknown);
        }
        merged
    });
    let mut merged: Vec<SessionAffinity> = merged.collect();
    if merged.len() > max_sessions {
        merged.sort_unstable_by_key(|affinity| std::cmp::Reverse((affinity.used_at, affinity.session)));
        merged.truncate(max_sessions);
    }
    merged
}

#[cfg(test)]
mod tests;
