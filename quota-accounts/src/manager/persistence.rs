//! Loads the state file before the first staleness check, and saves it after every refresh. Errors are logged and never
//! fail a request.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use quota_core::record::Seed;
use quota_core::{AccountId, Clock};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

use super::slot::AccountSlot;
use super::{FallbackAccountManager, Inner};
use crate::routing::Block;
use crate::state::{
    AccountsState, SessionAffinity, SessionBounds, SessionShards, bit, login_key, members, shard_of,
};
use quota_core::clock::is_from_future;
use quota_core::file::{FileError, JsonFile, LOCK_TIMEOUT};

/// The file, and the schedule of its writes.
#[derive(Debug)]
pub(super) struct StateFile {
    document: JsonFile,
    shards: SessionShards,
    /// Serializes collecting and writing. Otherwise a slow writer could restore a block that was cleared in between.
    /// The value is the sessions that an older program stored in the state file, until they are in their shards.
    writing: tokio::sync::Mutex<Vec<SessionAffinity>>,
    /// Whether a save is scheduled.
    is_due: Arc<AtomicBool>,
    /// Makes a scheduled save start immediately.
    flush_now: Arc<Notify>,
}

impl StateFile {
    pub(super) fn at(path: PathBuf, clock: Clock) -> Self {
        Self {
            shards: SessionShards::of(&path, clock.clone()),
            document: JsonFile::at(path, clock),
            writing: tokio::sync::Mutex::default(),
            is_due: Arc::default(),
            flush_now: Arc::default(),
        }
    }
}

/// How long a report waits until its block is written, which is many times longer than a healthy disk needs.
const SAVE_WAIT: Duration = Duration::from_millis(250);

/// How long a save is delayed, so that one write serves many changes.
const SAVE_DELAY: Duration = Duration::from_secs(3);

/// How many logins are checked concurrently.
pub(super) const CONCURRENT_CHECKS: usize = 64;

/// The changes of one account since the last save.
struct Delta {
    at: usize,
    id: AccountId,
    usage: Seed,
    blocks: Option<(Arc<[Block]>, Vec<Block>)>,
}

impl FallbackAccountManager {
    /// Adds the blocks and the sessions that another manager has in memory. Accounts that only it has are skipped.
    ///
    /// Call it after this manager has replaced the `previous` one, and after each report to `previous` that ends later. Otherwise what
    /// `previous` learned since this one read the state file would be lost. A repeated call changes nothing.
    pub fn take_over(&self, previous: &Self) {
        let inner = &self.inner;
        let now = inner.now();
        let at_of = |slot: &AccountSlot| inner.index_of.get(&slot.id).copied();
        let mut is_blocked = false;
        for (at, slot) in previous.inner.slots.iter().filter_map(|slot| Some((at_of(slot)?, slot))) {
            for block in slot.active_blocks().iter().filter(|block| block.is_live(now)) {
                inner.slots[at].block(block.clone(), now);
                is_blocked = true;
            }
            inner.mark_blocked(at);
        }
        for (session, at, used_at) in previous.inner.sessions.of_shards(u64::MAX) {
            if let Some(at) = at_of(&previous.inner.slots[at]) {
                inner.sessions.load(session, at, used_at);
            }
        }
        if is_blocked {
            inner.schedule_save();
        }
    }
}

impl Inner {
    /// Seeds the quota manager from the file. This precedes every staleness check, so that a restart with fresh readings makes no
    /// call.
    pub(super) async fn seed(&self) -> Result<(), FileError> {
        let Some(state_file) = &self.state_file else { return Ok(()) };
        if self.sessions.is_enabled() {
            let now = self.now();
            let (sessions, outdated) = state_file.shards.load(now, self.policy.session_ttl).await;
            self.load_sessions(&sessions, now);
            self.sessions.mark_unsaved(outdated);
        }
        let state: AccountsState = state_file.document.load().await.inspect_err(|error| {
            tracing::warn!(error = %error, "could not read the state file, starting without it");
        })?;
        if state.has_unused_logins() {
            // An account may meanwhile hold one of these logins. Then that login's readings count, not the account's
            // last ones.
            self.check_logins().await;
        }
        let now = self.now();
        for (id, stored) in &state.accounts {
            let Some(at) = self.index_of.get(id).copied() else { continue };
            let slot = &self.slots[at];
            self.load_blocks(at, &stored.blocks, now);
            let seed = stored.seed();
            if slot.usage.seed(&seed).is_ok() {
                *slot.last_saved.lock() = Some(Box::new(seed));
            } else {
                tracing::debug!(account = %id, "the state file has readings of another login");
            }
        }
        // This is set once, and a login is restored only once.
        let _ = self.stored_logins.set(Mutex::new(Arc::new(state.of_logins())));
        for at in 0..self.slots.len() {
            self.restore_login(at);
        }
        if self.sessions.is_enabled() {
            self.load_sessions(&state.sessions, now);
            *state_file.writing.lock().await = state.sessions;
        }
        self.sessions.prune(now);
        Ok(())
    }

    /// Waits until the login of each account was checked, at most for the policy's `route_timeout`.
    async fn check_logins(&self) {
        let checks = async {
            for slots in self.slots.chunks(CONCURRENT_CHECKS) {
                let accounts = slots.iter().filter(|slot| !slot.disabled).map(|slot| slot.usage.clone());
                let checks = accounts.map(|account| async move { account.record_key().await });
                checks.collect::<JoinSet<_>>().join_all().await;
            }
        };
        if self.clock.bounded(self.policy.route_timeout, checks).await.is_none() {
            tracing::debug!("the login of some accounts is not known yet");
        }
    }

    /// Restores the stored state of the login that an account holds now, if its login has changed.
    pub(super) fn restore_login(&self, at: usize) {
        let slot = &self.slots[at];
        let Some(stored) = self.stored_logins.get() else { return };
        let Some(login) = slot.new_login() else { return };
        let key = login_key(&slot.id, &login);
        // Hold the lock until the state is loaded, so that no other request decides without it.
        let mut stored = stored.lock();
        if let Some(state) = stored.get(&key) {
            self.load_blocks(at, &state.blocks, self.now());
            if slot.usage.seed(&state.seed()).is_err() {
                tracing::debug!(account = %slot.id, "the account holds another login by now");
            }
            let has_blocks = !state.blocks.is_empty();
            if has_blocks && let Some(state) = Arc::make_mut(&mut stored).get_mut(&key) {
                // Restore them only once. The account keeps its blocks, and some may be cleared before it holds the
                // login again.
                state.blocks.clear();
            }
        }
        slot.set_restored(login);
    }

    fn load_blocks(&self, at: usize, blocks: &[Block], now: Timestamp) {
        if !blocks.is_empty() {
            self.slots[at].load_blocks(blocks, now);
            self.mark_blocked(at);
        }
    }

    fn load_sessions(&self, stored: &[SessionAffinity], now: Timestamp) {
        // Insert them in the order of their last use, because a full table drops its oldest entries.
        let mut stored: Vec<_> = stored.iter().collect();
        stored.sort_unstable_by_key(|affinity| affinity.used_at);
        for affinity in stored {
            let Some(at) = self.index_of.get(&affinity.account) else { continue };
            let used_at = if is_from_future(affinity.used_at, now) { now } else { affinity.used_at };
            self.sessions.load(affinity.session, *at, used_at);
        }
    }

    /// Writes the accounts and sessions that have changed.
    pub(super) async fn save(&self) -> Result<(), FileError> {
        let Some(state_file) = &self.state_file else { return Ok(()) };
        // With a timeout: while another process holds the lock, each waiter would wait the full lock timeout after the previous one.
        let writing = self.clock.bounded(LOCK_TIMEOUT, state_file.writing.lock()).await;
        let mut to_move = writing.ok_or_else(|| state_file.document.locked_error())?;
        let now = self.now();
        let mut changes = self.changes();
        let saved = self.save_sessions(state_file, &to_move, now).await;
        // Sessions that an older program stored stay in the state file until they are in their shards.
        let moved = if saved.is_ok() { std::mem::take(&mut *to_move) } else { Vec::new() };
        if changes.is_empty() && moved.is_empty() {
            return saved;
        }
        let unchanged = self.unchanged(&changes);
        let stored_logins = self.stored_logins.get().map(|stored| Arc::clone(&stored.lock()));
        let changes = state_file
            .document
            .update(move |state: &mut AccountsState| {
                if *state == AccountsState::default() {
                    // The file is missing, so all earlier saves are lost.
                    changes.extend(unchanged);
                    if let Some(logins) = &stored_logins {
                        state.set_unused_logins(logins);
                    }
                }
                state.set_version();
                for Delta { id, usage, blocks, .. } in &changes {
                    let (active, removed) =
                        blocks.as_ref().map_or((&[][..], &[][..]), |(active, removed)| (active, removed));
                    state.merge(id, usage, active, removed, now);
                }
                state.prune(now);
                state.sessions.retain(|affinity| !moved.contains(affinity));
                changes
            })
            .await?;
        for Delta { at, usage, blocks, .. } in changes {
            let slot = &self.slots[at];
            *slot.last_saved.lock() = Some(Box::new(usage));
            if let Some((active, removed)) = blocks {
                slot.blocks_written(&active, &removed);
            }
        }
        saved
    }

    /// Writes the shards with sessions that have changed, and `to_move` into their shards.
    async fn save_sessions(
        &self,
        state_file: &StateFile,
        to_move: &[SessionAffinity],
        now: Timestamp,
    ) -> Result<(), FileError> {
        self.sessions.prune(now);
        let moved = to_move.iter().fold(0, |shards, affinity| shards | bit(shard_of(affinity.session)));
        let mut unsaved = self.sessions.take_unsaved() | moved;
        let mut by_shard: BTreeMap<u32, Vec<SessionAffinity>> =
            members(unsaved).map(|shard| (shard, Vec::new())).collect();
        let current = self.sessions.of_shards(unsaved).into_iter();
        let current = current
            .map(|(session, at, used_at)| SessionAffinity::new(session, self.slots[at].id.clone(), used_at));
        for affinity in to_move.iter().cloned().chain(current) {
            by_shard.entry(shard_of(affinity.session)).or_default().push(affinity);
        }
        let bounds = SessionBounds { ttl: self.policy.session_ttl, max_sessions: self.policy.max_sessions };
        // Right after this, a durable write removes the moved sessions from the state file.
        let shards = if to_move.is_empty() { state_file.shards.clone() } else { state_file.shards.durable() };
        let mut failed = None;
        for (shard, sessions) in by_shard {
            match shards.write(shard, sessions, now, bounds).await {
                Ok(()) => unsaved &= !bit(shard),
                Err(error) => failed = Some(error),
            }
        }
        self.sessions.mark_unsaved(unsaved);
        failed.map_or(Ok(()), Err)
    }

    /// The saved accounts that are not among these.
    fn unchanged(&self, changes: &[Delta]) -> Vec<Delta> {
        let slots = self.slots.iter().enumerate().filter(|(at, slot)| {
            slot.last_saved.lock().is_some() && changes.iter().all(|change| change.at != *at)
        });
        let unchanged = slots.map(|(at, slot)| Delta {
            at,
            id: slot.id.clone(),
            usage: slot.exported(),
            blocks: Some((slot.active_blocks(), Vec::new())),
        });
        unchanged.collect()
    }

    /// The accounts with readings or blocks that are not in the file yet.
    fn changes(&self) -> Vec<Delta> {
        let changes = self.slots.iter().enumerate().filter_map(|(at, slot)| {
            let usage = slot.exported();
            let blocks = slot.dirty_blocks();
            let has_new_usage = slot.last_saved.lock().as_deref() != Some(&usage) && usage != Seed::default();
            (has_new_usage || blocks.is_some()).then(|| Delta { at, id: slot.id.clone(), usage, blocks })
        });
        changes.collect()
    }

    /// Saves, and logs an error.
    pub(super) async fn save_or_warn(&self) {
        if let Err(error) = self.save().await {
            tracing::warn!(error = %error, "could not write the state file, the next save retries it");
        }
    }

    /// Saves now, and waits for at most [`SAVE_WAIT`], because a write by another process must not delay a response.
    /// The save continues in the background.
    pub(super) async fn save_now(self: &Arc<Self>) {
        if self.state_file.is_none() {
            return;
        }
        let inner = Arc::clone(self);
        let (done, is_done) = oneshot::channel();
        self.in_background(async move {
            inner.save_or_warn().await;
            // The waiter may have timed out.
            let _ = done.send(());
        });
        self.clock.bounded(SAVE_WAIT, is_done).await;
    }

    /// Starts a scheduled save now.
    pub(super) fn flush_now(&self) {
        if let Some(state_file) = &self.state_file {
            state_file.flush_now.notify_one();
        }
    }

    /// Saves within [`SAVE_DELAY`], so that one write serves many requests.
    pub(super) fn schedule_save(self: &Arc<Self>) {
        let Some(state_file) = &self.state_file else { return };
        if state_file.is_due.swap(true, Ordering::AcqRel) {
            return;
        }
        // Create it outside the task, because the task never starts if its runtime ends.
        let due = ScheduledGuard(Arc::clone(&state_file.is_due));
        // Use a weak reference, because the task must not keep the manager alive.
        let (inner, clock) = (Arc::downgrade(self), self.clock.clone());
        let flush_now = Arc::clone(&state_file.flush_now);
        self.in_background(async move {
            clock.bounded(SAVE_DELAY, flush_now.notified()).await;
            // Later changes may miss this save, so they schedule the next one.
            drop(due);
            if let Some(inner) = inner.upgrade() {
                inner.save_or_warn().await;
            }
        });
    }
}

/// Marks a save as scheduled until it starts or its task is dropped.
struct ScheduledGuard(Arc<AtomicBool>);

impl Drop for ScheduledGuard {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
