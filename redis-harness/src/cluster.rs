//! Three masters that share the slots, and replicas of them where they are asked for.
//! How a slot moves is said step by step, so that a test can look in between; when a replica takes over is theirs to decide.

use crate::server::Server;
use crate::wait_until;

/// A cluster of three masters, without replicas at first.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Server>,
}

impl Cluster {
    /// Starts it, and waits until every node says that it is whole.
    ///
    /// # Panics
    ///
    /// If it does not become whole.
    #[must_use]
    pub fn start() -> Self {
        let nodes = vec![node(), node(), node()];
        for (index, (node, slots)) in
            nodes.iter().zip([["0", "5460"], ["5461", "10922"], ["10923", "16383"]]).enumerate()
        {
            let () = node.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
            let () = node.ask(&["CLUSTER", "ADDSLOTSRANGE", slots[0], slots[1]]);
        }
        for node in &nodes[1..] {
            let () = nodes[0].ask(&["CLUSTER", "MEET", "127.0.0.1", &node.port().to_string()]);
        }
        let cluster = Self { nodes };
        wait_until("the cluster is whole", || {
            cluster.nodes.iter().all(|node| {
                let info: String = node.ask(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok") && info.contains("cluster_size:3")
            })
        });
        cluster
    }

    /// Adds a replica of a master, and waits until it has what its master has and all know whose it is. Its number among the
    /// nodes.
    ///
    /// # Panics
    ///
    /// If it does not follow.
    pub fn add_replica_of(&mut self, master: usize) -> usize {
        let replica = node();
        let () = replica.ask(&["CLUSTER", "MEET", "127.0.0.1", &self.nodes[master].port().to_string()]);
        let id = self.id(master);
        wait_until("the replica knows its master", || {
            replica.try_ask::<()>(&["CLUSTER", "REPLICATE", &id]).is_ok()
        });
        wait_until("the replica follows", || {
            replica.ask::<String>(&["INFO", "replication"]).contains("master_link_status:up")
        });
        let own: String = replica.ask(&["CLUSTER", "MYID"]);
        let knows_it = |line: &str| line.starts_with(&own) && line.contains("slave") && line.contains(&id);
        wait_until("all know the replica", || {
            self.nodes.iter().all(|node| node.ask::<String>(&["CLUSTER", "NODES"]).lines().any(knows_it))
        });
        self.nodes.push(replica);
        self.nodes.len() - 1
    }

    /// Waits until this node is the master of a slot, and those that can be asked say so.
    ///
    /// # Panics
    ///
    /// If it does not become it.
    pub fn wait_for_failover(&self, slot: u16, to: usize) {
        let id = self.id(to);
        let is_master = |line: &str| {
            let mut parts = line.split_whitespace();
            parts.next() == Some(&id) && line.contains("master") && holds(parts.skip(7), slot)
        };
        wait_until("the replica was made the master", || {
            self.nodes.iter().filter(|node| node.answers()).all(|node| {
                node.ask::<String>(&["CLUSTER", "NODES"]).lines().any(is_master)
                    && node.ask::<String>(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
            })
        });
    }

    /// Its nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Server] {
        &self.nodes
    }

    /// The same, to be killed and restarted.
    pub fn nodes_mut(&mut self) -> &mut [Server] {
        &mut self.nodes
    }

    /// `redis+cluster://…`, by its first node, with the others as further ones.
    #[must_use]
    pub fn url(&self) -> String {
        let others: Vec<_> =
            self.nodes[1..].iter().map(|node| format!("node=127.0.0.1:{}", node.port())).collect();
        format!("redis+cluster://127.0.0.1:{}?{}", self.nodes[0].port(), others.join("&"))
    }

    /// Which slot a key is in.
    #[must_use]
    pub fn slot_of(&self, key: &str) -> u16 {
        self.nodes[0].ask(&["CLUSTER", "KEYSLOT", key])
    }

    /// Which node a slot belongs to, as the nodes say themselves.
    ///
    /// # Panics
    ///
    /// If it belongs to none.
    #[must_use]
    pub fn owner_of(&self, slot: u16) -> usize {
        let range = |node: &Server| -> bool {
            let text: String = node.ask(&["CLUSTER", "NODES"]);
            let mine = text.lines().find(|line| line.contains("myself")).unwrap_or_default().to_owned();
            holds(mine.split_whitespace().skip(8), slot)
        };
        self.nodes.iter().position(range).expect("every slot belongs to a node")
    }

    /// Begins to move a slot: from now on the nodes answer `ASK` for what is not there, or not there any more.
    pub fn begin_move(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        let () = self.nodes[to].ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.id(from)]);
        let () = self.nodes[from].ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.id(to)]);
    }

    /// Moves the keys of a slot.
    pub fn move_keys(&self, slot: u16, from: usize, to: usize) {
        let port = self.nodes[to].port().to_string();
        let keys: Vec<String> =
            self.nodes[from].ask(&["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), "1000"]);
        for key in keys {
            let _: String =
                self.nodes[from].ask(&["MIGRATE", "127.0.0.1", &port, &key, "0", "5000", "REPLACE"]);
        }
    }

    /// Gives the slot to its new owner: from now on the others answer `MOVED`.
    pub fn end_move(&self, slot: u16, from: usize, to: usize) {
        let id = self.id(to);
        let slot = slot.to_string();
        let third = (0..self.nodes.len()).filter(|node| *node != from && *node != to);
        for node in [to, from].into_iter().chain(third) {
            let () = self.nodes[node].ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &id]);
        }
    }

    /// Lets another node take over a slot without asking its owner, as a replica does whose master has died.
    pub fn take_over(&self, slot: u16, to: usize) {
        let slot = slot.to_string();
        let () = self.nodes[to].ask(&["CLUSTER", "DELSLOTS", &slot]);
        let () = self.nodes[to].ask(&["CLUSTER", "ADDSLOTS", &slot]);
        let _: String = self.nodes[to].ask(&["CLUSTER", "BUMPEPOCH"]);
    }

    fn id(&self, node: usize) -> String {
        self.nodes[node].ask(&["CLUSTER", "MYID"])
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

/// Whether a slot is among these ranges, as `CLUSTER NODES` writes them.
fn holds<'a>(mut ranges: impl Iterator<Item = &'a str>, slot: u16) -> bool {
    ranges.any(|part| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        matches!((from.parse::<u16>(), to.parse::<u16>()), (Ok(from), Ok(to)) if (from..=to).contains(&slot))
    })
}
