//! Keeps the journals while somebody watches, runs the hooks, and says what happened.
//! In a task of its own, so that a slow hook or store holds up no key.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use quota::{AccountId, Clock, Counted, Policy, QuotaStore};
use quota_journal::{JournalEvent, JournalUpdate};
use tokio::sync::{Notify, mpsc, watch};

use crate::config::Config;
use crate::journal;

/// Journals are looked at this often if nothing wakes the scribe: others may have written there.
const PAUSE: Duration = Duration::from_secs(5);
/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// So many events are shown at most.
const SHOWN: usize = 50;

/// What the scribe knows of an account.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) account: AccountId,
    /// The last events, oldest first.
    pub(super) events: Vec<JournalEvent>,
    /// When its readings stop being fresh, and it is asked about again.
    pub(super) due_at: Option<Timestamp>,
    /// What hooks failed by.
    pub(super) troubles: Vec<String>,
}

impl Written {
    /// What a look at it found.
    pub(super) fn of(account: &AccountId, looked: &JournalUpdate, policy: &Policy) -> Self {
        let last = looked.journal.events().rev().take(SHOWN).map(|(_, what)| what.clone());
        let mut events: Vec<_> = last.collect();
        events.reverse();
        let due_at = looked.record.due_at(policy.max_age, Counted::Account, policy);
        Self { account: account.clone(), events, due_at, troubles: Vec::new() }
    }
}

/// Writes down what happens to the accounts of the latest configuration, until the receiver is closed.
pub(super) async fn write_down(
    configs: watch::Receiver<Arc<Config>>,
    store: Arc<dyn QuotaStore>,
    changed: Arc<Notify>,
    writer: mpsc::Sender<Written>,
) {
    let clock = Clock::system();
    loop {
        let config = Arc::clone(&configs.borrow());
        let rules = journal::rules(&config);
        for account in &config.accounts {
            let looked = quota_journal::update(store.as_ref(), &account.id, &rules);
            // A store that does not answer is told by the accounts themselves, which grow stale.
            let Some(Ok(looked)) = clock.bounded(PATIENCE, looked).await else { continue };
            let troubles = journal::run_hooks(&config, &account.id, &looked.new, &clock).await;
            let is_shown = configs.borrow().accounts.iter().any(|shown| shown.id == account.id);
            let written = Written { troubles, ..Written::of(&account.id, &looked, &config.policy) };
            if is_shown && writer.send(written).await.is_err() {
                return;
            }
        }
        let _ = clock.bounded(PAUSE, changed.notified()).await;
    }
}
