//! One server, and the one connection to it that all callers share.
//! `connector` opens the connection; `topology` decides which node owns a key.

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::connection::Connection;
use crate::connector::{Connector, Target};
use crate::error::Error;
use crate::task::{self, Task};

/// A server. The first call that needs it connects.
#[derive(Debug)]
pub(crate) struct Node {
    connector: Arc<Connector>,
    target: Target,
    state: Mutex<NodeState>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct NodeState {
    connection: Option<Arc<Connection>>,
    phase: ConnectPhase,
    /// The number of attempts so far. An attempt that has ended must not change the state of the next one.
    attempts: u64,
    connecting: Option<Task>,
}

#[derive(Debug, Default)]
enum ConnectPhase {
    #[default]
    Idle,
    /// One task connects, and all callers wait for it.
    Connecting,
    /// The last attempt failed. Calls return its error without connecting.
    Backoff(Error),
}

/// The minimum backoff after a failed attempt; up to 90 % of it is added at random. A server that has recovered is used within
/// 200 ms, and an unreachable one is tried at most ten times a second.
const RECONNECT_DELAY: Duration = Duration::from_millis(100);

/// A connection to a replica is replaced after this time: the host name or a proxy may now lead to the new master.
const READ_ONLY_RECONNECT_AFTER: Duration = Duration::from_secs(60);

impl Node {
    pub(crate) fn new(connector: Arc<Connector>, target: Target) -> Arc<Self> {
        Arc::new(Self { connector, target, state: Mutex::default(), changed: Notify::new() })
    }

    /// The open connection, unless it is hung.
    pub(crate) fn connected(&self) -> Option<Arc<Connection>> {
        let connection = self.state().connected()?;
        if connection.is_hung() {
            self.discard(&connection);
            return None;
        }
        Some(connection)
    }

    /// The connection, opened if there is none. Concurrent callers share one attempt.
    pub(crate) async fn connection(self: &Arc<Self>) -> Result<Arc<Connection>, Error> {
        let mut has_attempted = false;
        loop {
            let mut changed = pin!(self.changed.notified());
            // Register before the check, so that a change in between is not missed.
            changed.as_mut().enable();
            if let Some(connection) = self.connected() {
                return Ok(connection);
            }
            if let Some(attempt) = self.start_attempt(has_attempted)? {
                has_attempted = true;
                self.spawn_attempt(attempt)?;
            }
            changed.await;
        }
    }

    /// Starts an attempt and returns its number; `None` if one is in progress.
    fn start_attempt(&self, has_attempted: bool) -> Result<Option<u64>, Error> {
        let mut state = self.state();
        match &state.phase {
            ConnectPhase::Connecting => Ok(None),
            ConnectPhase::Backoff(error) => Err(error.clone()),
            // The attempt of this call ended with its runtime, or the new connection closed at once. The next call may try
            // again.
            ConnectPhase::Idle if has_attempted => Err(Error::Lost),
            ConnectPhase::Idle => {
                state.attempts += 1;
                state.phase = ConnectPhase::Connecting;
                Ok(Some(state.attempts))
            }
        }
    }

    /// Whether sentinels decide which server this is.
    pub(crate) fn is_behind_sentinels(&self) -> bool {
        matches!(self.target, Target::Master { .. })
    }

    /// Whether a new connection may reach a server that accepts writes: the sentinels may report another master, or the host
    /// name may resolve to one. A host name is tried only rarely.
    pub(crate) fn may_reach_new_master(&self, error: &Error, connection: &Connection) -> bool {
        matches!(error, Error::ReadOnly)
            && (self.is_behind_sentinels() || connection.age() >= READ_ONLY_RECONNECT_AFTER)
    }

    /// Closes a broken connection; the next call opens another.
    pub(crate) fn discard(&self, broken: &Arc<Connection>) {
        {
            let mut state = self.state();
            state.connection.take_if(|connection| Arc::ptr_eq(connection, broken));
        }
        broken.subscriptions().close();
    }

    /// Connects in a separate task, so that a cancelled caller does not cancel the attempt of other callers. If the
    /// attempt fails, the task sleeps for the backoff.
    fn spawn_attempt(self: &Arc<Self>, attempt: u64) -> Result<(), Error> {
        let (connector, target) = (Arc::clone(&self.connector), self.target.clone());
        let connecting = ConnectAttempt { node: Arc::downgrade(self), attempt };
        // Spawn outside the lock: a runtime that shuts down drops the task at once, and its drop takes the lock.
        let task = task::spawn(async move {
            match connector.connect(&target).await {
                Ok(connection) => connecting.succeeded(connection),
                Err(error) => {
                    connecting.failed(error);
                    connector.clock().sleep(RECONNECT_DELAY.mul_f64(1.0 + fastrand::f64() * 0.9)).await;
                }
            }
        })?;
        let mut state = self.state();
        let _ended = if state.attempts == attempt { state.connecting.replace(task) } else { Some(task) };
        drop(state);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, NodeState> {
        self.state.lock()
    }
}

impl NodeState {
    fn connected(&mut self) -> Option<Arc<Connection>> {
        self.connection.take_if(|connection| connection.subscriptions().is_closed());
        self.connection.clone()
    }
}

/// An attempt to connect. Its drop allows the next attempt, even after a panic or an abort.
struct ConnectAttempt {
    node: Weak<Node>,
    attempt: u64,
}

impl ConnectAttempt {
    fn succeeded(&self, connection: Connection) {
        let connection = Arc::new(connection);
        self.finish(|state| {
            state.connection = Some(connection);
            state.phase = ConnectPhase::Idle;
        });
    }

    fn failed(&self, error: Error) {
        self.finish(|state| state.phase = ConnectPhase::Backoff(error));
    }

    fn finish(&self, with: impl FnOnce(&mut NodeState)) {
        let Some(node) = self.node.upgrade() else { return };
        let mut state = node.state();
        if state.attempts == self.attempt {
            with(&mut state);
        }
        drop(state);
        node.changed.notify_waiters();
    }
}

impl Drop for ConnectAttempt {
    fn drop(&mut self) {
        self.finish(|state| state.phase = ConnectPhase::Idle);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::runtime::Runtime;

    use super::*;
    use crate::RedisOptions;
    use crate::address::Address;

    fn node() -> Arc<Node> {
        let settings = RedisOptions::single("127.0.0.1", 1).settings;
        #[cfg(feature = "tls")]
        let connector = Connector::new(settings, false, None);
        #[cfg(not(feature = "tls"))]
        let connector = Connector::new(settings, false);
        Node::new(Arc::new(connector), Target::Server(Address::tcp("127.0.0.1", 1)))
    }

    #[test]
    fn an_ended_attempt_does_not_change_the_next_one() {
        let node = node();
        let first = ConnectAttempt {
            node: Arc::downgrade(&node),
            attempt: node.start_attempt(false).unwrap().unwrap(),
        };
        first.finish(|state| state.phase = ConnectPhase::Idle);
        let second = node.start_attempt(false).unwrap();

        drop(first);

        assert_eq!(second, Some(2));
        assert!(matches!(node.state().phase, ConnectPhase::Connecting));
    }

    #[test]
    fn a_call_on_a_stopped_runtime_fails_at_once() {
        let node = node();
        let runtime = Runtime::new().unwrap();
        let handle = runtime.handle().clone();
        drop(runtime);
        let _entered = handle.enter();

        let mut connection = Box::pin(node.connection());
        let polled = connection.as_mut().now_or_never();

        assert!(matches!(polled, Some(Err(Error::Lost))), "{polled:?}");
    }
}
