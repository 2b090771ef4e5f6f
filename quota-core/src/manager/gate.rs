//! How fast one process may ask one provider: so many calls at once, so far apart, those first for whom somebody waits.
//! Whether an account may be asked about at all is in `record`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Instant;
use crate::{Clock, Urgency};

/// The way to one provider.
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

#[derive(Debug, Default)]
struct Line {
    running: usize,
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
    start: Instant,
    start_before: Option<Instant>,
    is_used: bool,
}

impl Pass {
    /// Says that a call is made: from now on the gap counts.
    pub(crate) fn call(&mut self) {
        self.is_used = true;
        self.gate.line().last_start = Some(self.gate.clock.instant());
    }
}

impl Gate {
    pub(crate) fn new(clock: Clock, gap: Duration, parallel: usize) -> Arc<Self> {
        Arc::new(Self { clock, gap, parallel, line: Mutex::default() })
    }

    /// Takes a place in the line.
    pub(crate) fn queue(self: &Arc<Self>, urgency: Urgency) -> Ticket {
        let mut line = self.line();
        line.last_number += 1;
        let (number, turn) = (line.last_number, Arc::new(Notify::new()));
        line.of(urgency).insert(number, Arc::clone(&turn));
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
    fn of(&mut self, urgency: Urgency) -> &mut BTreeMap<u64, Arc<Notify>> {
        match urgency {
            Urgency::Interactive => &mut self.interactive,
            Urgency::Background => &mut self.background,
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
                // Somebody who is in more of a hurry may come while the gap passes.
                Look::Soon(gap) => drop(self.gate.clock.bounded(gap, self.turn.notified()).await),
                Look::Later => self.turn.notified().await,
            }
        }
    }

    fn look(&self) -> Look {
        let mut line = self.gate.line();
        let first = line.next().is_some_and(|(number, _)| *number == self.number);
        if !first || line.running >= self.gate.parallel {
            return Look::Later;
        }
        let now = self.gate.clock.instant();
        let since = line.last_start.map(|start| now.saturating_since(start));
        if let Some(left) =
            since.and_then(|since| self.gate.gap.checked_sub(since)).filter(|left| !left.is_zero())
        {
            return Look::Soon(left);
        }
        line.leave(self.number);
        line.running += 1;
        let start_before = line.last_start.replace(now);
        line.call_next();
        Look::Pass(Pass { gate: Arc::clone(&self.gate), start: now, start_before, is_used: false })
    }
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
        line.running -= 1;
        if !self.is_used && line.last_start == Some(self.start) {
            line.last_start = self.start_before;
        }
        line.call_next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    const SECOND: Duration = Duration::from_secs(1);

    fn gate() -> (Clock, Arc<Gate>) {
        let clock = Clock::anchored(Timestamp::UNIX_EPOCH);
        (clock.clone(), Gate::new(clock, SECOND, 1))
    }

    #[tokio::test(start_paused = true)]
    async fn starts_are_a_gap_apart() {
        let (clock, gate) = gate();
        gate.queue(Urgency::Background).pass().await.call();

        gate.queue(Urgency::Background).pass().await.call();

        assert_eq!(clock.now().as_millisecond(), 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_finds_that_no_call_is_needed_costs_the_next_no_gap() {
        let (clock, gate) = gate();
        drop(gate.queue(Urgency::Background).pass().await);

        gate.queue(Urgency::Background).pass().await.call();

        assert_eq!(clock.now().as_millisecond(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn two_calls_do_not_run_at_once() {
        let (clock, gate) = gate();
        let running = gate.queue(Urgency::Interactive).pass().await;

        let second = clock.bounded(SECOND * 60, gate.queue(Urgency::Interactive).pass()).await;

        assert!(second.is_none());
        drop(running);
    }

    #[tokio::test(start_paused = true)]
    async fn somebody_who_waits_goes_before_the_background() {
        let (clock, gate) = gate();
        let running = gate.queue(Urgency::Background).pass().await;
        let background = gate.queue(Urgency::Background);
        let interactive = gate.queue(Urgency::Interactive);
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
        let running = gate.queue(Urgency::Background).pass().await;
        let [first, second] = [gate.queue(Urgency::Background), gate.queue(Urgency::Background)];
        gate.hurry(second.number());
        drop(running);

        let served = super::super::tasks::either(first.pass(), second.pass()).await;

        assert!(matches!(served, super::super::tasks::Either::Second(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_leaves_the_line_blocks_nobody() {
        let (clock, gate) = gate();
        let running = gate.queue(Urgency::Background).pass().await;
        let left = gate.queue(Urgency::Interactive);
        let stays = gate.queue(Urgency::Background);
        drop(left);
        drop(running);

        assert!(clock.bounded(SECOND * 60, stays.pass()).await.is_some());
    }
}
