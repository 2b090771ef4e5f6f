//! Which server a key is on: always the same one, or by the slots of a cluster.
//! What is asked there, and how often, is decided in `calls`.

use std::sync::Arc;

use crate::address::Address;
use crate::cluster::Cluster;
use crate::dial::{Dialer, Place};
use crate::failure::Failure;
use crate::key::Key;
use crate::node::Node;
use crate::options::Servers;
use crate::wire::Wire;

/// All servers of a store.
#[derive(Debug)]
pub(crate) enum Routes {
    One(Arc<Node>),
    Cluster(Cluster),
}

impl Routes {
    pub(crate) fn new(dialer: &Arc<Dialer>, servers: &Servers) -> Self {
        let one = |place| Self::One(Node::new(Arc::clone(dialer), place));
        match servers {
            Servers::Single(address) => one(Place::At(address.clone())),
            Servers::Sentinel { sentinels, master } => {
                one(Place::Master { sentinels: sentinels.clone(), name: Arc::clone(master) })
            }
            Servers::Cluster(seeds) => Self::Cluster(Cluster::new(Arc::clone(dialer), seeds.clone())),
        }
    }

    /// The node a key is on.
    pub(crate) async fn home(&self, key: &Key) -> Result<Arc<Node>, Failure> {
        match self {
            Self::One(node) => Ok(Arc::clone(node)),
            Self::Cluster(cluster) => cluster.owner(key.slot()).await,
        }
    }

    /// The node a key is on, and the connection to it, if both are known already.
    pub(crate) fn standing(&self, key: &Key) -> Option<(Arc<Node>, Arc<Wire>)> {
        let home = match self {
            Self::One(node) => Arc::clone(node),
            Self::Cluster(cluster) => cluster.known(key.slot())?,
        };
        let wire = home.standing()?;
        Some((home, wire))
    }

    /// The node that another one names.
    pub(crate) fn named(&self, by: &Address, name: &str) -> Option<Arc<Node>> {
        match self {
            Self::One(_) => None,
            Self::Cluster(cluster) => by.told_by(name).map(|address| cluster.node(address)),
        }
    }

    /// A node says that the key is on another one.
    pub(crate) fn moved(&self, key: &Key, to: Arc<Node>) {
        if let Self::Cluster(cluster) = self {
            cluster.moved(key.slot(), to);
        }
    }

    /// The node does not do what it should: the key may be on another one by now.
    pub(crate) async fn doubt(&self, key: &Key, node: &Arc<Node>) {
        if let Self::Cluster(cluster) = self {
            cluster.doubt(key.slot(), node).await;
        }
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }
}
