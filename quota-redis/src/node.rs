//! One server, and the one connection to it that all callers share.
//! How a connection is made is in `connector`; which server a key is on, in `topology`.

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::connection::Connection;
use crate::connector::{Connector, Target};
use crate::error::Error;
use crate::task::{self, Task};

/// A server that is connected to when it is first needed.
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
    /// How many attempts there have been: one that is over says nothing about the next.
    attempts: u64,
    connecting: Option<Task>,
}

#[derive(Debug, Default)]
enum ConnectPhase {
    #[default]
    Idle,
    /// One task connects, and all wait for it.
    Connecting,
    /// It has failed a moment ago: nobody waits, and nobody tries.
    Backoff(Error),
}

/// How long is rested after a failure, at least; a random part of as much again is added. Short enough that a server that is
/// back is used within 200 ms, and long enough that it is not tried more than ten times a second.
const RECONNECT_DELAY: Duration = Duration::from_millis(100);

/// A connection over which writes are refused is replaced after this long: a name or a proxy may have moved on to the new master.
const READ_ONLY_RECONNECT_AFTER: Duration = Duration::from_secs(60);

impl Node {
    pub(crate) fn new(connector: Arc<Connector>, target: Target) -> Arc<Self> {
        Arc::new(Self { connector, target, state: Mutex::default(), changed: Notify::new() })
    }

    /// The connection that stands.
    pub(crate) fn connected(&self) -> Option<Arc<Connection>> {
        let connection = self.state().connected()?;
        if connection.is_hung() {
            self.discard(&connection);
            return None;
        }
        Some(connection)
    }

    /// The connection, made if there is none. Many who ask at once wait for one attempt.
    pub(crate) async fn connection(self: &Arc<Self>) -> Result<Arc<Connection>, Error> {
        let mut has_attempted = false;
        loop {
            let mut changed = pin!(self.changed.notified());
            // Registered before the look, so that what comes between the two is not missed.
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

    /// The number of an attempt that is the caller's to begin; `None` if one is under way.
    fn start_attempt(&self, has_attempted: bool) -> Result<Option<u64>, Error> {
        let mut state = self.state();
        match &state.phase {
            ConnectPhase::Connecting => Ok(None),
            ConnectPhase::Backoff(error) => Err(error.clone()),
            // It ended with its runtime, or brought a connection that ended at once: another is for another call.
            ConnectPhase::Idle if has_attempted => Err(Error::Lost),
            ConnectPhase::Idle => {
                state.attempts += 1;
                state.phase = ConnectPhase::Connecting;
                Ok(Some(state.attempts))
            }
        }
    }

    /// Whether sentinels say which server this is.
    pub(crate) fn is_behind_sentinels(&self) -> bool {
        matches!(self.target, Target::Master { .. })
    }

    /// Whether a new connection may lead to another server than this one, which takes no writes: the sentinels may name another by
    /// now, and so may a host name, which is found out now and then only.
    pub(crate) fn may_reach_new_master(&self, error: &Error, connection: &Connection) -> bool {
        matches!(error, Error::ReadOnly)
            && (self.is_behind_sentinels() || connection.age() >= READ_ONLY_RECONNECT_AFTER)
    }

    /// This connection is of no more use; the next caller makes another.
    pub(crate) fn discard(&self, broken: &Arc<Connection>) {
        {
            let mut state = self.state();
            state.connection.take_if(|connection| Arc::ptr_eq(connection, broken));
        }
        broken.subscriptions().close();
    }

    /// Connects in a task of its own, so that a caller that leaves takes nothing from the others, and rests if it failed.
    fn spawn_attempt(self: &Arc<Self>, attempt: u64) -> Result<(), Error> {
        let (connector, target) = (Arc::clone(&self.connector), self.target.clone());
        let connecting = ConnectAttempt { node: Arc::downgrade(self), attempt };
        // Not under the lock: a runtime that is being shut down drops the task here and now, and that takes the lock.
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

/// An attempt to connect. When it ends, however that is, the next may begin.
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
    fn an_attempt_that_is_over_says_nothing_about_the_next() {
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
    fn on_a_runtime_that_is_gone_a_caller_is_told_at_once() {
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
