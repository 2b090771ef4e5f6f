//! Hosts that share one store and one provider, and words for what they are asked.
//! The servers themselves are `redis-harness`'s.

use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;
use quota::testing::FakeProvider;
use quota::{
    Account, AccountId, AccountUsage, Budget, Clock, Percent, Policy, QuotaManager, UsageReport, WindowId,
    WindowReading, open_store,
};
use quota_tests::history::{Written, check};
use redis_harness::{Monitor, Server};

pub(crate) const KEY: &str = "quota:1:{anthropic/main}";

/// A host: a manager with a connection of its own, and one who reads and notes whether readings ever grew older.
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

/// From now on the provider says that so much is used, and whatever is read from now on is newer by every host's clock than
/// what any of them shows: a host knows the server's time no better than it has waited for it.
pub(crate) async fn moves_to(provider: &FakeProvider, hosts: &[Host], percent: f64) {
    let shown = hosts.iter().filter_map(|host| host.main.peek().snapshot().newest()).max();
    let later = shown.expect("something was read") + jiff::SignedDuration::from_millis(300);
    until("time passes", || hosts.iter().all(|host| host.main.peek().now() > later)).await;
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

    /// What the host shows without a call.
    pub(crate) fn peek(&mut self) -> Option<f64> {
        let answer = self.main.peek();
        self.note(&answer)
    }

    pub(crate) async fn get(&mut self) -> Option<f64> {
        let answer = soon("a reader's answer", self.main.get()).await.unwrap();
        self.note(&answer)
    }

    pub(crate) async fn refresh(&mut self) -> Option<f64> {
        let refreshed = soon("a refresh", self.main.refresh()).await.unwrap();
        assert!(refreshed.error.is_none(), "{:?}", refreshed.error);
        self.note(&refreshed.answer)
    }

    pub(crate) fn is_alone(&self) -> bool {
        self.main.peek().store_unavailable_since().is_some()
    }

    pub(crate) async fn until_shared(&self) {
        until("the host shares again", || !self.is_alone()).await;
    }

    pub(crate) async fn until_shows(&mut self, percent: f64) {
        until("the host shows the new reading", || self.peek() == Some(percent)).await;
    }

    fn note(&mut self, answer: &AccountUsage) -> Option<f64> {
        let newest = answer.snapshot().newest();
        assert!(newest >= self.newest, "a reading went back in time: {newest:?} after {:?}", self.newest);
        self.newest = newest;
        answer.snapshot().window(&WindowId::five_hour()).map(|window| window.used().as_f64())
    }
}

/// All hosts share again, and one more call is enough for all of them to show what it brought.
pub(crate) async fn all_agree(provider: &FakeProvider, hosts: &mut [Host]) {
    for host in hosts.iter() {
        host.until_shared().await;
    }
    let calls = provider.calls();
    moves_to(provider, hosts, 99.0).await;
    assert_eq!(hosts[0].refresh().await, Some(99.0));
    for host in &mut *hosts {
        host.until_shows(99.0).await;
    }
    assert_eq!(provider.calls(), calls + 1);
}

/// The leases that were given on this server, and what came of them, were as they must be.
pub(crate) fn assert_good_history(monitor: &Monitor, server: &Server) {
    let history: Vec<_> = monitor.heard(server).iter().filter_map(|call| Written::by_call(call)).collect();
    assert!(history.len() > 1, "there is something to check");
    assert_eq!(check(&history), Ok(()));
}

/// Waits for something that must come; a test that waits in vain fails and says for what.
pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    let done = Clock::system().bounded(Duration::from_secs(40), work).await;
    done.unwrap_or_else(|| panic!("waited in vain for {what}"))
}

/// Looks until it is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let look = async {
        while !is_so() {
            Clock::system().sleep(Duration::from_millis(5)).await;
        }
    };
    soon(what, look).await;
}
