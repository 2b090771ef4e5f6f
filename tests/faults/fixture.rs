//! Hosts that share a store and a provider. `redis-harness` starts the servers.

use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;
use quota::policy::Budget;
use quota::testing::FakeProvider;
use quota::{
    Account, AccountId, AccountUsage, Clock, Percent, Policy, QuotaManager, UsageReport, WindowId,
    WindowReading, open_store,
};
use quota_tests::history::{Written, check};
use redis_harness::{Monitor, Server};

pub(crate) const KEY: &str = "quota:1:{anthropic/main}";

/// A manager with its own connection. It checks that its readings never become older.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) quota: QuotaManager,
    pub(crate) main: Account,
    newest: Option<Timestamp>,
}

pub(crate) fn id() -> AccountId {
    "anthropic/main".parse().unwrap()
}

pub(crate) fn policy() -> Policy {
    Policy::default().min_call_interval(Duration::ZERO).max_concurrent_calls(8).budget(Budget::new(1000, 0))
}

pub(crate) fn provider() -> FakeProvider {
    FakeProvider::answering("anthropic", 30.0)
}

/// Sets the usage at the provider. Then waits until a new reading would be newer than the cached one, according to every host's
/// estimate of the server's clock. The error of that estimate is at most the round-trip time.
pub(crate) async fn set_usage(provider: &FakeProvider, hosts: &[Host], percent: f64) {
    let shown = hosts.iter().filter_map(|host| host.main.peek().snapshot().newest()).max();
    let later = shown.expect("a reading is cached") + jiff::SignedDuration::from_millis(300);
    until("the clock advances", || hosts.iter().all(|host| host.main.peek().now() > later)).await;
    let used = Percent::from_percent(percent).unwrap();
    provider.answer(UsageReport::polled([WindowReading::new(WindowId::five_hour(), used)]));
}

impl Host {
    pub(crate) fn on(url: &str, provider: &FakeProvider) -> Self {
        Self::with(url, provider, policy(), Clock::system())
    }

    pub(crate) fn with(url: &str, provider: &FakeProvider, policy: Policy, clock: Clock) -> Self {
        let store = open_store(url).unwrap();
        let quota = QuotaManager::builder(store)
            .fetcher(provider.clone())
            .policy(policy)
            .clock(clock)
            .build()
            .unwrap();
        let main = quota.account(&id());
        Self { quota, main, newest: None }
    }

    /// Returns the cached use, without a call.
    pub(crate) fn peek(&mut self) -> Option<f64> {
        let answer = self.main.peek();
        self.check_age(&answer)
    }

    pub(crate) async fn get(&mut self) -> Option<f64> {
        let answer = within_deadline("a read", self.main.get()).await.unwrap();
        self.check_age(&answer)
    }

    pub(crate) async fn refresh(&mut self) -> Option<f64> {
        let refreshed = within_deadline("a refresh", self.main.refresh()).await.unwrap();
        assert!(refreshed.error.is_none(), "{:?}", refreshed.error);
        self.check_age(&refreshed.usage)
    }

    pub(crate) fn is_standalone(&self) -> bool {
        self.main.peek().store_unavailable_since().is_some()
    }

    pub(crate) async fn until_shared(&self) {
        until("the host is synced again", || !self.is_standalone()).await;
    }

    pub(crate) async fn until_shows(&mut self, percent: f64) {
        until("the host shows the new reading", || self.peek() == Some(percent)).await;
    }

    fn check_age(&mut self, answer: &AccountUsage) -> Option<f64> {
        let newest = answer.snapshot().newest();
        assert!(newest >= self.newest, "a reading became older: {newest:?} after {:?}", self.newest);
        self.newest = newest;
        answer.snapshot().window(&WindowId::five_hour()).map(|window| window.used().as_f64())
    }
}

/// Waits until all hosts are synced again, and checks that one more call is enough for all of them.
pub(crate) async fn all_agree(provider: &FakeProvider, hosts: &mut [Host]) {
    for host in hosts.iter() {
        host.until_shared().await;
    }
    let calls = provider.calls();
    set_usage(provider, hosts, 99.0).await;
    assert_eq!(hosts[0].refresh().await, Some(99.0));
    for host in &mut *hosts {
        host.until_shows(99.0).await;
    }
    assert_eq!(provider.calls(), calls + 1);
}

/// Checks the history of leases on this server.
pub(crate) fn assert_valid_history(monitor: &Monitor, server: &Server) {
    let history: Vec<_> = monitor.recorded(server).iter().filter_map(|call| Written::by_call(call)).collect();
    assert!(history.len() > 1, "the history is not empty");
    assert_eq!(check(&history), Ok(()));
}

/// Awaits `work` with a deadline. At the deadline the test fails, and the message names `what`.
pub(crate) async fn within_deadline<T>(what: &str, work: impl Future<Output = T>) -> T {
    let done = Clock::system().bounded(Duration::from_secs(40), work).await;
    done.unwrap_or_else(|| panic!("timed out waiting for {what}"))
}

/// Polls until a condition is true.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let poll = async {
        while !is_so() {
            Clock::system().sleep(Duration::from_millis(5)).await;
        }
    };
    within_deadline(what, poll).await;
}
