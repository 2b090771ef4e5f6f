//! A temporarily slow server: checks that a process that follows many accounts keeps its connection.

use std::time::{Duration, Instant};

use quota_core::{AccountId, Clock, QuotaManager};
use quota_redis::RedisStore;
use redis_harness::{Proxy, Server, wait_until};

use crate::row::Row;

const ACCOUNTS: usize = 100;
/// Longer than the manager's store timeout, and shorter than the store's response timeout.
const DELAY: Duration = Duration::from_millis(300);
/// How long the server is slow.
const SLOW_FOR: Duration = Duration::from_secs(5);

pub(super) async fn rows() -> Vec<Row> {
    let server = Server::start();
    let proxy = Proxy::new(server.port());
    let store = RedisStore::open(&proxy.url()).expect("the URL is valid");
    let quota = QuotaManager::builder(store).build().expect("the policy is valid");
    let id = |account| format!("bench/a{account}").parse::<AccountId>().expect("a valid name");
    let accounts: Vec<_> = (0..ACCOUNTS).map(|account| quota.account(&id(account))).collect();
    for account in &accounts {
        drop(account.sync().await);
    }
    tokio::task::block_in_place(|| {
        wait_until("every account is followed", || followed(&server) >= ACCOUNTS);
    });
    let (connections, start, clock) = (proxy.connections(), Instant::now(), Clock::system());

    proxy.delay_responses(DELAY);
    while start.elapsed() < SLOW_FOR {
        for account in &accounts {
            drop(account.sync().await);
        }
        clock.sleep(Duration::from_millis(20)).await;
    }
    let reconnects = proxy.connections() - connections;
    proxy.restore();
    quota.close().await;

    vec![Row::absolute(
        "redis.slow",
        (reconnects as f64, "reconnects"),
        "0 reconnects of 100 followed accounts while answers take 300 ms",
        reconnects == 0,
    )]
}

fn followed(server: &Server) -> usize {
    server.command::<Vec<String>>(&["PUBSUB", "CHANNELS"]).len()
}
