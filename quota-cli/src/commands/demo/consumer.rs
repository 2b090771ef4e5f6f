//! The consumers: tasks that read usage, each with its own accounts and intervals.
//! They share one manager, and nothing here limits their reads.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;
use quota::{Account, Clock};
use tokio::task::JoinSet;

use super::counters::Counters;
use super::plan::Plan;
use crate::format::between;

/// All consumers of a demo. Dropping it cancels their tasks.
#[derive(Debug)]
pub(crate) struct Consumers {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    accounts: Arc<[Account]>,
    counters: Counters,
    clock: Clock,
    started: Timestamp,
    max_age: Duration,
    pause: Duration,
}

impl Consumers {
    /// Spawns the consumers on the current runtime.
    pub(crate) fn start(plan: &Plan, accounts: &Arc<[Account]>, started: Timestamp) -> Self {
        let shared = Arc::new(Shared {
            accounts: Arc::clone(accounts),
            counters: Counters::default(),
            clock: Clock::system(),
            started,
            max_age: plan.policy.max_age,
            pause: plan.pause,
        });
        let mut tasks = JoinSet::new();
        for number in 0..plan.consumers {
            tasks.spawn(Consumer::new(number, plan.seed, &shared).run());
        }
        Self { shared, tasks }
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Cancels all consumers.
    pub(crate) async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }
}

/// A consumer of two accounts: the main one, and a fallback.
struct Consumer {
    shared: Arc<Shared>,
    rng: Rng,
    accounts: [u16; 2],
    /// The calls that the consumer would make without quota, for each account.
    naive: [NaiveClient; 2],
}

impl Consumer {
    fn new(number: u32, seed: u64, shared: &Arc<Shared>) -> Self {
        // Similar seeds must not result in similar intervals.
        let rng = Rng::with_seed(Rng::with_seed(seed.wrapping_add(u64::from(number))).u64(..));
        let fallbacks = shared.accounts.len().saturating_sub(1);
        let fallback = if fallbacks == 0 { 0 } else { 1 + number as usize % fallbacks };
        let accounts = [0, u16::try_from(fallback).unwrap_or_default()];
        Self { shared: Arc::clone(shared), rng, accounts, naive: [NaiveClient::default(); 2] }
    }

    async fn run(mut self) {
        let mut pause = self.shared.pause.mul_f64(self.rng.f64());
        loop {
            self.shared.clock.sleep(pause).await;
            self.read().await;
            pause = self.shared.pause.mul_f64(0.5 + self.rng.f64());
        }
    }

    /// Reads one of the two accounts, in one of three ways.
    async fn read(&mut self) {
        let which = usize::from(self.rng.bool());
        let kind = self.rng.u8(..10);
        self.count_naive(which);
        let shared = &*self.shared;
        let account = &shared.accounts[usize::from(self.accounts[which])];
        match kind {
            // Like a statusline: only read the cache.
            0..2 => shared.counters.read(account.peek().freshness()),
            // Like a router: read the cache, and refresh it in the background.
            2..6 => {
                shared.counters.read(account.peek().freshness());
                account.refresh_in_background();
            }
            // Like an interactive command: wait for a fresh reading.
            _ => match account.get().await {
                Ok(usage) => shared.counters.read(usage.freshness()),
                Err(_) => shared.counters.read_nothing(),
            },
        }
    }

    fn count_naive(&mut self, which: usize) {
        // With a single account, both entries are the same account.
        let which = if self.accounts[0] == self.accounts[1] { 0 } else { which };
        let elapsed = between(self.shared.started, self.shared.clock.now());
        if self.naive[which].calls(elapsed, self.shared.max_age) {
            self.shared.counters.would_have_called();
        }
    }
}

/// A consumer without quota, which does not share its readings.
///
/// It calls whenever its own last reading is stale. Every call is assumed to succeed. In reality it would retry after a 429, so the sum
/// is a lower bound.
#[derive(Debug, Default, Clone, Copy)]
struct NaiveClient {
    /// The last call, in milliseconds since the start. Only four bytes, because there may be a million consumers.
    called_at: Option<u32>,
}

impl NaiveClient {
    /// Whether a read at that time causes a call.
    fn calls(&mut self, elapsed: Duration, max_age: Duration) -> bool {
        let ms = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        let stale = self.called_at.is_none_or(|called| ms(elapsed).saturating_sub(called) >= ms(max_age));
        if stale {
            self.called_at = Some(ms(elapsed));
        }
        stale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_naive_client_calls_at_first_and_when_its_reading_is_stale() {
        let mut naive = NaiveClient::default();

        let calls = [0, 99, 100, 150, 199, 350]
            .map(|ms| naive.calls(Duration::from_millis(ms), Duration::from_millis(100)));

        assert_eq!(calls, [true, false, true, false, false, true]);
    }
}
