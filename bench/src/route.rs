//! Group `route`: choosing an account for a request, compared with the reads that it needs.

mod herd;

use std::hint::black_box;
use std::ops::Range;
use std::task::{Context, Waker};
use std::time::Duration;

use quota_accounts::{AccountsConfig, FallbackAccountManager, Request};
use quota_core::testing::FakeProvider;
use quota_core::{
    Account, AccountId, Clock, MemoryStore, Percent, Policy, QuotaManager, UsageReport, WindowId,
    WindowReading,
};
use quota_credentials::CommandToken;
use tokio::runtime::Runtime;

use crate::measure::interleaved;
use crate::row::Row;

pub(crate) fn rows() -> Vec<Row> {
    vec![three(), ten_thousand(), restart(), credential(), herd::row()]
}

/// A main account and two fallbacks, all available.
fn three() -> Row {
    let fixture = Fixture::with(3, 40.0);
    let peek = |iterations: Range<usize>| {
        for _ in iterations {
            fixture.handles.iter().for_each(|account| drop(black_box(account.peek())));
        }
    };
    let [ours, peeks] = interleaved(1, 200_000, [&|iterations| fixture.route(iterations), &peek]);
    let target = peeks + 300.0;
    let peer = format!("3 × peek ({peeks:.0} ns) + 300 ns");
    Row::at_most("route.3", (ours, "ns"), (&peer, target), 1.0)
}

/// Ten thousand accounts of which only the last is available, so that the router must evaluate each one.
fn ten_thousand() -> Row {
    const COUNT: usize = 10_000;
    let fixture = Fixture::with(COUNT, 100.0);
    let usage = UsageReport::from_headers([reading(50.0)]);
    let last = fixture.handles.last().expect("there are accounts");
    let _entered = fixture.runtime.enter();
    last.observe(&usage).expect("the login has not changed");
    let [ours] = interleaved(1, 200, [&|iterations| fixture.route(iterations)]);
    let ms = ours / 1e6;
    Row::absolute("route.10k", (ms, "ms"), "≤ 1 ms", ms <= 1.0)
}

/// A process that starts with fresh readings on disk.
fn restart() -> Row {
    let dir = tempfile::tempdir().expect("a folder can be created");
    let path = dir.path().join("accounts.state.json");
    let provider = FakeProvider::answering("bench", 40.0);
    let runtime = runtime();
    let start = || {
        runtime.block_on(async {
            let quota = manager(&provider);
            let accounts = FallbackAccountManager::builder(config(&ids(20)))
                .quota_manager(quota)
                .state_file(&path)
                .build()
                .expect("there are accounts");
            accounts.refresh_quota_for_due_accounts().await;
            accounts.usable_fallback_accounts().await;
            drop(accounts.route(Request::new()).await.expect("all are available"));
        });
    };
    start();
    let before = provider.calls();
    start();
    #[expect(clippy::cast_precision_loss, reason = "there are few calls")]
    let calls = (provider.calls() - before) as f64;
    Row::absolute("route.restart", (calls, "calls"), "0", calls == 0.0)
}

/// Ten thousand requests whose token comes from a command.
fn credential() -> Row {
    let folder = tempfile::tempdir().expect("a folder can be created");
    let started = folder.path().join("started");
    let script = format!("echo >> '{}'; echo a-token", started.display());
    let command = CommandToken::new("sh").arg("-c").arg(script);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be built").block_on(async {
        let quota = manager(&FakeProvider::answering("bench", 40.0));
        let ids = ids(1);
        quota.account(&ids[0]).set_credentials(command);
        let accounts = FallbackAccountManager::builder(config(&ids)).quota_manager(quota).build();
        let accounts = accounts.expect("there is an account");
        for _ in 0..10_000 {
            drop(accounts.route(Request::new()).await.expect("the account is available"));
        }
    });
    #[expect(clippy::cast_precision_loss, reason = "there are few processes")]
    let processes = std::fs::read(&started).expect("the command has run").len() as f64;
    Row::absolute("route.credential", (processes, "processes"), "1", processes == 1.0)
}

struct Fixture {
    accounts: FallbackAccountManager,
    handles: Vec<Account>,
    runtime: Runtime,
}

impl Fixture {
    fn with(count: usize, used: f64) -> Self {
        let runtime = runtime();
        let ids = ids(count);
        let (accounts, handles) = runtime.block_on(async {
            let provider = FakeProvider::answering("bench", used);
            provider.answer(UsageReport::polled([reading(used)]));
            let quota = manager(&provider);
            let mut handles = Vec::with_capacity(count);
            for id in &ids {
                let account = quota.account(id);
                drop(account.get().await.expect("the provider responds"));
                handles.push(account);
            }
            let accounts = FallbackAccountManager::builder(config(&ids)).quota_manager(quota).build();
            let accounts = accounts.expect("there are accounts");
            accounts.load().await.expect("the state can be loaded");
            (accounts, handles)
        });
        Self { accounts, handles, runtime }
    }

    fn route(&self, iterations: Range<usize>) {
        let routes = async {
            for _ in iterations {
                let route = self.accounts.route(Request::new()).await;
                drop(black_box(route.expect("one is available")));
            }
        };
        let polled = std::pin::pin!(routes).poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_ready(), "a route on fresh readings is ready at the first poll");
    }
}

/// A five-hour window with this usage that resets in two hours.
fn reading(used: f64) -> WindowReading {
    let used = Percent::from_percent(used).expect("a valid percentage");
    let reset = Clock::system().now() + jiff::SignedDuration::from_hours(2);
    WindowReading::new(WindowId::five_hour(), used).resets_at(reset)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime can be built")
}

fn manager(provider: &FakeProvider) -> QuotaManager {
    let day = Duration::from_secs(24 * 3600);
    let policy = Policy::default()
        .min_call_interval(Duration::ZERO)
        .max_concurrent_calls(1024)
        .max_age(day)
        .full_refresh_interval(day);
    let quota = QuotaManager::builder(MemoryStore::new()).fetcher(provider.clone()).policy(policy);
    quota.build().expect("the policy is valid")
}

fn ids(count: usize) -> Vec<AccountId> {
    (0..count).map(|account| format!("bench/a{account}").parse().expect("a valid name")).collect()
}

fn config(ids: &[AccountId]) -> AccountsConfig {
    ids.iter().fold(AccountsConfig::default(), |config, id| config.fallback(id.clone()))
}
