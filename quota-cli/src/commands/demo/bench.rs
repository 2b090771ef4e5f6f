//! Measures the latency of a read, at the end of a demo and on an account that all consumers read.
#![expect(
    clippy::disallowed_methods,
    reason = "to measure is to read a clock that is finer than milliseconds"
)]

use std::hint::black_box;
use std::time::Instant;

use quota::Account;

/// Enough that reading the clock does not matter, and few enough that an interruption spoils only one round.
const LOOKS: u32 = 200;
const ROUNDS: usize = 501;

/// The median of many rounds, in nanoseconds per read.
pub(super) fn ns_p50(account: &Account) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..LOOKS {
                let _ = black_box(black_box(account).peek());
            }
            start.elapsed().as_secs_f64() * 1e9 / f64::from(LOOKS)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    (rounds[ROUNDS / 2] * 10.0).round() / 10.0
}
