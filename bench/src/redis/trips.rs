//! Counts the server commands of a refresh.

use std::collections::BTreeMap;
use std::time::Duration;

use quota_core::testing::FakeProvider;
use quota_core::{Account, Policy};
use redis_harness::Server;

use super::manager;
use crate::row::Row;

/// The commands inside the scripts, which the server counts too.
pub(super) const SCRIPT_COMMANDS: [&str; 4] = ["get", "set", "time", "publish"];
const REFRESHES: u64 = 100;

pub(super) async fn rows() -> Vec<Row> {
    let server = Server::start();
    // The first refresh loads the scripts into the server.
    drop(account(&server, "other").refresh().await.expect("the provider responds"));

    let cold = account(&server, "main");
    let before = Count::of(&server);
    drop(cold.refresh().await.expect("the provider responds"));
    let counts = before.until_now(&server);
    let scripts = counts.scripts();
    let mut rows =
        vec![Row::absolute("redis.trips.cold", (scripts as f64, "script calls"), "≤ 3", scripts <= 3)];

    drop(cold.refresh().await.expect("the provider responds"));
    let before = Count::of(&server);
    for _ in 0..REFRESHES {
        drop(cold.refresh().await.expect("the provider responds"));
    }
    let counts = before.until_now(&server);
    let (scripts, others) = (counts.scripts(), counts.others());
    let per_refresh = scripts as f64 / REFRESHES as f64;
    let is_two = scripts == 2 * REFRESHES;
    rows.push(Row::absolute("redis.trips.warm", (per_refresh, "script calls"), "2", is_two));
    rows.push(Row::absolute("redis.trips.warm.others", (others as f64, "other commands"), "0", others == 0));
    rows
}

fn account(server: &Server, name: &str) -> Account {
    let policy = Policy::default()
        .min_call_interval(Duration::ZERO)
        .budget(quota_core::policy::Budget::new(1_000_000, 0));
    let quota = manager(server)
        .fetcher(FakeProvider::answering("bench", 42.0))
        .policy(policy)
        .build()
        .expect("the policy is valid");
    quota.account(&format!("bench/{name}").parse().expect("a valid name"))
}

/// How often each command was called.
struct Count(BTreeMap<String, u64>);

impl Count {
    fn of(server: &Server) -> Self {
        Self(server.calls().into_iter().collect())
    }

    /// The commands since these counts, excluding those that read the counts.
    fn until_now(self, server: &Server) -> Self {
        let now = Self::of(server);
        let after = Self::of(server);
        let at = |count: &Self, name: &str| count.0.get(name).copied().unwrap_or(0);
        let since = |name: &String| at(&now, name) - at(&self, name) - (at(&after, name) - at(&now, name));
        Self(now.0.keys().map(|name| (name.clone(), since(name))).collect())
    }

    fn scripts(&self) -> u64 {
        self.0.iter().filter(|(name, _)| name.starts_with("eval")).map(|(_, calls)| calls).sum()
    }

    fn others(&self) -> u64 {
        let is_other = |name: &str| !name.starts_with("eval") && !SCRIPT_COMMANDS.contains(&name);
        self.0.iter().filter(|(name, _)| is_other(name)).map(|(_, calls)| calls).sum()
    }
}
