//! Which server a key is on: always the same one, or by the slots of a cluster.
//! What is asked there, and how often, is decided in `client`.

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

    /// The node a key is on.
    pub(crate) async fn node_for(&self, key: &Key) -> Result<Arc<Node>, Error> {
        match self {
            Self::One(node) => Ok(Arc::clone(node)),
            Self::Cluster(cluster) => cluster.owner(key.slot()).await,
        }
    }

    /// The node a key is on, and the connection to it, if both are known already.
    pub(crate) fn connected(&self, key: &Key) -> Option<(Arc<Node>, Arc<Connection>)> {
        let node = match self {
            Self::One(node) => Arc::clone(node),
            Self::Cluster(cluster) => cluster.cached_owner(key.slot())?,
        };
        let connection = node.connected()?;
        Some((node, connection))
    }

    /// The node that another one names.
    pub(crate) fn redirect_target(&self, by: &Address, name: &str) -> Option<Arc<Node>> {
        match self {
            Self::One(_) => None,
            Self::Cluster(cluster) => by.parse_redirect(name).map(|address| cluster.node(address)),
        }
    }

    /// A node says that the key is on another one.
    pub(crate) fn move_slot(&self, key: &Key, to: Arc<Node>) {
        if let Self::Cluster(cluster) = self {
            cluster.move_slot(key.slot(), to);
        }
    }

    /// The node does not do what it should: the key may be on another one by now.
    pub(crate) async fn suspect(&self, key: &Key, node: &Arc<Node>) {
        if let Self::Cluster(cluster) = self {
            cluster.suspect(key.slot(), node).await;
        }
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }
}
