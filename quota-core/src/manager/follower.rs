//! Keeps views current: waits for change notices, and reads periodically in case a notice was lost. `sync` reads and
//! writes the store. This file also schedules the delayed writes of a record.

use std::sync::Arc;
use std::time::Duration;

use super::context::TaskContext;
use super::cooldown::SharedCooldown;
use super::entry::{AccountEntry, RecordEntry};
use super::provider::Provider;
use super::state::SyncState;
use super::tasks::{OnPanic, wait_until};
use crate::clock::{Clock, Instant};
use crate::store::{Notice, StoreError, Version};

/// Starts the follower of an account's record, and that of its provider's cooldown, unless they run already. The
/// record's follower ends when no caller reads a view of it anymore.
pub(crate) fn follow(entry: &Arc<AccountEntry>, context: &TaskContext) {
    follow_cooldown(&entry.provider, context);
    let record = entry.record();
    {
        // The follower checks and clears both flags under this lock. Otherwise this call could find a follower that is about to
        // end.
        let mut local = record.local();
        entry.view_handle.mark_accessed();
        if !record.try_start_following(&mut local) {
            return;
        }
    }
    let mut following = Following::new(&record.provider);
    let tasks = Arc::clone(&context.tasks);
    // If the store panics in the task, or its runtime shuts down, the next read through a handle starts a new follower.
    let follower = OnPanic(Arc::downgrade(&record), |record| {
        record.invalidate(&mut record.local());
        // A waiting `Changes::next` starts a new follower at once.
        record.changed.notify_waiters();
    });
    context.tasks.spawn(async move {
        while let Some(wait) = follower.0.upgrade().and_then(|record| following.next_wait(&record)) {
            let Some(notice) = tasks.until_closing(wait).await else { break };
            let Some(record) = follower.0.upgrade() else { break };
            // Boxed to keep the task small: followers are numerous and wait most of the time.
            let pause = Box::pin(following.handle(&record, notice)).await;
            let clock = record.provider.clock.clone();
            drop(record);
            if tasks.until_closing(clock.sleep(pause)).await.is_none() {
                break;
            }
        }
        follower.ended();
    });
}

/// The state of the follower of one record.
struct Following {
    /// The last time when the follower found that a caller had read a view.
    accessed_at: Instant,
    /// The state at the start of the last wait.
    last_state: SyncState,
    /// The version of the last late notice in this state. The store waits for a change from it.
    late: Option<Version>,
    timer: ReadTimer,
    pacer: Pacer,
}

impl Following {
    fn new(provider: &Provider) -> Self {
        let now = provider.clock.instant();
        Self {
            accessed_at: now,
            last_state: SyncState::Unsynced,
            late: None,
            timer: ReadTimer::new(now, provider.policy.poll_interval),
            pacer: Pacer::default(),
        }
    }

    /// A future that waits for a notice, or for the time of the next check (`None`). Ends the follower and returns `None` if no
    /// caller has read the view for a few poll intervals.
    fn next_wait(
        &mut self,
        record: &Arc<RecordEntry>,
    ) -> Option<impl Future<Output = Option<Notice>> + Send + use<>> {
        let (clock, poll_interval) = (record.provider.clock.clone(), record.provider.policy.poll_interval);
        let max_idle = poll_interval.saturating_mul(IDLE_POLLS);
        let now = clock.instant();
        {
            let mut local = record.local();
            if record.take_accessed() {
                self.accessed_at = now;
            }
            if now.saturating_since(self.accessed_at) >= max_idle {
                record.invalidate(&mut local);
                return None;
            }
            if local.sync_state != self.last_state {
                self.last_state = local.sync_state;
                self.read_again_later(now, poll_interval);
            }
        }
        let last_state = self.last_state;
        let seen = self.late.or(last_state.version());
        let idle_left = max_idle.saturating_sub(now.saturating_since(self.accessed_at));
        let left = self.timer.left(now).min(idle_left);
        let (record, poll_interval) = (Arc::clone(record), jittered(poll_interval));
        Some(async move {
            let store_client = &record.provider.store_client;
            if matches!(last_state, SyncState::Standalone(_)) {
                // Wait for the store and not for a notice, because this process's own copy must be merged.
                let _ = clock.bounded(poll_interval, store_client.wait_available()).await;
                return Some(Notice::default());
            }
            let notice = wait_for_notice(
                &clock,
                left,
                poll_interval,
                store_client.wait_for_change(record.key(), seen),
            );
            // A refresh whose write failed makes the account standalone, and its changes must be merged soon. The store sends no
            // notice of that if it rejected the write, or if the outage was short.
            tokio::select! {
                biased;
                notice = notice => notice,
                () = wait_until(&record.changed, || record.local().is_standalone()) => Some(Notice::default()),
            }
        })
    }

    /// Brings the local copy up to date after a wait. Returns the pause before the next wait.
    async fn handle(&mut self, record: &RecordEntry, notice: Option<Notice>) -> Duration {
        let (clock, poll_interval) = (&record.provider.clock, record.provider.policy.poll_interval);
        match notice {
            None if !self.timer.left(clock.instant()).is_zero() => return Duration::ZERO,
            Some(notice) if notice.is_unchanged && !record.may_be_lost() => {
                self.timer.confirm(clock.instant());
            }
            None | Some(Notice { is_unchanged: true, .. }) => {
                record.sync(Some(self.last_state)).await;
                self.read_again_later(clock.instant(), poll_interval);
            }
            Some(notice) => match record.sync_by_notice(self.last_state, &notice).await {
                None => self.read_again_later(clock.instant(), poll_interval),
                late => {
                    self.late = late;
                    self.timer.distrust(clock.instant());
                }
            },
        }
        let sync_state = record.local().sync_state;
        match sync_state {
            // The store rejects calls.
            SyncState::Standalone(_) => jittered(poll_interval).min(MAX_PAUSE),
            _ if sync_state == self.last_state => self.pacer.pause(clock.instant(), poll_interval),
            _ => Duration::ZERO,
        }
    }

    /// Call this when the local copy was current a moment ago.
    fn read_again_later(&mut self, now: Instant, poll_interval: Duration) {
        self.late = None;
        self.timer = ReadTimer::new(now, poll_interval);
    }
}

/// Decides when to read a document without a notice, because notices may be lost.
///
/// The document is read one poll interval after it was last known to be current. If the store confirms that changes still
/// arrive, that interval starts again, up to ten poll intervals.
#[derive(Debug)]
struct ReadTimer {
    current_at: Instant,
    confirmed_at: Instant,
    /// The time without a confirmation after which the document is read.
    interval: Duration,
    /// The time after which it is read despite confirmations.
    max_interval: Duration,
}

impl ReadTimer {
    fn new(now: Instant, poll_interval: Duration) -> Self {
        let interval = jittered(poll_interval);
        let max_interval = interval.saturating_mul(CONFIRMED_POLLS);
        Self { current_at: now, confirmed_at: now, interval, max_interval }
    }

    /// The store confirmed that changes still arrive.
    fn confirm(&mut self, now: Instant) {
        self.confirmed_at = now;
    }

    /// The store's last notice was not newer than the known document. It was late, or the store has lost a write. So
    /// the document is read after one interval, regardless of confirmations.
    fn distrust(&mut self, now: Instant) {
        if self.max_interval > self.interval {
            (self.current_at, self.max_interval) = (now, self.interval);
        }
    }

    /// The time until the next read.
    fn left(&self, now: Instant) -> Duration {
        let unconfirmed = self.interval.saturating_sub(now.saturating_since(self.confirmed_at));
        unconfirmed.min(self.max_interval.saturating_sub(now.saturating_since(self.current_at)))
    }
}

/// Prevents a busy loop if a store sends only spurious notices.
#[derive(Debug, Default)]
struct Pacer {
    last_spurious: Option<Instant>,
}

impl Pacer {
    /// The pause after a spurious notice: none if the last one was long ago, so that the next change is not delayed.
    fn pause(&mut self, now: Instant, poll_interval: Duration) -> Duration {
        let pause = jittered(poll_interval).min(MAX_PAUSE);
        let last = self.last_spurious.replace(now);
        let is_recent = last.is_some_and(|last| now.saturating_since(last) <= pause * 2);
        if is_recent { pause } else { Duration::ZERO }
    }
}

/// Starts the follower of a provider's cooldown, unless it runs already.
fn follow_cooldown(provider: &Arc<Provider>, context: &TaskContext) {
    let Some(shared_cooldown) =
        provider.shared_cooldown.as_ref().filter(|shared_cooldown| shared_cooldown.try_start_following())
    else {
        return;
    };
    let tasks = Arc::clone(&context.tasks);
    let follower = OnPanic(Arc::downgrade(shared_cooldown), SharedCooldown::invalidate);
    let (clock, store_client) = (provider.clock.clone(), Arc::clone(&provider.store_client));
    let (key, poll_interval, ttl) =
        (shared_cooldown.key.clone(), provider.policy.poll_interval, provider.policy.record_ttl);
    context.tasks.spawn(async move {
        let mut seen = None;
        let mut timer = ReadTimer::new(clock.instant(), poll_interval);
        let mut pacer = Pacer::default();
        loop {
            let left = timer.left(clock.instant());
            let change = store_client.wait_for_change(&key, seen);
            let wait = wait_for_notice(&clock, left, jittered(poll_interval), change);
            let Some(notice) = tasks.until_closing(wait).await else { break };
            let Some(shared_cooldown) = follower.0.upgrade() else { break };
            let last_seen = seen;
            match notice {
                Some(notice) if notice.is_unchanged => timer.confirm(clock.instant()),
                notice => {
                    let notice = notice.unwrap_or_default();
                    seen = match shared_cooldown.join(&notice) {
                        true => notice.version,
                        false => shared_cooldown.reload(ttl).await.unwrap_or(seen),
                    };
                    timer = ReadTimer::new(clock.instant(), poll_interval);
                }
            }
            if seen == last_seen {
                let pause = clock.sleep(pacer.pause(clock.instant(), poll_interval));
                if tasks.until_closing(pause).await.is_none() {
                    break;
                }
            }
        }
        follower.ended();
    });
}

/// Schedules a write of the pending changes after the flush interval, so that many observations become one write.
pub(crate) fn schedule_flush(record: &Arc<RecordEntry>, context: &TaskContext) {
    {
        let mut local = record.local();
        if local.flush_scheduled || !local.needs_write() {
            return;
        }
        local.flush_scheduled = true;
    }
    // Clear the flag before the write starts, because that write may not include a change that arrives during it.
    let flush_scheduled = OnPanic(Arc::downgrade(record), |record| record.local().flush_scheduled = false);
    let (record, tasks) = (Arc::clone(record), Arc::clone(&context.tasks));
    context.tasks.spawn(async move {
        let delay = record.provider.clock.sleep(record.provider.policy.flush_interval);
        // Closing the manager ends the delay.
        let _ = tasks.until_closing(delay).await;
        drop(flush_scheduled);
        let _ = record.change(|_, _| ()).await;
    });
}

/// Waits for a notice for at most `left`. A notice without content leads to a read.
async fn wait_for_notice(
    clock: &Clock,
    left: Duration,
    poll_interval: Duration,
    notice: impl Future<Output = Result<Notice, StoreError>>,
) -> Option<Notice> {
    match clock.bounded(left, notice).await? {
        Ok(notice) => Some(notice),
        // The store may have become unavailable without a failed call. The next read detects that and starts the probes.
        Err(error) if error.is_transient() => Some(Notice::default()),
        // The store supports no notices, so poll at the interval.
        Err(_) => {
            clock.sleep(poll_interval).await;
            Some(Notice::default())
        }
    }
}

/// Varies `interval` by up to a quarter, so that many processes do not poll at the same time.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.75 + fastrand::f64() / 2.0)
}

/// A follower ends after this many poll intervals without a reader.
const IDLE_POLLS: u32 = 2;

/// A follower reads after this many poll intervals even if the store confirms that changes arrive.
const CONFIRMED_POLLS: u32 = 10;

/// The maximum pause before the follower waits again after a spurious notice or a rejected call.
const MAX_PAUSE: Duration = Duration::from_secs(1);
