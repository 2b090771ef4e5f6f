//! One change of an account to many clients that follow the events: the time until the last one has it, and the memory for each.

use std::time::{Duration, Instant};

use quota_core::Clock;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::client::{Client, Follower};
use super::process::{NO_PAUSE, Process, provider, usage_of};
use crate::row::Row;

/// The changes for each number of clients. They differ by one percent of the window.
const CHANGES: usize = 50;
/// The pause after a change, in which the gateway writes it to its store and its journal.
const PAUSE: Duration = Duration::from_millis(50);
const MAX_KIB: f64 = 32.0;

pub(super) async fn rows() -> Vec<Row> {
    let mut rows = of(100, 50.0).await;
    rows.extend(of(1000, 250.0).await);
    rows
}

async fn of(clients: usize, most_ms: f64) -> Vec<Row> {
    let simulator = provider(1).await;
    let process = Process::start(&simulator, 1, NO_PAUSE, None).await;
    let mut client = Client::connect(process.address).await;
    client.get(&usage_of(0), "").await;
    let clock = Clock::system();
    // What the process allocates for its first streams stays allocated.
    drop(Follower::connect(process.address).await);
    clock.sleep(PAUSE).await;
    let before = process.resident_kib();

    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let mut followers = JoinSet::new();
    for _ in 0..clients {
        let mut follower = Follower::connect(process.address).await;
        let arrived = arrived.clone();
        followers.spawn(async move {
            loop {
                follower.until("event: changed").await;
                if arrived.send(Instant::now()).is_err() {
                    return;
                }
            }
        });
    }
    let mut times = Vec::new();
    for change in 0..CHANGES {
        // A change may be reported twice: when it is merged, and when it is stored.
        clock.sleep(PAUSE).await;
        while arrivals.try_recv().is_ok() {}
        let body = json!({ "account": "anthropic/a0", "status": 200, "headers": {
            "anthropic-ratelimit-unified-5h-utilization": format!("0.{}", 20 + change),
            "anthropic-ratelimit-unified-5h-reset": (Clock::system().now().as_second() + 9000).to_string(),
        } });
        let started_at = Instant::now();
        client.post("/v1/observe", &body.to_string()).await;
        let mut last = started_at;
        for _ in 0..clients {
            last = last.max(arrivals.recv().await.expect("the followers run"));
        }
        times.push(last.duration_since(started_at).as_secs_f64() * 1e3);
    }
    let after = process.resident_kib();
    followers.shutdown().await;

    times.sort_by(f64::total_cmp);
    let name = format!("serve.events.{clients}");
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    let mut rows = vec![
        Row::absolute(&name, (p50, "ms"), &format!("<= {most_ms} ms"), p50 <= most_ms),
        Row::absolute(&format!("{name}.p99"), (p99, "ms"), "reported", true),
    ];
    if let (Some(before), Some(after)) = (before, after) {
        let each = (after - before) / clients as f64;
        rows.push(Row::absolute(&format!("{name}.memory"), (each, "KiB"), "<= 32 KiB", each <= MAX_KIB));
    }
    rows
}
