//! The future of a read: ready at the first poll, and without an allocation, while the readings are fresh.
//! What is done when they are not is in `account` and `flight`.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::account::Account;
use super::answer::Answer;
use super::error::QuotaError;

/// The future that [`Account::get`] returns. Nothing happens before it is polled.
#[must_use = "futures do nothing unless they are awaited"]
pub struct Get<'a> {
    account: &'a Account,
    /// Boxed, so that the common case carries no large future about.
    slowly: Option<Slowly<'a>>,
}

type Slowly<'a> = Pin<Box<dyn Future<Output = Result<Answer, QuotaError>> + Send + 'a>>;

impl<'a> Get<'a> {
    #[inline]
    pub(super) fn of(account: &'a Account) -> Self {
        Self { account, slowly: None }
    }
}

// By hand instead of an `async fn`, because this is on every reader's path and a state machine costs half a read more.
impl Future for Get<'_> {
    type Output = Result<Answer, QuotaError>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if this.slowly.is_none()
            && let Some(answer) = this.account.peek_fresh()
        {
            return Poll::Ready(Ok(answer));
        }
        this.wait(context)
    }
}

impl Get<'_> {
    #[cold]
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<Result<Answer, QuotaError>> {
        let account = self.account;
        self.slowly.get_or_insert_with(|| Box::pin(account.get_slowly(None))).as_mut().poll(context)
    }
}

impl fmt::Debug for Get<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Get").field("account", self.account).finish_non_exhaustive()
    }
}
