//! The `tower` layer.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use quota_core::{Account, Clock};
use tower_layer::Layer;
use tower_service::Service;

use super::body::{ObservedBody, observe};
use super::observer::{Choice, ObservedResponse, RequestHead, ResponseObserver};

/// A layer that observes the responses of the inner service, see the [module's documentation](super).
///
/// ```
/// use quota_core::{MemoryStore, QuotaManager};
/// use quota_http::observe::ObserveLayer;
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let quota = QuotaManager::builder(MemoryStore::new()).build()?;
/// let main = quota.account(&"anthropic/main".parse()?);
///
/// // All requests belong to one account.
/// let layer = ObserveLayer::for_account(main.clone());
///
/// // The host decides. Responses of other hosts are not observed.
/// let layer = ObserveLayer::new(move |request| {
///     (request.host == Some("api.anthropic.com")).then(|| main.clone())
/// });
/// # drop(layer);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct ObserveLayer<F>(Choice<F>);

impl<F, O> ObserveLayer<F>
where
    F: Fn(&RequestHead<'_>) -> Option<O>,
    O: ResponseObserver,
{
    /// Creates a layer that chooses the observer of each response from its request. If the function returns `None`, the
    /// response is not observed.
    pub fn new(choose: F) -> Self {
        Self(Choice::new(choose))
    }
}

impl ObserveLayer<()> {
    /// Creates a layer for the requests of one account.
    #[must_use]
    pub fn for_account(
        account: Account,
    ) -> ObserveLayer<impl Fn(&RequestHead<'_>) -> Option<Arc<Account>> + Clone + Send + Sync> {
        let account = Arc::new(account);
        ObserveLayer::new(move |_: &RequestHead<'_>| Some(Arc::clone(&account)))
    }

    /// Creates a layer that passes each response to a function.
    #[must_use]
    pub fn for_each<C: Fn(&ObservedResponse<'_>) + Send + Sync + 'static>(
        observe: C,
    ) -> ObserveLayer<impl Fn(&RequestHead<'_>) -> Option<Arc<C>> + Clone + Send + Sync> {
        let observe = Arc::new(observe);
        ObserveLayer::new(move |_: &RequestHead<'_>| Some(Arc::clone(&observe)))
    }
}

impl<F> ObserveLayer<F> {
    /// Sets the clock that dates the responses (default: the system clock).
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.0.clock = clock;
        self
    }
}

impl<F> fmt::Debug for ObserveLayer<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObserveLayer").finish_non_exhaustive()
    }
}

impl<S, F: Clone> Layer<S> for ObserveLayer<F> {
    type Service = ObserveService<S, F>;

    fn layer(&self, inner: S) -> Self::Service {
        ObserveService { inner, choice: self.0.clone() }
    }
}

/// The service of an [`ObserveLayer`].
#[derive(Clone)]
pub struct ObserveService<S, F> {
    inner: S,
    choice: Choice<F>,
}

impl<S: fmt::Debug, F> fmt::Debug for ObserveService<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObserveService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, F, O, B, R> Service<Request<B>> for ObserveService<S, F>
where
    S: Service<Request<B>, Response = Response<R>>,
    F: Fn(&RequestHead<'_>) -> Option<O>,
    O: ResponseObserver,
    R: Body,
{
    type Response = Response<ObservedBody<R, O>>;
    type Error = S::Error;
    type Future = ObserveFuture<S::Future, O>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let observer = self.choice.choose(&RequestHead {
            method: request.method(),
            host: request.uri().host(),
            path: request.uri().path(),
            headers: request.headers(),
            extensions: request.extensions(),
        });
        ObserveFuture { inner: self.inner.call(request), observer, clock: self.choice.clock.clone() }
    }
}

pin_project! {
    /// The future of an [`ObserveService`]. Dropping it is safe; the observer then does not run.
    pub struct ObserveFuture<F, O> {
        #[pin]
        inner: F,
        observer: Option<O>,
        clock: Clock,
    }
}

impl<F, O> fmt::Debug for ObserveFuture<F, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObserveFuture").finish_non_exhaustive()
    }
}

impl<F, O, R, E> Future for ObserveFuture<F, O>
where
    F: Future<Output = Result<Response<R>, E>>,
    O: ResponseObserver,
    R: Body,
{
    type Output = Result<Response<ObservedBody<R, O>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(cx))?;
        Poll::Ready(Ok(observe(response, this.observer.take(), || this.clock.now())))
    }
}
