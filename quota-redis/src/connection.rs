//! One open connection, and the commands that are sent over it.
//! `connector` opens it; `node` and `client` handle its loss.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, Value, cmd, pipe};

use crate::address::Address;
use crate::error::Error;
use crate::key::Key;
use crate::script::{Command, Reply, Scripts};
use crate::subscriptions::Subscriptions;
use crate::task::Task;
use crate::watchdog::Watchdog;

/// A connection that all callers share.
#[derive(Debug)]
pub(crate) struct Connection {
    multiplexed: MultiplexedConnection,
    subscriptions: Arc<Subscriptions>,
    address: Address,
    sharded: bool,
    supports_push: AtomicBool,
    /// The error that every call returns after the server has replied as a cluster node, although it is configured as a single
    /// server.
    misdirected: OnceLock<Error>,
    cluster_scheme: &'static str,
    watchdog: Arc<Watchdog>,
    _driver: Task,
    keepalive: OnceLock<Task>,
}

/// Whether a write may have been applied although no reply arrived.
pub(crate) type Sent<'a> = &'a AtomicBool;

impl Connection {
    /// With `supports_push` the server sends notices. With `sharded` the server is a node of a cluster, whose URLs begin with
    /// `cluster_scheme`. The driver must close the subscriptions when it ends.
    #[expect(clippy::too_many_arguments, reason = "only one function creates connections")]
    pub(crate) fn new(
        multiplexed: MultiplexedConnection,
        driver: Task,
        subscriptions: Arc<Subscriptions>,
        address: Address,
        sharded: bool,
        cluster_scheme: &'static str,
        supports_push: bool,
        watchdog: Arc<Watchdog>,
    ) -> Self {
        Self {
            multiplexed,
            subscriptions,
            address,
            sharded,
            supports_push: AtomicBool::new(supports_push),
            misdirected: OnceLock::new(),
            cluster_scheme,
            watchdog,
            _driver: driver,
            keepalive: OnceLock::new(),
        }
    }

    pub(crate) fn subscriptions(&self) -> &Arc<Subscriptions> {
        &self.subscriptions
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) fn is_sharded(&self) -> bool {
        self.sharded
    }

    /// Whether notices can arrive on this connection.
    pub(crate) fn supports_push(&self) -> bool {
        self.supports_push.load(Ordering::Relaxed)
    }

    /// Whether a query is open and no byte has arrived for the response timeout.
    pub(crate) fn is_hung(&self) -> bool {
        self.watchdog.has_expired()
    }

    /// Whether bytes have arrived since the previous call.
    pub(crate) fn take_received(&self) -> bool {
        self.watchdog.take_received()
    }

    /// How long the connection has been open.
    pub(crate) fn age(&self) -> Duration {
        self.watchdog.age()
    }

    /// Whether this error proves that the connection is broken. A timeout does not if other bytes have arrived since: the
    /// server is slow, and a new connection would make it slower.
    pub(crate) fn is_broken_by(&self, error: &Error) -> bool {
        error.breaks_connection() && (!matches!(error, Error::Timeout) || self.is_hung())
    }

    /// Starts the keepalive task if notices can arrive and the task is not running.
    pub(crate) fn ensure_keepalive(
        &self,
        keepalive: impl FnOnce() -> Result<Task, Error>,
    ) -> Result<(), Error> {
        if self.supports_push() && self.keepalive.get().is_none() {
            // If two callers start it at the same time, the second task is dropped, which aborts it.
            let _ = self.keepalive.set(keepalive()?);
        }
        Ok(())
    }

    /// Switches to polling, because the server or the user's permissions do not allow notices.
    pub(crate) fn disable_push(&self) {
        if self.supports_push.swap(false, Ordering::Relaxed) {
            tracing::debug!(address = %self.address, "redis rejected the subscription, polling instead");
        }
    }

    /// Runs a command once. With `asking`, the node is importing the slot of the key, so `ASKING` goes first.
    pub(crate) async fn execute(
        &self,
        scripts: &Scripts,
        command: &Command,
        key: &Key,
        asking: bool,
        sent: Sent<'_>,
    ) -> Result<Reply, Error> {
        let publish = if self.sharded { "SPUBLISH" } else { "PUBLISH" };
        let request = scripts.encode(command, key, publish, false);
        let response = match self.send(request, asking, sent).await {
            Err(Error::NoScript) => {
                tracing::debug!(address = %self.address, "redis has not cached the script, sending it");
                let request = scripts.encode(command, key, publish, true);
                Box::pin(self.send(request, asking, sent)).await
            }
            response => response,
        };
        Scripts::decode(command, response?)
    }

    /// Subscribes to the key's channel. When the future completes, notices arrive.
    pub(crate) async fn subscribe(&self, key: &Key) -> Result<(), Error> {
        let mut command = cmd(if self.sharded { "SSUBSCRIBE" } else { "SUBSCRIBE" });
        command.arg(&*key.channel);
        self.subscriptions.expect_confirmation(&key.channel);
        let response = self.query(&command).await;
        if response.as_ref().is_err_and(|error| !error.is_ambiguous()) {
            self.subscriptions.forget_confirmation(&key.channel);
        }
        response.map(drop)
    }

    /// Unsubscribes from the key's channel.
    pub(crate) async fn unsubscribe(&self, key: &Key) -> Result<(), Error> {
        self.query(cmd("UNSUBSCRIBE").arg(&*key.channel)).await.map(drop)
    }

    /// Sends a command that writes nothing.
    pub(crate) async fn query(&self, command: &Cmd) -> Result<Value, Error> {
        self.check_usable()?;
        self.watchdog.sent();
        self.check_reply(self.multiplexed.clone().send_packed_command(command).await)
    }

    async fn send(&self, request: Cmd, asking: bool, sent: Sent<'_>) -> Result<Value, Error> {
        self.check_usable()?;
        let was_sent = sent.swap(true, Ordering::Relaxed);
        self.watchdog.sent();
        let mut multiplexed = self.multiplexed.clone();
        let response = if asking {
            let mut both = pipe();
            both.cmd("ASKING").add_command(request);
            Box::pin(multiplexed.send_packed_commands(&both, 1, 1))
                .await
                .map(|mut responses| responses.pop().unwrap_or(Value::Nil))
        } else {
            multiplexed.send_packed_command(&request).await
        };
        let response = self.check_reply(response);
        // This attempt has a reply, so only the write of an earlier attempt can still be uncertain.
        if !response.as_ref().is_err_and(Error::is_ambiguous) {
            sent.store(was_sent, Ordering::Relaxed);
        }
        response
    }

    /// Fails if no command may be sent over this connection.
    fn check_usable(&self) -> Result<(), Error> {
        if self.subscriptions.is_closed() {
            return Err(Error::NotSent);
        }
        self.misdirected.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Rejects the reply if it may belong to another command.
    fn check_reply(&self, response: Result<Value, RedisError>) -> Result<Value, Error> {
        if self.subscriptions.is_desynced() {
            return Err(Error::Lost);
        }
        let error: Error = match response {
            Ok(Value::ServerError(error)) => RedisError::from(error).into(),
            Ok(response) => return Ok(response),
            Err(error) => error.into(),
        };
        if self.sharded || !error.is_from_cluster_node() {
            return Err(error);
        }
        // Fail every later call too. Otherwise accounts whose keys are on this node would be shared, and others would not.
        let misdirected = || cluster_node_error(&self.address, self.cluster_scheme);
        Err(self.misdirected.get_or_init(misdirected).clone())
    }
}

/// The error for a URL that configures a cluster node as a single server.
pub(crate) fn cluster_node_error(address: &Address, cluster_scheme: &str) -> Error {
    let host = match address {
        Address::Tcp { .. } => address.to_string(),
        Address::Unix(_) => "host:port".to_owned(),
    };
    Error::rejected(format!(
        "redis at {address} is a cluster node; use {cluster_scheme}://{host} (with the same user and password)"
    ))
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.subscriptions.close();
    }
}
