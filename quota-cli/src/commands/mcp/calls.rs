//! The calls of a client. Each runs like a command of its own, with a manager that is closed at its end, also if the client cancels it.

use std::time::Duration;

use quota::Clock;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cli::GlobalOptions;
use crate::config::Config;
use crate::context;
use crate::exit::{CliError, Exit};
use crate::scope::{self, CommandScope};
use crate::store::OpenedStore;

/// The name under which calls to providers are counted.
pub(super) const NAME: &str = "quota mcp";
/// The maximum number of calls at the same time. Waiting calls count.
const MAX_CALLS: usize = 256;
/// How long calls in flight may release their leases at the end. A call bounds its own end; this is a limit for all.
const END_TIMEOUT: Duration = Duration::from_secs(15);

/// What all calls share, and the calls in flight.
#[derive(Debug)]
pub(super) struct Calls {
    global: GlobalOptions,
    /// Opened once, so that a store in memory lasts as long as the connection.
    pub(super) store: OpenedStore,
    in_flight: TaskTracker,
    /// Cancelled when the client has closed standard input.
    closed: CancellationToken,
}

impl Calls {
    pub(super) fn new(global: GlobalOptions, store: OpenedStore) -> Self {
        Self { global, store, in_flight: TaskTracker::new(), closed: CancellationToken::new() }
    }

    pub(super) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Runs one call until its end, or until it is cancelled.
    ///
    /// # Errors
    ///
    /// The error of the call, or [`CliError`] if it is cancelled or there are too many calls.
    pub(super) async fn run<T>(
        &self,
        cancelled: &CancellationToken,
        work: impl AsyncFnOnce(&CommandScope) -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        if self.in_flight.len() >= MAX_CALLS {
            let line = format!("there are {MAX_CALLS} calls in flight; try again when one has ended");
            return Err(CliError::new(Exit::Unavailable, line));
        }
        let call = scope::run_part(async |scope| {
            tokio::select! {
                result = work(scope) => result,
                () = cancelled.cancelled() => Err(cancellation()),
            }
        });
        self.in_flight.track_future(call).await
    }

    /// Pauses a call that waits. Ends early if the client has closed standard input.
    ///
    /// # Errors
    ///
    /// [`CliError`] if the call is cancelled.
    pub(super) async fn pause(
        &self,
        cancelled: &CancellationToken,
        duration: Duration,
    ) -> Result<(), CliError> {
        let clock = Clock::system();
        self.in_flight
            .track_future(async {
                tokio::select! {
                    () = clock.sleep(duration) => Ok(()),
                    () = self.closed.cancelled() => Ok(()),
                    () = cancelled.cancelled() => Err(cancellation()),
                }
            })
            .await
    }

    /// The configuration as it is now, for calls that choose an account.
    ///
    /// # Errors
    ///
    /// [`CliError`] if it cannot be used.
    pub(super) fn config(&self) -> Result<Config, CliError> {
        Config::load(self.global.config.as_deref())
    }

    /// The same, for calls that show accounts.
    ///
    /// # Errors
    ///
    /// [`CliError`] if it cannot be used, or there is no account.
    pub(super) async fn accounts(&self) -> Result<Config, CliError> {
        let config = context::configuration_or_empty(self.global.config.as_deref()).await?;
        if config.accounts.is_empty() {
            let line = "no account was found; log in with Claude Code, or run quota init for the logins of other programs";
            return Err(CliError::new(Exit::NoAccount, line));
        }
        Ok(config)
    }

    /// Waits for the calls in flight. They were cancelled, so they only release leases and write what is pending.
    pub(super) async fn end(&self) {
        self.in_flight.close();
        let _ = Clock::system().bounded(END_TIMEOUT, self.in_flight.wait()).await;
    }
}

fn cancellation() -> CliError {
    CliError::new(Exit::Interrupted, "the call was cancelled")
}
