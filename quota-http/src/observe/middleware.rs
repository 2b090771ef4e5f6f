//! The middleware of `reqwest-middleware`.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use http::Extensions;
use quota_core::{Account, Clock};
use reqwest::{Body, Request, Response, ResponseBuilderExt};
use reqwest_middleware::{Middleware, Next};

use super::body::{needs_body, observe};
use super::observer::{Choice, ObservedResponse, RequestHead, ResponseObserver, run};

/// A middleware that observes responses, see the [module's documentation](super).
///
/// If it runs after a middleware that retries, it observes each attempt. If it runs before, it observes only the last
/// one.
///
/// ```no_run
/// use quota_http::anthropic::ANTHROPIC;
/// use quota_http::observe::ObserveMiddleware;
///
/// let client = reqwest_middleware::ClientBuilder::new(quota_http::reqwest::Client::new())
///     .with(ObserveMiddleware::for_each(|response| {
///         if let Some(failure) = response.parse(&ANTHROPIC).failure {
///             eprintln!("rejected: {}", failure.kind);
///         }
///     }))
///     .build();
/// # drop(client);
/// ```
#[derive(Clone)]
pub struct ObserveMiddleware<F>(Choice<F>);

impl<F, O> ObserveMiddleware<F>
where
    F: Fn(&RequestHead<'_>) -> Option<O>,
    O: ResponseObserver,
{
    /// Creates a middleware that chooses the observer of each response from its request. If the function returns
    /// `None`, the response is not observed.
    ///
    /// [`RequestHead::extensions`] are those of the request builder (`with_extension`).
    pub fn new(choose: F) -> Self {
        Self(Choice::new(choose))
    }
}

impl ObserveMiddleware<()> {
    /// Creates a middleware for the requests of one account.
    #[must_use]
    pub fn for_account(
        account: Account,
    ) -> ObserveMiddleware<impl Fn(&RequestHead<'_>) -> Option<Arc<Account>> + Clone + Send + Sync> {
        let account = Arc::new(account);
        ObserveMiddleware::new(move |_: &RequestHead<'_>| Some(Arc::clone(&account)))
    }

    /// Creates a middleware that passes each response to a function.
    #[must_use]
    pub fn for_each<C: Fn(&ObservedResponse<'_>) + Send + Sync + 'static>(
        observe: C,
    ) -> ObserveMiddleware<impl Fn(&RequestHead<'_>) -> Option<Arc<C>> + Clone + Send + Sync> {
        let observe = Arc::new(observe);
        ObserveMiddleware::new(move |_: &RequestHead<'_>| Some(Arc::clone(&observe)))
    }
}

impl<F> ObserveMiddleware<F> {
    /// Sets the clock that dates the responses (default: the system clock).
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.0.clock = clock;
        self
    }
}

impl<F> fmt::Debug for ObserveMiddleware<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObserveMiddleware").finish_non_exhaustive()
    }
}

#[async_trait]
impl<F, O> Middleware for ObserveMiddleware<F>
where
    F: Fn(&RequestHead<'_>) -> Option<O> + Send + Sync + 'static,
    O: ResponseObserver,
{
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let observer = self.0.choose(&RequestHead {
            method: request.method(),
            host: request.url().host_str(),
            path: request.url().path(),
            headers: request.headers(),
            extensions,
        });
        let response = next.run(request, extensions).await?;
        let Some(observer) = observer else { return Ok(response) };
        Ok(observe_response(response, observer, &self.0.clock))
    }
}

fn observe_response<O: ResponseObserver>(response: Response, observer: O, clock: &Clock) -> Response {
    if !needs_body(response.status(), &observer) {
        let (status, headers) = (response.status(), response.headers());
        run(observer, &ObservedResponse { status, headers, body: &[], received_at: clock.now() });
        return response;
    }
    // Converting the body loses the URL of the response, unless an extension contains it.
    let url = http::Response::builder().url(response.url().clone()).body(());
    let mut response = http::Response::<Body>::from(response);
    if let Ok(url) = url {
        response.extensions_mut().extend(url.into_parts().0.extensions);
    }
    observe(response, Some(observer), || clock.now()).map(Body::wrap).into()
}
