//! What a server's errors leave in the log and in the counts: one warning for each outage, however many ask, and never an error
//! that a reader sees.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quota::testing::FakeProvider;
use quota::{Account, AccountId, Clock, QuotaManager, StoreStats};
use redis_harness::{Cluster, Proxy, Server, redis};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{DefaultGuard, set_default};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::loading;
use crate::world::*;

/// Counts the warnings of this thread, which is all there is in a test with one.
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

    /// Reads and refreshes every account again and again, for longer than a store that refuses is left in peace.
    async fn is_served(&self) {
        for _ in 0..12 {
            for account in &self.accounts {
                let _ = soon("a reader's answer", account.get()).await.unwrap();
                let refreshed = soon("a refresh", account.refresh()).await.unwrap();
                assert!(refreshed.error.is_none(), "{:?}", refreshed.error);
            }
            Clock::system().sleep(Duration::from_millis(250)).await;
        }
    }

    async fn shares_again(&self) {
        let is_shared = |account: &Account| account.peek().store_unavailable_since().is_none();
        until("all accounts are shared again", || self.accounts.iter().all(is_shared)).await;
    }

    fn tally(&self) -> StoreStats {
        self.quota.store_stats()
    }
}

/// What is told of a store at this URL by a client that uses it for a while.
async fn told_of(url: &str) -> (usize, StoreStats) {
    let (warnings, _listening) = Warnings::listen();
    let reader = Reader::on(url);
    reader.is_served().await;
    (warnings.count(), reader.tally())
}

#[tokio::test]
async fn noscript_is_no_failure() {
    let server = Server::start();
    let (warnings, _listening) = Warnings::listen();
    let reader = Reader::on(&server.url());
    reader.is_served().await;

    let () = server.ask(&["SCRIPT", "FLUSH"]);
    reader.is_served().await;

    assert_eq!((warnings.count(), reader.tally()), (0, StoreStats::default()));
}

#[tokio::test]
async fn readonly_is_told_once_and_is_no_outage() {
    let master = Server::start();
    let replica = Server::builder().with(format!("replicaof 127.0.0.1 {}", master.port())).start();

    let (warnings, tally) = told_of(&replica.url()).await;

    assert_eq!((warnings, tally.outages, tally.unavailable), (1, 0, 0), "{tally:?}");
    assert!(tally.refused >= 1, "{tally:?}");
}

#[tokio::test]
async fn moved_is_told_once_and_is_no_outage() {
    let cluster = Cluster::start();
    let owner = cluster.owner_of(cluster.slot_of(KEY));
    let stranger = &cluster.nodes()[(owner + 1) % 3];

    let (warnings, tally) = told_of(&stranger.url()).await;

    assert_eq!((warnings, tally.outages, tally.unavailable), (1, 0, 0), "{tally:?}");
    assert!(tally.refused >= 1, "{tally:?}");
}

#[tokio::test]
async fn noauth_is_told_once() {
    let server = Server::builder().with("requirepass right").start();

    let (warnings, tally) = told_of(&server.url()).await;

    assert_eq!((warnings, tally.outages), (1, 0), "{tally:?}");
    assert!(tally.refused >= 1, "{tally:?}");
}

#[tokio::test]
async fn oom_is_told_once_each_time() {
    let server = Server::start();
    let (warnings, _listening) = Warnings::listen();
    let reader = Reader::on(&server.url());
    reader.is_served().await;

    for time in 1..=2 {
        let () = server.ask(&["CONFIG", "SET", "maxmemory", "1"]);
        reader.is_served().await;
        assert_eq!(warnings.count(), time, "{:?}", reader.tally());

        let () = server.ask(&["CONFIG", "SET", "maxmemory", "0"]);
        reader.shares_again().await;
    }

    assert!(reader.tally().refused >= 2, "{:?}", reader.tally());
}

#[tokio::test]
async fn wrongtype_is_told_once_and_concerns_no_other_account() {
    let server = Server::start();
    let _: i64 = server.ask(&["RPUSH", KEY, "another program's"]);
    let (warnings, _listening) = Warnings::listen();
    let reader = Reader::on(&server.url());

    reader.is_served().await;

    let tally = reader.tally();
    assert_eq!((warnings.count(), tally.outages, tally.refused), (1, 0, 0), "{tally:?}");
    assert!(tally.unusable >= 1, "{tally:?}");
    let alone: Vec<_> =
        reader.accounts.iter().map(|account| account.peek().store_unavailable_since().is_some()).collect();
    assert_eq!(alone, [true, false, false]);
}

#[tokio::test]
async fn a_server_that_is_killed_is_told_of_once_each_time() {
    let mut server = Server::start();
    let (warnings, _listening) = Warnings::listen();
    let reader = Reader::on(&server.url());
    reader.is_served().await;

    for time in 1..=2 {
        server.kill();
        reader.is_served().await;
        assert_eq!((warnings.count(), reader.tally().outages), (time, time as u64), "{:?}", reader.tally());

        server.restart();
        reader.shares_again().await;
    }
}

#[tokio::test]
async fn loading_is_an_outage_that_is_told_once() {
    let server = loading::slow_reader();
    let (warnings, _listening) = Warnings::listen();
    let reader = Reader::on(&server.url());
    reader.is_served().await;
    loading::fill(&server);

    let mut admin = server.admin();
    let reload = tokio::task::spawn_blocking(move || redis::cmd("DEBUG").arg("RELOAD").exec(&mut admin));
    until("the server loads", || loading::is_loading(&server.url())).await;
    reader.is_served().await;
    loading::let_it_finish(&server);
    reload.await.unwrap().unwrap();

    reader.shares_again().await;
    assert_eq!((warnings.count(), reader.tally().outages), (1, 1), "{:?}", reader.tally());
}

#[tokio::test]
async fn a_wire_that_swallows_everything_is_told_of_once() {
    let server = Server::start();
    let proxy = Proxy::before(server.port());
    let (warnings, _listening) = Warnings::listen();
    let reader = Reader::on(&proxy.url());
    reader.is_served().await;

    proxy.black_hole();
    reader.is_served().await;

    assert_eq!((warnings.count(), reader.tally().outages), (1, 1), "{:?}", reader.tally());
    assert!(reader.provider.calls() > 0);
}
