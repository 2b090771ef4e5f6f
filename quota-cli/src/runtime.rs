//! The runtime of a command, and the signals that end a simulation.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;

use tokio::runtime::Builder;
use tokio::signal;

use crate::exit::{CliError, Exit};
use crate::io_cause;

/// The number of threads of a server. Responses come from memory, so more threads would not help.
const MAX_THREADS: usize = 4;

/// Runs a future on this thread.
///
/// When it completes, the remaining tasks are dropped, so that a hung call does not delay the exit.
///
/// # Errors
///
/// The error of the future, or [`CliError`] if the runtime cannot be built.
pub(crate) fn run<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    on(builder().enable_all(), work)
}

/// Runs a future that opens no connection and runs no program. Its runtime starts faster.
///
/// # Errors
///
/// As [`run`].
pub(crate) fn run_without_network<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    on(builder().enable_time(), work)
}

/// Runs a server on several threads, so that it answers many clients at the same time.
///
/// # Errors
///
/// As [`run`].
pub(crate) fn run_on_threads<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    on(Builder::new_multi_thread().worker_threads(threads).enable_all(), work)
}

/// A single-threaded runtime, which starts faster. No command needs more threads.
fn builder() -> Builder {
    Builder::new_current_thread()
}

fn on<T>(builder: &mut Builder, work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let refused = |error: io::Error| {
        CliError::new(Exit::OsErr, format!("could not start the runtime: {}", io_cause::plain(&error)))
    };
    let runtime = builder.build().map_err(refused)?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_background();
    outcome
}

/// Runs `work` and `preparation` concurrently. Returns as soon as `work` is done, and drops `preparation` then.
pub(crate) async fn warm_up<T>(preparation: impl Future<Output = ()>, work: impl Future<Output = T>) -> T {
    let (mut preparation, mut work) = (pin!(preparation), pin!(work));
    let mut is_done = false;
    poll_fn(|context| {
        // A completed future must not be polled again.
        is_done = is_done || preparation.as_mut().poll(context).is_ready();
        work.as_mut().poll(context)
    })
    .await
}

/// The signals that end a simulation: Ctrl-C, and SIGTERM on Unix. A simulation has no leases to release.
#[derive(Debug)]
pub(crate) struct ShutdownSignal {
    #[cfg(unix)]
    interrupt: signal::unix::Signal,
    #[cfg(unix)]
    terminate: signal::unix::Signal,
}

impl ShutdownSignal {
    /// Installs the signal handlers. A signal before the first [`wait`](Self::wait) is not lost.
    ///
    /// # Errors
    ///
    /// [`CliError`] if the system refuses.
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

    /// Waits for one of the signals.
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
