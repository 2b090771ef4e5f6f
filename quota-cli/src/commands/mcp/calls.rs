//! The tool calls of a client. Each runs like a separate command, with its own manager, which is closed even if the
//! client cancels the call.

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
/// The maximum number of concurrent calls, including waiting ones.
const MAX_CALLS: usize = 256;
/// How long calls in flight may take to release their leases at shutdown. Each call has its own bound. This one applies
/// to all of them.
const END_TIMEOUT: Duration = Duration::from_secs(15);

/// The state that all calls share, and the calls in flight.
#[derive(Debug)]
pub(super) struct Calls {
    global: GlobalOptions,
    /// Opened once, so that a memory store lasts as long as the connection.
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

    /// Runs one call until it completes or is cancelled.
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

    /// Loads the current configuration for calls that choose an account.
    ///
    /// # Errors
    ///
    /// [`CliError`] if it cannot be used.
    pub(super) fn config(&self) -> Result<Config, CliError> {
        Config::load(self.global.config.as_deref())
    }

    /// Loads the current configuration for calls that show accounts.
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

    /// Waits for the calls in flight. They have been cancelled, so they only release leases and flush pending writes.
    pub(super) async fn end(&self) {
        self.in_flight.close();
        let _ = Clock::system().bounded(END_TIMEOUT, self.in_flight.wait()).await;
    }
}

fn cancellation() -> CliError {
    CliError::new(Exit::Interrupted, "the call was cancelled")
}
