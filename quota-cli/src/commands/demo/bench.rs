//! Measures the latency of a read, at the end of a demo and on an account that all consumers read.
#![expect(clippy::disallowed_methods, reason = "the measurement needs a clock finer than milliseconds")]

use std::hint::black_box;
use std::time::Instant;

use quota::Account;

/// The number of reads per round. It is large enough to hide the cost of the clock, and small enough that an
/// interruption affects only one round.
const READS_PER_ROUND: u32 = 200;
const ROUNDS: usize = 501;

/// Returns the median of many rounds, in nanoseconds per read.
pub(super) fn ns_p50(account: &Account) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..READS_PER_ROUND {
                let _ = black_box(black_box(account).peek());
            }
            start.elapsed().as_secs_f64() * 1e9 / f64::from(READS_PER_ROUND)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    (rounds[ROUNDS / 2] * 10.0).round() / 10.0
}
