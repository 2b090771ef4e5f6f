//! Limits the calls of one process to one provider: how many at once, how far apart, interactive callers first.
//! Whether an account may be refreshed at all is decided in `record`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::{Clock, Instant};
use crate::record::Priority;

/// The call limiter of one provider.
///
/// Starts are a gap apart, and at most `parallel` calls run at once. A call that has been unanswered for [`SLOW_AFTER`] does not
/// count toward that limit, up to [`MAX_CONCURRENT`] calls in all: one account that hangs does not hold up the others.
///
/// An unused permit counts toward the limit. If calls must be apart, it also delays the next caller: the interval starts when the
/// permit is used.
///
/// An interactive caller waits for the calls that are running, and for other interactive callers; never for background
/// callers that queue.
#[derive(Debug)]
pub(crate) struct CallLimiter {
    clock: Clock,
    gap: Duration,
    parallel: usize,
    queue: Mutex<Queue>,
}

/// A call that is unanswered for this long no longer blocks others.
const SLOW_AFTER: Duration = Duration::from_secs(2);

/// The most calls at once beside slow ones, unless the policy allows more.
const MAX_CONCURRENT: usize = 4;

#[derive(Debug, Default)]
struct Queue {
    /// When each call that is running was started, by its number; `None` for a pass that is not used yet.
    running: BTreeMap<u64, Option<Instant>>,
    last_start: Option<Instant>,
    last_number: u64,
    interactive: BTreeMap<u64, Arc<Notify>>,
    background: BTreeMap<u64, Arc<Notify>>,
}

/// A position in the queue; dropping it leaves the queue.
#[derive(Debug)]
pub(crate) struct Ticket {
    limiter: Arc<CallLimiter>,
    number: u64,
    notify: Arc<Notify>,
}

/// The permission to call now; dropping it admits the next caller.
///
/// An unused permit starts no interval.
#[derive(Debug)]
#[must_use]
pub(crate) struct Permit {
    limiter: Arc<CallLimiter>,
    number: u64,
}

impl Permit {
    /// Starts the call. The interval to the next one, and the time until it counts as slow, start now.
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

    /// Moves a ticket before all background ones; does nothing if it was served already.
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
                // A more urgent caller may come, or a call may end, before that.
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

/// How long until one more call may run beside those that have run for `ages`; `None` if one of them must start or end first.
///
/// A call that has no age has not started, and does not become slow.
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
    // So many calls must become slow before fewer than `parallel` count.
    let not_slow = unstarted + left_until_slow.len();
    let Some(surplus) = not_slow.checked_sub(parallel) else { return Some(Duration::ZERO) };
    left_until_slow.sort_unstable();
    left_until_slow.get(surplus).copied()
}

/// What is left of a duration; `None` if it has passed.
fn left_of(span: Duration, passed: Duration) -> Option<Duration> {
    span.checked_sub(passed).filter(|left| !left.is_zero())
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
        let clock = Clock::anchored(Timestamp::UNIX_EPOCH);
        (clock.clone(), CallLimiter::new(clock, SECOND, 1))
    }

    #[tokio::test(start_paused = true)]
    async fn starts_are_a_gap_apart() {
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
    async fn a_call_that_is_unanswered_for_two_seconds_blocks_no_other() {
        let (clock, limiter) = limiter();
        let mut hanging = limiter.enqueue(Priority::Interactive).acquire().await;
        hanging.mark_started();

        let second = clock.bounded(SECOND * 60, limiter.enqueue(Priority::Interactive).acquire()).await;

        assert!(second.is_some());
        assert_eq!(clock.now().as_millisecond(), 2000);
    }

    #[tokio::test(start_paused = true)]
    async fn beside_a_slow_call_the_others_run_one_at_a_time() {
        let (clock, limiter) = limiter();
        let mut hanging = limiter.enqueue(Priority::Interactive).acquire().await;
        hanging.mark_started();
        let mut quick = limiter.enqueue(Priority::Interactive).acquire().await;
        quick.mark_started();

        let third = clock.bounded(ALMOST_SLOW, limiter.enqueue(Priority::Interactive).acquire()).await;

        assert!(third.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn of_calls_that_all_hang_four_run_at_once() {
        let (clock, limiter) = limiter();
        let mut hanging = Vec::new();
        for _ in 0..4 {
            let mut acquire = limiter.enqueue(Priority::Interactive).acquire().await;
            acquire.mark_started();
            hanging.push(acquire);
        }

        let fifth = limiter.enqueue(Priority::Interactive).acquire();
        let fifth = clock.bounded(SECOND * 60, fifth).await;
        assert!(fifth.is_none());

        drop(hanging.pop());
        let fifth = limiter.enqueue(Priority::Interactive).acquire();
        assert!(clock.bounded(SECOND * 60, fifth).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn an_unused_pass_is_not_a_slow_call() {
        let (clock, limiter) = limiter();
        let mut first = limiter.enqueue(Priority::Interactive).acquire().await;
        let mut second = pin!(limiter.enqueue(Priority::Interactive).acquire());

        assert!(clock.bounded(SECOND * 3, second.as_mut()).await.is_none());
        first.mark_started();

        assert!(clock.bounded(ALMOST_SLOW, second.as_mut()).await.is_none());
        assert!(clock.bounded(SECOND, second).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn starts_are_a_gap_apart_although_a_pass_is_used_late() {
        let clock = Clock::anchored(Timestamp::UNIX_EPOCH);
        let limiter = CallLimiter::new(clock.clone(), SECOND, 2);
        let mut first = limiter.enqueue(Priority::Interactive).acquire().await;
        let mut second = pin!(limiter.enqueue(Priority::Interactive).acquire());

        assert!(clock.bounded(SECOND * 3, second.as_mut()).await.is_none());
        first.mark_started();
        second.await.mark_started();

        assert_eq!(clock.now().as_millisecond(), 4000);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_gap_passes_are_given_while_others_are_unused() {
        let clock = Clock::anchored(Timestamp::UNIX_EPOCH);
        let limiter = CallLimiter::new(clock.clone(), Duration::ZERO, 2);
        let _first = limiter.enqueue(Priority::Interactive).acquire().await;
        let second = limiter.enqueue(Priority::Interactive).try_acquire();
        let third = clock.bounded(SECOND * 60, limiter.enqueue(Priority::Interactive).acquire()).await;

        assert!(second.is_some());
        assert!(third.is_none());
    }

    #[test]
    fn a_higher_limit_counts_slow_calls_no_more_than_a_low_one() {
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
    async fn an_interactive_caller_goes_before_the_background() {
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
    async fn a_background_ticket_joined_by_an_interactive_caller_moves_up() {
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
    async fn a_dropped_ticket_blocks_no_other() {
        let (clock, limiter) = limiter();
        let running = limiter.enqueue(Priority::Background).acquire().await;
        let left = limiter.enqueue(Priority::Interactive);
        let stays = limiter.enqueue(Priority::Background);
        drop(left);
        drop(running);

        assert!(clock.bounded(SECOND * 60, stays.acquire()).await.is_some());
    }
}
