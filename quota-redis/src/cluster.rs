//! The slot map of a cluster: which node owns which slot. A `MOVED` reply corrects one slot immediately. The whole map
//! is queried only when a node fails.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use redis::{Value, cmd};
use tokio::task::JoinSet;

use crate::address::Address;
use crate::connector::{Connector, Target};
use crate::error::Error;
use crate::key::SLOTS;
use crate::node::Node;

/// The nodes of a cluster, and the slots they own.
#[derive(Debug)]
pub(crate) struct Cluster {
    connector: Arc<Connector>,
    seeds: Vec<Address>,
    map: Mutex<Map>,
    /// Serializes refreshes of the map, so that concurrent callers share one.
    refresh_lock: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Map {
    nodes: HashMap<Address, Arc<Node>>,
    /// The owners by slot; empty before the first refresh.
    owners: Vec<Option<Arc<Node>>>,
    /// The number of refreshes so far. `failure` or `error` is the result of the last one.
    refreshes: u64,
    error: Option<Error>,
}

/// The first and last slot of a range, and its owner.
type SlotRange = (usize, usize, Address);

/// The slot map is queried from at most this many nodes at the same time.
const PARALLEL_QUERIES: usize = 4;

impl Cluster {
    pub(crate) fn new(connector: Arc<Connector>, seeds: Vec<Address>) -> Self {
        Self { connector, seeds, map: Mutex::default(), refresh_lock: tokio::sync::Mutex::default() }
    }

    pub(crate) async fn owner(&self, slot: usize) -> Result<Arc<Node>, Error> {
        if let Some(node) = self.cached_owner(slot) {
            return Ok(node);
        }
        self.refresh_map().await?;
        self.cached_owner(slot).ok_or(Error::TryAgain("no node of the redis cluster serves this key"))
    }

    pub(crate) fn node(&self, address: Address) -> Arc<Node> {
        let mut map = self.map();
        let node = map.nodes.entry(address.clone());
        Arc::clone(node.or_insert_with(|| Node::new(Arc::clone(&self.connector), Target::Server(address))))
    }

    pub(crate) fn move_slot(&self, slot: usize, to: Arc<Node>) {
        if let Some(owner) = self.map().owners.get_mut(slot) {
            *owner = Some(to);
        }
    }

    /// Refreshes the map if it still assigns the slot to this node.
    pub(crate) async fn suspect(&self, slot: usize, node: &Arc<Node>) {
        if self.cached_owner(slot).is_none_or(|owner| Arc::ptr_eq(&owner, node)) {
            // If the refresh fails, the old map stays in use.
            let _ = self.refresh_map().await;
        }
    }

    pub(crate) fn cached_owner(&self, slot: usize) -> Option<Arc<Node>> {
        self.map().owners.get(slot)?.clone()
    }

    /// Refreshes the map. Callers that arrive during a refresh share its result.
    async fn refresh_map(&self) -> Result<(), Error> {
        let refreshes = self.map().refreshes;
        let _refreshing = self.refresh_lock.lock().await;
        {
            let map = self.map();
            if map.refreshes != refreshes {
                return map.error.clone().map_or(Ok(()), Err);
            }
        }
        let found = self.query_nodes().await;
        let mut map = self.map();
        map.refreshes += 1;
        map.error = found.as_ref().err().cloned();
        drop(map);
        self.apply(found?);
        Ok(())
    }

    async fn query_nodes(&self) -> Result<Vec<SlotRange>, Error> {
        let mut candidates: Vec<_> = self.map().nodes.values().map(Arc::clone).collect();
        fastrand::shuffle(&mut candidates);
        // Query connected nodes first, because they reply soonest.
        candidates.sort_by_key(|node| node.connected().is_none());
        for seed in &self.seeds {
            let seed = self.node(seed.clone());
            if !candidates.iter().any(|node| Arc::ptr_eq(node, &seed)) {
                candidates.push(seed);
            }
        }
        let mut error =
            Error::Unreachable { reason: "no node of the redis cluster replied".into(), source: None };
        let mut candidates = candidates.into_iter();
        let mut queries = JoinSet::new();
        loop {
            while queries.len() < PARALLEL_QUERIES
                && let Some(node) = candidates.next()
            {
                queries.spawn(async move { query_slots(&node).await });
            }
            match queries.join_next().await {
                None => return Err(error),
                Some(Ok(Ok(ranges))) => return Ok(ranges),
                Some(Ok(Err(reason))) => error = reason,
                Some(Err(_)) => {}
            }
        }
    }

    fn apply(&self, ranges: Vec<SlotRange>) {
        let mut owners = vec![None; usize::from(SLOTS)];
        for (first, last, address) in ranges {
            let node = self.node(address);
            for owner in owners.iter_mut().take(last + 1).skip(first) {
                *owner = Some(Arc::clone(&node));
            }
        }
        let mut map = self.map();
        map.owners = owners;
        // Drop nodes that no longer own a slot. Refreshes are rare, so visiting all slots is cheap enough.
        let owning: std::collections::HashSet<_> = map.owners.iter().flatten().map(Arc::as_ptr).collect();
        map.nodes.retain(|_, node| owning.contains(&Arc::as_ptr(node)));
    }

    fn map(&self) -> MutexGuard<'_, Map> {
        self.map.lock()
    }
}

async fn query_slots(node: &Arc<Node>) -> Result<Vec<SlotRange>, Error> {
    let connection = node.connection().await?;
    let response = connection.query(cmd("CLUSTER").arg("SLOTS")).await.inspect_err(|error| {
        if connection.is_broken_by(error) {
            node.discard(&connection);
        }
    })?;
    ranges(connection.address(), response).ok_or(Error::TryAgain("the redis cluster reported no slots"))
}

/// Parses the reply to `CLUSTER SLOTS`, skipping invalid ranges.
fn ranges(node: &Address, response: Value) -> Option<Vec<SlotRange>> {
    let Value::Array(parts) = response else { return None };
    let ranges: Vec<_> = parts.iter().filter_map(|part| range(node, part)).collect();
    (!ranges.is_empty()).then_some(ranges)
}

fn range(node: &Address, part: &Value) -> Option<SlotRange> {
    let Value::Array(part) = part else { return None };
    let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &part[..] else { return None };
    let host = match master.first()? {
        Value::BulkString(host) => str::from_utf8(host).ok()?,
        _ => "",
    };
    let Value::Int(port) = master.get(1)? else { return None };
    let address = node.resolve_peer(host, u16::try_from(*port).ok()?)?;
    let (first, last) = (usize::try_from(*first).ok()?, usize::try_from(*last).ok()?);
    (first <= last && last < usize::from(SLOTS)).then_some((first, last, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(response: &str) -> Option<Vec<SlotRange>> {
        let response = redis::parse_redis_value(response.replace(' ', "\r\n").as_bytes()).unwrap();
        ranges(&Address::tcp("node", 7000), response)
    }

    #[test]
    fn slot_ranges_are_parsed_with_their_masters() {
        let found = slots("*1 *3 :0 :5460 *2 $9 127.0.0.1 :7001 ").unwrap();

        assert_eq!(found, [(0, 5460, Address::tcp("127.0.0.1", 7001))]);
    }

    #[test]
    fn a_master_without_a_host_is_on_the_queried_host() {
        for host in ["$-1", "$0 ", "$1 ?"] {
            let found = slots(&format!("*1 *3 :0 :1 *2 {host} :7001 ")).unwrap();
            assert_eq!(found, [(0, 1, Address::tcp("node", 7001))], "{host}");
        }
    }

    #[test]
    fn invalid_slot_ranges_are_skipped() {
        for response in [
            "*1 *3 :5 :1 *2 $1 h :7001 ",
            "*1 *3 :0 :16384 *2 $1 h :7001 ",
            "*1 *3 :-1 :1 *2 $1 h :7001 ",
            "*1 *3 :0 :1 *2 $1 h :99999 ",
            "*1 *3 :0 :1 *0 ",
            "*0 ",
            ":1 ",
        ] {
            assert_eq!(slots(response), None, "{response}");
        }
    }
}
