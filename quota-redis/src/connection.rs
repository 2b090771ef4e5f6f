//! One connection that stands, and what can be asked over it.
//! How it is made is in `connector`; what is done when it is lost, in `node` and `client`.

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
    /// What every call returns, once a server that was named by itself has shown that it is a node of a cluster.
    misdirected: OnceLock<Error>,
    cluster_scheme: &'static str,
    watchdog: Arc<Watchdog>,
    _driver: Task,
    keepalive: OnceLock<Task>,
}

/// Says that a write is on its way, or that it is known not to have been carried out.
pub(crate) type Sent<'a> = &'a AtomicBool;

impl Connection {
    /// `hears` if the server pushes, `sharded` if it is used as a node of a cluster, whose URLs begin with `cluster_scheme`. The
    /// driver must end the board when it ends.
    #[expect(clippy::too_many_arguments, reason = "a connection is made in one place")]
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

    /// Whether there can be notices on this connection.
    pub(crate) fn supports_push(&self) -> bool {
        self.supports_push.load(Ordering::Relaxed)
    }

    /// Whether a question is open and no byte has arrived for longer than an answer may take.
    pub(crate) fn is_hung(&self) -> bool {
        self.watchdog.has_expired()
    }

    /// How long ago the connection was made.
    pub(crate) fn age(&self) -> Duration {
        self.watchdog.age()
    }

    /// Whether a call that failed so shows that the connection is of no more use. An answer that is late does not if other bytes
    /// have arrived since: the server is slow, and a new connection would make it slower.
    pub(crate) fn is_broken_by(&self, error: &Error) -> bool {
        error.breaks_connection() && (!matches!(error, Error::Timeout) || self.is_hung())
    }

    /// Somebody listens: from now on, `keepalive` finds out whether there is anything to hear.
    pub(crate) fn ensure_keepalive(
        &self,
        keepalive: impl FnOnce() -> Result<Task, Error>,
    ) -> Result<(), Error> {
        if self.supports_push() && self.keepalive.get().is_none() {
            // Of two who come at once, one's task ends as it began.
            let _ = self.keepalive.set(keepalive()?);
        }
        Ok(())
    }

    /// There can be none after all.
    pub(crate) fn disable_push(&self) {
        if self.supports_push.swap(false, Ordering::Relaxed) {
            tracing::debug!(address = %self.address, "redis refuses notices, polling instead");
        }
    }

    /// Carries out an order. `asking` if the server has only this once to do with the key.
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
                tracing::debug!(address = %self.address, "redis does not know the script, sending it");
                let request = scripts.encode(command, key, publish, true);
                Box::pin(self.send(request, asking, sent)).await
            }
            response => response,
        };
        Scripts::decode(command, response?)
    }

    /// Hears of the key's changes from when this is ready.
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

    /// Hears of them no longer.
    pub(crate) async fn unsubscribe(&self, key: &Key) -> Result<(), Error> {
        self.query(cmd("UNSUBSCRIBE").arg(&*key.channel)).await.map(drop)
    }

    /// Asks what has no effect.
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
        // A server that answers has done it or has not: what counts is whether an earlier one was left open.
        if !response.as_ref().is_err_and(Error::is_ambiguous) {
            sent.store(was_sent, Ordering::Relaxed);
        }
        response
    }

    /// Whether anything can be asked over it.
    fn check_usable(&self) -> Result<(), Error> {
        if self.subscriptions.is_closed() {
            return Err(Error::NotSent);
        }
        self.misdirected.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// An answer, if it is certain that it belongs to the question.
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
        // From now on for every call. Otherwise accounts whose keys are on this node would be shared, and others not.
        let misdirected = || cluster_node_error(&self.address, self.cluster_scheme);
        Err(self.misdirected.get_or_init(misdirected).clone())
    }
}

/// The error for a URL that names a node of a cluster as a single server.
pub(crate) fn cluster_node_error(address: &Address, cluster_scheme: &str) -> Error {
    let host = match address {
        Address::Tcp { .. } => address.to_string(),
        Address::Unix(_) => "host:port".to_owned(),
    };
    Error::refused(format!(
        "redis at {address} is a node of a cluster; name the cluster: {cluster_scheme}://{host} (with the same user and password)"
    ))
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.subscriptions.close();
    }
}
