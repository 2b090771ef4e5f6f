//! One connection that stands, and what can be asked over it.
//! How it is made is in `dial`; what is done when it is lost, in `node` and `calls`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, Value, cmd, pipe};

use crate::address::Address;
use crate::board::Board;
use crate::failure::Failure;
use crate::key::Key;
use crate::script::{Order, Outcome, Scripts};
use crate::task::Task;
use crate::watchdog::Watchdog;

/// A connection that all callers share.
#[derive(Debug)]
pub(crate) struct Wire {
    connection: MultiplexedConnection,
    board: Arc<Board>,
    address: Address,
    sharded: bool,
    hears: AtomicBool,
    /// What every call returns, once a server that was named by itself has shown that it is a node of a cluster.
    misdirected: OnceLock<Failure>,
    cluster_scheme: &'static str,
    watchdog: Arc<Watchdog>,
    _driver: Task,
    pulse: OnceLock<Task>,
}

/// Says that a write is on its way, or that it is known not to have been carried out.
pub(crate) type Sent<'a> = &'a AtomicBool;

impl Wire {
    /// `hears` if the server pushes, `sharded` if it is used as a node of a cluster, whose URLs begin with `cluster_scheme`. The
    /// driver must end the board when it ends.
    #[expect(clippy::too_many_arguments, reason = "a connection is made in one place")]
    pub(crate) fn new(
        connection: MultiplexedConnection,
        driver: Task,
        board: Arc<Board>,
        address: Address,
        sharded: bool,
        cluster_scheme: &'static str,
        hears: bool,
        watchdog: Arc<Watchdog>,
    ) -> Self {
        Self {
            connection,
            board,
            address,
            sharded,
            hears: AtomicBool::new(hears),
            misdirected: OnceLock::new(),
            cluster_scheme,
            watchdog,
            _driver: driver,
            pulse: OnceLock::new(),
        }
    }

    pub(crate) fn board(&self) -> &Arc<Board> {
        &self.board
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) fn is_sharded(&self) -> bool {
        self.sharded
    }

    /// Whether there can be notices on this connection.
    pub(crate) fn hears(&self) -> bool {
        self.hears.load(Ordering::Relaxed)
    }

    /// Whether a question is open and no byte has arrived for longer than an answer may take.
    pub(crate) fn is_silent(&self) -> bool {
        self.watchdog.has_expired()
    }

    /// How long ago the connection was made.
    pub(crate) fn age(&self) -> Duration {
        self.watchdog.age()
    }

    /// Whether a call that failed so shows that the connection is of no more use. An answer that is late does not if other bytes
    /// have arrived since: the server is slow, and a new connection would make it slower.
    pub(crate) fn is_ended_by(&self, failure: &Failure) -> bool {
        failure.ends_connection() && (!matches!(failure, Failure::Late) || self.is_silent())
    }

    /// Somebody listens: from now on, `pulse` finds out whether there is anything to hear.
    pub(crate) fn look_after(&self, pulse: impl FnOnce() -> Result<Task, Failure>) -> Result<(), Failure> {
        if self.hears() && self.pulse.get().is_none() {
            // Of two who come at once, one's task ends as it began.
            let _ = self.pulse.set(pulse()?);
        }
        Ok(())
    }

    /// There can be none after all.
    pub(crate) fn stop_hearing(&self) {
        if self.hears.swap(false, Ordering::Relaxed) {
            tracing::debug!(address = %self.address, "redis refuses notices, polling instead");
        }
    }

    /// Carries out an order. `asking` if the server has only this once to do with the key.
    pub(crate) async fn carry_out(
        &self,
        scripts: &Scripts,
        order: &Order,
        key: &Key,
        asking: bool,
        sent: Sent<'_>,
    ) -> Result<Outcome, Failure> {
        let publish = if self.sharded { "SPUBLISH" } else { "PUBLISH" };
        let command = scripts.command(order, key, publish, false);
        let answer = match self.send(command, asking, sent).await {
            Err(Failure::NoScript) => {
                tracing::debug!(address = %self.address, "redis does not know the script, sending it");
                let command = scripts.command(order, key, publish, true);
                Box::pin(self.send(command, asking, sent)).await
            }
            answer => answer,
        };
        Scripts::outcome(order, answer?)
    }

    /// Hears of the key's changes from when this is ready.
    pub(crate) async fn subscribe(&self, key: &Key) -> Result<(), Failure> {
        let mut command = cmd(if self.sharded { "SSUBSCRIBE" } else { "SUBSCRIBE" });
        command.arg(&*key.channel);
        self.board.subscribing(&key.channel);
        let answer = self.ask(&command).await;
        if answer.as_ref().is_err_and(|failure| !failure.is_ambiguous()) {
            self.board.not_subscribed(&key.channel);
        }
        answer.map(drop)
    }

    /// Hears of them no longer.
    pub(crate) async fn unsubscribe(&self, key: &Key) -> Result<(), Failure> {
        self.ask(cmd("UNSUBSCRIBE").arg(&*key.channel)).await.map(drop)
    }

    /// Asks what has no effect.
    pub(crate) async fn ask(&self, command: &Cmd) -> Result<Value, Failure> {
        self.check()?;
        self.watchdog.sent();
        self.believe(self.connection.clone().send_packed_command(command).await)
    }

    async fn send(&self, command: Cmd, asking: bool, sent: Sent<'_>) -> Result<Value, Failure> {
        self.check()?;
        let was_sent = sent.swap(true, Ordering::Relaxed);
        self.watchdog.sent();
        let mut connection = self.connection.clone();
        let answer = if asking {
            let mut both = pipe();
            both.cmd("ASKING").add_command(command);
            Box::pin(connection.send_packed_commands(&both, 1, 1))
                .await
                .map(|mut answers| answers.pop().unwrap_or(Value::Nil))
        } else {
            connection.send_packed_command(&command).await
        };
        let answer = self.believe(answer);
        // A server that answers has done it or has not: what counts is whether an earlier one was left open.
        if !answer.as_ref().is_err_and(Failure::is_ambiguous) {
            sent.store(was_sent, Ordering::Relaxed);
        }
        answer
    }

    /// Whether anything can be asked over it.
    fn check(&self) -> Result<(), Failure> {
        if self.board.is_over() {
            return Err(Failure::Unsent);
        }
        self.misdirected.get().map_or(Ok(()), |failure| Err(failure.clone()))
    }

    /// An answer, if it is certain that it belongs to the question.
    fn believe(&self, answer: Result<Value, RedisError>) -> Result<Value, Failure> {
        if self.board.is_out_of_step() {
            return Err(Failure::Lost);
        }
        let failure: Failure = match answer {
            Ok(Value::ServerError(error)) => RedisError::from(error).into(),
            Ok(answer) => return Ok(answer),
            Err(error) => error.into(),
        };
        if self.sharded || !failure.is_of_a_cluster() {
            return Err(failure);
        }
        // From now on for every call. Otherwise accounts whose keys are on this node would be shared, and others not.
        let misdirected = || of_a_cluster(&self.address, self.cluster_scheme);
        Err(self.misdirected.get_or_init(misdirected).clone())
    }
}

/// The error for a URL that names a node of a cluster as a single server.
pub(crate) fn of_a_cluster(address: &Address, cluster_scheme: &str) -> Failure {
    let host = match address {
        Address::Tcp { .. } => address.to_string(),
        Address::Unix(_) => "host:port".to_owned(),
    };
    Failure::refused(format!(
        "redis at {address} is a node of a cluster; name the cluster: {cluster_scheme}://{host} (with the same user and password)"
    ))
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.board.end();
    }
}
