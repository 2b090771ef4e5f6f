//! A million accounts in one Redis server: their memory, and the swaps per second on one core of the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use quota_core::QuotaStore;
use quota_core::store::StoreKey;
use quota_redis::RedisStore;
use redis_harness::Server;
use tokio::task::JoinSet;

use super::documents::{record, write};
use super::open;
use crate::row::Row;

const ACCOUNTS: usize = 1_000_000;
const TASKS: usize = 256;

pub(super) async fn rows() -> Vec<Row> {
    let server = Server::start();
    let store = open(&server);
    let reading = store.read(&key(0)).await.expect("the server responds");
    let body = record(&reading, 4_200);
    let (empty, idle) = (memory(&server), server_seconds(&server));
    fill(&store, &body).await;
    let bytes = (memory(&server) - empty) / ACCOUNTS as f64;
    let swaps = ACCOUNTS as f64 / (server_seconds(&server) - idle);
    vec![
        Row::absolute("redis.million.bytes", (bytes, "bytes/account"), "reported", true),
        Row::absolute("redis.million.document", (body.len() as f64, "bytes of these"), "reported", true),
        Row::absolute("redis.million.swaps", (swaps, "swaps/s of one core"), "reported", true),
    ]
}

async fn fill(store: &RedisStore, body: &Bytes) {
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let (store, body, next) = (store.clone(), body.clone(), Arc::clone(&next));
        tasks.spawn(async move {
            loop {
                let account = next.fetch_add(1, Ordering::Relaxed);
                if account >= ACCOUNTS {
                    break;
                }
                write(&store, &key(account), &mut None, body.clone()).await;
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

fn key(account: usize) -> StoreKey {
    StoreKey::account(&format!("bench/account-{account:07}").parse().expect("a valid name"))
}

fn memory(server: &Server) -> f64 {
    info(server, "memory", "used_memory")
}

/// The CPU time of the server's main thread, in seconds.
pub(super) fn server_seconds(server: &Server) -> f64 {
    let main_thread = ["used_cpu_sys_main_thread", "used_cpu_user_main_thread"];
    let worked: f64 = main_thread.iter().map(|name| info(server, "cpu", name)).sum();
    worked
}

fn info(server: &Server, section: &str, name: &str) -> f64 {
    let text: String = server.command(&["INFO", section]);
    let line = |line: &str| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok();
    text.lines().find_map(line).expect("INFO has the field")
}
