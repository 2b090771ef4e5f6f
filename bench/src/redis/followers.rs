//! The cost of one refresh for the server if many managers follow the account, compared with a bare fan-out: as many raw
//! subscribers, and two writes of the same document.

use std::time::Duration;

use quota_core::store::StoreKey;
use quota_core::testing::FakeProvider;
use quota_core::{Account, Percent, Policy, QuotaManager, QuotaStore, UsageReport, WindowId, WindowReading};
use redis_harness::Server;
use redis_harness::redis::{Connection, cmd};

use super::documents::write;
use super::trips::SCRIPT_COMMANDS;
use super::{manager, open};
use crate::measure::median;
use crate::row::Row;

/// How often a refresh is measured.
const ROUNDS: usize = 3;

/// How long the followers' commands are counted after a refresh.
const COUNTED: Duration = Duration::from_secs(5);

const CHANNEL: &str = "quota:1:{bench/main}@0";

pub(super) async fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for followers in [10, 100, 1_000] {
        let followed = Followed::start(followers).await;
        let (mut calls, mut times) = (0, Vec::new());
        for round in 0..ROUNDS {
            let before = Cost::of(&followed.server);
            followed.refresh(round).await;
            tokio::time::sleep(COUNTED).await;
            let cost = Cost::of(&followed.server).since(&before);
            followed.check(round);
            calls = calls.max(cost.scripts);
            times.push(cost.micros);
        }
        let document = followed.document().await;
        let bare = bare(followers, &document).await;
        let name = format!("redis.followers.{followers}");
        rows.push(Row::absolute(&name, (calls as f64, "script calls/refresh"), "≤ 4", calls <= 4));
        let name = format!("redis.followers.{followers}.server");
        let time = (median(times), "µs of the server/refresh");
        rows.push(Row::at_most(&name, time, ("bare fan-out of two writes", bare), 2.0));
    }
    rows
}

/// One account, the manager that refreshes it, and the managers that follow it. Each has its own connection.
struct Followed {
    server: Server,
    provider: FakeProvider,
    refreshing: Account,
    followers: Vec<(QuotaManager, Account)>,
}

impl Followed {
    async fn start(followers: usize) -> Self {
        let server = Server::start();
        let provider = FakeProvider::answering("bench", 0.0);
        let refreshing = build(&server, &provider).1;
        drop(refreshing.refresh().await.expect("the provider responds"));
        let followers: Vec<_> = (0..followers).map(|_| build(&server, &provider)).collect();
        for (_, account) in &followers {
            drop(account.sync().await);
        }
        let subscribed = |server: &Server| {
            let (_, count): (String, usize) = server.command(&["PUBSUB", "NUMSUB", CHANNEL]);
            count
        };
        while subscribed(&server) <= followers.len() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Each new subscription queries the version once.
        tokio::time::sleep(Duration::from_secs(1)).await;
        Self { server, provider, refreshing, followers }
    }

    fn used(round: usize) -> f64 {
        10.0 + round as f64
    }

    async fn refresh(&self, round: usize) {
        let used = Percent::from_percent(Self::used(round)).expect("the percentage is finite");
        let length = Duration::from_secs(5 * 3600);
        let window = WindowReading::new(WindowId::five_hour(), used).length(length);
        self.provider.answer(UsageReport::polled([window]));
        let refreshed = self.refreshing.refresh().await.expect("the provider responds");
        assert!(refreshed.fetched, "the refresh called the provider");
    }

    /// Checks that all followers have the readings of this round.
    fn check(&self, round: usize) {
        for (_, account) in &self.followers {
            let usage = account.peek();
            let used = usage.snapshot().window(&WindowId::five_hour()).map(|window| window.used().as_f64());
            assert_eq!(used, Some(Self::used(round)), "a follower has no current readings");
        }
    }

    async fn document(&self) -> bytes::Bytes {
        let reading = open(&self.server).read(&key()).await.expect("the server responds");
        reading.document.expect("the record was written").body
    }
}

fn build(server: &Server, provider: &FakeProvider) -> (QuotaManager, Account) {
    let policy = Policy::default()
        .min_call_interval(Duration::ZERO)
        .budget(quota_core::policy::Budget::new(1_000_000, 0));
    let quota =
        manager(server).fetcher(provider.clone()).policy(policy).build().expect("the policy is valid");
    let account = quota.account(&"bench/main".parse().expect("a valid name"));
    (quota, account)
}

fn key() -> StoreKey {
    StoreKey::account(&"bench/main".parse().expect("a valid name"))
}

/// The microseconds of the server for two writes with this many raw subscribers.
async fn bare(subscribers: usize, document: &bytes::Bytes) -> f64 {
    const WRITES: usize = 10;
    let server = Server::start();
    let mut connections: Vec<Connection> = (0..subscribers).map(|_| server.admin()).collect();
    for connection in &mut connections {
        connection
            .send_packed_command(&cmd("SUBSCRIBE").arg(CHANNEL).get_packed_command())
            .expect("the server responds");
        let _ = connection.recv_response().expect("the server responds");
    }
    let (writer, mut seen) = (open(&server), None);
    write(&writer, &key(), &mut seen, document.clone()).await;
    let mut times = Vec::new();
    for _ in 0..WRITES {
        // As before a refresh, the server is idle. Its caches are then cold.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = Cost::of(&server);
        for _ in 0..2 {
            write(&writer, &key(), &mut seen, document.clone()).await;
        }
        times.push(Cost::of(&server).since(&before).micros);
    }
    median(times)
}

/// The script calls of a server, and the time of all its commands.
struct Cost {
    scripts: u64,
    micros: f64,
}

impl Cost {
    /// Reads the counts. Excludes commands inside scripts, whose time is part of the script's, and those of this benchmark.
    fn of(server: &Server) -> Self {
        let text: String = server.command(&["INFO", "commandstats"]);
        let mut cost = Self { scripts: 0, micros: 0.0 };
        for line in text.lines().filter_map(|line| line.strip_prefix("cmdstat_")) {
            let Some((name, figures)) = line.split_once(':') else { continue };
            let figure = |field: &str| {
                figures.split(',').find_map(|figure| figure.strip_prefix(field)?.trim().parse::<f64>().ok())
            };
            let (calls, micros) = (figure("calls=").unwrap_or_default(), figure("usec=").unwrap_or_default());
            if SCRIPT_COMMANDS.contains(&name) || name == "info" {
                continue;
            }
            if name.starts_with("eval") {
                cost.scripts += calls as u64;
            }
            cost.micros += micros;
        }
        cost
    }

    fn since(&self, before: &Self) -> Self {
        Self { scripts: self.scripts - before.scripts, micros: self.micros - before.micros }
    }
}
