//! The manager of a command that may refresh, and the signals that end the command: however the command ends, its calls are
//! cancelled and their leases given back.
//! How a manager is put together is in `gateway`.

#[cfg(unix)]
mod signals;
mod waits;

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::join_all;
use quota::{Clock, QuotaManager};
use tokio::task::{AbortHandle, JoinSet};

#[cfg(unix)]
use self::signals::Signals;
use crate::exit::{CliError, Exit};
use crate::runtime;

/// How long a command that ends waits until its leases are given back.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a command must end before it ends itself.
#[derive(Debug, Default)]
pub(crate) struct CommandScope {
    /// The manager in use last, and those before it that are not closed yet.
    managers: RefCell<Vec<(QuotaManager, Option<AbortHandle>)>>,
    /// Tasks beside the command: closing managers that were replaced, and telling of waits.
    tasks: RefCell<JoinSet<()>>,
    /// Listened to once there is a manager or another program. Until then a signal ends the process, as it does for other
    /// commands.
    signals: RefCell<Option<Signals>>,
}

/// Runs the work of a command that may refresh, or runs other programs. SIGHUP, SIGINT, SIGQUIT and
/// SIGTERM end it with 128 and the signal's number, unless the process was started with that signal ignored. However it ends,
/// its manager is closed.
///
/// # Errors
///
/// That of the work; a quiet one after a signal; [`CliError`] if the system gives no runtime.
pub(crate) fn run<T>(work: impl AsyncFnOnce(&CommandScope) -> Result<T, CliError>) -> Result<T, CliError> {
    runtime::run(async {
        let scope = CommandScope::default();
        let outcome = scope.until_signalled(work(&scope)).await;
        match scope.close().await {
            // Not started yet: what was to follow the work does not.
            Some(exit) => Err(CliError::new(exit, "")),
            None => outcome,
        }
    })
}

impl CommandScope {
    /// Makes this the manager that is closed at the end; one before it is closed now, once its calls have ended.
    ///
    /// # Errors
    ///
    /// [`CliError`] if the system does not let it listen for signals.
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

    /// Listens for signals from now on, as a command does that runs other programs, such as hooks: they end with it.
    ///
    /// # Errors
    ///
    /// [`CliError`] if the system does not let it listen for signals.
    pub(crate) fn listen(&self) -> Result<(), CliError> {
        if self.signals.borrow().is_none() {
            *self.signals.borrow_mut() = Some(Signals::listen()?);
        }
        Ok(())
    }

    /// Tells on standard error when the scope's manager waits for another process.
    pub(crate) fn tell_of_waits(&self, manager: &QuotaManager) {
        self.tasks.borrow_mut().spawn(waits::tell(manager.clone()));
    }

    /// Does the work, unless a signal ends it before.
    async fn until_signalled<T>(
        &self,
        work: impl Future<Output = Result<T, CliError>>,
    ) -> Result<T, CliError> {
        let mut work = pin!(work);
        poll_fn(|context| {
            // First the work: it may be what begins to listen.
            if let Poll::Ready(outcome) = work.as_mut().poll(context) {
                return Poll::Ready(outcome);
            }
            self.poll_signal(context).map(|exit| Err(CliError::new(exit, "")))
        })
        .await
    }

    /// Cancels what is in flight, and gives leases back. A signal that arrives during the wait ends it, and is the answer.
    async fn close(self) -> Option<Exit> {
        let managers = self.managers.take();
        let mut tasks = self.tasks.take();
        let closed = async {
            let closing = managers.iter().map(|(manager, _)| manager.close_within(Duration::ZERO));
            join_all(closing).await;
            // They end with their managers.
            while tasks.join_next().await.is_some() {}
        };
        let clock = Clock::system();
        let mut closed = pin!(clock.bounded(CLOSE_TIMEOUT, closed));
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

/// Ctrl-C, where there are no signals.
#[cfg(not(unix))]
struct Signals(std::pin::Pin<Box<dyn Future<Output = std::io::Result<()>>>>);

#[cfg(not(unix))]
impl Signals {
    fn listen() -> Result<Self, CliError> {
        Ok(Self(Box::pin(tokio::signal::ctrl_c())))
    }

    fn poll(&mut self, context: &mut std::task::Context<'_>) -> Poll<Exit> {
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
