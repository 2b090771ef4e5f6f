//! What is done without anybody waiting for it: late writes, and refreshing in time.
//! Whether a refresh is allowed is decided in `record`; what other processes write is followed in `changes`.

use std::sync::Arc;
use std::time::Duration;

use super::context::Crew;
use super::error::QuotaError;
use super::flight::Wish;
use super::refresh;
use super::slot::Slot;
use super::tasks::{IfBroken, either};
use crate::{Hold, HoldReason, Priority, time};

/// Writes what is pending, a while from now, so that busy traffic becomes one write.
pub(crate) fn flush_later(slot: &Arc<Slot>, crew: &Crew) {
    {
        let mut desk = slot.desk();
        if desk.flushing || !desk.has_to_write() {
            return;
        }
        desk.flushing = true;
    }
    // Weak like a follower's, and put down before the write: what is new from then on may be too late for this one.
    let flushing = IfBroken(Arc::downgrade(slot), |slot| slot.desk().flushing = false);
    let (slot, tasks) = (Arc::clone(slot), Arc::clone(&crew.tasks));
    crew.tasks.spawn(async move {
        let later = slot.provider.clock.sleep(slot.provider.policy.flush_interval);
        // A manager that is being closed writes at once.
        let _ = either(tasks.closing(), later).await;
        drop(flushing);
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
                let wish = Wish::Within(slot.provider.policy.max_age);
                // Waited for, so a slow call is never overtaken by the next.
                let flight = refresh::join(&slot, wish, Priority::Background, &own_crew);
                let pause = match flight.wait().await {
                    Ok(_) => {
                        failures = 0;
                        Duration::ZERO
                    }
                    Err(QuotaError::OnHold { hold, .. }) if hold.reason == HoldReason::BudgetExhausted => {
                        time::between(slot.provider.link.guess(), hold.until)
                    }
                    // A replaced credential is noticed by a refresh only, which costs no call while it is the same.
                    Err(QuotaError::OnHold { .. }) if slot.view().record.may_let_through() => {
                        slot.provider.policy.max_age
                    }
                    // The hold is waited for below, in stretches: it may be cleared.
                    Err(QuotaError::OnHold { .. }) => Duration::ZERO,
                    // Nobody logged in, a fetcher that breaks: no hold says how long to wait, so we do.
                    Err(_) => {
                        failures += 1;
                        slot.provider.policy.error_backoff.delay(failures, 0.0)
                    }
                };
                wait_until_due(&slot, pause).await;
            }
        };
        let _ = either(tasks.closing(), either(stopped, work)).await;
    });
}

/// Waits until asking again may bring something: `at_least` is over, the readings are due, and no hold is in force.
async fn wait_until_due(slot: &Slot, at_least: Duration) {
    let clock = &slot.provider.clock;
    let mut pause = slot.provider.policy.min_call_interval.max(SHORTEST_PAUSE).max(at_least);
    loop {
        clock.sleep(pause).await;
        let view = slot.sight.take();
        let now = view.now();
        let policy = &slot.provider.policy;
        let binds = |hold: &Hold| hold.is_live(now) && !view.record.may_let_through();
        let hold = view.record.hold().cloned().filter(binds);
        let hold = [hold, slot.provider.quiet_at(now)].into_iter().flatten().map(|hold| hold.until).max();
        let barred = view.record.last_failure().filter(|failure| failure.is_credential_rejection());
        // Also one that bars for longer: another credential is noticed only by looking for one.
        let barred = barred.map(|failure| time::later(failure.at, policy.max_age));
        let due = [view.due_at(), hold, barred].into_iter().flatten().max();
        match due.filter(|due| *due > now) {
            Some(due) => pause = time::between(now, due).min(LONGEST_STRETCH),
            None => return,
        }
    }
}

/// Never at once, whatever was answered: what cannot be helped must not be asked in a circle.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// In short stretches: the due time may move, and a machine may sleep.
const LONGEST_STRETCH: Duration = Duration::from_secs(30);
