//! The background refreshes of `keep_fresh`. `record` decides whether a refresh is allowed; `follower` merges the
//! writes of other processes.

use std::sync::Arc;
use std::time::Duration;

use super::context::TaskContext;
use super::entry::AccountEntry;
use super::error::QuotaError;
use super::in_flight::RefreshRequest;
use super::refresh;
use crate::record::{Lease, Priority};
use crate::time;

/// Refreshes an account whenever its readings become stale, until `stopped` completes.
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
                // Wait for the refresh, so that two calls never overlap.
                let refresh::Joined { in_flight, .. } =
                    refresh::join(&entry, request, Priority::Background, &task_context);
                let pause = match in_flight.wait().await {
                    Ok(_) => {
                        failures = 0;
                        Duration::ZERO
                    }
                    // The next refresh is for the other login.
                    Err(QuotaError::LoginChanged { .. }) => Duration::ZERO,
                    // `wait_until_due` waits until a refresh may succeed, and returns early if the hold is cleared.
                    Err(QuotaError::OnHold { .. }) => Duration::ZERO,
                    // These errors arm no hold, such as a missing login or a first panic, so the policy's backoff applies here.
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

/// Waits until the next refresh can succeed: after `min_wait`, once the readings are due, no hold is in force, and no process
/// calls.
///
/// Adds a random delay. Many processes may keep the account fresh, and all find it due at the same time. The first one's lease
/// then reaches the others before their own attempts, which would conflict.
async fn wait_until_due(entry: &AccountEntry, min_wait: Duration) {
    let clock = &entry.provider.clock;
    let mut pause = entry.provider.policy.min_call_interval.max(MIN_PAUSE).max(min_wait);
    let delay = (entry.provider.policy.max_age / DELAY_FRACTION).min(MAX_DELAY).mul_f64(fastrand::f64());
    loop {
        clock.sleep(pause).await;
        let view = entry.view_handle.load_owned();
        let now = view.now();
        // Only a refresh repairs timestamps from the future, so it must not wait for them.
        let needs_repair = view.record.is_writable() && view.record.needs_clock_repair(now);
        // Only a refresh detects a replaced credential. While the credential is the same, it makes no call.
        let recheck = view.checked_at().map(|at| time::saturating_add(at, entry.provider.policy.max_age));
        let refused = view.next_attempt_at(Priority::Background);
        let refused = refused.map(|until| recheck.map_or(until, |recheck| until.min(recheck)));
        let is_running = |lease: &&Lease| lease.is_live(now) && !time::is_from_future(lease.granted_at, now);
        let call = view.record.lease().filter(is_running).map(|lease| lease.until);
        let due = view.due_at().filter(|_| !needs_repair).max(refused).max(call);
        match due.map(|due| time::saturating_add(due, delay)).filter(|due| *due > now) {
            Some(due) => pause = time::elapsed(now, due).min(MAX_SLEEP),
            None => return,
        }
    }
}

/// The minimum pause between refreshes. Without it, an immediate error would cause a busy loop.
const MIN_PAUSE: Duration = Duration::from_millis(100);

/// The maximum delay between the due time and the refresh, and its maximum fraction of the policy's maximum age.
const MAX_DELAY: Duration = Duration::from_secs(5);
const DELAY_FRACTION: u32 = 60;

/// The maximum sleep between two checks, because the due time may change and the machine may be suspended.
const MAX_SLEEP: Duration = Duration::from_secs(30);
