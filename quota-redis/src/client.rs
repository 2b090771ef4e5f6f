//! Runs a command until a reply arrives: follows redirects, and retries once over a new connection. `store` maps the result to
//! a `StoreError`; `subscriptions` wakes the waiters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quota_core::store::{StoreKey, Version};

use crate::connection::{Connection, Sent};
use crate::connector::{Connector, NOT_MASTER_YET};
use crate::error::Error;
use crate::key::Key;
use crate::node::Node;
use crate::options::{Servers, Settings};
use crate::script::{Command, Reply, Scripts};
use crate::topology::Topology;

/// The state that all clones of a store and its background tasks share.
#[derive(Debug)]
pub(crate) struct Client {
    connector: Arc<Connector>,
    topology: Topology,
    scripts: Scripts,
}

/// The redirects and the retry that a call has left.
#[derive(Debug, Default)]
pub(crate) struct RetryBudget {
    redirects: u32,
    retried: bool,
}

/// The error of an attempt, and the node that the command was sent to.
type FailedAttempt = (Error, Arc<Node>);

/// A call follows at most this many `MOVED` replies.
const MAX_REDIRECTS: u32 = 5;

impl Client {
    pub(crate) fn new(connector: Connector, servers: &Servers) -> Self {
        let connector = Arc::new(connector);
        let topology = Topology::new(&connector, servers);
        Self { connector, topology, scripts: Scripts::new() }
    }

    pub(crate) fn settings(&self) -> &Settings {
        self.connector.settings()
    }

    pub(crate) fn key(&self, name: &StoreKey) -> Key {
        Key::new(&self.settings().prefix, self.settings().database, name)
    }

    /// Runs a command. Afterwards `sent` is true if a write may have been applied although no reply arrived.
    pub(crate) async fn execute(&self, key: &Key, command: &Command, sent: Sent<'_>) -> Result<Reply, Error> {
        let mut failed = None;
        // Fast path: an open connection has its own timeout, so no extra timer is needed.
        if let Some((node, connection)) = self.topology.connected(key) {
            match self.try_on(&node, &connection, key, command, sent).await {
                Ok(reply) => return Ok(reply),
                Err(error) => failed = Some((error, node)),
            }
        }
        let settings = self.settings();
        let limit = settings.connect_timeout + settings.response_timeout;
        // Boxed like every rare path, so that the future of each call stays small.
        let retries = Box::pin(self.execute_with_retries(failed, key, command, sent));
        settings.clock.bounded(limit, retries).await.unwrap_or(Err(Error::Timeout))
    }

    /// The node that owns a key.
    pub(crate) async fn node_for(&self, key: &Key) -> Result<Arc<Node>, Error> {
        self.topology.node_for(key).await
    }

    /// The current version of a document, for the background tasks.
    pub(crate) async fn current_version(&self, key: &Key) -> Result<Option<Version>, Error> {
        match self.execute(key, &Command::Version, &AtomicBool::new(false)).await? {
            Reply::Version(version) => Ok(version),
            Reply::Current(_) | Reply::Applied { .. } => Err(Error::Lost),
        }
    }

    /// Whether this is the open connection to the node that owns the key.
    pub(crate) fn is_current(&self, key: &Key, connection: &Arc<Connection>) -> bool {
        self.topology.connected(key).is_some_and(|(_, connected)| Arc::ptr_eq(&connected, connection))
    }

    async fn execute_with_retries(
        &self,
        mut failed: Option<FailedAttempt>,
        key: &Key,
        command: &Command,
        sent: Sent<'_>,
    ) -> Result<Reply, Error> {
        let mut budget = RetryBudget::default();
        loop {
            if let Some((error, failed_node)) = failed.take() {
                self.prepare_retry(error, &failed_node, key, &mut budget).await?;
            }
            let node = self.topology.node_for(key).await?;
            let attempt = match node.connection().await {
                Ok(connection) => self.try_on(&node, &connection, key, command, sent).await,
                Err(error) => Err(error),
            };
            match attempt {
                Ok(reply) => return Ok(reply),
                Err(error) => failed = Some((error, node)),
            }
        }
    }

    /// Updates the topology, then decides whether to retry. Reads and swaps may both be repeated: the version of a swap shows
    /// whether it was already applied.
    async fn prepare_retry(
        &self,
        error: Error,
        failed_node: &Arc<Node>,
        key: &Key,
        budget: &mut RetryBudget,
    ) -> Result<(), Error> {
        let may_try = match &error {
            Error::Moved(_) => budget.take_redirect(),
            Error::Lost | Error::NotSent => {
                self.topology.suspect(key, failed_node).await;
                budget.take_retry()
            }
            // A failover is in progress. The sentinels will soon report the new master.
            Error::ReadOnly if failed_node.is_behind_sentinels() => {
                return if budget.take_retry() { Ok(()) } else { Err(NOT_MASTER_YET) };
            }
            // The node may be down or demoted to a replica, and another node may now own its slots.
            Error::Unreachable { .. } | Error::TryAgain(_) | Error::ClusterDown | Error::ReadOnly
                if self.topology.is_cluster() =>
            {
                self.topology.suspect(key, failed_node).await;
                !Arc::ptr_eq(failed_node, &self.topology.node_for(key).await?) && budget.take_retry()
            }
            _ => false,
        };
        if may_try { Ok(()) } else { Err(error) }
    }

    async fn try_on(
        &self,
        node: &Arc<Node>,
        connection: &Arc<Connection>,
        key: &Key,
        command: &Command,
        sent: Sent<'_>,
    ) -> Result<Reply, Error> {
        let query = connection.subscriptions().start_query(&key.channel, command.version());
        let (reply, published_here) = match connection.execute(&self.scripts, command, key, false, sent).await
        {
            Err(Error::Ask(name)) => {
                (Box::pin(self.execute_asking(connection, &name, key, command, sent)).await, false)
            }
            reply => (reply, true),
        };
        match &reply {
            Ok(Reply::Current(reading)) => query.on_version(reading.version()),
            Ok(Reply::Version(version)) => query.on_version(*version),
            Ok(Reply::Applied { published }) => {
                if let Some(version) = command.version() {
                    query.on_applied(version, *published && published_here);
                }
            }
            Err(error) => {
                if error.is_ambiguous() {
                    sent.store(true, Ordering::Relaxed);
                }
                drop(query);
                self.note_error(error, node, connection, key);
            }
        }
        reply
    }

    /// Follows one `ASK` redirect, to the node that imports the slot.
    async fn execute_asking(
        &self,
        connection: &Connection,
        name: &str,
        key: &Key,
        command: &Command,
        sent: Sent<'_>,
    ) -> Result<Reply, Error> {
        let node = self.topology.redirect_target(connection.address(), name).ok_or(Error::Lost)?;
        let other = node.connection().await?;
        let reply = other.execute(&self.scripts, command, key, true, sent).await;
        if let Err(error) = &reply
            && other.is_broken_by(error)
        {
            node.discard(&other);
        }
        reply
    }

    /// Updates connections and topology after an error.
    pub(crate) fn note_error(&self, error: &Error, node: &Node, connection: &Arc<Connection>, key: &Key) {
        if connection.is_broken_by(error) || node.may_reach_new_master(error, connection) {
            node.discard(connection);
        } else if let Error::Moved(name) = error
            && let Some(node) = self.topology.redirect_target(connection.address(), name)
        {
            self.topology.move_slot(key, node);
        }
    }
}

impl RetryBudget {
    /// Uses up one redirect. Returns false if none is left.
    pub(crate) fn take_redirect(&mut self) -> bool {
        self.redirects += 1;
        self.redirects <= MAX_REDIRECTS
    }

    /// Uses up the retry. Returns false if it was used before.
    fn take_retry(&mut self) -> bool {
        !std::mem::replace(&mut self.retried, true)
    }
}
