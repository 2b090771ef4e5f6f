//! Keeping views current: notices of changes, the slow look in case one was lost, late writes, and refreshing in time.
//! What is refreshed, and whether, is decided in `flight` and `record`.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::error::QuotaError;
use super::flight::{Crew, Flight, Wish};
use super::provider::Provider;
use super::slot::{Slot, Standing};
use super::tasks::{Either, Tasks, either};
use crate::clock::Instant;
use crate::{Clock, StoreKey, Urgency, time};

/// Follows an account from now on, for as long as anybody looks at it through a handle, and its provider's quiet time.
pub(crate) fn follow(slot: &Arc<Slot>, crew: &Crew) {
    follow_quiet(&slot.provider, crew);
    {
        let mut desk = slot.desk();
        slot.sight.note_look();
        if desk.following {
            return;
        }
        desk.following = true;
    }
    let mut looked_at = slot.provider.clock.instant();
    let (slot, tasks) = (Arc::downgrade(slot), Arc::clone(&crew.tasks));
    crew.tasks.spawn(async move {
        while let Some((seen, wait)) = next_change(&slot, &mut looked_at) {
            if let Either::First(()) = either(tasks.closing(), wait).await {
                return;
            }
            let Some(slot) = slot.upgrade() else { return };
            // Boxed, so that a task that waits, as most of many do most of the time, is small.
            Box::pin(slot.synchronise(Some(seen))).await;
            let standing = slot.desk().standing;
            if standing == seen || matches!(standing, Standing::Alone(_)) {
                // A notice of nothing, or a store that refuses: what cannot be helped is not tried in a circle.
                let pause =
                    slot.provider.clock.sleep(jittered(slot.provider.policy.recheck).min(LONGEST_PAUSE));
                if let Either::First(()) = either(tasks.closing(), pause).await {
                    return;
                }
            }
        }
    });
}

/// How things stand, and the wait for a reason to look again; `None` if nobody has been interested for a while.
fn next_change(
    slot: &Weak<Slot>,
    looked_at: &mut Instant,
) -> Option<(Standing, impl Future<Output = ()> + Send + use<>)> {
    let slot = slot.upgrade()?;
    let (clock, recheck) = (slot.provider.clock.clone(), slot.provider.policy.recheck);
    let seen = {
        let mut desk = slot.desk();
        let now = clock.instant();
        if slot.take_look() {
            *looked_at = now;
        }
        // Besides this one, the manager's own; any further one is a handle or a flight.
        let has_handle = Arc::strong_count(&slot) > 2;
        if !has_handle || now.saturating_since(*looked_at) > recheck * FORGOTTEN_AFTER {
            desk.following = false;
            return None;
        }
        desk.standing
    };
    let (key, link) = (StoreKey::account(&slot.id), Arc::clone(&slot.provider.link));
    let recheck = jittered(recheck);
    Some((seen, async move { wait_for_notice(&clock, recheck, link.changed(&key, seen.version())).await }))
}

/// Follows the quiet time of a provider.
fn follow_quiet(provider: &Arc<Provider>, crew: &Crew) {
    let Some(key) = provider.quiet_key().filter(|_| provider.begins_following()) else { return };
    let (provider, tasks) = (Arc::downgrade(provider), Arc::clone(&crew.tasks));
    crew.tasks.spawn(async move {
        let mut seen = None;
        loop {
            let Some(wait) = provider.upgrade().map(|provider| {
                let (link, key) = (Arc::clone(&provider.link), key.clone());
                let (clock, recheck) = (provider.clock.clone(), jittered(provider.policy.recheck));
                async move { wait_for_notice(&clock, recheck, link.changed(&key, seen)).await }
            }) else {
                return;
            };
            if let Either::First(()) = either(tasks.closing(), wait).await {
                return;
            }
            if let Some(provider) = provider.upgrade()
                && let Ok(version) = provider.reread_quiet(&key).await
            {
                seen = version;
            }
        }
    });
}

/// Waits for a notice, but no longer than `recheck`: one may have been lost.
async fn wait_for_notice(
    clock: &Clock,
    recheck: Duration,
    notice: impl Future<Output = Result<(), crate::StoreError>>,
) {
    if let Some(Err(_)) = clock.bounded(recheck, notice).await {
        // Without notices there is only the slow look, and it must not become a fast one.
        clock.sleep(recheck).await;
    }
}

/// Writes what is pending, a while from now, so that busy traffic becomes one write.
pub(crate) fn flush_later(slot: &Arc<Slot>, crew: &Crew) {
    {
        let mut desk = slot.desk();
        if desk.flushing || desk.pending.is_none() {
            return;
        }
        desk.flushing = true;
    }
    let (slot, tasks) = (Arc::clone(slot), Arc::clone(&crew.tasks));
    crew.tasks.spawn(async move {
        let later = slot.provider.clock.sleep(slot.provider.policy.flush);
        // A manager that is being closed writes at once.
        let _ = either(tasks.closing(), later).await;
        slot.desk().flushing = false;
        let _ = slot.transact(|_, _| ()).await;
    });
}

/// Refreshes an account whenever its readings stop being fresh, until `stopped`.
pub(crate) fn keep_fresh(slot: &Arc<Slot>, crew: &Crew, stopped: impl Future<Output = ()> + Send + 'static) {
    let (slot, own_crew) = (Arc::clone(slot), crew.clone());
    let tasks = Arc::clone(&crew.tasks);
    crew.tasks.spawn(async move {
        let work = async {
            let mut failures = 0;
            loop {
                let wish = Wish::Within(slot.provider.policy.freshness);
                // Waited for, so a slow call is never overtaken by the next.
                let flight = Flight::join(&slot, wish, Urgency::Background, &own_crew);
                let pause = match flight.wait().await {
                    Ok(_) => {
                        failures = 0;
                        Duration::ZERO
                    }
                    Err(QuotaError::Held { hold, .. }) => {
                        time::between(slot.provider.link.guess(), hold.until)
                    }
                    // Nobody logged in, a fetcher that breaks: no hold says how long to wait, so we do.
                    Err(_) => {
                        failures += 1;
                        slot.provider.policy.transient.delay(failures, 0.0)
                    }
                };
                wait_until_due(&slot, pause).await;
            }
        };
        let _ = either(either_of(tasks.closing(), stopped), work).await;
    });
}

async fn either_of(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    let _ = either(one, other).await;
}

/// Waits until asking again may bring something: `at_least` is over, the readings are due, and no hold is in force.
async fn wait_until_due(slot: &Slot, at_least: Duration) {
    let clock = &slot.provider.clock;
    // Never at once, whatever was answered: what cannot be helped must not be asked in a circle.
    let mut pause = slot.provider.policy.gap.max(SHORTEST_PAUSE).max(at_least);
    loop {
        clock.sleep(pause).await;
        let view = slot.sight.take();
        let now = view.now();
        let policy = &slot.provider.policy;
        let hold = view.record.hold().cloned().filter(|hold| hold.is_live(now));
        let hold = [hold, slot.provider.quiet_at(now)].into_iter().flatten().map(|hold| hold.until).max();
        let barred = view.record.trouble().filter(|trouble| trouble.bars());
        let barred = barred.map(|trouble| time::later(trouble.at, policy.freshness));
        let due = [view.due_at(), hold, barred].into_iter().flatten().max();
        match due.filter(|due| *due > now) {
            // In short stretches: the due time may move, and a machine may sleep.
            Some(due) => pause = time::between(now, due).min(LONGEST_STRETCH),
            None => return,
        }
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

const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_STRETCH: Duration = Duration::from_secs(30);

/// Ends all that a manager has begun, waiting no longer than `bound`.
pub(crate) async fn wind_up(tasks: &Arc<Tasks>, clock: &Clock, bound: Duration) -> bool {
    tasks.close();
    clock.bounded(bound, tasks.idle()).await.is_some()
}
