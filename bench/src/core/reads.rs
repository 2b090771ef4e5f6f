//! Reads of cached readings, compared with a bare `ArcSwap` and with moka.

use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use quota_core::testing::FakeProvider;
use quota_core::{Account, AccountId, FetchError, MemoryStore, Policy, QuotaManager};

use crate::measure::interleaved;
use crate::row::Row;

const READS: usize = 200_000;

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (size, count) in [("3", 3), ("100k", 100_000)] {
        let fixture = Fixture::with(count);
        let (mut ours, mut floors) = (Vec::new(), Vec::new());
        for threads in [1, 2] {
            let [peek, floor] = interleaved(
                threads,
                READS,
                [
                    &|iterations| {
                        iterations.for_each(|iteration| drop(black_box(fixture.account(iteration).peek())))
                    },
                    &|iterations| {
                        iterations.for_each(|iteration| {
                            drop(black_box(fixture.floor[fixture.pick(iteration)].load()))
                        })
                    },
                ],
            );
            let name = format!("peek.{threads}t.{size}");
            rows.push(Row::at_most(&name, (peek, "ns"), ("ArcSwap::load on a handle", floor), 1.5));
            ours.push(peek);
            floors.push(floor);
        }
        rows.push(two_threads(size, [ours[0], ours[1]], [floors[0], floors[1]]));
    }
    rows.extend(hit());
    rows.extend(held());
    rows
}

/// The cost of a second thread for a read of many accounts.
///
/// A `peek` must not contend with one of another thread. On some machines two threads also share the memory's bandwidth, which slows
/// down the bare `ArcSwap::load` of as many values as well. So the row expects that step of the same run, and one of 1 at least.
fn two_threads(size: &str, ours: [f64; 2], floor: [f64; 2]) -> Row {
    let step = (floor[1] / floor[0]).max(1.0);
    let peer = format!("peek on 1 thread × {step:.2} (step of ArcSwap::load)");
    let name = format!("peek.2t_over_1t.{size}");
    Row::at_most(&name, (ours[1], "ns"), (&peer, ours[0] * step), 1.2)
}

fn hit() -> Vec<Row> {
    let fixture = Fixture::with(3);
    let get = |iterations: Range<usize>| {
        let gets = async {
            for iteration in iterations {
                let answer = fixture.account(iteration).get().await;
                drop(black_box(answer.expect("a fresh reading is not an error")));
            }
        };
        let polled = std::pin::pin!(gets).poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_ready(), "a fresh reading is ready at the first poll");
    };
    let peek_stale = |iterations: Range<usize>| {
        for iteration in iterations {
            black_box(black_box(fixture.account(iteration).peek()).is_stale());
        }
    };
    let moka = |iterations: Range<usize>| {
        for iteration in iterations {
            drop(black_box(fixture.moka.get(fixture.ids[fixture.pick(iteration)].as_str())));
        }
    };
    let [hit, floor] = interleaved(1, READS, [&get, &peek_stale]);
    let mut rows = vec![Row::at_most("get_hit", (hit, "ns"), ("peek + is_stale", floor), 1.2)];
    for (threads, least) in [(1, 1.0), (2, 10.0)] {
        let [ours, theirs] = interleaved(threads, READS, [&peek_stale, &moka]);
        let name = format!("peek_stale.{threads}t");
        rows.push(Row::faster(&name, (ours, "ns"), ("moka sync get", theirs), least));
    }
    rows
}

/// How many reads of a held account count its credential reads. They take less time than a check interval.
const HELD_READS: usize = 1_000_000;

/// Reads of an account on hold that has readings, compared with reads of fresh readings.
fn held() -> Vec<Row> {
    let fixture = Fixture::with(1);
    let (fresh, provider) = (&fixture.accounts[0], FakeProvider::answering("bench", 42.0));
    // The background checks need a thread of their own.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .expect("a runtime can be built");
    let held = runtime.block_on(held_account(&provider));
    let get = |account: &Account, iterations: Range<usize>| {
        let gets = async {
            for _ in iterations {
                let answer = account.get().await;
                drop(black_box(answer.expect("the account has readings")));
            }
        };
        let polled = std::pin::pin!(gets).poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_ready(), "a read of a held account is ready at the first poll");
    };
    let mut rows = Vec::new();
    for threads in [1, 2] {
        let [refused, hit] = interleaved(
            threads,
            READS,
            [&|iterations| get(&held, iterations), &|iterations| get(fresh, iterations)],
        );
        let name = format!("get_held.{threads}t");
        rows.push(Row::at_most(&name, (refused, "ns"), ("get_hit", hit), 2.0));
    }
    let (before, start) = (provider.credential_reads(), Instant::now());
    get(&held, 0..HELD_READS);
    let reads = (provider.credential_reads() - before) as f64;
    let intervals = 1.0 + start.elapsed().as_secs_f64();
    let target = "≤ 1 a check interval";
    rows.push(Row::absolute(
        "get_held.credential_reads",
        (reads, "reads in 10⁶ gets"),
        target,
        reads <= intervals,
    ));
    rows
}

/// An account with stale readings, whose refresh was rate limited.
async fn held_account(provider: &FakeProvider) -> Account {
    let quota = QuotaManager::builder(MemoryStore::new())
        .provider(provider.clone(), provider.clone())
        .policy(Policy::default().max_age(Duration::from_millis(2)).min_call_interval(Duration::ZERO))
        .build()
        .expect("the policy is valid");
    let account = quota.account(&"bench/held".parse().expect("a valid name"));
    drop(account.get().await.expect("the provider responds"));
    provider.then_fail(FetchError::throttled(Some(Duration::from_secs(24 * 3600))));
    let refreshed = account.refresh().await.expect("the account has readings");
    assert!(refreshed.error.is_some() && account.peek().hold().is_some(), "the account is on hold");
    while !account.is_stale() {
        tokio::task::yield_now().await;
    }
    account
}

/// Accounts with fresh readings, and the same readings in ArcSwap and moka.
struct Fixture {
    ids: Vec<AccountId>,
    accounts: Vec<Account>,
    floor: Vec<Arc<ArcSwap<u64>>>,
    moka: moka::sync::Cache<String, Arc<u64>>,
    /// A random order of all accounts, so that the CPU caches cannot hold a large fixture.
    order: Vec<usize>,
    _runtime: tokio::runtime::Runtime,
}

impl Fixture {
    fn with(count: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime can be built");
        let ids: Vec<AccountId> =
            (0..count).map(|account| format!("bench/a{account}").parse().expect("a valid name")).collect();
        let accounts = runtime.block_on(async {
            let policy = Policy::default()
                .min_call_interval(Duration::ZERO)
                .max_concurrent_calls(1024)
                .max_age(Duration::from_secs(24 * 3600));
            let quota = QuotaManager::builder(MemoryStore::new())
                .fetcher(FakeProvider::answering("bench", 42.0))
                .policy(policy.full_refresh_interval(Duration::from_secs(24 * 3600)))
                .build()
                .expect("the policy is valid");
            let mut accounts = Vec::with_capacity(count);
            for id in &ids {
                let account = quota.account(id);
                drop(account.get().await.expect("the provider responds"));
                accounts.push(account);
            }
            accounts
        });
        let moka = moka::sync::Cache::builder()
            .max_capacity(count as u64 * 2)
            .time_to_live(Duration::from_secs(24 * 3600))
            .build();
        for id in &ids {
            moka.insert(id.as_str().to_owned(), Arc::new(42));
        }
        let floor = (0..count).map(|value| Arc::new(ArcSwap::from_pointee(value as u64))).collect();
        let mut order: Vec<usize> = (0..count).collect();
        fastrand::Rng::with_seed(1).shuffle(&mut order);
        Self { ids, accounts, floor, moka, order, _runtime: runtime }
    }

    fn pick(&self, iteration: usize) -> usize {
        self.order[iteration % self.order.len()]
    }

    fn account(&self, iteration: usize) -> &Account {
        &self.accounts[self.pick(iteration)]
    }
}
