//! A simulator that listens: started, asked, changed and stopped.
//! What it answers is decided elsewhere; here is the one place that owns tasks.

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

/// A provider that runs: it listens on the loopback interface and plays a [`Script`].
///
/// Dropping it ends it, with every connection it has; [`stop`](Self::stop) lets answers under way go out first.
#[must_use = "a simulator that is dropped listens no more"]
pub struct Simulator {
    url: Url,
    provider: Arc<Provider>,
    stopping: watch::Sender<bool>,
    /// One task, which owns those of the connections: aborting it ends them all.
    listening: JoinSet<()>,
}

/// How long answers under way have to go out when a simulator is stopped; hung ones never do.
const GRACE: Duration = Duration::from_millis(500);

impl Simulator {
    /// Prepares a simulator that plays `script`.
    pub fn builder(script: Script) -> SimulatorBuilder {
        SimulatorBuilder { script, port: 0, anchor: None }
    }

    /// Where it listens: the base URL for clients.
    #[must_use]
    pub fn url(&self) -> Url {
        self.url.clone()
    }

    /// What it has seen so far.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.provider.ledger()
    }

    /// Waits until what it has seen meets a condition, and returns that.
    ///
    /// It waits without a bound; dropping the future is safe.
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

    /// Changes an account from now on, hung calls included.
    ///
    /// # Errors
    ///
    /// [`ChangeError`] if there is no such account, or it cannot do that; then everything is as before.
    pub fn set(&self, account: &str, change: Change) -> Result<(), ChangeError> {
        self.provider.change(account, change)
    }

    /// Notes that a client has given up a message to that model without sending it anywhere: the ledger says whether an account
    /// would have answered it.
    pub fn given_up(&self, model: &str) {
        self.provider.given_up(model);
    }

    /// Stops listening, lets answers under way go out for half a second, and returns what was seen in all.
    ///
    /// Dropping the future ends the simulator at once.
    pub async fn stop(mut self) -> Ledger {
        self.stopping.send_replace(true);
        // Bounded by the task itself.
        while self.listening.join_next().await.is_some() {}
        self.provider.ledger()
    }
}

impl fmt::Debug for Simulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulator").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

/// A simulator that does not listen yet.
#[derive(Debug, Clone)]
#[must_use = "it listens once it is started"]
pub struct SimulatorBuilder {
    script: Script,
    port: u16,
    anchor: Option<Timestamp>,
}

impl SimulatorBuilder {
    /// Sets the port; 0, the default, takes any that is free.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Sets what a wall clock says at the start, in place of what it really says; from there tokio's clock counts.
    pub fn starting_at(mut self, moment: Timestamp) -> Self {
        self.anchor = Some(moment);
        self
    }

    /// Starts to listen, and to play. It must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`StartError::Script`] if the script contradicts itself, [`StartError::Listen`] if the port is taken.
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

/// Why a simulator does not listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The script contradicts itself.
    #[error("the script cannot be played")]
    Script(#[from] ScriptError),
    /// The port is taken, or may not be used.
    #[error("could not listen on port {port}")]
    #[non_exhaustive]
    Listen {
        /// The port that was asked for.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
}

/// Takes connections until told to stop, then waits for them for a while; whatever is left ends with it.
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
    clock::bounded(GRACE, async { while connections.join_next().await.is_some() {} }).await;
    // Waited for, so that the last ledger has the calls this cuts off.
    connections.shutdown().await;
}

/// Answers one client until it leaves or the simulator stops.
async fn serve_connection(stream: TcpStream, router: Router, mut stopping: watch::Receiver<bool>) {
    // An answer goes out as it is written; where the system refuses that, it goes out a little later.
    let _ = stream.set_nodelay(true);
    // No timer is given: a paused clock would leap to its time-outs while bytes are on their way.
    let connection =
        http1::Builder::new().serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopping.changed() => connection.as_mut().graceful_shutdown(),
    }
    // How it ends is the client's business: a connection that breaks is no fault of the script.
    let _ = connection.await;
}
