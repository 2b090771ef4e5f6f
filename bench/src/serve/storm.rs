//! A thousand clients that poll each second for a minute, from a cold start, while the provider has its real budget of calls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quota_core::Clock;
use tokio::task::JoinSet;

use super::client::Client;
use super::process::{Process, provider, usage_of};
use crate::row::Row;

const CLIENTS: usize = 1000;
const ACCOUNTS: usize = 4;
const POLLS: u32 = 60;
const INTERVAL: Duration = Duration::from_secs(1);

pub(super) async fn rows() -> Vec<Row> {
    let simulator = provider(ACCOUNTS).await;
    // The default policy: its interval is longer than the storm.
    let process = Process::start(&simulator, ACCOUNTS, "", None).await;
    let latencies = Arc::new(Mutex::new(Vec::with_capacity(CLIENTS * POLLS as usize)));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let (address, latencies) = (process.address, Arc::clone(&latencies));
        clients.spawn(async move {
            let clock = Clock::system();
            // The clients are spread over the interval.
            let phase = INTERVAL * number as u32 / CLIENTS as u32;
            let started_at = Instant::now() + phase;
            let path = usage_of(number % ACCOUNTS);
            let mut client = Client::connect(address).await;
            for poll in 0..POLLS {
                let at = started_at + INTERVAL * poll;
                clock.sleep(at.saturating_duration_since(Instant::now())).await;
                let sent_at = Instant::now();
                client.get(&path, "").await;
                // The first one may wait for the provider.
                if poll > 0 {
                    latencies.lock().push(sent_at.elapsed().as_secs_f64() * 1e3);
                }
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.expect("a client does not panic");
    }
    let ledger = simulator.ledger();
    let refused: u64 = ledger.accounts.values().map(|account| account.answered(429)).sum();
    let calls = ledger.accounts.values().map(|account| account.calls).max().unwrap_or_default();
    let mut latencies = std::mem::take(&mut *latencies.lock());
    latencies.sort_by(f64::total_cmp);
    let p99 = latencies[latencies.len() * 99 / 100];
    vec![
        Row::absolute("serve.storm.refused", (refused as f64, "answers of 429"), "0", refused == 0),
        Row::absolute("serve.storm.calls", (calls as f64, "calls/interval"), "<= 1", calls <= 1),
        Row::absolute("serve.storm.p99", (p99, "ms"), "reported", true),
    ]
}
