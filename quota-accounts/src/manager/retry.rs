//! Trying a request on one account after the other, until it is served or nobody is left.
//! Whether it may be sent twice is for the caller to say.

use quota_core::RejectionKind;

use super::route::{Route, RouteError};
use super::{Classification, FallbackAccountManager};
use crate::Request;
use crate::outcome::{RequestOutcome, RetryAdvice};

/// Whether a request may be sent again after it was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Idempotency {
    /// It may: sending it twice does no harm.
    Idempotent,
    /// It may not: what came of the first try is what comes of it.
    NotIdempotent,
}

impl FallbackAccountManager {
    /// Routes a request, sends it by `send`, reports what came of it, and tries again elsewhere where that helps, if the
    /// request may be repeated.
    ///
    /// It never waits, and never tries twice on one account for one reason: a provider that wants a pause gets it from the
    /// caller. What is given back is what the last try got, with its report.
    ///
    /// # Errors
    ///
    /// [`RouteError`] if no account may serve the first try. If none is left after others were tried, the last one's
    /// result is given instead.
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
        let mut without = Vec::new();
        let mut tried: Vec<(usize, RejectionKind)> = Vec::new();
        let mut last = None;
        loop {
            let route = match self.inner.route(request.clone(), &without).await {
                Ok(route) => route,
                Err(error) => return last.ok_or(error),
            };
            let at = route.index;
            // Should nobody wait for what comes of it any more, nobody will report it.
            let _pending = route.reservation.map(|id| self.inner.guard_for(route.index, id));
            let (got, outcome) = send(&route).await;
            let report = self.report(&route, outcome).await.expect("the route is of this manager");
            let reason = report.failure.as_ref().map(|failure| (at, failure.kind));
            let is_known = reason.is_some_and(|reason| tried.contains(&reason));
            tried.extend(reason);
            let next = report.next;
            last = Some((got, report));
            match next {
                RetryAdvice::OtherAccount if idempotency == Idempotency::Idempotent => without.push(at),
                RetryAdvice::SameAccount if idempotency == Idempotency::Idempotent && !is_known => {}
                RetryAdvice::SameAccount if idempotency == Idempotency::Idempotent => without.push(at),
                _ => return Ok(last.expect("it was just put there")),
            }
        }
    }
}
