//! The journal of each account on a store: reading it, comparing it with the record, and writing what is new.
//! Which events follow from two records is in `derive`; the hooks that run for them are in `hooks`.
//!
//! The process that finds an event first writes it by one swap, and no other process finds it new. So one process of all
//! runs the hooks for it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use jiff::Timestamp;
use quota_core::store::{DocumentBody, Start, update};
use quota_core::{
    AccountId, Clock, Policy, QuotaStore, Reading, Record, StoreError, StoreKey, Swap, Version,
    provider_cooldown,
};

use crate::book::Book;
use crate::happening::Happening;
use crate::hooks::{Hook, HookError, run_hooks};

/// The thresholds that make events where no hook names others, in hundredths of a percent.
pub(crate) const THRESHOLDS: [u32; 4] = [5_000, 7_500, 9_000, 10_000];
/// How long the store keeps a journal that is not written: as long as its samples count.
const KEEP: Duration = Duration::from_secs(40 * 24 * 3600);
/// How long the store keeps a journal that was emptied.
const FORGOTTEN: Duration = Duration::from_millis(1);
/// How long one account's journal may take altogether.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long one trip to the store may take while a journal is removed.
const TRIP_TIMEOUT: Duration = Duration::from_secs(5);
/// A process that loses more often than this is one of many, and the others write what there is.
const MOST_TRIES: u32 = 8;

/// By which rules events are found.
#[derive(Debug, Clone)]
pub struct Rules {
    thresholds: Vec<u32>,
    policy: Policy,
}

impl Rules {
    /// The rules of a manager with this policy: the usual thresholds (50, 75, 90 and 100 %), and those that `hooks` name.
    #[must_use]
    pub fn new(policy: Policy, hooks: &[Hook]) -> Self {
        let named = hooks.iter().flat_map(|hook| hook.thresholds.iter().copied());
        let mut thresholds: Vec<_> = THRESHOLDS.into_iter().chain(named).collect();
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

/// What did not work while journals were kept. The journals themselves are written all the same.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// The journal could not be decoded and was replaced; its past is lost.
    #[error("the journal of {0} was damaged, so a new one begins")]
    Replaced(AccountId),
    /// A hook failed.
    #[error(transparent)]
    Hook(#[from] HookError),
}

/// Writes what has happened to all `accounts` into their journals, and runs the hooks for it. To be called after whatever may
/// have changed a record.
///
/// A store that does not answer within two seconds is passed over: the next look finds the same. `secrets` names the environment
/// variables that a command must not get. Dropping the future loses hooks that have not run yet.
pub async fn keep(
    store: &dyn QuotaStore,
    accounts: &[&AccountId],
    rules: &Rules,
    hooks: &[Hook],
    secrets: &[String],
) -> Vec<Warning> {
    let clock = Clock::system();
    let mut warnings = Vec::new();
    // Usually nothing has happened, and all accounts are compared at once to find that.
    let news = accounts.iter().map(|account| clock.bounded(PATIENCE, has_news(store, account, rules)));
    let news = join_all(news).await;
    let with_news = accounts.iter().zip(news).filter(|(_, news)| matches!(news, Some(Ok(true))));
    for (account, _) in with_news {
        let looked = clock.bounded(PATIENCE, look(store, account, rules)).await;
        if let Some(Ok(Looked { new, damage, .. })) = looked {
            warnings.extend(damage.journal.then(|| Warning::Replaced((*account).clone())));
            let failed = run_hooks(hooks, secrets, account, &new, &clock).await;
            warnings.extend(failed.into_iter().map(Warning::from));
        }
    }
    warnings
}

/// Removes the journal of an account that was removed: what happened to it, and what was used when.
///
/// # Errors
///
/// Any [`StoreError`]; the journal may then be there or not, also after the future is dropped.
pub async fn forget(store: &dyn QuotaStore, account: &AccountId) -> Result<(), StoreError> {
    let key = StoreKey::beside(account, "journal");
    // Stores forget, and do not delete.
    let empty = |journal: &mut Undecoded, _| {
        if let Some(body) = &mut journal.0 {
            *body = Book::default().encode();
        }
    };
    update(store, &key, Start::Read, FORGOTTEN, TRIP_TIMEOUT, empty).await.map(drop)
}

/// A journal in whatever form: a damaged one and that of a newer program are emptied as well.
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

/// Which documents of an account could not be decoded, or not written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Damage {
    /// The record could not be decoded: nothing is written until it is replaced.
    pub record: bool,
    /// The journal could not be decoded, and is replaced once there is something to write.
    pub journal: bool,
    /// A newer program wrote the journal: nothing is added to it.
    pub is_journal_newer: bool,
}

/// What a look at an account found.
#[derive(Debug)]
pub struct Looked {
    /// What was found, and written down, by this look.
    pub new: Vec<Happening>,
    /// The journal as it is now.
    pub book: Book,
    /// The account's record as it is now.
    pub record: Record,
    /// What of the two is damaged, and empty here.
    pub damage: Damage,
    /// What the time is by the store's clock.
    pub now: Timestamp,
    /// The state of the record, and of the journal.
    pub versions: (Option<Version>, Option<Version>),
}

/// Looks at an account's record, and writes down in its journal what has happened.
///
/// The journal is read before the record: so the record is never older than the one that the journal has seen last, and
/// nothing is told backwards. After a lost swap both are read anew.
///
/// # Errors
///
/// Any [`StoreError`] of reading. A damaged journal is replaced by a new one once there is something to write; with a damaged record
/// nothing is written. Where nothing can be written, the answer is what can be read. A swap that may have been
/// applied counts as lost: its happenings stand in the journal, and the hooks for them do not run, since they may run at
/// most once. Dropping the future has the same effect.
pub async fn look(store: &dyn QuotaStore, account: &AccountId, rules: &Rules) -> Result<Looked, StoreError> {
    let key = StoreKey::beside(account, "journal");
    let mut found = store.read(&key).await?;
    let mut tries = 0;
    // Not `update`: a conflict must be followed by a read of the record, which is another document.
    loop {
        tries += 1;
        let Compared { read, record, before, after, new, damage } =
            compare(store, account, rules, &found).await?;
        let now = read.now;
        let looked = |new, book, journal| Looked {
            new,
            book,
            record,
            damage,
            now,
            versions: (read.version(), journal),
        };
        if after == before || tries > MOST_TRIES {
            return Ok(looked(Vec::new(), before, found.version()));
        }
        match store.swap(&key, found.version(), after.encode(), KEEP).await {
            Ok(Swap::Applied(version)) => return Ok(looked(new, after, Some(version))),
            Ok(Swap::Conflict(other)) => found = other,
            // A full or read-only disk: what was found is shown, and is new to the next who looks.
            Ok(_) | Err(_) => return Ok(looked(Vec::new(), after, found.version())),
        }
    }
}

/// Whether a look at an account would find anything new.
async fn has_news(store: &dyn QuotaStore, account: &AccountId, rules: &Rules) -> Result<bool, StoreError> {
    let found = store.read(&StoreKey::beside(account, "journal")).await?;
    let compared = compare(store, account, rules, &found).await?;
    Ok(compared.after != compared.before)
}

/// An account's record, and its journal before and after what is in it.
struct Compared {
    read: Reading,
    record: Record,
    before: Book,
    after: Book,
    new: Vec<Happening>,
    damage: Damage,
}

async fn compare(
    store: &dyn QuotaStore,
    account: &AccountId,
    rules: &Rules,
    journal: &Reading,
) -> Result<Compared, StoreError> {
    let before = journal.document.as_ref().map(|found| Book::decode(&found.body)).transpose();
    let read = store.read(&StoreKey::account(account)).await?;
    let record = read.document.as_ref().map(|found| Record::decode(&found.body)).transpose();
    let (record_damaged, journal_damaged) = (record.is_err(), before.is_err());
    let before = before.unwrap_or_default().unwrap_or_default();
    let is_journal_newer = !before.is_writable();
    let damage = Damage { record: record_damaged, journal: journal_damaged, is_journal_newer };
    let record = record.unwrap_or_default().unwrap_or_default();
    let cooldown = provider_cooldown(store, account.provider(), &rules.policy, read.now).await?;
    let hold = record.effective_hold(cooldown.as_ref(), read.now, &rules.policy);
    let mut after = before.clone();
    // An account that was never refreshed gets no journal.
    let is_blank = read.document.is_none() && journal.document.is_none();
    let new = if is_blank || damage.record || damage.is_journal_newer {
        Vec::new()
    } else {
        after.look(&record, hold.as_ref(), read.now, &rules.thresholds)
    };
    Ok(Compared { read, record, before, after, new, damage })
}

#[cfg(test)]
mod tests;
