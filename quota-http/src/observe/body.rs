//! The body of a response that passes through. It stores the beginning of a rejection's body until the observer runs.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use jiff::Timestamp;
use pin_project_lite::pin_project;

use super::observer::{ObservedResponse, ResponseObserver, run, uses_body};

/// The maximum number of bytes that the observer gets of a rejection's body.
pub const MAX_BODY: usize = 16 * 1024;

pin_project! {
    /// The body of an observed response. It behaves as the inner body does.
    pub struct ObservedBody<B, O: ResponseObserver> {
        #[pin]
        inner: B,
        capture: Option<Box<Capture<O>>>,
    }
}

impl<B: fmt::Debug, O: ResponseObserver> fmt::Debug for ObservedBody<B, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObservedBody").field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// Passes the response to the observer: now, or once the body of a rejection has passed through.
pub(super) fn observe<B: Body, O: ResponseObserver>(
    response: Response<B>,
    observer: Option<O>,
    received_at: impl FnOnce() -> Timestamp,
) -> Response<ObservedBody<B, O>> {
    let capture = observer.and_then(|observer| {
        let (status, headers) = (response.status(), response.headers());
        let received_at = received_at();
        if needs_body(status, &observer) && !response.body().is_end_stream() {
            let headers = headers.clone();
            let observer = Some(observer);
            return Some(Box::new(Capture { observer, status, headers, received_at, body: Vec::new() }));
        }
        run(observer, &ObservedResponse { status, headers, body: &[], received_at });
        None
    });
    response.map(|inner| ObservedBody { inner, capture })
}

/// Whether the observer runs only after the body has passed through.
pub(super) fn needs_body<O: ResponseObserver>(status: StatusCode, observer: &O) -> bool {
    (status.is_client_error() || status.is_server_error()) && uses_body(observer)
}

/// A rejection whose body is passing through. Dropping it runs the observer.
struct Capture<O: ResponseObserver> {
    observer: Option<O>,
    status: StatusCode,
    headers: HeaderMap,
    received_at: Timestamp,
    body: Vec<u8>,
}

impl<O: ResponseObserver> Capture<O> {
    /// Copies the beginning of a frame; `false` if no more is needed.
    fn extend(&mut self, data: &impl Buf) -> bool {
        let chunk = data.chunk();
        let room = MAX_BODY - self.body.len();
        self.body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        // If a frame has several chunks, only the first can be read without consuming the frame.
        chunk.len() == data.remaining() && self.body.len() < MAX_BODY
    }
}

impl<O: ResponseObserver> Drop for Capture<O> {
    fn drop(&mut self) {
        if let Some(observer) = self.observer.take() {
            let Self { status, ref headers, ref body, received_at, .. } = *self;
            run(observer, &ObservedResponse { status, headers, body, received_at });
        }
    }
}

impl<B: Body, O: ResponseObserver> Body for ObservedBody<B, O> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let mut this = self.project();
        let polled = ready!(this.inner.as_mut().poll_frame(cx));
        if let Some(capture) = this.capture {
            let continues = match &polled {
                Some(Ok(frame)) => frame.data_ref().is_none_or(|data| capture.extend(data)),
                Some(Err(_)) | None => false,
            };
            // A caller may stop polling a body that reports its end.
            if !continues || this.inner.is_end_stream() {
                drop(this.capture.take());
            }
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
