//! Keeping views current: notices of changes, and the slow look in case one was lost.
//! What is read is put to use in `exchange`; late writes and refreshing in time are in `upkeep`.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::context::Crew;
use super::desk::Standing;
use super::provider::Provider;
use super::quieted::SharedCooldown;
use super::slot::Slot;
use super::tasks::{Either, IfBroken, either, wait_for};
use crate::clock::Instant;
use crate::{Clock, StoreKey};

/// Follows an account from now on, for as long as anybody looks at it through a handle, and its provider's quiet time.
pub(crate) fn follow(slot: &Arc<Slot>, crew: &Crew) {
    follow_quiet(&slot.provider, crew);
    {
        // Both marks are changed under this lock only, so that no one is interested without being followed.
        let _desk = slot.desk();
        slot.sight.note_look();
        if slot.sight.is_followed() {
            return;
        }
        slot.sight.set_followed(true);
    }
    let mut looked_at = slot.provider.clock.instant();
    let tasks = Arc::clone(&crew.tasks);
    // If a store breaks in the task, or its runtime ends, the next who is interested begins another.
    let follower = IfBroken(Arc::downgrade(slot), |slot| {
        slot.let_go(&mut slot.desk());
        // A watch that waits begins another at once.
        slot.news.notify_waiters();
    });
    crew.tasks.spawn(async move {
        while let Some((seen, wait)) = next_change(&follower.0, &mut looked_at) {
            if let Either::First(()) = either(tasks.closing(), wait).await {
                break;
            }
            let Some(slot) = follower.0.upgrade() else { break };
            // Boxed, so that a task that waits, as most of many do most of the time, is small.
            Box::pin(slot.synchronise(Some(seen))).await;
            let standing = slot.desk().standing;
            if standing == seen || matches!(standing, Standing::Alone(_)) {
                // A notice of nothing, or a store that refuses: what cannot be helped is not tried in a circle.
                let pause = slot
                    .provider
                    .clock
                    .sleep(jittered(slot.provider.policy.poll_interval).min(LONGEST_PAUSE));
                if let Either::First(()) = either(tasks.closing(), pause).await {
                    break;
                }
            }
        }
        follower.ended();
    });
}

/// How things stand, and the wait for a reason to look again; `None` if nobody has been interested for a while.
fn next_change(
    slot: &Weak<Slot>,
    looked_at: &mut Instant,
) -> Option<(Standing, impl Future<Output = ()> + Send + use<>)> {
    let slot = slot.upgrade()?;
    let (clock, poll_interval) = (slot.provider.clock.clone(), slot.provider.policy.poll_interval);
    let seen = {
        let mut desk = slot.desk();
        let now = clock.instant();
        if slot.take_look() {
            *looked_at = now;
        }
        if !slot.has_handle()
            || now.saturating_since(*looked_at) > poll_interval.saturating_mul(FORGOTTEN_AFTER)
        {
            slot.let_go(&mut desk);
            return None;
        }
        desk.standing
    };
    let (key, link) = (StoreKey::account(&slot.id), Arc::clone(&slot.provider.link));
    let poll_interval = jittered(poll_interval);
    let wait = async move {
        if matches!(seen, Standing::Alone(_)) {
            // Whether anybody has written meanwhile does not matter: this process's own copy is to be joined.
            let _ = clock.bounded(poll_interval, link.until_found()).await;
        } else {
            let notice = wait_for_notice(&clock, poll_interval, link.wait_for_change(&key, seen.version()));
            // A refresh that could not write leaves what is to be joined as soon as may be. A store that refuses, or that is back
            // before its connection was lost, has no notice of that.
            either(notice, wait_for(&slot.news, || slot.desk().is_alone())).await;
        }
    };
    Some((seen, wait))
}

/// Follows the quiet time of a provider.
fn follow_quiet(provider: &Arc<Provider>, crew: &Crew) {
    let Some(quieted) = provider.quieted.as_ref().filter(|quieted| quieted.begins_following()) else {
        return;
    };
    let tasks = Arc::clone(&crew.tasks);
    let follower = IfBroken(Arc::downgrade(quieted), SharedCooldown::let_go);
    let (clock, link) = (provider.clock.clone(), Arc::clone(&provider.link));
    let (key, poll_interval, keep) =
        (quieted.key.clone(), provider.policy.poll_interval, provider.policy.record_ttl);
    crew.tasks.spawn(async move {
        let mut seen = None;
        loop {
            let wait = wait_for_notice(&clock, jittered(poll_interval), link.wait_for_change(&key, seen));
            if let Either::First(()) = either(tasks.closing(), wait).await {
                break;
            }
            let Some(quieted) = follower.0.upgrade() else { break };
            let version = quieted.reread(keep).await.unwrap_or(seen);
            if version == seen {
                let pause = clock.sleep(jittered(poll_interval).min(LONGEST_PAUSE));
                if let Either::First(()) = either(tasks.closing(), pause).await {
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
    notice: impl Future<Output = Result<(), crate::StoreError>>,
) {
    match clock.bounded(poll_interval, notice).await {
        // The store may be away, and nobody have noticed: only a look begins the search for it.
        Some(Err(error)) if error.is_transient() => {}
        // Without notices there is only the slow look, and it must not become a fast one.
        Some(Err(_)) => clock.sleep(poll_interval).await,
        Some(Ok(())) | None => {}
    }
}

/// Spread by a quarter to both sides, so that a fleet does not look all at once.
fn jittered(span: Duration) -> Duration {
    span.mul_f64(0.75 + fastrand::f64() / 2.0)
}

/// An account nobody has looked at for so many slow looks is followed no longer: what it costs is for those in use.
const FORGOTTEN_AFTER: u32 = 2;

/// A store that refuses is looked at again after no longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
