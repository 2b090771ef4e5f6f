//! What is kept from one run to the next: read and given to the numbers first, written back after every refresh.
//! Trouble with it is told and fails nothing that was served already.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use quota_core::{AccountId, Clock, Seed};
use tokio::sync::{Notify, oneshot};

use super::Inner;
use crate::ahead::is_ahead;
use crate::routing::Block;
use crate::state::{AccountsState, Pin, join_pins};
use quota_core::file::{FileError, JsonFile, LOCK_TIMEOUT};

/// Where it is kept.
#[derive(Debug)]
pub(super) struct Keeping {
    document: JsonFile,
    /// One after the other gathers what is new and writes it: who gathers first and writes last would bring back what was
    /// lifted between, and of many who wait all but the first find nothing new.
    /// It guards the pins as they were last written.
    writing: tokio::sync::Mutex<Vec<Pin>>,
    /// Whether somebody is about to write.
    is_due: Arc<AtomicBool>,
    /// Tells them not to wait any longer.
    hurry: Arc<Notify>,
}

impl Keeping {
    pub(super) fn at(path: PathBuf, clock: Clock) -> Self {
        Self {
            document: JsonFile::at(path, clock),
            writing: tokio::sync::Mutex::default(),
            is_due: Arc::default(),
            hurry: Arc::default(),
        }
    }
}

/// How long a response waits for what follows from it to be written: many times what a disk in order needs.
const A_MOMENT: Duration = Duration::from_millis(250);

/// How long to wait, at most, before what was seen on traffic is kept.
const KEEP_WITHIN: Duration = Duration::from_secs(3);

/// What one account has to add.
struct News {
    at: usize,
    id: AccountId,
    known: Seed,
    blocks: Option<(Arc<[Block]>, Vec<Block>)>,
    /// Whether the file has all of those that are live by now. While another login stands there, it takes none of this one's,
    /// and they are brought again.
    is_taken: bool,
}

impl Inner {
    /// Gives what was kept to the numbers. It comes before any question of what is stale, so a restart asks nobody about
    /// what is fresh on disk.
    pub(super) async fn seed(&self) -> Result<(), FileError> {
        let Some(keeping) = &self.keeping else { return Ok(()) };
        let state: AccountsState = keeping.document.load().await.inspect_err(|error| {
            tracing::warn!(error = %error, "what was kept of accounts cannot be read, going on without");
        })?;
        let now = self.now();
        for (id, kept) in &state.accounts {
            let Some(member) = self.places.get(id).map(|at| &self.members[*at]) else { continue };
            let seed = kept.seed();
            if member.usage.seed(&seed).is_ok() {
                member.adopt_blocks(&kept.blocks, now);
                *member.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(seed));
            } else {
                tracing::debug!(account = %id, "what was kept is another login's");
            }
        }
        let mut written = Vec::new();
        for pin in &state.pins {
            if let Some(at) = self.places.get(&pin.account) {
                let used_at = if is_ahead(pin.used_at, now) { now } else { pin.used_at };
                self.pins.set(pin.session, *at, used_at);
                // As it stands there: what was brought back is news.
                written.push(Pin::new(pin.session, pin.account.clone(), pin.used_at));
            }
        }
        self.pins.forget(now);
        written.sort_unstable_by_key(|pin| pin.session);
        *keeping.writing.lock().await = written;
        Ok(())
    }

    /// Writes what is not written yet. Accounts that have nothing new are left as the file has them.
    pub(super) async fn keep(&self) -> Result<(), FileError> {
        let Some(keeping) = &self.keeping else { return Ok(()) };
        // Bounded, or many who wait would each be as patient with another process as the one before.
        let writing = self.clock.bounded(LOCK_TIMEOUT, keeping.writing.lock()).await;
        let mut written = writing.ok_or_else(|| keeping.document.busy())?;
        let now = self.now();
        let mut news: Vec<News> = self.news();
        self.pins.forget(now);
        let pins = self.pins_to_keep();
        if news.is_empty() && pins == *written {
            return Ok(());
        }
        let brought = pins.clone();
        let (keep, most) = (self.policy.pin_for, self.policy.most_pins);
        let news = keeping
            .document
            .update(move |state: &mut AccountsState| {
                state.stamp();
                for News { id, known, blocks, is_taken, .. } in &mut news {
                    let kept = state.accounts.entry(id.clone()).or_default();
                    kept.learn(known, blocks.as_ref().map_or(&[], |(live, _)| live), now);
                    if let Some((live, lifted)) = blocks {
                        kept.blocks.retain(|block| !lifted.contains(block));
                        for block in live.iter() {
                            *is_taken &= kept.block(block);
                        }
                    }
                }
                state.forget_blocks(now);
                state.pins = join_pins(&state.pins, &pins, now, keep, most);
                news
            })
            .await?;
        *written = brought;
        for News { at, known, blocks, is_taken, .. } in news {
            let member = &self.members[at];
            *member.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(known));
            if let Some((live, lifted)) = blocks {
                member.blocks_written(is_taken.then_some(&live), &lifted);
            }
        }
        Ok(())
    }

    /// The pins, in an order that is that of any others that are the same.
    fn pins_to_keep(&self) -> Vec<Pin> {
        let pins = self.pins.all().into_iter();
        let pin =
            |(session, at, used_at): (_, usize, _)| Pin::new(session, self.members[at].id.clone(), used_at);
        let mut pins: Vec<Pin> = pins.map(pin).collect();
        pins.sort_unstable_by_key(|pin| pin.session);
        pins
    }

    fn news(&self) -> Vec<News> {
        let news = self.members.iter().enumerate().filter_map(|(at, member)| {
            let known = member.exported();
            member.lift_foreign();
            let blocks = member.unwritten_blocks();
            let kept = member.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let is_news = kept.as_deref() != Some(&known) && known != Seed::default();
            (is_news || blocks.is_some()).then(|| News {
                at,
                id: member.id.clone(),
                known,
                blocks,
                is_taken: true,
            })
        });
        news.collect()
    }

    /// Writes, and tells of trouble without failing: what was served stays served.
    pub(super) async fn keep_or_tell(&self) {
        if let Err(error) = self.keep().await {
            tracing::warn!(error = %error, "what was learned of accounts could not be kept, trying again later");
        }
    }

    /// Writes at once, and waits for that only for a moment: a response that was served is not kept back because another process
    /// is writing. What takes longer is done in the background.
    pub(super) async fn keep_now(self: &Arc<Self>) {
        if self.keeping.is_none() {
            return;
        }
        let inner = Arc::clone(self);
        let (done, is_done) = oneshot::channel();
        self.in_background(async move {
            inner.keep_or_tell().await;
            // Nobody may be waiting any more.
            let _ = done.send(());
        });
        self.clock.bounded(A_MOMENT, is_done).await;
    }

    /// Has whatever waits to be written be written now.
    pub(super) fn hurry(&self) {
        if let Some(keeping) = &self.keeping {
            keeping.hurry.notify_one();
        }
    }

    /// Writes within a few seconds, so that busy traffic becomes one write.
    pub(super) fn keep_soon(self: &Arc<Self>) {
        let Some(keeping) = &self.keeping else { return };
        if keeping.is_due.swap(true, Ordering::AcqRel) {
            return;
        }
        // Made here, for a task may end before it begins: with its runtime.
        let due = Due(Arc::clone(&keeping.is_due));
        // Weak, so that a manager nobody uses any more does not live on for this.
        let (inner, clock) = (Arc::downgrade(self), self.clock.clone());
        let hurry = Arc::clone(&keeping.hurry);
        self.in_background(async move {
            clock.bounded(KEEP_WITHIN, hurry.notified()).await;
            // What is new from here on may be too late for this one.
            drop(due);
            if let Some(inner) = inner.upgrade() {
                inner.keep_or_tell().await;
            }
        });
    }
}

/// Somebody is about to write, or has ended before that.
struct Due(Arc<AtomicBool>);

impl Drop for Due {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
