//! Updates the journals while the view runs, runs the hooks, and reports events to the view.
//! It is a task of its own, so that a slow hook or store delays no key.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use quota::record::Counted;
use quota::{AccountId, Clock, Policy, QuotaStore};
use quota_journal::{JournalEvent, JournalUpdate};
use tokio::sync::{Notify, mpsc, watch};

use crate::config::Config;
use crate::journal;

/// The journals are updated this often if nothing wakes the task: another process may have written to the store.
const UPDATE_INTERVAL: Duration = Duration::from_secs(5);
/// The time limit of one update.
const UPDATE_TIMEOUT: Duration = Duration::from_secs(2);
/// The view shows at most this many events of an account.
const MAX_EVENTS: usize = 50;

/// What the view shows of an account's journal.
#[derive(Debug)]
pub(super) struct DisplayUpdate {
    pub(super) account: AccountId,
    /// The last events, oldest first.
    pub(super) events: Vec<JournalEvent>,
    /// When its readings become stale, and the next refresh is due.
    pub(super) due_at: Option<Timestamp>,
    /// A line on each hook that failed or could not be started. They may be of any account.
    pub(super) hook_failures: Vec<String>,
}

impl DisplayUpdate {
    pub(super) fn new(account: &AccountId, update: &JournalUpdate, policy: &Policy) -> Self {
        let last = update.journal.events().rev().take(MAX_EVENTS).map(|(_, event)| event.clone());
        let mut events: Vec<_> = last.collect();
        events.reverse();
        let due_at = update.record.due_at(policy.max_age, Counted::Account, policy);
        Self { account: account.clone(), events, due_at, hook_failures: Vec::new() }
    }
}

/// Updates the journals of the accounts in the latest configuration, until the receiver is closed.
pub(super) async fn run(
    configs: watch::Receiver<Arc<Config>>,
    store: Arc<dyn QuotaStore>,
    changed: Arc<Notify>,
    updates: mpsc::Sender<DisplayUpdate>,
) {
    let clock = Clock::system();
    loop {
        let config = Arc::clone(&configs.borrow());
        let rules = journal::rules(&config);
        for account in &config.accounts {
            let update = quota_journal::update(store.as_ref(), &account.id, &rules);
            // The accounts themselves show that the store is unreachable, because they become stale.
            let Some(Ok(update)) = clock.bounded(UPDATE_TIMEOUT, update).await else { continue };
            let problem = journal::start_hooks(&config, &account.id, &update.new);
            let hook_failures = problem.into_iter().chain(journal::hook_failures().await).collect();
            let display =
                DisplayUpdate { hook_failures, ..DisplayUpdate::new(&account.id, &update, &config.policy) };
            if updates.send(display).await.is_err() {
                return;
            }
        }
        let _ = clock.bounded(UPDATE_INTERVAL, changed.notified()).await;
    }
}
