//! Swaps by many tasks at once, compared with a bare script that does the same work over the same client.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quota_core::QuotaStore;
use quota_core::store::StoreKey;
use quota_redis::RedisStore;
use redis_harness::Server;
use redis_harness::redis::aio::MultiplexedConnection;
use redis_harness::redis::{Client, Script};
use tokio::task::JoinSet;

use super::documents::{TTL, record, write};
use super::open;
use crate::measure::median;
use crate::row::Row;

const SAMPLES: usize = 9;
const MEASURED_TIME: Duration = Duration::from_millis(300);

/// The work of a swap: a read, a write with a TTL, a notice.
const BARE: &str = r"
local found = redis.call('GET', KEYS[1])
if found and string.sub(found, 1, 16) == 'no such version!' then return found end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('PUBLISH', ARGV[3], string.sub(ARGV[1], 1, 16))
return 1
";

pub(super) async fn rows() -> Vec<Row> {
    let server = Server::start();
    let store = open(&server);
    let client = Client::open(server.url()).expect("the URL is valid");
    let connection = client.get_multiplexed_async_connection().await.expect("the server responds");
    let reading = store.read(&key(0)).await.expect("the server responds");
    let body = record(&reading, 4_200);
    let mut rows = Vec::new();
    for tasks in [1, 64, 512] {
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for sample in 0..=SAMPLES {
            let (swaps, calls) = (
                per_second(tasks, |task, done| swapping(store.clone(), task, body.clone(), done)).await,
                per_second(tasks, |task, done| calling(connection.clone(), task, body.clone(), done)).await,
            );
            // The first round is a warm-up.
            if sample > 0 {
                ours.push(swaps);
                bare.push(calls);
            }
        }
        let (ours, bare) = (median(ours), median(bare));
        let name = format!("redis.swap.{tasks}");
        rows.push(Row::at_least(&name, (ours, "swaps/s"), ("bare EVALSHA", bare), 0.8));
    }
    rows
}

fn key(task: usize) -> StoreKey {
    StoreKey::account(&format!("bench/a{task}").parse().expect("a valid name"))
}

async fn swapping(store: RedisStore, task: usize, body: Bytes, done: Arc<AtomicU64>) {
    let (key, mut seen) = (key(task), None);
    loop {
        write(&store, &key, &mut seen, body.clone()).await;
        done.fetch_add(1, Ordering::Relaxed);
    }
}

async fn calling(mut connection: MultiplexedConnection, task: usize, body: Bytes, done: Arc<AtomicU64>) {
    let script = Script::new(BARE);
    let key = format!("bare:{task}");
    let body = [b"0123456789abcdef ", &body[..]].concat();
    loop {
        let mut call = script.key(&key);
        call.arg(&body).arg(TTL.as_millis() as u64).arg(&key);
        let _: i64 = call.invoke_async(&mut connection).await.expect("the server responds");
        done.fetch_add(1, Ordering::Relaxed);
    }
}

async fn per_second<F: Future<Output = ()> + Send + 'static>(
    tasks: usize,
    work: impl Fn(usize, Arc<AtomicU64>) -> F,
) -> f64 {
    let done = Arc::new(AtomicU64::new(0));
    let mut set = JoinSet::new();
    for task in 0..tasks {
        set.spawn(work(task, Arc::clone(&done)));
    }
    let (start, swaps_before) = (Instant::now(), done.load(Ordering::Relaxed));
    tokio::time::sleep(MEASURED_TIME).await;
    let swaps = done.load(Ordering::Relaxed) - swaps_before;
    let elapsed = start.elapsed();
    set.shutdown().await;
    swaps as f64 / elapsed.as_secs_f64()
}
