//! `quota serve` with 20 accounts: the time until its first answer, and its memory once it is idle.

use std::time::Instant;

use super::client::Client;
use super::process::{NO_PAUSE, Process, provider, usage_of};
use super::{ACCOUNTS, RUNS};
use crate::measure::median;
use crate::row::Row;

const MAX_START_MS: f64 = 150.0;
const MAX_MEMORY_MIB: f64 = 24.0;

pub(super) async fn rows() -> Vec<Row> {
    let simulator = provider(ACCOUNTS).await;
    let (mut starts, mut memory) = (Vec::new(), Vec::new());
    for round in 0..=RUNS {
        // Each process begins without readings.
        let started_at = Instant::now();
        let process = Process::start(&simulator, ACCOUNTS, NO_PAUSE, None).await;
        let mut client = Client::connect(process.address).await;
        client.get("/healthz", "").await;
        let start = started_at.elapsed().as_secs_f64() * 1e3;
        // After these answers each account has readings, and the process is idle.
        for number in 0..ACCOUNTS {
            client.get(&usage_of(number), "").await;
        }
        drop(client);
        // The first round is a warm-up.
        if round > 0 {
            starts.push(start);
            memory.extend(process.resident_kib().map(|kib| kib / 1024.0));
        }
    }
    let start = median(starts);
    let start = Row::absolute("serve.start", (start, "ms"), "<= 150 ms", start <= MAX_START_MS);
    if memory.is_empty() {
        return vec![start];
    }
    let memory = median(memory);
    vec![start, Row::absolute("serve.memory", (memory, "MiB"), "<= 24 MiB", memory <= MAX_MEMORY_MIB)]
}
