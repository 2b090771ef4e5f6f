//! Updates the journals while the view runs, runs the hooks, and reports events to the view.
//! It is a separate task, so that a slow hook or store does not delay keys.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use quota::record::Counted;
use quota::{AccountId, Clock, Policy, QuotaStore};
use quota_journal::{JournalEvent, JournalUpdate};
use tokio::sync::{Notify, mpsc, watch};

use crate::config::Config;
use crate::hook_failures::{self, HookFailureReport};
use crate::journal;

/// The update interval if nothing wakes the task, because another process may have written to the store.
const UPDATE_INTERVAL: Duration = Duration::from_secs(5);
/// The time limit of one update.
const UPDATE_TIMEOUT: Duration = Duration::from_secs(2);
/// The maximum number of events per account in the view.
const MAX_EVENTS: usize = 50;

/// The part of an account's journal that the view shows.
#[derive(Debug)]
pub(super) struct DisplayUpdate {
    pub(super) account: AccountId,
    /// The last events, oldest first.
    pub(super) events: Vec<JournalEvent>,
    /// When the readings become stale and the next refresh is due.
    pub(super) due_at: Option<Timestamp>,
    /// All unreported failures of hooks, of any account.
    pub(super) hook_failures: Vec<HookFailureReport>,
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
    let mut unsaved = Vec::new();
    loop {
        let config = Arc::clone(&configs.borrow());
        for account in &config.accounts {
            let rules = journal::rules(&config, account.id.provider());
            let update = quota_journal::update(store.as_ref(), &account.id, &rules);
            // No message is needed if the store is unreachable, because the accounts become stale.
            let Some(Ok(update)) = clock.bounded(UPDATE_TIMEOUT, update).await else { continue };
            if let Some(problem) = journal::start_hooks(&config, &account.id, &update.new) {
                unsaved.extend(hook_failures::save(problem).await);
            }
            // Remove only failures that the user has read, so that none is lost on any exit path.
            let hook_failures = [hook_failures::unreported().await, unsaved.clone()].concat();
            let policy = config.policy_of(account.id.provider());
            let display =
                DisplayUpdate { hook_failures, ..DisplayUpdate::new(&account.id, &update, &policy) };
            if updates.send(display).await.is_err() {
                return;
            }
        }
        let _ = clock.bounded(UPDATE_INTERVAL, changed.notified()).await;
    }
}
