//! Which node owns a key: the only one, or the one that owns its cluster slot.
//! `client` decides what to send there, and how often.

use std::sync::Arc;

use crate::address::Address;
use crate::cluster::Cluster;
use crate::connection::Connection;
use crate::connector::{Connector, Target};
use crate::error::Error;
use crate::key::Key;
use crate::node::Node;
use crate::options::Servers;

/// All servers of a store.
#[derive(Debug)]
pub(crate) enum Topology {
    One(Arc<Node>),
    Cluster(Cluster),
}

impl Topology {
    pub(crate) fn new(connector: &Arc<Connector>, servers: &Servers) -> Self {
        let one = |target| Self::One(Node::new(Arc::clone(connector), target));
        match servers {
            Servers::Single(address) => one(Target::Server(address.clone())),
            Servers::Sentinel { sentinels, master } => {
                one(Target::Master { sentinels: sentinels.clone(), name: Arc::clone(master) })
            }
            Servers::Cluster(seeds) => Self::Cluster(Cluster::new(Arc::clone(connector), seeds.clone())),
        }
    }

    /// Finds the node that owns a key.
    pub(crate) async fn node_for(&self, key: &Key) -> Result<Arc<Node>, Error> {
        match self {
            Self::One(node) => Ok(Arc::clone(node)),
            Self::Cluster(cluster) => cluster.owner(key.slot()).await,
        }
    }

    /// Returns the node that owns a key and its open connection. `None` if either is not available without waiting.
    pub(crate) fn connected(&self, key: &Key) -> Option<(Arc<Node>, Arc<Connection>)> {
        let node = match self {
            Self::One(node) => Arc::clone(node),
            Self::Cluster(cluster) => cluster.cached_owner(key.slot())?,
        };
        let connection = node.connected()?;
        Some((node, connection))
    }

    /// The node that a `MOVED` or `ASK` reply names.
    pub(crate) fn redirect_target(&self, by: &Address, name: &str) -> Option<Arc<Node>> {
        match self {
            Self::One(_) => None,
            Self::Cluster(cluster) => by.parse_redirect(name).map(|address| cluster.node(address)),
        }
    }

    /// Records a `MOVED` reply.
    pub(crate) fn move_slot(&self, key: &Key, to: Arc<Node>) {
        if let Self::Cluster(cluster) = self {
            cluster.move_slot(key.slot(), to);
        }
    }

    /// Refreshes the slot map if it still assigns the key to this node. After an error another node may own the slot.
    pub(crate) async fn suspect(&self, key: &Key, node: &Arc<Node>) {
        if let Self::Cluster(cluster) = self {
            cluster.suspect(key.slot(), node).await;
        }
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }
}
