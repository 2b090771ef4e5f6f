//! The stream of an account's changes, and the guard that keeps its readings fresh.
//! `follower` and `background` run the tasks.

use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use super::account::Account;
use super::account_usage::AccountUsage;
use super::background;
use super::tasks::wait_until;

impl Account {
    /// Keeps the readings fresh in the background.
    ///
    /// It ends when the guard is dropped, the manager is closed, or the runtime of the manager's tasks shuts down.
    pub fn keep_fresh(&self) -> KeepFreshGuard {
        let (guard, stopped) = oneshot::channel::<()>();
        background::keep_fresh(&self.entry, &self.shared.context, async move { drop(stopped.await) });
        KeepFreshGuard { _guard: guard }
    }

    /// Returns a stream of changes to the account's usage, from now on.
    pub fn watch(&self) -> Changes {
        self.entry.watchers.fetch_add(1, Ordering::Relaxed);
        self.follow();
        Changes { generation: self.view_handle.load().generation, account: self.clone() }
    }
}

/// Keeps an account's readings fresh until it is dropped.
#[derive(Debug)]
#[must_use = "the readings are kept fresh only as long as the guard lives"]
pub struct KeepFreshGuard {
    _guard: oneshot::Sender<()>,
}

/// A stream of changes to an account's usage.
#[derive(Debug)]
pub struct Changes {
    account: Account,
    generation: u64,
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.account.entry.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Changes {
    /// Waits for the next change and returns the current usage; `None` once the manager is closed.
    ///
    /// Several changes between two calls are reported as one. Dropping the future loses no change.
    pub async fn next(&mut self) -> Option<AccountUsage> {
        let entry = &self.account.entry;
        let tasks = &self.account.shared.context.tasks;
        loop {
            // The follower may have ended with its runtime.
            self.account.follow();
            let record = entry.record();
            let is_followed = entry.view_handle.is_followed();
            let has_changed = || entry.view().generation != self.generation;
            let changed = wait_until(&record.changed, || {
                has_changed() || is_followed && !entry.view_handle.is_followed() || !entry.shows(&record)
            });
            tokio::select! {
                biased;
                () = changed => {}
                () = tasks.closing() => return None,
            }
            if has_changed() {
                let usage = self.account.peek();
                self.generation = usage.view().generation;
                return Some(usage);
            }
        }
    }
}
