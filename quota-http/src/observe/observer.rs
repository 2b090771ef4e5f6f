//! The observer trait, its argument, and the code that calls it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Extensions, HeaderMap, Method, StatusCode};
use jiff::Timestamp;
use quota_core::provider::{HeaderSource, ParsedResponse, ResponseMeta};
use quota_core::{Account, Clock, ProviderId};

use crate::parse_response;

/// Receives the responses to requests.
///
/// A closure `Fn(&ObservedResponse)` is an observer. So is an [`Account`], which merges the usage in the headers.
///
/// It runs inside the task that polls the response, so it must not block. To await something, spawn a task.
pub trait ResponseObserver: Send + Sync + 'static {
    /// Receives a response.
    fn observe(&self, response: &ObservedResponse<'_>);

    /// Whether the observer uses the body of a rejection. If not, it runs when the headers arrive.
    fn uses_body(&self) -> bool {
        true
    }
}

impl<F: Fn(&ObservedResponse<'_>) + Send + Sync + 'static> ResponseObserver for F {
    fn observe(&self, response: &ObservedResponse<'_>) {
        self(response);
    }
}

impl<O: ResponseObserver> ResponseObserver for Arc<O> {
    fn observe(&self, response: &ObservedResponse<'_>) {
        O::observe(self, response);
    }

    fn uses_body(&self) -> bool {
        O::uses_body(self)
    }
}

/// Merges the usage in the headers into the account, see [`Account::observe`]. An account does not react to rejections.
impl ResponseObserver for Account {
    fn observe(&self, response: &ObservedResponse<'_>) {
        let usage = response.parse(self.id().provider()).usage;
        if usage.windows.is_empty() && usage.owner_id.is_none() {
            return;
        }
        if let Err(error) = Self::observe(self, &usage) {
            tracing::debug!(account = %self.id(), %error, "the usage of a response was not merged");
        }
    }

    fn uses_body(&self) -> bool {
        false
    }
}

/// A response, as an observer receives it.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct ObservedResponse<'a> {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The beginning of the body if the request was rejected; otherwise empty.
    pub body: &'a [u8],
    /// When the headers arrived.
    pub received_at: Timestamp,
}

impl ObservedResponse<'_> {
    /// Parses the response of `provider`, see [`parse_response`].
    #[must_use]
    pub fn parse(&self, provider: &ProviderId) -> ParsedResponse {
        let headers = Headers(self.headers);
        let headers: &dyn HeaderSource = &headers;
        let meta = ResponseMeta::new(self.status.as_u16(), headers, self.received_at).body(self.body);
        parse_response(provider, &meta)
    }
}

impl fmt::Debug for ObservedResponse<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The headers and the body may contain secrets.
        f.debug_struct("ObservedResponse").field("status", &self.status).finish_non_exhaustive()
    }
}

struct Headers<'a>(&'a HeaderMap);

impl HeaderSource for Headers<'_> {
    fn for_each<'a>(&'a self, visit: &mut dyn FnMut(&'a str, &'a [u8])) {
        for (name, value) in self.0 {
            visit(name.as_str(), value.as_bytes());
        }
    }

    fn first<'a>(&'a self, name: &str) -> Option<&'a [u8]> {
        Some(self.0.get(name)?.as_bytes())
    }
}

/// The part of a request from which a caller chooses the observer.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct RequestHead<'a> {
    /// The method.
    pub method: &'a Method,
    /// The host of the URL, if the request states one there.
    pub host: Option<&'a str>,
    /// The path of the URL.
    pub path: &'a str,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The values that the caller attached to the request, such as the chosen account.
    pub extensions: &'a Extensions,
}

impl fmt::Debug for RequestHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The headers may contain secrets.
        let mut head = f.debug_struct("RequestHead");
        head.field("method", &self.method).field("path", &self.path).finish_non_exhaustive()
    }
}

/// The settings that the layer and the middleware share.
#[derive(Clone)]
pub(super) struct Choice<F> {
    pub(super) choose: F,
    pub(super) clock: Clock,
}

impl<F> Choice<F> {
    pub(super) fn new(choose: F) -> Self {
        Self { choose, clock: Clock::system() }
    }

    /// Chooses the observer of a request. If the caller's function panics, the response is not observed.
    pub(super) fn choose<O>(&self, request: &RequestHead<'_>) -> Option<O>
    where
        F: Fn(&RequestHead<'_>) -> Option<O>,
    {
        catch(|| (self.choose)(request)).flatten()
    }
}

/// Runs and drops an observer. It cannot affect the response.
pub(super) fn run<O: ResponseObserver>(observer: O, response: &ObservedResponse<'_>) {
    let _ = catch(move || observer.observe(response));
}

/// Whether an observer uses the body of a rejection.
pub(super) fn uses_body<O: ResponseObserver>(observer: &O) -> bool {
    catch(|| observer.uses_body()).unwrap_or(false)
}

fn catch<T>(run: impl FnOnce() -> T) -> Option<T> {
    static HAS_WARNED: AtomicBool = AtomicBool::new(false);
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(value) => Some(value),
        Err(payload) => {
            if !HAS_WARNED.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "a response observer panicked; responses are passed on, later panics are not logged"
                );
            }
            // Dropping the payload may panic too.
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
                std::mem::forget(payload);
            }
            None
        }
    }
}
