//! The runtime that a command's work runs on, and the signals that end it.
//! What is done when it ends is the command's own business.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;

use tokio::runtime::Builder;
use tokio::signal;

use crate::exit::{CliError, Exit};
use crate::io_cause;

/// Runs work on this thread.
///
/// Whatever is left when it ends is given up, so that a hung call holds nobody up.
///
/// # Errors
///
/// That of the work, or [`CliError`] if the system gives no runtime.
pub(crate) fn run<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    on(builder().enable_all(), work)
}

/// The same for work that opens no connection and waits for no other program, which takes less time to begin.
///
/// # Errors
///
/// As those of [`run`].
pub(crate) fn run_without_network<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    on(builder().enable_time(), work)
}

/// No command has work for more than one thread, and what would spread it makes each start slower.
fn builder() -> Builder {
    Builder::new_current_thread()
}

fn on<T>(builder: &mut Builder, work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let refused = |error: io::Error| {
        CliError::new(Exit::OsErr, format!("could not start: {}", io_cause::plain(&error)))
    };
    let runtime = builder.build().map_err(refused)?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_background();
    outcome
}

/// Begins `ahead` and does the work meanwhile; nobody waits for what is begun.
pub(crate) async fn warm_up<T>(ahead: impl Future<Output = ()>, work: impl Future<Output = T>) -> T {
    let (mut ahead, mut work) = (pin!(ahead), pin!(work));
    let mut is_done = false;
    poll_fn(|context| {
        // What was ready must not be polled again.
        is_done = is_done || ahead.as_mut().poll(context).is_ready();
        work.as_mut().poll(context)
    })
    .await
}

/// The signals that end a simulation, which has nothing to give back: Ctrl-C, and SIGTERM where there is such a thing.
#[derive(Debug)]
pub(crate) struct ShutdownSignal {
    #[cfg(unix)]
    interrupt: signal::unix::Signal,
    #[cfg(unix)]
    terminate: signal::unix::Signal,
}

impl ShutdownSignal {
    /// Listens from now on: a signal that comes before the first [`wait`](Self::wait) is not lost.
    ///
    /// # Errors
    ///
    /// [`CliError`] if the system does not let it listen.
    pub(crate) fn listen() -> Result<Self, CliError> {
        #[cfg(unix)]
        {
            use signal::unix::{SignalKind, signal};
            let refused = |error| {
                CliError::new(
                    Exit::OsErr,
                    format!("could not listen for signals: {}", io_cause::plain(&error)),
                )
            };
            let interrupt = signal(SignalKind::interrupt()).map_err(refused)?;
            let terminate = signal(SignalKind::terminate()).map_err(refused)?;
            Ok(Self { interrupt, terminate })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Waits for one of them.
    pub(crate) async fn wait(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        #[cfg(not(unix))]
        let _ = signal::ctrl_c().await;
    }
}
