//! Many callers of one cold account, which cause one call. Measures the cost per caller.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::join_all;
use quota_core::testing::FakeProvider;
use quota_core::{
    Account, AccountId, Credential, FetchError, MemoryStore, Percent, Policy, ProviderId, QuotaManager,
    UsageFetcher, UsageReport, WindowId, WindowReading,
};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::measure::median;
use crate::row::Row;

const SAMPLES: usize = 9;

pub(crate) fn rows() -> Vec<Row> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime can be built");
    let mut rows = runtime.block_on(parked());
    rows.push(runtime.block_on(joined()));
    rows.extend(runtime.block_on(failures()));
    rows
}

/// Opens after all callers have arrived, so that the herd has its full size on any machine.
#[derive(Debug)]
struct StartLatch {
    expected: usize,
    came: AtomicUsize,
    open: Notify,
}

impl StartLatch {
    fn for_callers(expected: usize) -> Arc<Self> {
        Arc::new(Self { expected, came: AtomicUsize::new(0), open: Notify::new() })
    }

    fn arrive(&self) {
        if self.came.fetch_add(1, Ordering::AcqRel) + 1 == self.expected {
            self.open.notify_one();
        }
    }
}

/// A provider that responds when the latch opens.
#[derive(Debug)]
struct Slow {
    latch: Arc<StartLatch>,
    calls: Arc<AtomicUsize>,
}

#[async_trait]
impl UsageFetcher for Slow {
    fn provider(&self) -> ProviderId {
        ProviderId::from_static("bench")
    }

    async fn fetch(&self, _account: &AccountId, _credential: &Credential) -> Result<UsageReport, FetchError> {
        self.calls.fetch_add(1, Ordering::AcqRel);
        self.latch.open.notified().await;
        Ok(UsageReport::polled([WindowReading::new(WindowId::five_hour(), Percent::FULL)]))
    }
}

fn cold_account(latch: &Arc<StartLatch>, calls: &Arc<AtomicUsize>) -> (QuotaManager, Account) {
    let fetcher = Slow { latch: Arc::clone(latch), calls: Arc::clone(calls) };
    let policy = Policy::default().fetch_timeout(Duration::from_secs(100));
    let quota = QuotaManager::builder(MemoryStore::new())
        .fetcher(fetcher)
        .policy(policy)
        .build()
        .expect("the policy is valid");
    let account = quota.account(&"bench/main".parse().expect("a valid name"));
    (quota, account)
}

async fn parked() -> Vec<Row> {
    let mut rows = Vec::new();
    for (size, callers) in [("10k", 10_000), ("100k", 100_000)] {
        let (mut ours, mut floor, mut moka, mut most_calls) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for _ in 0..SAMPLES {
            let calls = Arc::new(AtomicUsize::new(0));
            ours.push(herd_of_ours(callers, &calls).await);
            most_calls = most_calls.max(calls.load(Ordering::Acquire));
            floor.push(herd_of_shared(callers).await);
            moka.push(herd_of_moka(callers).await);
        }
        let (ours, floor, moka) = (median(ours), median(floor), median(moka));
        rows.push(Row::at_most(
            &format!("herd.{size}"),
            (ours, "ns/waiter"),
            ("futures::Shared", floor),
            1.4,
        ));
        rows.push(Row::faster(
            &format!("herd.{size}.moka"),
            (ours, "ns/waiter"),
            ("moka try_get_with", moka),
            1.0,
        ));
        let calls = most_calls as f64;
        rows.push(Row::absolute(&format!("herd.{size}.calls"), (calls, "calls"), "1 call", most_calls == 1));
    }
    rows
}

async fn herd_of_ours(callers: usize, calls: &Arc<AtomicUsize>) -> f64 {
    let latch = StartLatch::for_callers(callers);
    let (_quota, account) = cold_account(&latch, calls);
    per_waiter(callers, &latch, || {
        let account = account.clone();
        async move { drop(account.get().await.expect("the provider responds")) }
    })
    .await
}

async fn herd_of_shared(callers: usize) -> f64 {
    let latch = StartLatch::for_callers(callers);
    let of_task = Arc::clone(&latch);
    // Use a separate task, as quota does, so that a cancelled caller does not cancel the call.
    let call = tokio::spawn(async move {
        of_task.open.notified().await;
        Arc::new(42_u64)
    });
    let shared = call.map(|answer| answer.expect("the call does not panic")).shared();
    per_waiter(callers, &latch, || {
        let shared = shared.clone();
        async move { drop(shared.await) }
    })
    .await
}

async fn herd_of_moka(callers: usize) -> f64 {
    let latch = StartLatch::for_callers(callers);
    let cache: moka::future::Cache<u64, Arc<u64>> = moka::future::Cache::new(16);
    let of_init = Arc::clone(&latch);
    per_waiter(callers, &latch, || {
        let (cache, latch) = (cache.clone(), Arc::clone(&of_init));
        async move {
            let init = async {
                latch.open.notified().await;
                Ok::<_, std::convert::Infallible>(Arc::new(42))
            };
            drop(cache.try_get_with(1, init).await);
        }
    })
    .await
}

async fn per_waiter<F: Future<Output = ()> + Send + 'static>(
    callers: usize,
    latch: &Arc<StartLatch>,
    caller: impl Fn() -> F,
) -> f64 {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (latch, caller) = (Arc::clone(latch), caller());
        tasks.spawn(async move {
            latch.arrive();
            caller.await;
        });
    }
    while tasks.join_next().await.is_some() {}
    start.elapsed().as_secs_f64() * 1e9 / callers as f64
}

/// All callers in one task. The cost must not become quadratic.
async fn joined() -> Row {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..5 {
        for (times, callers) in times.iter_mut().zip([10_000, 100_000]) {
            let latch = StartLatch::for_callers(callers);
            let (_quota, account) = cold_account(&latch, &Arc::default());
            let start = Instant::now();
            let all = (0..callers).map(|_| async {
                latch.arrive();
                account.get().await.is_ok()
            });
            assert!(join_all(all).await.into_iter().all(|served| served), "every caller is served");
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    let [ten, hundred] = times.map(median);
    Row::at_most("herd.joined", (hundred, "ms for 100k"), ("10k", ten), 12.0)
}

/// One call and no stuck caller, for each kind of failure of the call or of its first caller.
async fn failures() -> Vec<Row> {
    const CALLERS: usize = 1_000;
    let mut rows = Vec::new();
    for failure in ["err", "panic", "hang", "dropped"] {
        let provider = FakeProvider::answering("bench", 42.0).with_delay(Duration::from_millis(50));
        match failure {
            "err" => provider.then_fail(FetchError::unavailable("503")),
            "panic" => provider.then_panic(),
            "hang" => provider.then_hang(),
            _ => {}
        }
        let policy = Policy::default().fetch_timeout(Duration::from_millis(500));
        let quota = QuotaManager::builder(MemoryStore::new())
            .fetcher(provider.clone())
            .policy(policy)
            .build()
            .expect("the policy is valid");
        let account = quota.account(&"bench/main".parse().expect("a valid name"));
        let mut tasks = JoinSet::new();
        let mut first = None;
        for _ in 0..CALLERS {
            let account = account.clone();
            let handle = tasks.spawn(async move { account.get().await.is_ok() });
            first.get_or_insert(handle);
        }
        if failure == "dropped" {
            tokio::time::sleep(Duration::from_millis(10)).await;
            first.expect("there are callers").abort();
        }
        let all = async { while tasks.join_next().await.is_some() {} };
        let all_ended = tokio::time::timeout(Duration::from_secs(10), all).await.is_ok();
        let calls = provider.calls();
        rows.push(Row::absolute(
            &format!("herd.{failure}"),
            (calls as f64, "calls"),
            "1 call, no caller stuck",
            calls == 1 && all_ended,
        ));
    }
    rows
}
