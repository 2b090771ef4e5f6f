//! Updates the journal of each account in a store: reads it, compares it with the record, and writes the difference. `diff`
//! decides which events follow from two observations, and `hooks` runs the hooks for them.
//!
//! The first process that derives an event writes it with one compare-and-swap, and every other process finds it in the
//! journal. So exactly one process runs its hooks.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use jiff::Timestamp;
use quota_core::record::{Record, provider_cooldown};
use quota_core::store::{self, CasOutcome, DocumentBody, Start, StoreError, StoreKey, StoreRead, Version};
use quota_core::{AccountId, Clock, Policy, QuotaStore};

use crate::diff::DEFAULT_THRESHOLDS;
use crate::event::JournalEvent;
use crate::hooks::{Hook, HookError, run_hooks};
use crate::journal::Journal;

/// How long the store keeps a journal after its last write. Its oldest samples are 35 days old.
const TTL: Duration = Duration::from_secs(40 * 24 * 3600);
/// How long the store keeps a journal that was emptied.
const REMOVED_TTL: Duration = Duration::from_millis(1);
/// The timeout of the update of one account.
const ACCOUNT_TIMEOUT: Duration = Duration::from_secs(2);
/// The timeout of each store call while a journal is removed.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);
/// After this many conflicts, other processes have recorded the events.
const MAX_CAS_ATTEMPTS: u32 = 8;

/// The rules that derive events.
#[derive(Debug, Clone)]
pub struct Rules {
    thresholds: Vec<u32>,
    policy: Policy,
}

impl Rules {
    /// The rules of a manager with this policy: the default thresholds (50, 75, 90 and 100 %), and those of `hooks`.
    #[must_use]
    pub fn new(policy: Policy, hooks: &[Hook]) -> Self {
        let of_hooks = hooks.iter().flat_map(|hook| hook.thresholds.iter().copied());
        let mut thresholds: Vec<_> = DEFAULT_THRESHOLDS.into_iter().chain(of_hooks).collect();
        thresholds.sort_unstable();
        thresholds.dedup();
        Self { thresholds, policy }
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::new(Policy::default(), &[])
    }
}

/// A problem during the update of journals. The journals are still written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// The journal could not be decoded, or had an older format, and was replaced. Its past events are lost.
    #[error(
        "replaced the journal of {0}, which was damaged or of an older version; its past events are lost"
    )]
    Replaced(AccountId),
    /// The journal could not be decoded, or has an older format, and was not replaced.
    #[error("cannot read the journal of {0}, which is damaged or of an older version; it was not replaced")]
    Unreadable(AccountId),
    /// A hook failed.
    #[error(transparent)]
    Hook(#[from] HookError),
}

/// Updates the journals of all `accounts`, and runs the hooks for their new events. Call this after records may have changed.
///
/// An account whose store does not respond within two seconds is skipped, and the next update finds the same events. `secrets`
/// names the variables that are removed from the environment of a command. Dropping the future loses hooks that have not run
/// yet.
pub async fn update_and_run_hooks(
    store: &dyn QuotaStore,
    accounts: &[&AccountId],
    rules: &Rules,
    hooks: &[Hook],
    secrets: &[String],
) -> Vec<Warning> {
    let clock = Clock::system();
    let mut warnings = Vec::new();
    for account in changed(store, accounts, rules, &clock).await {
        let updated = clock.bounded(ACCOUNT_TIMEOUT, update(store, account, rules)).await;
        if let Some(Ok(JournalUpdate { new, damage, .. })) = updated {
            let is_replaced = damage.journal == Some(JournalDamage::Replaced);
            warnings.extend(is_replaced.then(|| Warning::Replaced(account.clone())));
            let failed = run_hooks(hooks, secrets, account, &new, &clock).await;
            warnings.extend(failed.into_iter().map(Warning::from));
        }
    }
    warnings
}

/// Updates the journals of all `accounts`, and passes each update to `updated` right after it is written. This is for callers
/// that run the hooks elsewhere (see [`hook_runs`](crate::hook_runs)). Call it after records may have changed.
///
/// An account whose store does not respond within two seconds is skipped, and the next update finds the same events.
pub async fn update_all(
    store: &dyn QuotaStore,
    accounts: &[&AccountId],
    rules: &Rules,
    mut updated: impl FnMut(&AccountId, JournalUpdate),
) {
    let clock = Clock::system();
    for account in changed(store, accounts, rules, &clock).await {
        if let Some(Ok(update)) = clock.bounded(ACCOUNT_TIMEOUT, update(store, account, rules)).await {
            updated(account, update);
        }
    }
}

/// The accounts whose journals an update would change. Usually there are none, which one concurrent comparison of all
/// accounts detects.
async fn changed<'a>(
    store: &dyn QuotaStore,
    accounts: &[&'a AccountId],
    rules: &Rules,
    clock: &Clock,
) -> Vec<&'a AccountId> {
    let changes =
        accounts.iter().map(|account| clock.bounded(ACCOUNT_TIMEOUT, has_changes(store, account, rules)));
    let changes = join_all(changes).await;
    let changed = accounts.iter().zip(changes).filter(|(_, changed)| matches!(changed, Some(Ok(true))));
    changed.map(|(account, _)| *account).collect()
}

/// Removes the journal of an account that was removed: its events and its history.
///
/// # Errors
///
/// Any [`StoreError`]. After an error, or if the future is dropped, the journal may or may not exist.
pub async fn remove(store: &dyn QuotaStore, account: &AccountId) -> Result<(), StoreError> {
    let key = StoreKey::account_extension(account, "journal");
    // A store has no delete operation, so an empty journal expires at once.
    let empty = |journal: &mut Undecoded, _| {
        if let Some(body) = &mut journal.0 {
            *body = Journal::default().encode();
        }
    };
    store::update(store, &key, Start::Read, REMOVED_TTL, STORE_TIMEOUT, empty).await.map(drop)
}

/// The body of a journal in any form, because damaged journals and those in a newer format are emptied too.
#[derive(Debug, Clone, Default, PartialEq)]
struct Undecoded(Option<Bytes>);

impl DocumentBody for Undecoded {
    fn decode(body: &[u8]) -> Result<Self, StoreError> {
        Ok(Self(Some(Bytes::copy_from_slice(body))))
    }

    fn encode(&self) -> Bytes {
        self.0.clone().unwrap_or_default()
    }
}

/// The documents of an account that could not be decoded or written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Damage {
    /// The record could not be decoded. Nothing is written until the record is replaced.
    pub record: bool,
    /// The problem with the journal.
    pub journal: Option<JournalDamage>,
}

/// A problem with a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum JournalDamage {
    /// It could not be decoded, or has an older format. The next write replaces it.
    Unreadable,
    /// It could not be decoded, or had an older format, and this update replaced it.
    Replaced,
    /// A newer program wrote it. This program adds nothing to it.
    Newer,
}

/// The result of [`update`].
#[derive(Debug)]
pub struct JournalUpdate {
    /// The events that this update found and recorded.
    pub new: Vec<JournalEvent>,
    /// The journal after the update.
    pub journal: Journal,
    /// The key of the account's record, which changes with its login.
    pub record_key: StoreKey,
    /// The account's record.
    pub record: Record,
    /// The documents that are damaged, and therefore empty here.
    pub damage: Damage,
    /// The time according to the store's clock.
    pub now: Timestamp,
    /// The versions of the record and of the journal.
    pub versions: (Option<Version>, Option<Version>),
}

/// Compares the record of an account with its journal, and records the new events.
///
/// The journal is read before the record. So the record is never older than the journal's last observation, and events never go
/// backwards. After a conflict both are read again.
///
/// # Errors
///
/// Any [`StoreError`] from reading. The first write replaces a journal that is damaged or of an older format. With a damaged
/// record nothing is written. If a write fails, the result contains what could be read, without new events. A swap that may
/// have been applied counts as a conflict. Its events are in the journal, but their hooks do not run, because a hook runs at
/// most once. Dropping the future has the same effect.
pub async fn update(
    store: &dyn QuotaStore,
    account: &AccountId,
    rules: &Rules,
) -> Result<JournalUpdate, StoreError> {
    let key = StoreKey::account_extension(account, "journal");
    let mut found = store.read(&key).await?;
    let mut attempts = 0;
    // Do not use `store::update`, because after a conflict the record, which is another document, must be read again
    // too.
    loop {
        attempts += 1;
        let Diff { read, record_key, record, before, after, new, mut damage } =
            compare(store, account, rules, &found).await?;
        let now = read.now;
        let result = |new, journal, version, damage| JournalUpdate {
            new,
            journal,
            record_key,
            record,
            damage,
            now,
            versions: (read.version(), version),
        };
        if after == before || attempts > MAX_CAS_ATTEMPTS {
            return Ok(result(Vec::new(), before, found.version(), damage));
        }
        match store.compare_and_swap(&key, found.version(), after.encode(), TTL).await {
            Ok(CasOutcome::Applied(version)) => {
                damage.journal = damage.journal.map(|_| JournalDamage::Replaced);
                return Ok(result(new, after, Some(version), damage));
            }
            Ok(CasOutcome::Conflict(other)) => found = other,
            // On a full or read-only disk, return the events only as part of the journal. A later update that can write reports
            // them as new.
            Ok(_) | Err(_) => return Ok(result(Vec::new(), after, found.version(), damage)),
        }
    }
}

/// Whether an update of an account would change its journal.
async fn has_changes(store: &dyn QuotaStore, account: &AccountId, rules: &Rules) -> Result<bool, StoreError> {
    let found = store.read(&StoreKey::account_extension(account, "journal")).await?;
    let diff = compare(store, account, rules, &found).await?;
    Ok(diff.after != diff.before)
}

/// The record of an account, and its journal before and after the changes to the record.
struct Diff {
    read: StoreRead,
    record_key: StoreKey,
    record: Record,
    before: Journal,
    after: Journal,
    new: Vec<JournalEvent>,
    damage: Damage,
}

async fn compare(
    store: &dyn QuotaStore,
    account: &AccountId,
    rules: &Rules,
    journal: &StoreRead,
) -> Result<Diff, StoreError> {
    let before = journal.document.as_ref().map(|found| Journal::decode(&found.body)).transpose();
    let record_key = store::find_record_key(store, account).await?;
    let read = store.read(&record_key).await?;
    let record = read.document.as_ref().map(|found| Record::decode(&found.body)).transpose();
    let is_unreadable = before.is_err();
    let before = before.unwrap_or_default().unwrap_or_default();
    let journal_damage = match (is_unreadable, before.is_writable()) {
        (true, _) => Some(JournalDamage::Unreadable),
        (false, false) => Some(JournalDamage::Newer),
        (false, true) => None,
    };
    let damage = Damage { record: record.is_err(), journal: journal_damage };
    let record = record.unwrap_or_default().unwrap_or_default();
    let cooldown = provider_cooldown(store, account.provider(), &rules.policy, read.now).await?;
    let hold = record.effective_hold(cooldown.as_ref(), read.now, &rules.policy);
    let mut after = before.clone();
    // An account that was never refreshed gets no journal.
    let is_blank = read.document.is_none() && journal.document.is_none();
    let new = if is_blank || damage.record || !before.is_writable() {
        Vec::new()
    } else {
        after.update(&record, hold.as_ref(), read.now, &rules.thresholds)
    };
    Ok(Diff { read, record_key, record, before, after, new, damage })
}

#[cfg(test)]
mod tests;
