//! What is kept from one run to the next: read and given to the numbers first, written back after every refresh.
//! Trouble with it is told and fails nothing that was served already.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quota_core::{AccountId, Clock, Seed};
use tokio::sync::{Notify, oneshot};

use super::Inner;
use crate::routing::Block;
use crate::state::{AccountsState, SessionAffinity, merge_sessions};
use quota_core::file::{FileError, JsonFile, LOCK_TIMEOUT};
use quota_core::is_from_future;

/// Where it is kept.
#[derive(Debug)]
pub(super) struct StateFile {
    document: JsonFile,
    /// One after the other gathers what is new and writes it: who gathers first and writes last would bring back what was
    /// lifted between, and of many who wait all but the first find nothing new.
    /// It guards the pins as they were last written.
    writing: tokio::sync::Mutex<Vec<SessionAffinity>>,
    /// Whether somebody is about to write.
    is_due: Arc<AtomicBool>,
    /// Tells them not to wait any longer.
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

/// How long a response waits for what follows from it to be written: many times what a disk in order needs.
const SAVE_WAIT: Duration = Duration::from_millis(250);

/// How long to wait, at most, before what was seen on traffic is kept.
const SAVE_DELAY: Duration = Duration::from_secs(3);

/// What one account has to add.
struct Delta {
    at: usize,
    id: AccountId,
    known: Seed,
    blocks: Option<(Arc<[Block]>, Vec<Block>)>,
    /// Whether the file has all of those that are live by now. While another login stands there, it takes none of this one's,
    /// and they are brought again.
    is_stored: bool,
}

impl Inner {
    /// Gives what was kept to the numbers. It comes before any question of what is stale, so a restart asks nobody about
    /// what is fresh on disk.
    pub(super) async fn seed(&self) -> Result<(), FileError> {
        let Some(state_file) = &self.state_file else { return Ok(()) };
        let state: AccountsState = state_file.document.load().await.inspect_err(|error| {
            tracing::warn!(error = %error, "what was kept of accounts cannot be read, going on without");
        })?;
        let now = self.now();
        for (id, kept) in &state.accounts {
            let Some(slot) = self.index_of.get(id).map(|at| &self.slots[*at]) else { continue };
            let seed = kept.seed();
            if slot.usage.seed(&seed).is_ok() {
                slot.load_blocks(&kept.blocks, now);
                *slot.last_saved.lock() = Some(Box::new(seed));
            } else {
                tracing::debug!(account = %id, "what was kept is another login's");
            }
        }
        let mut written = Vec::new();
        for pin in &state.pins {
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

    /// Writes what is not written yet. Accounts that have nothing new are left as the file has them.
    pub(super) async fn save(&self) -> Result<(), FileError> {
        let Some(state_file) = &self.state_file else { return Ok(()) };
        // Bounded, or many who wait would each be as patient with another process as the one before.
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
                    kept.learn(known, blocks.as_ref().map_or(&[], |(live, _)| live), now);
                    if let Some((live, removed)) = blocks {
                        kept.blocks.retain(|block| !removed.contains(block));
                        for block in live.iter() {
                            *is_stored &= kept.block(block);
                        }
                    }
                }
                state.prune_blocks(now);
                state.pins = merge_sessions(&state.pins, &pins, now, keep, most);
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

    /// Writes, and tells of trouble without failing: what was served stays served.
    pub(super) async fn save_or_warn(&self) {
        if let Err(error) = self.save().await {
            tracing::warn!(error = %error, "what was learned of accounts could not be kept, trying again later");
        }
    }

    /// Writes at once, and waits for that only for a moment: a response that was served is not kept back because another process
    /// is writing. What takes longer is done in the background.
    pub(super) async fn save_now(self: &Arc<Self>) {
        if self.state_file.is_none() {
            return;
        }
        let inner = Arc::clone(self);
        let (done, is_done) = oneshot::channel();
        self.in_background(async move {
            inner.save_or_warn().await;
            // Nobody may be waiting any more.
            let _ = done.send(());
        });
        self.clock.bounded(SAVE_WAIT, is_done).await;
    }

    /// Has whatever waits to be written be written now.
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
        // Weak, so that a manager nobody uses any more does not live on for this.
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

/// Somebody is about to write, or has ended before that.
struct ScheduledGuard(Arc<AtomicBool>);

impl Drop for ScheduledGuard {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
