//! Limits the calls of one process to one provider: concurrency, the interval between starts, and the order of callers.
//! `record` decides whether an account may be refreshed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::{Clock, Instant};
use crate::record::Priority;

/// The call limiter of one provider.
///
/// Two calls start at least `gap` apart, and at most `parallel` calls run at once. A call that runs for [`SLOW_AFTER`] stops
/// counting toward `parallel`, so a hanging account does not delay the others. At most [`MAX_CONCURRENT`] calls run in total.
///
/// An unused permit counts toward the limit. If `gap` is not zero, an unused permit also delays the next caller, because the gap
/// starts when the permit is used.
///
/// An interactive caller waits for running calls and for other interactive callers, but not for queued background callers.
#[derive(Debug)]
pub(crate) struct CallLimiter {
    clock: Clock,
    gap: Duration,
    parallel: usize,
    queue: Mutex<Queue>,
}

/// A call without a response for this long is slow, and does not block others.
const SLOW_AFTER: Duration = Duration::from_secs(2);

/// The maximum number of concurrent calls including slow ones, unless the policy allows more.
const MAX_CONCURRENT: usize = 4;

#[derive(Debug, Default)]
struct Queue {
    /// The start of each running call, by ticket number; `None` for a permit that is not used yet.
    running: BTreeMap<u64, Option<Instant>>,
    last_start: Option<Instant>,
    last_number: u64,
    interactive: BTreeMap<u64, Arc<Notify>>,
    background: BTreeMap<u64, Arc<Notify>>,
}

/// A position in the queue. Dropping it leaves the queue.
#[derive(Debug)]
pub(crate) struct Ticket {
    limiter: Arc<CallLimiter>,
    number: u64,
    notify: Arc<Notify>,
}

/// The permission for one call. Dropping it admits the next caller.
///
/// The gap to the next call starts only when the permit is used.
#[derive(Debug)]
#[must_use]
pub(crate) struct Permit {
    limiter: Arc<CallLimiter>,
    number: u64,
}

impl Permit {
    /// Records the start of the call: the gap to the next one and the time until it counts as slow begin now.
    pub(crate) fn mark_started(&mut self) {
        let now = self.limiter.clock.instant();
        let mut queue = self.limiter.queue.lock();
        queue.last_start = Some(now);
        queue.running.insert(self.number, Some(now));
        queue.notify_next();
    }
}

impl CallLimiter {
    pub(crate) fn new(clock: Clock, gap: Duration, parallel: usize) -> Arc<Self> {
        Arc::new(Self { clock, gap, parallel, queue: Mutex::default() })
    }

    /// Enters the queue.
    pub(crate) fn enqueue(self: &Arc<Self>, priority: Priority) -> Ticket {
        let mut queue = self.queue.lock();
        queue.last_number += 1;
        let (number, notify) = (queue.last_number, Arc::new(Notify::new()));
        queue.of(priority).insert(number, Arc::clone(&notify));
        Ticket { limiter: Arc::clone(self), number, notify }
    }

    /// Moves a background ticket to the interactive queue. Does nothing if the ticket has already become a permit.
    pub(crate) fn raise_priority(&self, number: u64) {
        let mut queue = self.queue.lock();
        if let Some(notify) = queue.background.remove(&number) {
            queue.interactive.insert(number, notify);
            queue.notify_next();
        }
    }
}

impl Queue {
    fn of(&mut self, priority: Priority) -> &mut BTreeMap<u64, Arc<Notify>> {
        match priority {
            Priority::Interactive => &mut self.interactive,
            Priority::Background => &mut self.background,
        }
    }

    fn next(&self) -> Option<(&u64, &Arc<Notify>)> {
        self.interactive.first_key_value().or_else(|| self.background.first_key_value())
    }

    fn notify_next(&self) {
        if let Some((_, notify)) = self.next() {
            notify.notify_one();
        }
    }

    fn leave(&mut self, number: u64) {
        self.interactive.remove(&number);
        self.background.remove(&number);
    }
}

impl Ticket {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Returns the permit if it is available now.
    pub(crate) fn try_acquire(&self) -> Option<Permit> {
        match self.poll() {
            Admission::Ready(permit) => Some(permit),
            Admission::ReadyIn(_) | Admission::Pending => None,
        }
    }

    /// Waits for the permit.
    pub(crate) async fn acquire(self) -> Permit {
        loop {
            match self.poll() {
                Admission::Ready(permit) => return permit,
                // The notification interrupts the wait: a more urgent caller may arrive, or a call may end.
                Admission::ReadyIn(gap) => {
                    let _ = self.limiter.clock.bounded(gap, self.notify.notified()).await;
                }
                Admission::Pending => self.notify.notified().await,
            }
        }
    }

    fn poll(&self) -> Admission {
        let mut queue = self.limiter.queue.lock();
        let first = queue.next().is_some_and(|(number, _)| *number == self.number);
        if !first {
            return Admission::Pending;
        }
        let now = self.limiter.clock.instant();
        let since_last = queue.last_start.map(|start| now.saturating_since(start));
        let gap = since_last.and_then(|since| left_of(self.limiter.gap, since));
        if !self.limiter.gap.is_zero() && queue.running.values().any(Option::is_none) {
            return Admission::Pending;
        }
        let calls = queue.running.values().map(|start| start.map(|start| now.saturating_since(start)));
        match wait_for_room(calls, self.limiter.parallel).map(|room| room.max(gap.unwrap_or_default())) {
            None => return Admission::Pending,
            Some(wait) if !wait.is_zero() => return Admission::ReadyIn(wait),
            Some(_) => {}
        }
        queue.leave(self.number);
        queue.running.insert(self.number, None);
        queue.notify_next();
        Admission::Ready(Permit { limiter: Arc::clone(&self.limiter), number: self.number })
    }
}

/// How long until the limit admits one more call; `None` if another call must start or end first.
///
/// `ages` yields how long each admitted call has been running; `None` if it has not started. Only a started call becomes slow.
fn wait_for_room(ages: impl Iterator<Item = Option<Duration>>, parallel: usize) -> Option<Duration> {
    let (mut count, mut unstarted, mut left_until_slow) = (0, 0, Vec::new());
    for age in ages {
        count += 1;
        match age {
            Some(age) => left_until_slow.extend(left_of(SLOW_AFTER, age)),
            None => unstarted += 1,
        }
    }
    if count >= MAX_CONCURRENT.max(parallel) {
        return None;
    }
    // Enough calls must become slow that fewer than `parallel` still count.
    let not_slow = unstarted + left_until_slow.len();
    let Some(surplus) = not_slow.checked_sub(parallel) else { return Some(Duration::ZERO) };
    left_until_slow.sort_unstable();
    left_until_slow.get(surplus).copied()
}

/// The rest of `duration` after `elapsed`; `None` if nothing is left.
fn left_of(duration: Duration, elapsed: Duration) -> Option<Duration> {
    duration.checked_sub(elapsed).filter(|left| !left.is_zero())
}

enum Admission {
    Ready(Permit),
    ReadyIn(Duration),
    Pending,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut queue = self.limiter.queue.lock();
        queue.leave(self.number);
        queue.notify_next();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut queue = self.limiter.queue.lock();
        queue.running.remove(&self.number);
        queue.notify_next();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;
    use jiff::Timestamp;

    const SECOND: Duration = Duration::from_secs(1);
    const ALMOST_SLOW: Duration = Duration::from_millis(1999);

    fn limiter() -> (Clock, Arc<CallLimiter>) {
        let clock = Clock::virtual_at(Timestamp::UNIX_EPOCH);
        (clock.clone(), CallLimiter::new(clock, SECOND, 1))
    }

    #[tokio::test(start_paused = true)]
    async fn two_calls_start_at_least_a_gap_apart() {
        let (clock, limiter) = limiter();
        limiter.enqueue(Priority::Background).acquire().await.mark_started();

        limiter.enqueue(Priority::Background).acquire().await.mark_started();

        assert_eq!(clock.now().as_millisecond(), 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unused_permit_starts_no_gap() {
        let (clock, limiter) = limiter();
        drop(limiter.enqueue(Priority::Background).acquire().await);

        limiter.enqueue(Priority::Background).acquire().await.mark_started();

        assert_eq!(clock.now().as_millisecond(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn two_calls_do_not_run_at_once() {
        let (clock, limiter) = limiter();
        let mut running = limiter.enqueue(Priority::Interactive).acquire().await;
        running.mark_started();

        let second = clock.bounded(ALMOST_SLOW, limiter.enqueue(Priority::Interactive).acquire()).await;

        assert!(second.is_none());
        drop(running);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_a_response_for_two_seconds_does_not_block_others() {
        let (clock, limiter) = limiter();
        let mut hanging = limiter.enqueue(Priority::Interactive).acquire().await;
        hanging.mark_started();

        let second = clock.bounded(SECOND * 60, limiter.enqueue(Priority::Interactive).acquire()).await;

        assert!(second.is_some());
        assert_eq!(clock.now().as_millisecond(), 2000);
    }

    #[tokio::test(start_paused = true)]
    async fn other_calls_run_one_at_a_time_during_a_slow_call() {
        let (clock, limiter) = limiter();
        let mut hanging = limiter.enqueue(Priority::Interactive).acquire().await;
        hanging.mark_started();
        let mut quick = limiter.enqueue(Priority::Interactive).acquire().await;
        quick.mark_started();

        let third = clock.bounded(ALMOST_SLOW, limiter.enqueue(Priority::Interactive).acquire()).await;

        assert!(third.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn at_most_four_hanging_calls_run_at_once() {
        let (clock, limiter) = limiter();
        let mut hanging = Vec::new();
        for _ in 0..4 {
            let mut permit = limiter.enqueue(Priority::Interactive).acquire().await;
            permit.mark_started();
            hanging.push(permit);
        }

        let fifth = limiter.enqueue(Priority::Interactive).acquire();
        let fifth = clock.bounded(SECOND * 60, fifth).await;
        assert!(fifth.is_none());

        drop(hanging.pop());
        let fifth = limiter.enqueue(Priority::Interactive).acquire();
        assert!(clock.bounded(SECOND * 60, fifth).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn an_unused_permit_never_counts_as_slow() {
        let (clock, limiter) = limiter();
        let mut first = limiter.enqueue(Priority::Interactive).acquire().await;
        let mut second = pin!(limiter.enqueue(Priority::Interactive).acquire());

        assert!(clock.bounded(SECOND * 3, second.as_mut()).await.is_none());
        first.mark_started();

        assert!(clock.bounded(ALMOST_SLOW, second.as_mut()).await.is_none());
        assert!(clock.bounded(SECOND, second).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_gap_starts_when_a_permit_is_used() {
        let clock = Clock::virtual_at(Timestamp::UNIX_EPOCH);
        let limiter = CallLimiter::new(clock.clone(), SECOND, 2);
        let mut first = limiter.enqueue(Priority::Interactive).acquire().await;
        let mut second = pin!(limiter.enqueue(Priority::Interactive).acquire());

        assert!(clock.bounded(SECOND * 3, second.as_mut()).await.is_none());
        first.mark_started();
        second.await.mark_started();

        assert_eq!(clock.now().as_millisecond(), 4000);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_gap_an_unused_permit_does_not_delay_the_next() {
        let clock = Clock::virtual_at(Timestamp::UNIX_EPOCH);
        let limiter = CallLimiter::new(clock.clone(), Duration::ZERO, 2);
        let _first = limiter.enqueue(Priority::Interactive).acquire().await;
        let second = limiter.enqueue(Priority::Interactive).try_acquire();
        let third = clock.bounded(SECOND * 60, limiter.enqueue(Priority::Interactive).acquire()).await;

        assert!(second.is_some());
        assert!(third.is_none());
    }

    #[test]
    fn slow_calls_count_only_toward_the_maximum() {
        let ages = |ages: &[u64]| ages.iter().map(|age| Some(Duration::from_secs(*age))).collect::<Vec<_>>();
        let room = |calls: &[u64], parallel| wait_for_room(ages(calls).into_iter(), parallel);

        assert_eq!(room(&[], 1), Some(Duration::ZERO));
        assert_eq!(room(&[1], 1), Some(SECOND));
        assert_eq!(room(&[1], 2), Some(Duration::ZERO));
        assert_eq!(room(&[9, 1], 2), Some(Duration::ZERO));
        assert_eq!(room(&[1, 0], 1), Some(SECOND * 2), "both must become slow");
        assert_eq!(room(&[9, 9, 9, 9], 1), None);
        assert_eq!(room(&[9; 8], 8), None, "a limit above four is the limit for slow calls too");
        assert_eq!(room(&[9; 7], 8), Some(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn an_interactive_caller_goes_before_a_background_caller() {
        let (clock, limiter) = limiter();
        let running = limiter.enqueue(Priority::Background).acquire().await;
        let background = limiter.enqueue(Priority::Background);
        let interactive = limiter.enqueue(Priority::Interactive);
        drop(running);

        let first = clock.bounded(SECOND * 60, background.acquire());
        let second = interactive.acquire();

        tokio::select! {
            biased;
            _ = first => panic!("the background caller went first"),
            _ = second => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_ticket_with_raised_priority_goes_first() {
        let (_, limiter) = limiter();
        let running = limiter.enqueue(Priority::Background).acquire().await;
        let [first, second] = [limiter.enqueue(Priority::Background), limiter.enqueue(Priority::Background)];
        limiter.raise_priority(second.number());
        drop(running);

        tokio::select! {
            biased;
            _ = first.acquire() => panic!("the first ticket went first"),
            _ = second.acquire() => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_ticket_does_not_block_others() {
        let (clock, limiter) = limiter();
        let running = limiter.enqueue(Priority::Background).acquire().await;
        let dropped = limiter.enqueue(Priority::Interactive);
        let waiting = limiter.enqueue(Priority::Background);
        drop(dropped);
        drop(running);

        assert!(clock.bounded(SECOND * 60, waiting.acquire()).await.is_some());
    }
}
