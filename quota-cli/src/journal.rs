//! The journal of every account: what happened to it and what was used when, shared beside its record.
//! How happenings follow from records is in `derive`; what is done about them in `hooks`.
//!
//! Whoever finds a happening first writes it down, by one swap; nobody else finds it new. So it is one process of all that
//! runs the hooks for it.

mod book;
mod derive;
mod happening;
mod history;
mod moment;
mod sight;
mod span;

use std::time::Duration;

use quota::{
    AccountId, Applied, Clock, Policy, QuotaStore, Reading, Record, StoreError, StoreKey, Swap, Version,
};

pub(crate) use self::book::Book;
pub(crate) use self::derive::WAVER_BP;
pub(crate) use self::happening::{Direction, Happening, What};
pub(crate) use self::history::Sample;
use crate::config::Config;
use crate::{hold, hooks, runtime, term};

/// The thresholds that are told of where no hook names others, in hundredths of a percent.
pub(crate) const THRESHOLDS: [u32; 4] = [5_000, 7_500, 9_000, 10_000];
/// How long the store keeps a journal that nobody writes: as long as its samples count.
const KEEP: Duration = Duration::from_secs(40 * 24 * 3600);
/// How long the store keeps a journal that was emptied.
const FORGOTTEN: Duration = Duration::from_millis(1);
/// How long one account's journal may take altogether.
const PATIENCE: Duration = Duration::from_secs(2);
/// Whoever loses more often than this is one of many, and the others write down what there is.
const MOST_TRIES: u32 = 8;

/// By which rules happenings are found.
#[derive(Debug)]
pub(crate) struct Rules {
    /// The thresholds that make events, in hundredths of a percent.
    pub(crate) thresholds: Vec<u32>,
    pub(crate) policy: Policy,
}

impl Rules {
    pub(crate) fn of(config: &Config) -> Self {
        Self { thresholds: config.thresholds(), policy: config.policy.clone() }
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self { thresholds: THRESHOLDS.to_vec(), policy: Policy::default() }
    }
}

/// Writes down what has happened to all accounts, and runs the hooks for it. To be called after whatever may have
/// changed a record; a store that does not answer is passed over, for the next to look finds the same.
///
/// Gives a line on every hook that failed. Dropping the future loses hooks that have not run yet.
pub(crate) async fn keep(config: &Config, store: &dyn QuotaStore) -> Vec<String> {
    let clock = Clock::system();
    let rules = Rules::of(config);
    let mut troubles = Vec::new();
    // Mostly nothing has happened, and that is found out of all of them at once.
    let news =
        config.accounts.iter().map(|account| clock.bounded(PATIENCE, has_news(store, &account.id, &rules)));
    let news = runtime::together(news).await;
    let with_news = config.accounts.iter().zip(news).filter(|(_, news)| matches!(news, Some(Ok(true))));
    for (account, _) in with_news {
        let looked = clock.bounded(PATIENCE, look(store, &account.id, &rules)).await;
        if let Some(Ok(Looked { new, damage, .. })) = looked {
            troubles.extend(damage.journal_line(&account.id));
            troubles.extend(
                hooks::run(&config.hooks, &config.token_variables(), &account.id, &new, &clock).await,
            );
        }
    }
    troubles
}

/// The same for a command with somebody to tell which hooks failed.
pub(crate) async fn tell(config: &Config, store: &dyn QuotaStore) {
    for trouble in keep(config, store).await {
        term::tell(&format!("quota: {trouble}\n"));
    }
}

/// Removes the journal of an account that was removed: what happened to it, and what was used when.
///
/// # Errors
///
/// Any [`StoreError`]; the journal may then be there or not.
pub(crate) async fn forget(store: &dyn QuotaStore, account: &AccountId) -> Result<(), StoreError> {
    let key = StoreKey::beside(account, "journal");
    let mut found = store.read(&key).await?;
    for _ in 0..MOST_TRIES {
        if found.document.is_none() {
            return Ok(());
        }
        // Stores forget, and do not delete.
        match store.swap(&key, found.version(), Book::default().encode(), FORGOTTEN).await? {
            Swap::Conflict(other) => found = other,
            _ => return Ok(()),
        }
    }
    Err(StoreError::unavailable(Applied::No, "too many others write the journal at once"))
}

/// Which documents of an account could not be decoded, or not written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) record: bool,
    pub(crate) journal: bool,
    pub(crate) is_journal_newer: bool,
}

impl Damage {
    /// What people read of each of them.
    pub(crate) fn lines(self, account: &AccountId) -> Vec<String> {
        let record = self.record.then(|| {
            format!("the record of {account} is damaged; replace it: quota accounts clear-hold {account}")
        });
        let newer = self.is_journal_newer.then(|| {
            format!("the journal of {account} was written by a newer quota, so nothing is added to it; update quota")
        });
        [record, self.journal_line(account), newer].into_iter().flatten().collect()
    }

    fn journal_line(self, account: &AccountId) -> Option<String> {
        self.journal.then(|| format!("the journal of {account} was damaged, so a new one begins"))
    }
}

/// What a look at an account found.
#[derive(Debug)]
pub(crate) struct Looked {
    /// What was found, and written down, by this look.
    pub(crate) new: Vec<Happening>,
    /// The journal as it is now.
    pub(crate) book: Book,
    /// The account's record as it is now.
    pub(crate) record: Record,
    /// What of the two is damaged, and empty here.
    pub(crate) damage: Damage,
    /// What the time is by the store's clock.
    pub(crate) now: jiff::Timestamp,
    /// The state of the record, and of the journal.
    pub(crate) versions: (Option<Version>, Option<Version>),
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
/// most once.
pub(crate) async fn look(
    store: &dyn QuotaStore,
    account: &AccountId,
    rules: &Rules,
) -> Result<Looked, StoreError> {
    let key = StoreKey::beside(account, "journal");
    let mut found = store.read(&key).await?;
    let mut tries = 0;
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
    let cooldown = hold::cooldown(store, &rules.policy, account.provider(), read.now).await?;
    let hold = hold::of(&record, cooldown.as_ref(), read.now, &rules.policy);
    let mut after = before.clone();
    // Nothing is written of an account that nobody has asked about.
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
