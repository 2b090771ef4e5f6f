//! The simulator as a server: start, change, read the ledger, stop. Only this file owns tasks.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use jiff::Timestamp;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use url::Url;

use crate::change::{Change, ChangeError};
use crate::ledger::Ledger;
use crate::provider::Provider;
use crate::script::{Script, ScriptError, check};
use crate::{clock, routes};

/// A running provider, which listens on the loopback interface and runs a [`Script`].
///
/// Dropping it closes every connection. [`stop`](Self::stop) first waits for responses in flight.
#[must_use = "a dropped simulator stops listening"]
pub struct Simulator {
    url: Url,
    provider: Arc<Provider>,
    stopping: watch::Sender<bool>,
    /// One task, which owns the tasks of the connections. Aborting it ends them all.
    listening: JoinSet<()>,
}

/// How long `stop` waits for responses in flight.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

impl Simulator {
    /// Prepares a simulator that runs `script`.
    pub fn builder(script: Script) -> SimulatorBuilder {
        SimulatorBuilder { script, port: 0, anchor: None }
    }

    /// The base URL for clients.
    #[must_use]
    pub fn url(&self) -> Url {
        self.url.clone()
    }

    /// The calls received so far.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.provider.ledger()
    }

    /// Waits until the ledger meets a condition, and returns the ledger.
    ///
    /// The wait has no timeout. Dropping the future is safe.
    pub async fn until(&self, mut condition: impl FnMut(&Ledger) -> bool) -> Ledger {
        let mut changes = self.provider.changes();
        loop {
            changes.mark_unchanged();
            let ledger = self.ledger();
            if condition(&ledger) {
                return ledger;
            }
            let _ = changes.changed().await;
        }
    }

    /// Changes an account. The change also applies to hung calls.
    ///
    /// # Errors
    ///
    /// [`ChangeError`] if the account does not exist or the change is invalid. A rejected change has no effect.
    pub fn set(&self, account: &str, change: Change) -> Result<(), ChangeError> {
        self.provider.change(account, change)
    }

    /// Records that a client abandoned a message to `model` without sending it. The ledger counts whether an account
    /// had capacity.
    pub fn gave_up(&self, model: &str) {
        self.provider.gave_up(model);
    }

    /// Stops listening, waits up to half a second for responses in flight, and returns the final ledger.
    ///
    /// Dropping the future ends the simulator at once.
    pub async fn stop(mut self) -> Ledger {
        self.stopping.send_replace(true);
        // The task itself bounds the wait.
        while self.listening.join_next().await.is_some() {}
        self.provider.ledger()
    }
}

impl fmt::Debug for Simulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulator").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

/// A simulator that is not listening yet.
#[derive(Debug, Clone)]
#[must_use = "the simulator listens only after `start`"]
pub struct SimulatorBuilder {
    script: Script,
    port: u16,
    anchor: Option<Timestamp>,
}

impl SimulatorBuilder {
    /// Sets the port. The default, 0, selects a free port.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Sets the wall-clock time at the start. tokio's clock counts from there.
    pub fn starting_at(mut self, time: Timestamp) -> Self {
        self.anchor = Some(time);
        self
    }

    /// Starts to listen and runs the script. Call this inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`StartError::Script`] if the script is contradictory, [`StartError::Listen`] if the port is not available.
    pub async fn start(self) -> Result<Simulator, StartError> {
        check::script(&self.script).map_err(ScriptError::from)?;
        let refused = |source| StartError::Listen { port: self.port, source };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await.map_err(refused)?;
        let port = listener.local_addr().map_err(refused)?.port();
        let url = format!("http://{}:{port}/", Ipv4Addr::LOCALHOST);
        let provider = Provider::new(self.script, self.anchor);
        let stopping = watch::Sender::new(false);
        let mut listening = JoinSet::new();
        listening.spawn(listen(listener, routes::router(Arc::clone(&provider)), stopping.subscribe()));
        let url = url.parse().expect("an address and a port make a URL");
        Ok(Simulator { url, provider, stopping, listening })
    }
}

/// Why a simulator could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The script is contradictory.
    #[error("could not run the script")]
    Script(#[from] ScriptError),
    /// The port is in use or not permitted.
    #[error("could not listen on port {port}")]
    #[non_exhaustive]
    Listen {
        /// The requested port.
        port: u16,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// Accepts connections until `stopping` changes. Then waits for the open connections up to the timeout, and aborts the rest.
async fn listen(mut listener: TcpListener, router: Router, mut stopping: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            (stream, _) = Listener::accept(&mut listener) => {
                connections.spawn(serve_connection(stream, router.clone(), stopping.clone()));
            }
            Some(_) = connections.join_next() => {}
            _ = stopping.changed() => break,
        }
    }
    drop(listener);
    clock::with_timeout(SHUTDOWN_TIMEOUT, async { while connections.join_next().await.is_some() {} }).await;
    // Await the aborted connections, so that the final ledger contains their abandoned calls.
    connections.shutdown().await;
}

/// Serves one client until it disconnects or the simulator stops.
async fn serve_connection(stream: TcpStream, router: Router, mut stopping: watch::Receiver<bool>) {
    // Send each response immediately. Without this option, responses only arrive a little later.
    let _ = stream.set_nodelay(true);
    // Set no timer: a paused clock would advance to its timeouts while bytes are in transit.
    let connection =
        http1::Builder::new().serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopping.changed() => connection.as_mut().graceful_shutdown(),
    }
    // A client may disconnect at any time.
    let _ = connection.await;
}
