//! A cluster of three masters that share the slots, with replicas on request. A slot moves in steps, so that a test can act
//! between them. The nodes decide when a replica takes over.

use crate::server::Server;
use crate::wait_until;

/// A cluster of three masters, initially without replicas.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Server>,
}

impl Cluster {
    /// Starts the cluster, and waits until every node reports the state ok.
    ///
    /// # Panics
    ///
    /// If a node does not report it in time.
    #[must_use]
    pub fn start() -> Self {
        let nodes = vec![node(), node(), node()];
        for (index, (node, slots)) in
            nodes.iter().zip([["0", "5460"], ["5461", "10922"], ["10923", "16383"]]).enumerate()
        {
            let () = node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
            let () = node.command(&["CLUSTER", "ADDSLOTSRANGE", slots[0], slots[1]]);
        }
        for node in &nodes[1..] {
            let () = nodes[0].command(&["CLUSTER", "MEET", "127.0.0.1", &node.port().to_string()]);
        }
        let cluster = Self { nodes };
        wait_until("the cluster is ok", || {
            cluster.nodes.iter().all(|node| {
                let info: String = node.command(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok") && info.contains("cluster_size:3")
            })
        });
        cluster
    }

    /// Adds a replica of a master, and waits until it is in sync and all nodes list it. Returns the index of its node.
    ///
    /// # Panics
    ///
    /// If the replica is not in sync in time.
    pub fn add_replica_of(&mut self, master: usize) -> usize {
        let replica = node();
        let () = replica.command(&["CLUSTER", "MEET", "127.0.0.1", &self.nodes[master].port().to_string()]);
        let id = self.id(master);
        wait_until("the replica has found its master", || {
            replica.try_command::<()>(&["CLUSTER", "REPLICATE", &id]).is_ok()
        });
        wait_until("the replica is in sync", || {
            replica.command::<String>(&["INFO", "replication"]).contains("master_link_status:up")
        });
        let own: String = replica.command(&["CLUSTER", "MYID"]);
        let lists_it = |line: &str| line.starts_with(&own) && line.contains("slave") && line.contains(&id);
        wait_until("all nodes list the replica", || {
            self.nodes.iter().all(|node| node.command::<String>(&["CLUSTER", "NODES"]).lines().any(lists_it))
        });
        self.nodes.push(replica);
        self.nodes.len() - 1
    }

    /// Waits until this node is the master of a slot, according to every running node.
    ///
    /// # Panics
    ///
    /// If that does not happen in time.
    pub fn wait_for_failover(&self, slot: u16, to: usize) {
        let id = self.id(to);
        let is_master = |line: &str| {
            let mut parts = line.split_whitespace();
            parts.next() == Some(&id) && line.contains("master") && holds(parts.skip(7), slot)
        };
        wait_until("the replica is the master", || {
            self.nodes.iter().filter(|node| node.answers()).all(|node| {
                node.command::<String>(&["CLUSTER", "NODES"]).lines().any(is_master)
                    && node.command::<String>(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
            })
        });
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Server] {
        &self.nodes
    }

    /// The nodes, for tests that kill and restart them.
    pub fn nodes_mut(&mut self) -> &mut [Server] {
        &mut self.nodes
    }

    /// The URL `redis+cluster://…` with all nodes.
    #[must_use]
    pub fn url(&self) -> String {
        let others: Vec<_> =
            self.nodes[1..].iter().map(|node| format!("node=127.0.0.1:{}", node.port())).collect();
        format!("redis+cluster://127.0.0.1:{}?{}", self.nodes[0].port(), others.join("&"))
    }

    /// The slot of a key.
    #[must_use]
    pub fn slot_of(&self, key: &str) -> u16 {
        self.nodes[0].command(&["CLUSTER", "KEYSLOT", key])
    }

    /// The index of the node that owns a slot, as the nodes report it.
    ///
    /// # Panics
    ///
    /// If no node owns it.
    #[must_use]
    pub fn owner_of(&self, slot: u16) -> usize {
        let range = |node: &Server| -> bool {
            let text: String = node.command(&["CLUSTER", "NODES"]);
            let mine = text.lines().find(|line| line.contains("myself")).unwrap_or_default().to_owned();
            holds(mine.split_whitespace().skip(8), slot)
        };
        self.nodes.iter().position(range).expect("every slot belongs to a node")
    }

    /// Starts to move a slot. From now on the nodes reply `ASK` for keys that they do not have.
    pub fn begin_move(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        let () = self.nodes[to].command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.id(from)]);
        let () = self.nodes[from].command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.id(to)]);
    }

    /// Moves the keys of a slot.
    pub fn move_keys(&self, slot: u16, from: usize, to: usize) {
        let port = self.nodes[to].port().to_string();
        let keys: Vec<String> =
            self.nodes[from].command(&["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), "1000"]);
        for key in keys {
            let _: String =
                self.nodes[from].command(&["MIGRATE", "127.0.0.1", &port, &key, "0", "5000", "REPLACE"]);
        }
    }

    /// Assigns the slot to its new owner. From now on the other nodes reply `MOVED`.
    pub fn end_move(&self, slot: u16, from: usize, to: usize) {
        let id = self.id(to);
        let slot = slot.to_string();
        let third = (0..self.nodes.len()).filter(|node| *node != from && *node != to);
        for node in [to, from].into_iter().chain(third) {
            let () = self.nodes[node].command(&["CLUSTER", "SETSLOT", &slot, "NODE", &id]);
        }
    }

    /// Makes another node take over a slot without the consent of its owner, as when a replica's master has died.
    pub fn take_over(&self, slot: u16, to: usize) {
        let slot = slot.to_string();
        let () = self.nodes[to].command(&["CLUSTER", "DELSLOTS", &slot]);
        let () = self.nodes[to].command(&["CLUSTER", "ADDSLOTS", &slot]);
        let _: String = self.nodes[to].command(&["CLUSTER", "BUMPEPOCH"]);
    }

    fn id(&self, node: usize) -> String {
        self.nodes[node].command(&["CLUSTER", "MYID"])
    }
}

fn node() -> Server {
    Server::builder()
        .with("cluster-enabled yes")
        .with("cluster-config-file {folder}/nodes.conf")
        .with("cluster-node-timeout 2000")
        .with("repl-diskless-sync-delay 0")
        .start()
}

/// Whether these ranges, in the format of `CLUSTER NODES`, contain a slot.
fn holds<'a>(mut ranges: impl Iterator<Item = &'a str>, slot: u16) -> bool {
    ranges.any(|part| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        matches!((from.parse::<u16>(), to.parse::<u16>()), (Ok(from), Ok(to)) if (from..=to).contains(&slot))
    })
}
