//! A master, a replica, and three sentinels that watch them. The sentinels decide on a failover; this module only waits for it.

use crate::server::Server;
use crate::wait_until;

/// The sentinels' name for the master.
const MASTER: &str = "quota-master";

/// A master with one replica, watched by three sentinels.
#[derive(Debug)]
pub struct Sentinels {
    sentinels: Vec<Server>,
    data: Vec<Server>,
}

impl Sentinels {
    /// Starts the servers, and waits until every sentinel lists both servers and the other sentinels.
    ///
    /// # Panics
    ///
    /// If they do not find each other in time.
    #[must_use]
    pub fn start() -> Self {
        let first = Server::start();
        let replica = Server::builder()
            .with(format!("replicaof 127.0.0.1 {}", first.port()))
            .with("repl-diskless-sync-delay 0")
            .start();
        wait_until("the replica is in sync", || {
            replica.command::<String>(&["INFO", "replication"]).contains("master_link_status:up")
        });
        let sentinel = || {
            Server::builder()
                .for_sentinel()
                .with(format!("sentinel monitor {MASTER} 127.0.0.1 {} 2", first.port()))
                .with(format!("sentinel down-after-milliseconds {MASTER} 500"))
                .with(format!("sentinel failover-timeout {MASTER} 2000"))
                .start()
        };
        let sentinels = vec![sentinel(), sentinel(), sentinel()];
        let found = Self { sentinels, data: vec![first, replica] };
        wait_until("the sentinels list each other and the replica", || {
            found.sentinels.iter().all(|sentinel| {
                let info: String = sentinel.command(&["INFO", "sentinel"]);
                info.contains("slaves=1,sentinels=3")
            })
        });
        found
    }

    /// Starts a master with one sentinel, which is enough for discovery.
    #[must_use]
    pub fn start_single() -> Self {
        let master = Server::start();
        let sentinel = Server::builder()
            .for_sentinel()
            .with(format!("sentinel monitor {MASTER} 127.0.0.1 {} 1", master.port()))
            .start();
        Self { sentinels: vec![sentinel], data: vec![master] }
    }

    /// The URL `redis+sentinel://…?master=…` with all sentinels.
    #[must_use]
    pub fn url(&self) -> String {
        let others: String = self.sentinels[1..]
            .iter()
            .map(|sentinel| format!("&node=127.0.0.1:{}", sentinel.port()))
            .collect();
        format!("redis+sentinel://127.0.0.1:{}?master={MASTER}{others}", self.sentinels[0].port())
    }

    /// The sentinels.
    pub fn sentinels_mut(&mut self) -> &mut [Server] {
        &mut self.sentinels
    }

    /// The servers: the initial master and its replica.
    #[must_use]
    pub fn servers(&self) -> &[Server] {
        &self.data
    }

    /// The initial master.
    pub fn initial_master(&mut self) -> &mut Server {
        &mut self.data[0]
    }

    /// The initial replica.
    #[must_use]
    pub fn replica(&self) -> &Server {
        &self.data[1]
    }

    /// Waits until the replica is the master, according to all sentinels.
    pub fn wait_for_failover(&self) {
        let port = self.data[1].port().to_string();
        wait_until("the replica is the master", || {
            self.sentinels.iter().all(|sentinel| {
                let address: Vec<String> = sentinel.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]);
                address.get(1) == Some(&port)
            }) && self.data[1].command::<String>(&["INFO", "replication"]).contains("role:master")
        });
    }
}
