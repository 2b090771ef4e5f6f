//! Two gateways with one Redis: the time from a request that the provider answers with 429 until a client of the other gateway knows it.

use std::time::{Duration, Instant};

use quota_core::Clock;
use quota_sim::{Answer, Change};
use redis_harness::Server;
use serde_json::Value;

use super::client::{Client, Follower};
use super::process::{Process, provider, usage_of};
use crate::row::Row;

/// Each account is used for one 429.
const ACCOUNTS: usize = 100;
/// A 429 holds only its own account.
const POLICY: &str =
    "[policy]\nmin_call_interval = \"1ms\"\ncooldown = { span = \"1ms\", scope = \"account\" }\n";
/// A client cannot cause a call within ten seconds of the previous one.
const REFRESH_INTERVAL: Duration = Duration::from_secs(11);
const MAX_MS: f64 = 20.0;

pub(super) async fn rows() -> Vec<Row> {
    let (simulator, server) = (provider(ACCOUNTS).await, Server::start());
    let store = server.url();
    let one = Process::start(&simulator, ACCOUNTS, POLICY, Some(&store)).await;
    let other = Process::start(&simulator, ACCOUNTS, POLICY, Some(&store)).await;
    let (mut caller, mut reader) = (Client::connect(one.address).await, Client::connect(other.address).await);
    for number in 0..ACCOUNTS {
        caller.get(&usage_of(number), "").await;
        reader.get(&usage_of(number), "").await;
    }
    Clock::system().sleep(REFRESH_INTERVAL).await;
    // The connections are too old.
    let mut caller = Client::connect(one.address).await;
    let mut follower = Follower::connect(other.address).await;
    let mut times = Vec::with_capacity(ACCOUNTS);
    for number in 0..ACCOUNTS {
        let name = format!("a{number}");
        simulator.set(&name, Change::answer(Answer::ThrottleNoHeader)).expect("the account exists");
        let mut reader = Client::connect(other.address).await;
        let started_at = Instant::now();
        let knows = async {
            // A call is also a change, so the client reads until it finds the hold.
            loop {
                follower.until(&format!("{{\"account\":\"anthropic/{name}\"}}")).await;
                let answer = reader.get(&format!("/v1/accounts/anthropic/{name}"), "").await;
                let account: Value = serde_json::from_slice(&answer.body).expect("JSON");
                if !account["hold"].is_null() {
                    return started_at.elapsed();
                }
            }
        };
        let refresh = format!("/v1/accounts/anthropic/{name}/refresh");
        let (_, took) = tokio::join!(caller.post(&refresh, ""), knows);
        times.push(took.as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    vec![
        Row::absolute("serve.hold", (p50, "ms"), "<= 20 ms", p50 <= MAX_MS),
        Row::absolute("serve.hold.p99", (p99, "ms"), "reported", true),
    ]
}
