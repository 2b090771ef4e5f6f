//! How fast one process may call one provider: how many calls at once, how far apart, and interactive callers first.
//! Whether an account may be asked about at all is in `record`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Instant;
use crate::{Clock, Priority};

/// The way to one provider.
///
/// Starts are a gap apart, and at most `parallel` calls run at once. A call that has been unanswered for [`SLOW_AFTER`] does not
/// count toward that limit, up to [`MOST_AT_ONCE`] calls in all: one account that hangs does not hold up the others.
///
/// A pass that is not used yet always counts toward the limit. With a gap, it also keeps the next caller waiting: the gap
/// begins only when the pass is used.
///
/// An interactive caller waits for the calls that are running, and for other interactive callers; never for background
/// callers that queue.
#[derive(Debug)]
pub(crate) struct Gate {
    clock: Clock,
    gap: Duration,
    parallel: usize,
    line: Mutex<Line>,
}

/// A call that is unanswered for this long no longer blocks others.
const SLOW_AFTER: Duration = Duration::from_secs(2);

/// The most calls at once beside slow ones, unless the policy allows more.
const MOST_AT_ONCE: usize = 4;

#[derive(Debug, Default)]
struct Line {
    /// When each call that is running was started, by its number; `None` for a pass that is not used yet.
    running: BTreeMap<u64, Option<Instant>>,
    last_start: Option<Instant>,
    last_number: u64,
    interactive: BTreeMap<u64, Arc<Notify>>,
    background: BTreeMap<u64, Arc<Notify>>,
}

/// A place in the line; dropping it leaves the line.
#[derive(Debug)]
pub(crate) struct Ticket {
    gate: Arc<Gate>,
    number: u64,
    turn: Arc<Notify>,
}

/// The right to call now; dropping it lets the next one in.
///
/// One that was not used costs the others no gap.
#[derive(Debug)]
#[must_use]
pub(crate) struct Pass {
    gate: Arc<Gate>,
    number: u64,
}

impl Pass {
    /// Starts the call: the gap, and the time until it is slow, begin now.
    pub(crate) fn call(&mut self) {
        let now = self.gate.clock.instant();
        let mut line = self.gate.line();
        line.last_start = Some(now);
        line.running.insert(self.number, Some(now));
        line.call_next();
    }
}

impl Gate {
    pub(crate) fn new(clock: Clock, gap: Duration, parallel: usize) -> Arc<Self> {
        Arc::new(Self { clock, gap, parallel, line: Mutex::default() })
    }

    /// Takes a place in the line.
    pub(crate) fn queue(self: &Arc<Self>, priority: Priority) -> Ticket {
        let mut line = self.line();
        line.last_number += 1;
        let (number, turn) = (line.last_number, Arc::new(Notify::new()));
        line.of(priority).insert(number, Arc::clone(&turn));
        Ticket { gate: Arc::clone(self), number, turn }
    }

    /// Moves a place in the line before all background ones; nothing if it has been served already.
    pub(crate) fn hurry(&self, number: u64) {
        let mut line = self.line();
        if let Some(turn) = line.background.remove(&number) {
            line.interactive.insert(number, turn);
            line.call_next();
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn of(&mut self, priority: Priority) -> &mut BTreeMap<u64, Arc<Notify>> {
        match priority {
            Priority::Interactive => &mut self.interactive,
            Priority::Background => &mut self.background,
        }
    }

    fn next(&self) -> Option<(&u64, &Arc<Notify>)> {
        self.interactive.first_key_value().or_else(|| self.background.first_key_value())
    }

    fn call_next(&self) {
        if let Some((_, turn)) = self.next() {
            turn.notify_one();
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

    /// The turn, if it is now.
    pub(crate) fn at_once(&self) -> Option<Pass> {
        match self.look() {
            Look::Pass(pass) => Some(pass),
            Look::Soon(_) | Look::Later => None,
        }
    }

    /// Waits for its turn.
    pub(crate) async fn pass(self) -> Pass {
        loop {
            match self.look() {
                Look::Pass(pass) => return pass,
                // A more urgent caller may come, or a call may end, before that.
                Look::Soon(gap) => drop(self.gate.clock.bounded(gap, self.turn.notified()).await),
                Look::Later => self.turn.notified().await,
            }
        }
    }

    fn look(&self) -> Look {
        let mut line = self.gate.line();
        let first = line.next().is_some_and(|(number, _)| *number == self.number);
        if !first {
            return Look::Later;
        }
        let now = self.gate.clock.instant();
        let since_last = line.last_start.map(|start| now.saturating_since(start));
        let gap = since_last.and_then(|since| left_of(self.gate.gap, since));
        if !self.gate.gap.is_zero() && line.running.values().any(Option::is_none) {
            return Look::Later;
        }
        let calls = line.running.values().map(|start| start.map(|start| now.saturating_since(start)));
        match wait_for_room(calls, self.gate.parallel).map(|room| room.max(gap.unwrap_or_default())) {
            None => return Look::Later,
            Some(wait) if !wait.is_zero() => return Look::Soon(wait),
            Some(_) => {}
        }
        line.leave(self.number);
        line.running.insert(self.number, None);
        line.call_next();
        Look::Pass(Pass { gate: Arc::clone(&self.gate), number: self.number })
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
    if count >= MOST_AT_ONCE.max(parallel) {
        return None;
    }
    // So many calls must become slow before fewer than `parallel` count.
    let not_slow = unstarted + left_until_slow.len();
    let Some(surplus) = not_slow.checked_sub(parallel) else { return Some(Duration::ZERO) };
    left_until_slow.sort_unstable();
    left_until_slow.get(surplus).copied()
}

/// What is left of a span after so much of it; `None` if nothing is.
fn left_of(span: Duration, passed: Duration) -> Option<Duration> {
    span.checked_sub(passed).filter(|left| !left.is_zero())
}

enum Look {
    Pass(Pass),
    Soon(Duration),
    Later,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut line = self.gate.line();
        line.leave(self.number);
        line.call_next();
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut line = self.gate.line();
        line.running.remove(&self.number);
        line.call_next();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;
    use jiff::Timestamp;

    const SECOND: Duration = Duration::from_secs(1);
    const ALMOST_SLOW: Duration = Duration::from_millis(1999);

    fn gate() -> (Clock, Arc<Gate>) {
        let clock = Clock::anchored(Timestamp::UNIX_EPOCH);
        (clock.clone(), Gate::new(clock, SECOND, 1))
    }

    #[tokio::test(start_paused = true)]
    async fn starts_are_a_gap_apart() {
        let (clock, gate) = gate();
        gate.queue(Priority::Background).pass().await.call();

        gate.queue(Priority::Background).pass().await.call();

        assert_eq!(clock.now().as_millisecond(), 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_finds_that_no_call_is_needed_costs_the_next_no_gap() {
        let (clock, gate) = gate();
        drop(gate.queue(Priority::Background).pass().await);

        gate.queue(Priority::Background).pass().await.call();

        assert_eq!(clock.now().as_millisecond(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn two_calls_do_not_run_at_once() {
        let (clock, gate) = gate();
        let mut running = gate.queue(Priority::Interactive).pass().await;
        running.call();

        let second = clock.bounded(ALMOST_SLOW, gate.queue(Priority::Interactive).pass()).await;

        assert!(second.is_none());
        drop(running);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_unanswered_for_two_seconds_blocks_no_other() {
        let (clock, gate) = gate();
        let mut hanging = gate.queue(Priority::Interactive).pass().await;
        hanging.call();

        let second = clock.bounded(SECOND * 60, gate.queue(Priority::Interactive).pass()).await;

        assert!(second.is_some());
        assert_eq!(clock.now().as_millisecond(), 2000);
    }

    #[tokio::test(start_paused = true)]
    async fn beside_a_slow_call_the_others_run_one_at_a_time() {
        let (clock, gate) = gate();
        let mut hanging = gate.queue(Priority::Interactive).pass().await;
        hanging.call();
        let mut quick = gate.queue(Priority::Interactive).pass().await;
        quick.call();

        let third = clock.bounded(ALMOST_SLOW, gate.queue(Priority::Interactive).pass()).await;

        assert!(third.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn of_calls_that_all_hang_four_run_at_once() {
        let (clock, gate) = gate();
        let mut hanging = Vec::new();
        for _ in 0..4 {
            let mut pass = gate.queue(Priority::Interactive).pass().await;
            pass.call();
            hanging.push(pass);
        }

        let fifth = gate.queue(Priority::Interactive).pass();
        let fifth = clock.bounded(SECOND * 60, fifth).await;
        assert!(fifth.is_none());

        drop(hanging.pop());
        let fifth = gate.queue(Priority::Interactive).pass();
        assert!(clock.bounded(SECOND * 60, fifth).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn an_unused_pass_is_not_a_slow_call() {
        let (clock, gate) = gate();
        let mut first = gate.queue(Priority::Interactive).pass().await;
        let mut second = pin!(gate.queue(Priority::Interactive).pass());

        assert!(clock.bounded(SECOND * 3, second.as_mut()).await.is_none());
        first.call();

        assert!(clock.bounded(ALMOST_SLOW, second.as_mut()).await.is_none());
        assert!(clock.bounded(SECOND, second).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn starts_are_a_gap_apart_although_a_pass_is_used_late() {
        let clock = Clock::anchored(Timestamp::UNIX_EPOCH);
        let gate = Gate::new(clock.clone(), SECOND, 2);
        let mut first = gate.queue(Priority::Interactive).pass().await;
        let mut second = pin!(gate.queue(Priority::Interactive).pass());

        assert!(clock.bounded(SECOND * 3, second.as_mut()).await.is_none());
        first.call();
        second.await.call();

        assert_eq!(clock.now().as_millisecond(), 4000);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_gap_passes_are_given_while_others_are_unused() {
        let clock = Clock::anchored(Timestamp::UNIX_EPOCH);
        let gate = Gate::new(clock.clone(), Duration::ZERO, 2);
        let _first = gate.queue(Priority::Interactive).pass().await;
        let second = gate.queue(Priority::Interactive).at_once();
        let third = clock.bounded(SECOND * 60, gate.queue(Priority::Interactive).pass()).await;

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
    async fn somebody_who_waits_goes_before_the_background() {
        let (clock, gate) = gate();
        let running = gate.queue(Priority::Background).pass().await;
        let background = gate.queue(Priority::Background);
        let interactive = gate.queue(Priority::Interactive);
        drop(running);

        let first = clock.bounded(SECOND * 60, background.pass());
        let second = interactive.pass();

        assert!(matches!(
            super::super::tasks::either(first, second).await,
            super::super::tasks::Either::Second(_)
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_background_place_that_somebody_joins_moves_up() {
        let (_, gate) = gate();
        let running = gate.queue(Priority::Background).pass().await;
        let [first, second] = [gate.queue(Priority::Background), gate.queue(Priority::Background)];
        gate.hurry(second.number());
        drop(running);

        let served = super::super::tasks::either(first.pass(), second.pass()).await;

        assert!(matches!(served, super::super::tasks::Either::Second(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_leaves_the_line_blocks_nobody() {
        let (clock, gate) = gate();
        let running = gate.queue(Priority::Background).pass().await;
        let left = gate.queue(Priority::Interactive);
        let stays = gate.queue(Priority::Background);
        drop(left);
        drop(running);

        assert!(clock.bounded(SECOND * 60, stays.pass()).await.is_some());
    }
}
