//! The map of a cluster: which node owns which slot, and how that is found out.
//! A node's answer that a slot has moved corrects the map at once; the whole is asked for only when a node fails.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use redis::{Value, cmd};
use tokio::task::JoinSet;

use crate::address::Address;
use crate::dial::{Dialer, Place};
use crate::failure::Failure;
use crate::key::SLOTS;
use crate::node::Node;

/// The nodes of a cluster, and the slots they own.
#[derive(Debug)]
pub(crate) struct Cluster {
    dialer: Arc<Dialer>,
    seeds: Vec<Address>,
    map: Mutex<Map>,
    /// Held by the one who asks for the map.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Map {
    nodes: HashMap<Address, Arc<Node>>,
    /// By slot; empty before the first answer.
    owners: Vec<Option<Arc<Node>>>,
    /// Counts the attempts to ask for the map, and keeps how the last one ended.
    asked: u64,
    failure: Option<Failure>,
}

/// Slots from one to another, and who owns them.
type Range = (usize, usize, Address);

/// So many nodes are asked for the map at once.
const ASKED_AT_ONCE: usize = 4;

impl Cluster {
    pub(crate) fn new(dialer: Arc<Dialer>, seeds: Vec<Address>) -> Self {
        Self { dialer, seeds, map: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    pub(crate) async fn owner(&self, slot: usize) -> Result<Arc<Node>, Failure> {
        if let Some(node) = self.known(slot) {
            return Ok(node);
        }
        self.ask_for_map().await?;
        self.known(slot).ok_or(Failure::NotNow("no node of the redis cluster serves this key"))
    }

    pub(crate) fn node(&self, address: Address) -> Arc<Node> {
        let mut map = self.map();
        let node = map.nodes.entry(address.clone());
        Arc::clone(node.or_insert_with(|| Node::new(Arc::clone(&self.dialer), Place::At(address))))
    }

    pub(crate) fn moved(&self, slot: usize, to: Arc<Node>) {
        if let Some(owner) = self.map().owners.get_mut(slot) {
            *owner = Some(to);
        }
    }

    /// Asks for the map if the slot still belongs to this node.
    pub(crate) async fn doubt(&self, slot: usize, node: &Arc<Node>) {
        if self.known(slot).is_none_or(|owner| Arc::ptr_eq(&owner, node)) {
            // Whoever asked first has done it for all; if it failed, the old map is all there is.
            let _ = self.ask_for_map().await;
        }
    }

    pub(crate) fn known(&self, slot: usize) -> Option<Arc<Node>> {
        self.map().owners.get(slot)?.clone()
    }

    /// One caller asks, and those who come meanwhile take what it found.
    async fn ask_for_map(&self) -> Result<(), Failure> {
        let asked = self.map().asked;
        let _turn = self.turn.lock().await;
        {
            let map = self.map();
            if map.asked != asked {
                return map.failure.clone().map_or(Ok(()), Err);
            }
        }
        let found = self.ask_nodes().await;
        let mut map = self.map();
        map.asked += 1;
        map.failure = found.as_ref().err().cloned();
        drop(map);
        self.draw(found?);
        Ok(())
    }

    async fn ask_nodes(&self) -> Result<Vec<Range>, Failure> {
        let mut candidates: Vec<_> = self.map().nodes.values().map(Arc::clone).collect();
        fastrand::shuffle(&mut candidates);
        // Those that are connected first: they answer soonest.
        candidates.sort_by_key(|node| node.standing().is_none());
        for seed in &self.seeds {
            let seed = self.node(seed.clone());
            if !candidates.iter().any(|node| Arc::ptr_eq(node, &seed)) {
                candidates.push(seed);
            }
        }
        let mut failure = Failure::Away { why: "no node of the redis cluster answered".into(), source: None };
        let mut candidates = candidates.into_iter();
        let mut asked = JoinSet::new();
        loop {
            while asked.len() < ASKED_AT_ONCE
                && let Some(node) = candidates.next()
            {
                asked.spawn(async move { ask_node(&node).await });
            }
            match asked.join_next().await {
                None => return Err(failure),
                Some(Ok(Ok(ranges))) => return Ok(ranges),
                Some(Ok(Err(why))) => failure = why,
                Some(Err(_)) => {}
            }
        }
    }

    fn draw(&self, ranges: Vec<Range>) {
        let mut owners = vec![None; usize::from(SLOTS)];
        for (first, last, address) in ranges {
            let node = self.node(address);
            for owner in owners.iter_mut().take(last + 1).skip(first) {
                *owner = Some(Arc::clone(&node));
            }
        }
        let mut map = self.map();
        map.owners = owners;
        // Nodes that are gone are forgotten; the map is drawn seldom enough to look at all slots.
        let owning: std::collections::HashSet<_> = map.owners.iter().flatten().map(Arc::as_ptr).collect();
        map.nodes.retain(|_, node| owning.contains(&Arc::as_ptr(node)));
    }

    fn map(&self) -> MutexGuard<'_, Map> {
        self.map.lock()
    }
}

async fn ask_node(node: &Arc<Node>) -> Result<Vec<Range>, Failure> {
    let wire = node.wire().await?;
    let answer = wire.ask(cmd("CLUSTER").arg("SLOTS")).await.inspect_err(|failure| {
        if wire.is_ended_by(failure) {
            node.lose(&wire);
        }
    })?;
    ranges(wire.address(), answer).ok_or(Failure::NotNow("the redis cluster told nothing about its slots"))
}

/// Reads the answer of `CLUSTER SLOTS`; what cannot be read of it is left out.
fn ranges(asked: &Address, answer: Value) -> Option<Vec<Range>> {
    let Value::Array(parts) = answer else { return None };
    let ranges: Vec<_> = parts.iter().filter_map(|part| range(asked, part)).collect();
    (!ranges.is_empty()).then_some(ranges)
}

fn range(asked: &Address, part: &Value) -> Option<Range> {
    let Value::Array(part) = part else { return None };
    let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &part[..] else { return None };
    let host = match master.first()? {
        Value::BulkString(host) => str::from_utf8(host).ok()?,
        _ => "",
    };
    let Value::Int(port) = master.get(1)? else { return None };
    let address = asked.neighbour(host, u16::try_from(*port).ok()?)?;
    let (first, last) = (usize::try_from(*first).ok()?, usize::try_from(*last).ok()?);
    (first <= last && last < usize::from(SLOTS)).then_some((first, last, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(answer: &str) -> Option<Vec<Range>> {
        let answer = redis::parse_redis_value(answer.replace(' ', "\r\n").as_bytes()).unwrap();
        ranges(&Address::tcp("asked", 7000), answer)
    }

    #[test]
    fn ranges_are_read_with_their_masters() {
        let found = slots("*1 *3 :0 :5460 *2 $9 127.0.0.1 :7001 ").unwrap();

        assert_eq!(found, [(0, 5460, Address::tcp("127.0.0.1", 7001))]);
    }

    #[test]
    fn a_master_without_a_host_is_on_the_host_that_was_asked() {
        for host in ["$-1", "$0 ", "$1 ?"] {
            let found = slots(&format!("*1 *3 :0 :1 *2 {host} :7001 ")).unwrap();
            assert_eq!(found, [(0, 1, Address::tcp("asked", 7001))], "{host}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        for answer in [
            "*1 *3 :5 :1 *2 $1 h :7001 ",
            "*1 *3 :0 :16384 *2 $1 h :7001 ",
            "*1 *3 :-1 :1 *2 $1 h :7001 ",
            "*1 *3 :0 :1 *2 $1 h :99999 ",
            "*1 *3 :0 :1 *0 ",
            "*0 ",
            ":1 ",
        ] {
            assert_eq!(slots(answer), None, "{answer}");
        }
    }
}
