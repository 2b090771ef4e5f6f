//! The signals of a server: SIGINT and SIGTERM stop it, SIGHUP reloads the configuration.

use tokio::signal;

use crate::exit::{CliError, Exit};
use crate::io_cause;

/// The action that a signal requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignalEvent {
    Stop,
    Reload,
}

/// The installed signal handlers. A signal before the first [`next`](Self::next) is not lost.
#[derive(Debug)]
pub(super) struct ServerSignals {
    #[cfg(unix)]
    interrupt: signal::unix::Signal,
    #[cfg(unix)]
    terminate: signal::unix::Signal,
    #[cfg(unix)]
    hang_up: signal::unix::Signal,
}

impl ServerSignals {
    /// Installs the handlers.
    ///
    /// # Errors
    ///
    /// [`CliError`] if a handler cannot be installed.
    pub(super) fn listen() -> Result<Self, CliError> {
        #[cfg(unix)]
        {
            use signal::unix::{SignalKind, signal};
            let listen = |kind| {
                signal(kind).map_err(|error| {
                    let cause = io_cause::plain(&error);
                    CliError::new(Exit::OsErr, format!("could not listen for signals: {cause}"))
                })
            };
            Ok(Self {
                interrupt: listen(SignalKind::interrupt())?,
                terminate: listen(SignalKind::terminate())?,
                hang_up: listen(SignalKind::hangup())?,
            })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) -> SignalEvent {
        #[cfg(unix)]
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => SignalEvent::Stop,
            _ = self.terminate.recv() => SignalEvent::Stop,
            _ = self.hang_up.recv() => SignalEvent::Reload,
        }
        #[cfg(not(unix))]
        {
            let _ = signal::ctrl_c().await;
            SignalEvent::Stop
        }
    }

    /// Waits for a second stop signal, from a user who does not want to wait for responses in flight.
    pub(super) async fn stop_twice(&mut self) {
        for _ in 0..2 {
            while self.next().await != SignalEvent::Stop {}
        }
    }
}
