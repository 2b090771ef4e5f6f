//! The job-control signals: stop and resume.
//! A new terminal size arrives with the keys; `scope` handles the signals that end every command.

use crate::exit::CliError;

/// A job-control signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignalEvent {
    /// The process should stop, so that another program can use the terminal.
    Stop,
    /// The process was stopped and runs again.
    Resume,
}

#[cfg(unix)]
pub(super) use self::unix::{JobControlSignals, stop};

#[cfg(unix)]
mod unix {
    use rustix::process::{Signal as Number, getpid, kill_process};
    use tokio::signal::unix::{Signal, SignalKind, signal};

    use super::{CliError, SignalEvent};
    use crate::exit::Exit;
    use crate::io_cause;

    /// The registered signals.
    #[derive(Debug)]
    pub(in crate::commands::watch) struct JobControlSignals {
        stop: Signal,
        resume: Signal,
    }

    impl JobControlSignals {
        /// Registers the signals.
        ///
        /// # Errors
        ///
        /// [`CliError`] if a handler cannot be installed.
        pub(in crate::commands::watch) fn listen() -> Result<Self, CliError> {
            let listen = |number: Number| {
                let to_error = |error| {
                    CliError::new(
                        Exit::OsErr,
                        format!("could not listen for signals: {}", io_cause::plain(&error)),
                    )
                };
                signal(SignalKind::from_raw(number.as_raw())).map_err(to_error)
            };
            Ok(Self { stop: listen(Number::TSTP)?, resume: listen(Number::CONT)? })
        }

        /// Waits for the next signal. Dropping the future loses no signal.
        pub(in crate::commands::watch) async fn next(&mut self) -> SignalEvent {
            tokio::select! {
                _ = self.stop.recv() => SignalEvent::Stop,
                _ = self.resume.recv() => SignalEvent::Resume,
            }
        }
    }

    /// Stops this process until it is resumed.
    pub(in crate::commands::watch) fn stop() {
        // Send SIGSTOP, because the process handles SIGTSTP itself.
        let _ = kill_process(getpid(), Number::STOP);
    }
}

#[cfg(not(unix))]
#[derive(Debug)]
pub(super) struct JobControlSignals;

#[cfg(not(unix))]
impl JobControlSignals {
    pub(super) fn listen() -> Result<Self, CliError> {
        Ok(Self)
    }

    pub(super) async fn next(&mut self) -> SignalEvent {
        std::future::pending().await
    }
}

/// Does nothing, because this platform has no job control.
#[cfg(not(unix))]
pub(super) fn stop() {}
