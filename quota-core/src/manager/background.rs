//! Background work: delayed writes, and keeping accounts fresh.
//! Whether a refresh is allowed is decided in `record`; `follower` follows the writes of other processes.

use std::sync::Arc;
use std::time::Duration;

use super::context::TaskContext;
use super::entry::AccountEntry;
use super::error::QuotaError;
use super::in_flight::RefreshRequest;
use super::refresh;
use super::tasks::OnPanic;
use crate::record::{Hold, HoldReason, Priority};
use crate::time;

/// Writes what is pending, a while from now, so that busy traffic becomes one write.
pub(crate) fn schedule_flush(entry: &Arc<AccountEntry>, context: &TaskContext) {
    {
        let mut local = entry.local();
        if local.flush_scheduled || !local.needs_write() {
            return;
        }
        local.flush_scheduled = true;
    }
    // Weak like a follower's, and put down before the write: what is new from then on may be too late for this one.
    let flush_scheduled = OnPanic(Arc::downgrade(entry), |entry| entry.local().flush_scheduled = false);
    let (entry, tasks) = (Arc::clone(entry), Arc::clone(&context.tasks));
    context.tasks.spawn(async move {
        let later = entry.provider.clock.sleep(entry.provider.policy.flush_interval);
        // A manager that is being closed writes at once.
        let _ = tasks.until_closing(later).await;
        drop(flush_scheduled);
        let _ = entry.change(|_, _| ()).await;
    });
}

/// Refreshes an account whenever its readings stop being fresh, until `stopped`.
pub(crate) fn keep_fresh(
    entry: &Arc<AccountEntry>,
    context: &TaskContext,
    stopped: impl Future<Output = ()> + Send + 'static,
) {
    let (entry, task_context) = (Arc::clone(entry), context.clone());
    let tasks = Arc::clone(&context.tasks);
    context.tasks.spawn(async move {
        let work = async {
            let mut failures = 0;
            loop {
                let request = RefreshRequest::Age(entry.provider.policy.max_age);
                // Waited for, so a slow call is never overtaken by the next.
                let in_flight = refresh::join(&entry, request, Priority::Background, &task_context);
                let pause = match in_flight.wait().await {
                    Ok(_) => {
                        failures = 0;
                        Duration::ZERO
                    }
                    Err(QuotaError::OnHold { hold, .. }) if hold.reason == HoldReason::BudgetExhausted => {
                        time::elapsed(entry.provider.store_client.now_estimate(), hold.until)
                    }
                    // A replaced credential is noticed by a refresh only, which costs no call while it is the same.
                    Err(QuotaError::OnHold { .. }) if entry.view().record.may_let_through() => {
                        entry.provider.policy.max_age
                    }
                    // The hold is waited for below, in stretches: it may be cleared.
                    Err(QuotaError::OnHold { .. }) => Duration::ZERO,
                    // Not logged in, or a fetcher that panics: there is no hold, so this backoff applies.
                    Err(_) => {
                        failures += 1;
                        entry.provider.policy.error_backoff.delay(failures, 0.0)
                    }
                };
                wait_until_due(&entry, pause).await;
            }
        };
        tokio::select! {
            biased;
            () = tasks.closing() => {}
            () = stopped => {}
            () = work => {}
        }
    });
}

/// Waits until asking again may bring something: `at_least` is over, the readings are due, and no hold is in force.
async fn wait_until_due(entry: &AccountEntry, at_least: Duration) {
    let clock = &entry.provider.clock;
    let mut pause = entry.provider.policy.min_call_interval.max(MIN_PAUSE).max(at_least);
    loop {
        clock.sleep(pause).await;
        let view = entry.view_handle.load_owned();
        let now = view.now();
        let policy = &entry.provider.policy;
        let binds = |hold: &Hold| hold.is_in_force(now) && !view.record.may_let_through();
        let hold = view.record.hold().cloned().filter(binds);
        let hold = [hold, entry.provider.cooldown_at(now)].into_iter().flatten().map(|hold| hold.until).max();
        let barred = view.record.last_failure().filter(|failure| failure.is_credential_rejection());
        // Also one that bars for longer: another credential is noticed only by looking for one.
        let barred = barred.map(|failure| time::saturating_add(failure.at, policy.max_age));
        let due = [view.due_at(), hold, barred].into_iter().flatten().max();
        match due.filter(|due| *due > now) {
            Some(due) => pause = time::elapsed(now, due).min(MAX_SLEEP),
            None => return,
        }
    }
}

/// Never at once, whatever was answered: what cannot be helped must not be asked in a circle.
const MIN_PAUSE: Duration = Duration::from_millis(100);

/// In short stretches: the due time may move, and a machine may sleep.
const MAX_SLEEP: Duration = Duration::from_secs(30);
