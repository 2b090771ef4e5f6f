//! Keeps views current: waits for change notices, and polls in case a notice was lost.
//! `sync` reads the store; delayed writes and the refreshes of `keep_fresh` are in `background`.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::context::TaskContext;
use super::cooldown::SharedCooldown;
use super::entry::{AccountEntry, RecordEntry};
use super::provider::Provider;
use super::state::SyncState;
use super::tasks::{OnPanic, wait_until};
use crate::clock::{Clock, Instant};

/// Starts the follower of an account's record, and that of its provider's cooldown, unless they run already. The record's follower
/// ends when no caller reads a view of it any more.
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
    let mut accessed_at = record.provider.clock.instant();
    let tasks = Arc::clone(&context.tasks);
    // If the store panics in the task, or its runtime shuts down, the next read through a handle starts a new follower.
    let follower = OnPanic(Arc::downgrade(&record), |record| {
        record.invalidate(&mut record.local());
        // A waiting `Changes::next` starts a new follower at once.
        record.changed.notify_waiters();
    });
    context.tasks.spawn(async move {
        while let Some((last_state, wait)) = next_wakeup(&follower.0, &mut accessed_at) {
            if tasks.until_closing(wait).await.is_none() {
                break;
            }
            let Some(record) = follower.0.upgrade() else { break };
            // Boxed to keep the task small: followers are numerous and wait most of the time.
            Box::pin(record.sync(Some(last_state))).await;
            let sync_state = record.local().sync_state;
            if sync_state == last_state || matches!(sync_state, SyncState::Standalone(_)) {
                // The notice was spurious, or the store rejects calls. The pause prevents a busy loop.
                let pause = record
                    .provider
                    .clock
                    .sleep(jittered(record.provider.policy.poll_interval).min(MAX_PAUSE));
                if tasks.until_closing(pause).await.is_none() {
                    break;
                }
            }
        }
        follower.ended();
    });
}

/// The sync state, and a future that waits for the next reason to read the record. `None` ends the follower: no caller has read
/// the view for a few poll intervals.
fn next_wakeup(
    record: &Weak<RecordEntry>,
    accessed_at: &mut Instant,
) -> Option<(SyncState, impl Future<Output = ()> + Send + use<>)> {
    let record = record.upgrade()?;
    let (clock, poll_interval) = (record.provider.clock.clone(), record.provider.policy.poll_interval);
    let last_state = {
        let mut local = record.local();
        let now = clock.instant();
        if record.take_accessed() {
            *accessed_at = now;
        }
        if !record.has_handle()
            || now.saturating_since(*accessed_at) > poll_interval.saturating_mul(IDLE_POLLS)
        {
            record.invalidate(&mut local);
            return None;
        }
        local.sync_state
    };
    let (key, store_client) = (record.key.clone(), Arc::clone(&record.provider.store_client));
    let poll_interval = jittered(poll_interval);
    let wait = async move {
        if matches!(last_state, SyncState::Standalone(_)) {
            // Wait for the store and not for a notice, because this process's own copy must be merged.
            let _ = clock.bounded(poll_interval, store_client.wait_available()).await;
        } else {
            let notice = wait_for_notice(
                &clock,
                poll_interval,
                store_client.wait_for_change(&key, last_state.version()),
            );
            // A refresh whose write failed makes the account standalone, and its changes must be merged soon. The store sends no
            // notice of that if it rejected the write, or if the outage was short.
            tokio::select! {
                biased;
                () = notice => {}
                () = wait_until(&record.changed, || record.local().is_standalone()) => {}
            }
        }
    };
    Some((last_state, wait))
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
        let mut last_version = None;
        loop {
            let wait = wait_for_notice(
                &clock,
                jittered(poll_interval),
                store_client.wait_for_change(&key, last_version),
            );
            if tasks.until_closing(wait).await.is_none() {
                break;
            }
            let Some(shared_cooldown) = follower.0.upgrade() else { break };
            let version = shared_cooldown.reload(ttl).await.unwrap_or(last_version);
            if version == last_version {
                let pause = clock.sleep(jittered(poll_interval).min(MAX_PAUSE));
                if tasks.until_closing(pause).await.is_none() {
                    break;
                }
            }
            last_version = version;
        }
        follower.ended();
    });
}

/// Waits for a notice, but for at most `poll_interval`, because a notice may be lost.
async fn wait_for_notice(
    clock: &Clock,
    poll_interval: Duration,
    notice: impl Future<Output = Result<(), crate::store::StoreError>>,
) {
    match clock.bounded(poll_interval, notice).await {
        // The store may have become unavailable without a failed call. The next read detects that and starts the probes.
        Some(Err(error)) if error.is_transient() => {}
        // The store supports no notices, so poll at the interval.
        Some(Err(_)) => clock.sleep(poll_interval).await,
        Some(Ok(())) | None => {}
    }
}

/// Varies `interval` by up to a quarter, so that many processes do not poll at the same time.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.75 + fastrand::f64() / 2.0)
}

/// A follower ends after this many poll intervals without a reader.
const IDLE_POLLS: u32 = 2;

/// The maximum pause before the follower reads again after a spurious notice or a rejected call.
const MAX_PAUSE: Duration = Duration::from_secs(1);
