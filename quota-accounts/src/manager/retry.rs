//! Sends a request to one account after another, until it succeeds or no account is left.

use quota_core::provider::RejectionKind;

use super::route::{Route, RouteError};
use super::{Classification, FallbackAccountManager};
use crate::Request;
use crate::outcome::{RequestOutcome, RetryAdvice};

/// Whether a rejected request may be retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Idempotency {
    /// Sending the request twice does no harm, so it may be retried.
    Idempotent,
    /// The first outcome is final.
    NotIdempotent,
}

impl FallbackAccountManager {
    /// Routes a request, sends it with `send`, reports the outcome, and retries it as the outcome advises if the request is
    /// idempotent. It returns the result of the last attempt with its classification.
    ///
    /// It never waits before a retry. If the provider requests a wait, the caller must wait. It never retries an
    /// account twice for the same kind of rejection.
    ///
    /// # Errors
    ///
    /// [`RouteError`] if no account may serve the first attempt. After an attempt, its result is returned instead.
    pub async fn send_with_retry<T, F>(
        &self,
        request: Request,
        idempotency: Idempotency,
        mut send: impl FnMut(&Route) -> F,
    ) -> Result<(T, Classification), RouteError>
    where
        F: Future<Output = (T, RequestOutcome)>,
    {
        self.inner.load().await;
        let may_retry = idempotency == Idempotency::Idempotent;
        let mut without = Vec::new();
        let mut tried: Vec<(usize, RejectionKind)> = Vec::new();
        let mut last = None;
        loop {
            let route = match self.inner.route(request.clone(), &without).await {
                Ok(route) => route,
                Err(error) => return last.ok_or(error),
            };
            let at = route.index;
            // If the future is dropped, this releases the reservation.
            let _pending = route.reservation.clone().map(|reservation| self.inner.guard_for(reservation));
            let (got, outcome) = send(&route).await;
            let report = self.report(&route, outcome).await.expect("the route belongs to this manager");
            let reason = report.failure.as_ref().map(|failure| (at, failure.kind));
            let is_repeated = reason.is_some_and(|reason| tried.contains(&reason));
            tried.extend(reason);
            let next = report.next;
            last = Some((got, report));
            match next {
                RetryAdvice::OtherAccount if may_retry => without.push(at),
                RetryAdvice::SameAccount if may_retry => without.extend(is_repeated.then_some(at)),
                _ => return Ok(last.expect("it was just set")),
            }
        }
    }
}
