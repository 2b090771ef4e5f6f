//! What the system tells a program that has the terminal: to give it to others for a while, and to go on.
//! A new size comes with the keys; the signals that end the program are those of every command.

use crate::exit::CliError;

/// What was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// Let others have the terminal.
    Stop,
    /// It has been stopped, and is not any more.
    GoOn,
}

#[cfg(unix)]
pub(super) use self::unix::{Signals, stop};

#[cfg(unix)]
mod unix {
    use rustix::process::{Signal as Number, getpid, kill_process};
    use tokio::signal::unix::{Signal, SignalKind, signal};

    use super::{CliError, Told};
    use crate::exit::Exit;
    use crate::io_cause;

    /// Listens to them for as long as there is this.
    #[derive(Debug)]
    pub(in crate::commands::watch) struct Signals {
        stop: Signal,
        go_on: Signal,
    }

    impl Signals {
        /// Listens from now on.
        ///
        /// # Errors
        ///
        /// [`CliError`] if the system does not let it listen.
        pub(in crate::commands::watch) fn listen() -> Result<Self, CliError> {
            let listen = |number: Number| {
                let refused = |error| {
                    CliError::new(
                        Exit::OsErr,
                        format!("could not listen for signals: {}", io_cause::plain(&error)),
                    )
                };
                signal(SignalKind::from_raw(number.as_raw())).map_err(refused)
            };
            Ok(Self { stop: listen(Number::TSTP)?, go_on: listen(Number::CONT)? })
        }

        /// What is told next. Dropping the future loses nothing.
        pub(in crate::commands::watch) async fn next(&mut self) -> Told {
            tokio::select! {
                _ = self.stop.recv() => Told::Stop,
                _ = self.go_on.recv() => Told::GoOn,
            }
        }
    }

    /// Stops this process until somebody has it go on.
    pub(in crate::commands::watch) fn stop() {
        // Not the signal that asks for it: that one is listened to.
        let _ = kill_process(getpid(), Number::STOP);
    }
}

#[cfg(not(unix))]
#[derive(Debug)]
pub(super) struct Signals;

#[cfg(not(unix))]
impl Signals {
    pub(super) fn listen() -> Result<Self, CliError> {
        Ok(Self)
    }

    pub(super) async fn next(&mut self) -> Told {
        std::future::pending().await
    }
}

/// There is no such thing here.
#[cfg(not(unix))]
pub(super) fn stop() {}
