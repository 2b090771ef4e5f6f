//! A hundred processes whose server restarts: how they reconnect, and their calls to the provider.

use std::time::{Duration, Instant};

use quota_core::Clock;
use redis_harness::{Proxy, Server};

use super::herds::{Member, Provider};
use crate::row::Row;

const PROCESSES: usize = 100;
/// How long the server is down.
const OUTAGE: Duration = Duration::from_secs(2);
/// The max age. It is so long that no call is due before all processes have reconnected.
const INTERVAL: Duration = Duration::from_secs(8);

pub(super) async fn rows() -> Vec<Row> {
    let mut server = Server::start();
    let provider = Provider::start(0).await;
    // Each process has its own proxy, which records the times of its connections.
    let wires: Vec<_> = (0..PROCESSES).map(|_| Proxy::new(server.port())).collect();
    let mut members: Vec<_> =
        wires.iter().map(|wire| Member::start_with(&wire.url(), provider.port, 1, Some(INTERVAL))).collect();
    for member in &mut members {
        assert_eq!(member.line().await.as_deref(), Some("ready"), "a member of the herd starts");
    }
    all_read(&mut members).await;
    let first = Instant::now();
    let before = provider.calls();

    server.kill();
    let (lost, clock) = (Instant::now(), Clock::system());
    wires.iter().for_each(Proxy::cut);
    clock.sleep(OUTAGE).await;
    server.restart();
    wires.iter().for_each(Proxy::restore);
    let back = Instant::now();
    clock.sleep(Duration::from_secs(3)).await;

    let tries: Vec<Vec<Instant>> = wires.iter().map(Proxy::attempts).collect();
    // The first attempt after the restart succeeds.
    let returns: Vec<f64> = tries
        .iter()
        .filter_map(|tries| tries.iter().find(|at| **at >= back))
        .map(|at| at.duration_since(back).as_secs_f64() * 1e3)
        .collect();
    let (soonest, last) = returns.iter().fold((f64::MAX, 0.0_f64), |(a, b), at| (a.min(*at), b.max(*at)));
    let busiest = tries.iter().map(|tries| most_in_a_second(tries, lost)).max().unwrap_or_default();

    clock.sleep((INTERVAL + Duration::from_millis(500)).saturating_sub(first.elapsed())).await;
    let served = all_read(&mut members).await;
    let calls = provider.calls() - before;

    let spread = last - soonest;
    let all_back = returns.len() == PROCESSES;
    vec![
        Row::absolute(
            "redis.reconnect.100",
            (spread, "ms"),
            "spread over the rest of 1 s, ≥ 700 ms",
            spread >= 700.0,
        ),
        Row::absolute(
            "redis.reconnect.100.last",
            (last, "ms"),
            "all reconnected within 1 s",
            all_back && last <= 1_000.0,
        ),
        Row::absolute(
            "redis.reconnect.100.tries",
            (busiest as f64, "attempts/s"),
            "≤ 10 of each process",
            busiest <= 10,
        ),
        Row::absolute(
            "redis.reconnect.100.calls",
            (calls as f64, "calls"),
            "1 call, all served",
            calls == 1 && served == PROCESSES,
        ),
    ]
}

/// Starts a read in all members at once. Returns how many reads succeeded.
async fn all_read(members: &mut [Member]) -> usize {
    for member in &mut *members {
        member.start_round().await;
    }
    let mut served = 0;
    for member in members {
        served += usize::from(member.line().await.is_some_and(|line| line.starts_with("1 ")));
    }
    served
}

/// The highest number of attempts within any second after `since`.
fn most_in_a_second(tries: &[Instant], since: Instant) -> usize {
    let tries: Vec<_> = tries.iter().filter(|at| **at >= since).collect();
    let within = |first: &Instant| {
        tries
            .iter()
            .filter(|at| ***at >= *first && at.duration_since(*first) < Duration::from_secs(1))
            .count()
    };
    tries.iter().map(|first| within(first)).max().unwrap_or_default()
}
