//! `quota mcp`: a Model Context Protocol server on standard input and output, whose client is an agent's program.
//! `server` answers requests, `transport` reads and writes messages.

mod calls;
mod events;
mod server;
mod tools;
mod transport;
mod waiting;

use std::pin::pin;
use std::rc::Rc;

use rmcp::ServiceExt as _;
use rmcp::service::{QuitReason, ServerInitializeError};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

use self::calls::Calls;
use self::server::Server;
use self::transport::LineTransport;
use crate::cli::GlobalOptions;
use crate::exit::{CliError, Exit};
use crate::runtime;
use crate::scope::CommandScope;
use crate::store;

/// Serves until the client closes standard input, or a signal.
///
/// # Errors
///
/// [`CliError`] if the store cannot be opened, or the connection fails.
pub(crate) fn run(global: &GlobalOptions) -> Result<Exit, CliError> {
    let store = store::open(global.store.as_deref())?;
    runtime::run(async {
        // Install the handlers before the first message, so that no signal is lost.
        let signals = CommandScope::default();
        signals.listen()?;
        let calls = Rc::new(Calls::new(global.clone(), store));
        LocalSet::new().run_until(serve(&signals, &calls)).await
    })
}

async fn serve(signals: &CommandScope, calls: &Rc<Calls>) -> Result<Exit, CliError> {
    let stop = CancellationToken::new();
    let transport = LineTransport::new(tokio::io::stdin(), tokio::io::stdout(), calls.closed().clone());
    let mut connection = pin!(connect(Server::new(Rc::clone(calls)), transport, stop.clone()));
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = signals.signaled() => {
            stop.cancel();
            // A second signal ends the wait for responses in flight.
            tokio::select! {
                ended = &mut connection => ended,
                () = signals.signaled() => Ok(()),
            }
        }
    };
    calls.end().await;
    ended.map(|()| Exit::Success)
}

/// Serves one connection until it ends.
async fn connect<R: tokio::io::AsyncRead + Send + Unpin + 'static>(
    server: Server,
    transport: LineTransport<R>,
    stop: CancellationToken,
) -> Result<(), CliError> {
    // Drop the error's text, because it may repeat messages of the client.
    let failed = |why| CliError::new(Exit::IoErr, format!("could not serve the client: {why}"));
    let running = match server.serve_with_ct(transport, stop).await {
        Ok(running) => running,
        Err(ServerInitializeError::ConnectionClosed(_) | ServerInitializeError::Cancelled) => return Ok(()),
        Err(ServerInitializeError::TransportError { .. }) => return Err(failed("the output was closed")),
        Err(_) => return Err(failed("the client did not initialize the connection")),
    };
    match running.waiting().await {
        Ok(QuitReason::Closed | QuitReason::Cancelled) => Ok(()),
        _ => Err(CliError::new(Exit::Software, "could not serve the client: a task failed")),
    }
}
