//! Keeps views current: notices of changes, and a read once a minute in case a notice was lost.
//! The reads are in `sync`; delayed writes and keeping accounts fresh are in `background`.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::context::TaskContext;
use super::cooldown::SharedCooldown;
use super::entry::AccountEntry;
use super::provider::Provider;
use super::state::SyncState;
use super::tasks::{OnPanic, wait_until};
use crate::clock::{Clock, Instant};
use crate::store::StoreKey;

/// Follows an account for as long as a caller reads it through a handle, and the cooldown of its provider.
pub(crate) fn follow(entry: &Arc<AccountEntry>, context: &TaskContext) {
    follow_cooldown(&entry.provider, context);
    {
        // Both marks are changed under this lock only, so that no one is interested without being followed.
        let _local = entry.local();
        entry.view_handle.mark_accessed();
        if entry.view_handle.is_followed() {
            return;
        }
        entry.view_handle.set_followed(true);
    }
    let mut accessed_at = entry.provider.clock.instant();
    let tasks = Arc::clone(&context.tasks);
    // If a store breaks in the task, or its runtime ends, the next who is interested begins another.
    let follower = OnPanic(Arc::downgrade(entry), |entry| {
        entry.invalidate(&mut entry.local());
        // A watch that waits begins another at once.
        entry.view_changed.notify_waiters();
    });
    context.tasks.spawn(async move {
        while let Some((seen, wait)) = next_wakeup(&follower.0, &mut accessed_at) {
            if tasks.until_closing(wait).await.is_none() {
                break;
            }
            let Some(entry) = follower.0.upgrade() else { break };
            // Boxed, so that a task that waits, as most of many do most of the time, is small.
            Box::pin(entry.sync(Some(seen))).await;
            let sync_state = entry.local().sync_state;
            if sync_state == seen || matches!(sync_state, SyncState::Standalone(_)) {
                // A notice of nothing, or a store that refuses: what cannot be helped is not tried in a circle.
                let pause =
                    entry.provider.clock.sleep(jittered(entry.provider.policy.poll_interval).min(MAX_PAUSE));
                if tasks.until_closing(pause).await.is_none() {
                    break;
                }
            }
        }
        follower.ended();
    });
}

/// The sync state, and a wait for the next reason to read the record; `None` if no caller has read the view for a while.
fn next_wakeup(
    entry: &Weak<AccountEntry>,
    accessed_at: &mut Instant,
) -> Option<(SyncState, impl Future<Output = ()> + Send + use<>)> {
    let entry = entry.upgrade()?;
    let (clock, poll_interval) = (entry.provider.clock.clone(), entry.provider.policy.poll_interval);
    let seen = {
        let mut local = entry.local();
        let now = clock.instant();
        if entry.take_accessed() {
            *accessed_at = now;
        }
        if !entry.has_handle()
            || now.saturating_since(*accessed_at) > poll_interval.saturating_mul(IDLE_POLLS)
        {
            entry.invalidate(&mut local);
            return None;
        }
        local.sync_state
    };
    let (key, store_client) = (StoreKey::account(&entry.id), Arc::clone(&entry.provider.store_client));
    let poll_interval = jittered(poll_interval);
    let wait = async move {
        if matches!(seen, SyncState::Standalone(_)) {
            // Changes of others do not matter here: this process's copy must be merged.
            let _ = clock.bounded(poll_interval, store_client.wait_available()).await;
        } else {
            let notice =
                wait_for_notice(&clock, poll_interval, store_client.wait_for_change(&key, seen.version()));
            // A refresh that could not write leaves what is to be joined as soon as may be. A store that refuses, or that is back
            // before its connection was lost, has no notice of that.
            tokio::select! {
                biased;
                () = notice => {}
                () = wait_until(&entry.view_changed, || entry.local().is_standalone()) => {}
            }
        }
    };
    Some((seen, wait))
}

/// Follows the cooldown of a provider.
fn follow_cooldown(provider: &Arc<Provider>, context: &TaskContext) {
    let Some(shared_cooldown) =
        provider.shared_cooldown.as_ref().filter(|shared_cooldown| shared_cooldown.try_start_following())
    else {
        return;
    };
    let tasks = Arc::clone(&context.tasks);
    let follower = OnPanic(Arc::downgrade(shared_cooldown), SharedCooldown::invalidate);
    let (clock, store_client) = (provider.clock.clone(), Arc::clone(&provider.store_client));
    let (key, poll_interval, keep) =
        (shared_cooldown.key.clone(), provider.policy.poll_interval, provider.policy.record_ttl);
    context.tasks.spawn(async move {
        let mut seen = None;
        loop {
            let wait =
                wait_for_notice(&clock, jittered(poll_interval), store_client.wait_for_change(&key, seen));
            if tasks.until_closing(wait).await.is_none() {
                break;
            }
            let Some(shared_cooldown) = follower.0.upgrade() else { break };
            let version = shared_cooldown.reload(keep).await.unwrap_or(seen);
            if version == seen {
                let pause = clock.sleep(jittered(poll_interval).min(MAX_PAUSE));
                if tasks.until_closing(pause).await.is_none() {
                    break;
                }
            }
            seen = version;
        }
        follower.ended();
    });
}

/// Waits for a notice, but no longer than `poll_interval`: one may have been lost.
async fn wait_for_notice(
    clock: &Clock,
    poll_interval: Duration,
    notice: impl Future<Output = Result<(), crate::store::StoreError>>,
) {
    match clock.bounded(poll_interval, notice).await {
        // The store may be unavailable without a failed call so far: the next read starts the probes.
        Some(Err(error)) if error.is_transient() => {}
        // Without notices the record is polled, and no more often than at the interval.
        Some(Err(_)) => clock.sleep(poll_interval).await,
        Some(Ok(())) | None => {}
    }
}

/// Spread by a quarter to both sides, so that a fleet does not poll all at once.
fn jittered(span: Duration) -> Duration {
    span.mul_f64(0.75 + fastrand::f64() / 2.0)
}

/// An account without readers for this many poll intervals is not followed any more, to save its cost.
const IDLE_POLLS: u32 = 2;

/// The maximum pause before a store that rejects calls is tried again.
const MAX_PAUSE: Duration = Duration::from_secs(1);
