//! Reads on a Redis store: they are as fast as on memory, and never stay older than the last write.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quota_core::manager::QuotaManagerBuilder;
use quota_core::store::StoreKey;
use quota_core::testing::FakeProvider;
use quota_core::{Account, AccountId, Clock, MemoryStore, Policy, QuotaManager, QuotaStore, WindowId};
use redis_harness::Server;
use tokio::runtime::Runtime;

use super::documents::{record, write};
use super::{manager, open};
use crate::measure::interleaved;
use crate::row::Row;

const READS: usize = 200_000;
const ROUNDS: u64 = 20_000;
/// A round counts as stale only if its reading never arrives, however late.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn rows(runtime: &Runtime) -> Vec<Row> {
    let server = Server::start();
    let ours = runtime.block_on(accounts(manager(&server)));
    let memory = runtime.block_on(accounts(QuotaManager::builder(MemoryStore::new())));
    let mut rows = Vec::new();
    for threads in [1, 2] {
        let peeks = |accounts: &[Account; 3], iterations: std::ops::Range<usize>| {
            iterations.for_each(|iteration| drop(black_box(accounts[iteration % 3].peek())));
        };
        let [redis, memory] = interleaved(
            threads,
            READS,
            [&|iterations| peeks(&ours, iterations), &|iterations| peeks(&memory, iterations)],
        );
        let name = format!("redis.peek.{threads}t");
        rows.push(Row::at_most(&name, (redis, "ns"), ("peek on memory", memory), 1.2));
    }
    rows.push(runtime.block_on(left_stale(&server)));
    rows
}

async fn accounts(builder: QuotaManagerBuilder) -> [Account; 3] {
    let policy = Policy::default().min_call_interval(Duration::ZERO).max_age(Duration::from_secs(24 * 3600));
    let quota = builder
        .fetcher(FakeProvider::answering("bench", 42.0))
        .policy(policy.full_refresh_interval(Duration::from_secs(24 * 3600)))
        .build()
        .expect("the policy is valid");
    let accounts = [0, 1, 2].map(|account| quota.account(&id(account)));
    for account in &accounts {
        drop(account.get().await.expect("the provider responds"));
    }
    accounts
}

fn id(account: usize) -> AccountId {
    format!("bench/a{account}").parse().expect("a valid name")
}

/// One process writes. Another one reads its view, which both notices and reads update.
async fn left_stale(server: &Server) -> Row {
    let writer = open(server);
    let reader = manager(server).build().expect("the policy is valid").account(&id(7));
    let key = StoreKey::account(reader.id());
    let mut watch = reader.watch();
    let done = Arc::new(AtomicBool::new(false));
    let answers = tokio::spawn({
        let (reader, done) = (reader.clone(), Arc::clone(&done));
        async move {
            while !done.load(Ordering::Relaxed) {
                drop(reader.sync().await);
            }
        }
    });
    let (clock, mut seen, mut stale) = (Clock::system(), None, 0);
    for round in 1..=ROUNDS {
        let reading = writer.read(&key).await.expect("the server responds");
        write(&writer, &key, &mut seen, record(&reading, round % 10_000)).await;
        let shown = async {
            let expected = (round % 10_000) as f64 / 100.0;
            while used(&reader) != Some(expected) {
                if watch.next().await.is_none() {
                    break;
                }
            }
        };
        if clock.bounded(ARRIVAL_TIMEOUT, shown).await.is_none() {
            stale += 1;
        }
    }
    done.store(true, Ordering::Relaxed);
    answers.await.expect("a sync does not panic");
    Row::absolute("redis.peek.left_stale", (f64::from(stale), "of 20,000 rounds"), "0", stale == 0)
}

fn used(account: &Account) -> Option<f64> {
    account.peek().snapshot().window(&WindowId::five_hour()).map(|window| window.used().as_f64())
}
