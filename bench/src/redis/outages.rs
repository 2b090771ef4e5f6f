//! A server with four kinds of faults: the latency of readers and callers, the calls to the provider, and the time to recovery.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use quota_core::policy::Budget;
use quota_core::{
    Account, AccountId, Clock, Credential, FetchError, Percent, Policy, ProviderId, QuotaManager,
    UsageFetcher, UsageReport, WindowId, WindowReading,
};
use quota_redis::RedisStore;
use redis_harness::{Proxy, Server};

use crate::row::Row;

/// How long the server is down.
const OUTAGE: Duration = Duration::from_secs(4);
/// The max age. It is so short that several calls fall into an outage.
const INTERVAL: Duration = Duration::from_secs(1);
/// The tolerance between the two times that are measured for one call.
const SLACK: Duration = Duration::from_millis(10);
const ACCOUNTS: usize = 3;
const READS: usize = 200_000;
/// How often each fault is repeated, because the figures vary.
const ROUNDS: usize = 3;

/// A kind of fault.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Refused,
    Frozen,
    SlowByte,
    BlackHole,
}

pub(super) async fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, fault) in [
        ("refused", Fault::Refused),
        ("frozen", Fault::Frozen),
        ("slow_byte", Fault::SlowByte),
        ("black_hole", Fault::BlackHole),
    ] {
        let (mut wait, mut back, mut calls) = (0.0_f64, 0.0_f64, 0);
        for _ in 0..ROUNDS {
            let outage = Outage::of(fault).await;
            wait = wait.max(outage.wait.as_secs_f64() * 1e3);
            back = back.max(outage.back.as_secs_f64() * 1e3);
            calls = calls.max(outage.calls);
        }
        let (up, down) = reads(fault).await;
        let row = |what: &str| format!("redis.outage.{name}.{what}");
        rows.push(Row::at_most(&row("read_p99"), (down, "ns"), ("with the store up", up), 1.1));
        rows.push(Row::absolute(&row("longest_wait"), (wait, "ms"), "≤ 250 ms", wait <= 250.0));
        rows.push(Row::absolute(&row("used_again"), (back, "ms"), "≤ 1 s", back <= 1_000.0));
        rows.push(Row::absolute(&row("calls"), (calls as f64, "calls/interval"), "≤ 1", calls <= 1));
    }
    rows
}

/// A server, and the proxy in front of it.
struct Setup {
    server: Server,
    proxy: Proxy,
}

impl Setup {
    fn start() -> Self {
        let server = Server::start();
        let proxy = Proxy::new(server.port());
        Self { server, proxy }
    }

    /// The URL of the server. A network fault needs the URL of the proxy.
    fn url(&self, fault: Fault) -> String {
        match fault {
            Fault::Refused | Fault::Frozen => self.server.url(),
            Fault::SlowByte | Fault::BlackHole => self.proxy.url(),
        }
    }

    fn fail(&mut self, fault: Fault) {
        match fault {
            Fault::Refused => self.server.kill(),
            Fault::Frozen => self.server.suspend(),
            Fault::SlowByte => self.proxy.throttle(),
            Fault::BlackHole => self.proxy.black_hole(),
        }
    }

    fn restore(&mut self, fault: Fault) {
        match fault {
            Fault::Refused => self.server.restart(),
            Fault::Frozen => self.server.resume(),
            Fault::SlowByte | Fault::BlackHole => self.proxy.restore(),
        }
    }
}

/// A provider for one process that records the time and account of each call.
#[derive(Debug, Clone, Default)]
struct Ledger(Arc<Mutex<Vec<(AccountId, Instant)>>>);

#[async_trait]
impl UsageFetcher for Ledger {
    fn provider(&self) -> ProviderId {
        ProviderId::from_static("bench")
    }

    async fn fetch(&self, account: &AccountId, _credential: &Credential) -> Result<UsageReport, FetchError> {
        self.0.lock().push((account.clone(), Instant::now()));
        let used = Percent::from_percent(42.0).expect("the percentage is finite");
        Ok(UsageReport::polled([WindowReading::new(WindowId::five_hour(), used)]))
    }
}

impl Ledger {
    /// The highest number of calls for one account within any interval after `since`.
    fn most_in_an_interval(&self, since: Instant) -> usize {
        let calls = self.0.lock().clone();
        let most = |account: &AccountId| {
            let mut recent = VecDeque::new();
            let mut most = 0;
            for (_, at) in calls.iter().filter(|(of, at)| of == account && *at >= since) {
                recent.push_back(*at);
                while recent.front().is_some_and(|first| at.duration_since(*first) + SLACK >= INTERVAL) {
                    recent.pop_front();
                }
                most = most.max(recent.len());
            }
            most
        };
        calls.iter().map(|(account, _)| most(account)).max().unwrap_or_default()
    }
}

/// A manager with its own connection and provider, like another process.
struct Process {
    quota: QuotaManager,
    accounts: Vec<Account>,
    ledger: Ledger,
}

impl Process {
    async fn on(url: &str, freshness: Duration) -> Self {
        let ledger = Ledger::default();
        let policy = Policy::default()
            .min_call_interval(Duration::ZERO)
            .max_age(freshness)
            .full_refresh_interval(freshness)
            .budget(Budget::new(1_000_000, 0));
        let quota = QuotaManager::builder(RedisStore::open(url).expect("the URL is valid"))
            .fetcher(ledger.clone())
            .policy(policy)
            .build()
            .expect("the policy is valid");
        let id = |account| format!("bench/a{account}").parse().expect("a valid name");
        let accounts: Vec<_> = (0..ACCOUNTS).map(|account| quota.account(&id(account))).collect();
        for account in &accounts {
            drop(account.get().await.expect("the provider responds"));
        }
        Self { quota, accounts, ledger }
    }

    fn is_standalone(&self) -> bool {
        self.accounts.iter().any(|account| account.peek().store_unavailable_since().is_some())
    }
}

/// The figures of one outage.
struct Outage {
    wait: Duration,
    back: Duration,
    calls: usize,
}

impl Outage {
    async fn of(fault: Fault) -> Self {
        let mut setup = Setup::start();
        let mut processes = Vec::new();
        for _ in 0..3 {
            processes.push(Process::on(&setup.url(fault), INTERVAL).await);
        }
        // Wait until all accounts are followed.
        Clock::system().sleep(Duration::from_millis(300)).await;

        let start = Instant::now();
        setup.fail(fault);
        let mut wait = Duration::ZERO;
        while start.elapsed() < OUTAGE {
            wait = wait.max(longest_wait(&processes).await);
        }
        let calls = processes.iter().map(|process| process.ledger.most_in_an_interval(start)).max();
        setup.restore(fault);
        let mended = Instant::now();
        while processes.iter().any(Process::is_standalone) {
            Clock::system().sleep(Duration::from_millis(1)).await;
        }
        let back = mended.elapsed();
        for process in &processes {
            process.quota.close().await;
        }
        Self { wait, back, calls: calls.unwrap_or_default() }
    }
}

/// The slowest of several callers that peek, sync, and get an account without readings.
async fn longest_wait(processes: &[Process]) -> Duration {
    let mut callers = tokio::task::JoinSet::new();
    for process in processes {
        let never_read: AccountId = format!("bench/{:x}", fastrand::u64(..)).parse().expect("a valid name");
        let mut accounts = process.accounts.clone();
        accounts.push(process.quota.account(&never_read));
        for account in accounts {
            callers.spawn(async move {
                let start = Instant::now();
                drop(account.get().await);
                let got = start.elapsed();
                let start = Instant::now();
                drop(account.sync().await);
                got.max(start.elapsed())
            });
        }
    }
    let waits = callers.join_all().await;
    Clock::system().sleep(Duration::from_millis(5)).await;
    waits.into_iter().max().unwrap_or_default()
}

/// The 99th percentile of reads, alternating between a store that is up and one that is down.
async fn reads(fault: Fault) -> (f64, f64) {
    let (up, mut down) = (Setup::start(), Setup::start());
    let long = Duration::from_secs(24 * 3600);
    let whole = Process::on(&up.url(fault), long).await;
    let broken = Process::on(&down.url(fault), long).await;
    down.fail(fault);
    for account in &broken.accounts {
        drop(account.sync().await);
    }
    assert!(broken.is_standalone(), "the store is unavailable");
    let mut figures = [Vec::with_capacity(READS), Vec::with_capacity(READS)];
    for read in 0..READS + READS / 10 {
        for (process, figures) in [&whole, &broken].into_iter().zip(&mut figures) {
            let account = &process.accounts[read % ACCOUNTS];
            let start = Instant::now();
            drop(black_box(account.get().await));
            let took = start.elapsed();
            if read >= READS / 10 {
                figures.push(took.as_nanos() as f64);
            }
        }
    }
    down.restore(fault);
    let [up, down] = figures.map(|mut figures| {
        figures.sort_by(f64::total_cmp);
        figures[figures.len() * 99 / 100]
    });
    (up, down)
}
