//! The state file: loaded before the first staleness check, saved after every refresh. Its errors are logged and fail
//! no request.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quota_core::record::Seed;
use quota_core::{AccountId, Clock};
use tokio::sync::{Notify, oneshot};

use super::Inner;
use crate::routing::Block;
use crate::state::{AccountsState, SessionAffinity, merge_sessions};
use quota_core::clock::is_from_future;
use quota_core::file::{FileError, JsonFile, LOCK_TIMEOUT};

/// The file, and when it is written.
#[derive(Debug)]
pub(super) struct StateFile {
    document: JsonFile,
    /// Serializes collecting and writing. Otherwise a slow writer could restore a block that was cleared in between.
    /// It holds the sessions as last written.
    writing: tokio::sync::Mutex<Vec<SessionAffinity>>,
    /// Whether a save is scheduled.
    is_due: Arc<AtomicBool>,
    /// Makes a scheduled save start at once.
    flush_now: Arc<Notify>,
}

impl StateFile {
    pub(super) fn at(path: PathBuf, clock: Clock) -> Self {
        Self {
            document: JsonFile::at(path, clock),
            writing: tokio::sync::Mutex::default(),
            is_due: Arc::default(),
            flush_now: Arc::default(),
        }
    }
}

/// How long a response waits for its block to be written: many times what a healthy disk needs.
const SAVE_WAIT: Duration = Duration::from_millis(250);

/// How long a save is delayed, so that one write serves many changes.
const SAVE_DELAY: Duration = Duration::from_secs(3);

/// What one account adds to the file.
struct Delta {
    at: usize,
    id: AccountId,
    known: Seed,
    blocks: Option<(Arc<[Block]>, Vec<Block>)>,
    /// Whether the file has all active blocks. While it holds another login, it takes none of this one, and they are
    /// written later.
    is_stored: bool,
}

impl Inner {
    /// Seeds the quota manager from the file. This precedes every staleness check, so a restart makes no call for
    /// fresh readings.
    pub(super) async fn seed(&self) -> Result<(), FileError> {
        let Some(state_file) = &self.state_file else { return Ok(()) };
        let state: AccountsState = state_file.document.load().await.inspect_err(|error| {
            tracing::warn!(error = %error, "could not read the state file, starting without it");
        })?;
        let now = self.now();
        for (id, kept) in &state.accounts {
            let Some(slot) = self.index_of.get(id).map(|at| &self.slots[*at]) else { continue };
            let seed = kept.seed();
            if slot.usage.seed(&seed).is_ok() {
                slot.load_blocks(&kept.blocks, now);
                *slot.last_saved.lock() = Some(Box::new(seed));
            } else {
                tracing::debug!(account = %id, "the state file has another login");
            }
        }
        let mut written = Vec::new();
        for pin in &state.sessions {
            if let Some(at) = self.index_of.get(&pin.account) {
                let used_at = if is_from_future(pin.used_at, now) { now } else { pin.used_at };
                self.sessions.set(pin.session, *at, used_at);
                // As it stands there: what was brought back is news.
                written.push(SessionAffinity::new(pin.session, pin.account.clone(), pin.used_at));
            }
        }
        self.sessions.prune(now);
        written.sort_unstable_by_key(|pin| pin.session);
        *state_file.writing.lock().await = written;
        Ok(())
    }

    /// Writes what has changed. Accounts without changes stay as the file has them.
    pub(super) async fn save(&self) -> Result<(), FileError> {
        let Some(state_file) = &self.state_file else { return Ok(()) };
        // Bounded: otherwise each of many waiters would wait as long for another process as the one before.
        let writing = self.clock.bounded(LOCK_TIMEOUT, state_file.writing.lock()).await;
        let mut written = writing.ok_or_else(|| state_file.document.locked_error())?;
        let now = self.now();
        let mut news: Vec<Delta> = self.news();
        self.sessions.prune(now);
        let pins = self.sessions_to_save();
        if news.is_empty() && pins == *written {
            return Ok(());
        }
        let brought = pins.clone();
        let (keep, most) = (self.policy.session_ttl, self.policy.max_sessions);
        let news = state_file
            .document
            .update(move |state: &mut AccountsState| {
                state.set_version();
                for Delta { id, known, blocks, is_stored, .. } in &mut news {
                    let kept = state.accounts.entry(id.clone()).or_default();
                    kept.merge(known, blocks.as_ref().map_or(&[], |(live, _)| live), now);
                    if let Some((live, removed)) = blocks {
                        kept.blocks.retain(|block| !removed.contains(block));
                        for block in live.iter() {
                            *is_stored &= kept.block(block);
                        }
                    }
                }
                state.prune_blocks(now);
                state.sessions = merge_sessions(&state.sessions, &pins, now, keep, most);
                news
            })
            .await?;
        *written = brought;
        for Delta { at, known, blocks, is_stored, .. } in news {
            let slot = &self.slots[at];
            *slot.last_saved.lock() = Some(Box::new(known));
            if let Some((live, removed)) = blocks {
                slot.blocks_written(is_stored.then_some(&live), &removed);
            }
        }
        Ok(())
    }

    /// The pins, in an order that is that of any others that are the same.
    fn sessions_to_save(&self) -> Vec<SessionAffinity> {
        let pins = self.sessions.all().into_iter();
        let pin = |(session, at, used_at): (_, usize, _)| {
            SessionAffinity::new(session, self.slots[at].id.clone(), used_at)
        };
        let mut pins: Vec<SessionAffinity> = pins.map(pin).collect();
        pins.sort_unstable_by_key(|pin| pin.session);
        pins
    }

    fn news(&self) -> Vec<Delta> {
        let news = self.slots.iter().enumerate().filter_map(|(at, slot)| {
            let known = slot.exported();
            slot.clear_foreign();
            let blocks = slot.dirty_blocks();
            let kept = slot.last_saved.lock();
            let is_news = kept.as_deref() != Some(&known) && known != Seed::default();
            (is_news || blocks.is_some()).then(|| Delta {
                at,
                id: slot.id.clone(),
                known,
                blocks,
                is_stored: true,
            })
        });
        news.collect()
    }

    /// Saves, and logs an error without failing.
    pub(super) async fn save_or_warn(&self) {
        if let Err(error) = self.save().await {
            tracing::warn!(error = %error, "could not write the state file, retrying later");
        }
    }

    /// Saves at once, and waits for that only shortly: another process that is writing must not delay a response. A
    /// longer save goes on in the background.
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

    /// Writes within a few seconds, so that busy traffic becomes one write.
    pub(super) fn schedule_save(self: &Arc<Self>) {
        let Some(state_file) = &self.state_file else { return };
        if state_file.is_due.swap(true, Ordering::AcqRel) {
            return;
        }
        // Made here, for a task may end before it begins: with its runtime.
        let due = ScheduledGuard(Arc::clone(&state_file.is_due));
        // Weak: the task must not keep the manager alive.
        let (inner, clock) = (Arc::downgrade(self), self.clock.clone());
        let flush_now = Arc::clone(&state_file.flush_now);
        self.in_background(async move {
            clock.bounded(SAVE_DELAY, flush_now.notified()).await;
            // What is new from here on may be too late for this one.
            drop(due);
            if let Some(inner) = inner.upgrade() {
                inner.save_or_warn().await;
            }
        });
    }
}

/// Marks a save as scheduled until it starts, or ends before that.
struct ScheduledGuard(Arc<AtomicBool>);

impl Drop for ScheduledGuard {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
