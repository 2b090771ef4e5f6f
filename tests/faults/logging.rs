//! The log and the counters after errors of a server. Each outage logs one warning, independent of the number of callers, and no
//! reader gets an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quota::manager::StoreStats;
use quota::testing::FakeProvider;
use quota::{Account, AccountId, Clock, QuotaManager};
use redis_harness::{Cluster, Proxy, Server, redis};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{DefaultGuard, set_default};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::fixture::*;
use crate::loading;

/// Counts the warnings of this thread, which is the only thread of its test.
#[derive(Debug, Clone, Default)]
struct Warnings(Arc<AtomicUsize>);

impl Warnings {
    fn listen() -> (Self, DefaultGuard) {
        let warnings = Self::default();
        (warnings.clone(), set_default(warnings))
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN && metadata.target().starts_with("quota")
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, _event: &Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

/// A manager with three accounts, all of which are read, followed and refreshed.
struct Reader {
    quota: QuotaManager,
    accounts: Vec<Account>,
    provider: FakeProvider,
}

impl Reader {
    fn on(url: &str) -> Self {
        let provider = provider();
        let Host { quota, main, .. } = Host::on(url, &provider);
        let other = |name: &str| quota.account(&name.parse::<AccountId>().unwrap());
        let accounts = vec![main, other("anthropic/b"), other("anthropic/c")];
        Self { quota, accounts, provider }
    }

    /// Reads and refreshes every account repeatedly, for longer than the backoff after a rejection.
    async fn check_served(&self) {
        for _ in 0..12 {
            for account in &self.accounts {
                let _ = within_deadline("a read", account.get()).await.unwrap();
                let refreshed = within_deadline("a refresh", account.refresh()).await.unwrap();
                assert!(refreshed.error.is_none(), "{:?}", refreshed.error);
            }
            Clock::system().sleep(Duration::from_millis(250)).await;
        }
    }

    async fn wait_until_synced(&self) {
        let is_shared = |account: &Account| account.peek().store_unavailable_since().is_none();
        until("all accounts are shared again", || self.accounts.iter().all(is_shared)).await;
    }

    fn stats(&self) -> StoreStats {
        self.quota.store_stats()
    }
}

/// Returns the warnings and counters of a client that uses the store at this URL for a while.
async fn warnings_and_stats(url: &str) -> (usize, StoreStats) {
    let (warnings, _listening) = Warnings::listen();
    let reader = Reader::on(url);
    reader.check_served().await;
    (warnings.count(), reader.stats())
}

#[tokio::test]
async fn noscript_is_not_a_failure() {
    let server = Server::start();
    let (warnings, _listening) = Warnings::listen();
    let reader = Reader::on(&server.url());
    reader.check_served().await;

    let () = server.command(&["SCRIPT", "FLUSH"]);
    reader.check_served().await;

    let StoreStats { outages, unavailable, rejected, corrupt, .. } = reader.stats();
    assert_eq!((warnings.count(), outages, unavailable, rejected, corrupt), (0, 0, 0, 0, 0));
}

#[tokio::test]
async fn readonly_is_logged_once_and_is_not_an_outage() {
    let master = Server::start();
    let replica = Server::builder().with(format!("replicaof 127.0.0.1 {}", master.port())).start();

    let (warnings, tally) = warnings_and_stats(&replica.url()).await;

    assert_eq!((warnings, tally.outages, tally.unavailable), (1, 0, 0), "{tally:?}");
    assert!(tally.rejected >= 1, "{tally:?}");
}

#[tokio::test]
async fn moved_is_logged_once_and_is_not_an_outage() {
    let cluster = Cluster::start();
    let owner = cluster.owner_of(cluster.slot_of(KEY));
    let stranger = &cluster.nodes()[(owner + 1) % 3];

    let (warnings, tally) = warnings_and_stats(&stranger.url()).await;

    assert_eq!((warnings, tally.outages, tally.unavailable), (1, 0, 0), "{tally:?}");
    assert!(tally.rejected >= 1, "{tally:?}");
}

#[tokio::test]
async fn noauth_is_logged_once() {
    let server = Server::builder().with("requirepass right").start();

    let (warnings, tally) = warnings_and_stats(&server.url()).await;

    assert_eq!((warnings, tally.outages), (1, 0), "{tally:?}");
    assert!(tally.rejected >= 1, "{tally:?}");
}

#[tokio::test]
async fn oom_is_logged_once_per_episode() {
    let server = Server::start();
    let (warnings, _listening) = Warnings::listen();
    let reader = Reader::on(&server.url());
    reader.check_served().await;

    for time in 1..=2 {
        let () = server.command(&["CONFIG", "SET", "maxmemory", "1"]);
        reader.check_served().await;
        assert_eq!(warnings.count(), time, "{:?}", reader.stats());

        let () = server.command(&["CONFIG", "SET", "maxmemory", "0"]);
        reader.wait_until_synced().await;
    }

    assert!(reader.stats().rejected >= 2, "{:?}", reader.stats());
}

#[tokio::test]
async fn wrongtype_is_logged_once_and_affects_no_other_account() {
    let server = Server::start();
    let _: i64 = server.command(&["RPUSH", KEY, "another program's"]);
    let (warnings, _listening) = Warnings::listen();
    let reader = Reader::on(&server.url());

    reader.check_served().await;

    let tally = reader.stats();
    assert_eq!((warnings.count(), tally.outages, tally.rejected), (1, 0, 0), "{tally:?}");
    assert!(tally.corrupt >= 1, "{tally:?}");
    let standalone: Vec<_> =
        reader.accounts.iter().map(|account| account.peek().store_unavailable_since().is_some()).collect();
    assert_eq!(standalone, [true, false, false]);
}

#[tokio::test]
async fn a_killed_server_is_logged_once_per_outage() {
    let mut server = Server::start();
    let (warnings, _listening) = Warnings::listen();
    let reader = Reader::on(&server.url());
    reader.check_served().await;

    for time in 1..=2 {
        server.kill();
        reader.check_served().await;
        assert_eq!((warnings.count(), reader.stats().outages), (time, time as u64), "{:?}", reader.stats());

        server.restart();
        reader.wait_until_synced().await;
    }
}

#[tokio::test]
async fn loading_is_an_outage_that_is_logged_once() {
    let server = loading::slow_reader();
    let (warnings, _listening) = Warnings::listen();
    let reader = Reader::on(&server.url());
    reader.check_served().await;
    loading::fill(&server);

    let mut admin = server.admin();
    let reload = tokio::task::spawn_blocking(move || redis::cmd("DEBUG").arg("RELOAD").exec(&mut admin));
    until("the server loads", || loading::is_loading(&server.url())).await;
    reader.check_served().await;
    loading::finish_loading(&server);
    reload.await.unwrap().unwrap();

    reader.wait_until_synced().await;
    assert_eq!((warnings.count(), reader.stats().outages), (1, 1), "{:?}", reader.stats());
}

#[tokio::test]
async fn a_black_hole_is_logged_once() {
    let server = Server::start();
    let proxy = Proxy::new(server.port());
    let (warnings, _listening) = Warnings::listen();
    let reader = Reader::on(&proxy.url());
    reader.check_served().await;

    proxy.black_hole();
    reader.check_served().await;

    assert_eq!((warnings.count(), reader.stats().outages), (1, 1), "{:?}", reader.stats());
    assert!(reader.provider.calls() > 0);
}
