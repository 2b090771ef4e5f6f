//! Owns the managers of a command that may refresh, and handles the signals that end the command. However the command ends, its calls
//! are cancelled and their leases released.

#[cfg(unix)]
mod signals;
mod waits;

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::join_all;
use quota::credentials::TokenStore;
use quota::{Clock, QuotaManager};
use tokio::task::{AbortHandle, JoinSet};

#[cfg(unix)]
pub(crate) use self::signals::Signals;
use crate::exit::{CliError, Exit};
use crate::runtime;

/// How long a command waits before it exits, for the release of its leases.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it then waits for the renewal of a login: longer than the request to the provider and the write can take.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(12);

/// The managers and tasks that a command must close before it ends.
#[derive(Debug, Default)]
pub(crate) struct CommandScope {
    /// The current manager, and previous ones that are still closing.
    managers: RefCell<Vec<(QuotaManager, Option<AbortHandle>)>>,
    /// Background tasks: closing managers that were replaced, and reporting waits.
    tasks: RefCell<JoinSet<()>>,
    /// The logins of this program, whose renewals must end.
    logins: RefCell<Vec<TokenStore>>,
    /// `None` until there is a manager or a child process. Until then a signal ends the process directly.
    signals: RefCell<Option<Signals>>,
    /// Whether the owner of the command handles the signals.
    is_part: bool,
}

/// Runs a command that may refresh or run other programs. Its managers are closed on every exit path.
///
/// SIGHUP, SIGINT, SIGQUIT and SIGTERM end it with 128 plus the signal number, unless the process was started with that signal ignored.
///
/// # Errors
///
/// The error of the command, an error without a text after a signal, or [`CliError`] if the runtime cannot be built.
pub(crate) fn run<T>(work: impl AsyncFnOnce(&CommandScope) -> Result<T, CliError>) -> Result<T, CliError> {
    runtime::run(CommandScope::default().run(work))
}

/// Like `run`, for a part of a command, on the current runtime. The command itself handles the signals. Dropping the
/// future closes nothing.
///
/// # Errors
///
/// The error of the part.
pub(crate) async fn run_part<T>(
    work: impl AsyncFnOnce(&CommandScope) -> Result<T, CliError>,
) -> Result<T, CliError> {
    CommandScope { is_part: true, ..CommandScope::default() }.run(work).await
}

impl CommandScope {
    /// Adds a manager, which is closed at the end. A previous manager is closed in the background once its calls have ended.
    ///
    /// # Errors
    ///
    /// [`CliError`] if the system refuses signal handlers.
    pub(crate) fn own(&self, manager: &QuotaManager) -> Result<(), CliError> {
        self.listen()?;
        let mut managers = self.managers.borrow_mut();
        managers.retain(|(_, closing)| closing.as_ref().is_none_or(|closing| !closing.is_finished()));
        if let Some((before, closing)) = managers.last_mut() {
            let before = before.clone();
            *closing = Some(self.tasks.borrow_mut().spawn(async move {
                before.close().await;
            }));
        }
        managers.push((manager.clone(), None));
        Ok(())
    }

    /// Adds logins. A renewal that is in flight at the end is awaited, because the provider may have replaced its token already.
    pub(crate) fn own_logins(&self, logins: &TokenStore) {
        self.logins.borrow_mut().push(logins.clone());
    }

    /// Installs the signal handlers. A command that runs other programs calls this, so that they end with it.
    ///
    /// # Errors
    ///
    /// [`CliError`] if the system refuses signal handlers.
    pub(crate) fn listen(&self) -> Result<(), CliError> {
        if !self.is_part && self.signals.borrow().is_none() {
            *self.signals.borrow_mut() = Some(Signals::listen()?);
        }
        Ok(())
    }

    /// Prints to standard error when the manager waits for another process.
    pub(crate) fn report_waits(&self, manager: &QuotaManager) {
        self.tasks.borrow_mut().spawn(waits::report(manager.clone()));
    }

    /// Waits for a signal that ends the command. Without [`listen`](Self::listen) it never completes.
    pub(crate) async fn signaled(&self) {
        poll_fn(|context| self.poll_signal(context)).await;
    }

    /// Runs the work until it ends or a signal arrives, and then closes everything that it has opened.
    async fn run<T>(self, work: impl AsyncFnOnce(&Self) -> Result<T, CliError>) -> Result<T, CliError> {
        let outcome = self.until_signaled(work(&self)).await;
        match self.close().await {
            // A signal during the close also prevents the caller's next steps.
            Some(exit) => Err(CliError::new(exit, "")),
            None => outcome,
        }
    }

    /// Runs the work until it ends or a signal arrives.
    async fn until_signaled<T>(
        &self,
        work: impl Future<Output = Result<T, CliError>>,
    ) -> Result<T, CliError> {
        let mut work = pin!(work);
        poll_fn(|context| {
            // Poll the work first, because it may install the signal handlers.
            if let Poll::Ready(outcome) = work.as_mut().poll(context) {
                return Poll::Ready(outcome);
            }
            self.poll_signal(context).map(|exit| Err(CliError::new(exit, "")))
        })
        .await
    }

    /// Cancels calls in flight and releases leases. A signal ends the wait; its exit code is returned.
    async fn close(self) -> Option<Exit> {
        let managers = self.managers.take();
        let mut tasks = self.tasks.take();
        let closed = async {
            let closing = managers.iter().map(|(manager, _)| manager.close_within(Duration::ZERO));
            join_all(closing).await;
            // The tasks end with their managers.
            while tasks.join_next().await.is_some() {}
        };
        let clock = Clock::system();
        let logins = self.logins.take();
        let closed = async {
            let _ = clock.bounded(CLOSE_TIMEOUT, closed).await;
            let renewals = join_all(logins.iter().map(TokenStore::close));
            clock.bounded(RENEWAL_TIMEOUT, renewals).await
        };
        let mut closed = pin!(closed);
        poll_fn(|context| {
            if let Poll::Ready(exit) = self.poll_signal(context) {
                return Poll::Ready(Some(exit));
            }
            closed.as_mut().poll(context).map(|_| None)
        })
        .await
    }

    fn poll_signal(&self, context: &mut std::task::Context<'_>) -> Poll<Exit> {
        self.signals.borrow_mut().as_mut().map_or(Poll::Pending, |signals| signals.poll(context))
    }
}

/// Ctrl-C, on systems without signals.
#[cfg(not(unix))]
pub(crate) struct Signals(std::pin::Pin<Box<dyn Future<Output = std::io::Result<()>>>>);

#[cfg(not(unix))]
impl Signals {
    pub(crate) fn listen() -> Result<Self, CliError> {
        Ok(Self(Box::pin(tokio::signal::ctrl_c())))
    }

    pub(crate) fn poll(&mut self, context: &mut std::task::Context<'_>) -> Poll<Exit> {
        self.0.as_mut().poll(context).map(|_| {
            self.0 = Box::pin(tokio::signal::ctrl_c());
            Exit::Interrupted
        })
    }
}

#[cfg(not(unix))]
impl std::fmt::Debug for Signals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signals")
    }
}
