//! Bodies that a test controls, and an observer that records.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use quota_http::observe::ObservedResponse;

/// What an observer saw.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    pub(crate) used: Vec<String>,
}

/// Records what observers see.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<Vec<Seen>>>);

impl Recorder {
    pub(crate) fn record(&self, response: &ObservedResponse<'_>) {
        let parsed = response.parse(&quota_http::anthropic::ANTHROPIC);
        let used = parsed.usage.windows.iter().map(|window| format!("{} {}", window.id, window.used));
        self.0.lock().unwrap().push(Seen {
            status: response.status.as_u16(),
            body: response.body.to_vec(),
            used: used.collect(),
        });
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.0.lock().unwrap().clone()
    }

    /// The body of the only response that was seen.
    pub(crate) fn only_body(&self) -> Vec<u8> {
        let [seen] = &self.seen()[..] else { panic!("one response is observed: {:?}", self.seen()) };
        seen.body.clone()
    }
}

/// The frames of a body, which counts how often it is polled. A `None` fails.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    frames: VecDeque<Option<Frame<Bytes>>>,
    pub(crate) polls: Arc<Mutex<usize>>,
    knows_end: bool,
}

impl Frames {
    pub(crate) fn of<const N: usize>(chunks: [&'static [u8]; N]) -> Self {
        let frames = chunks.into_iter().map(|chunk| Some(Frame::data(Bytes::from_static(chunk))));
        Self { frames: frames.collect(), ..Self::default() }
    }

    pub(crate) fn then_fail(mut self) -> Self {
        self.frames.push_back(None);
        self
    }

    pub(crate) fn then_trailers(mut self, trailers: HeaderMap) -> Self {
        self.frames.push_back(Some(Frame::trailers(trailers)));
        self
    }

    /// The body states that it is at its end as soon as no frame is left.
    pub(crate) fn with_known_end(mut self) -> Self {
        self.knows_end = true;
        self
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        *self.polls.lock().unwrap() += 1;
        Poll::Ready(self.frames.pop_front().map(|frame| frame.ok_or("broken")))
    }

    fn is_end_stream(&self) -> bool {
        self.knows_end && self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(77)
    }
}

pub(crate) fn response(status: u16, body: Frames) -> Response<Frames> {
    let response = Response::builder().status(status).header("x-kept", "yes");
    response.header("anthropic-ratelimit-unified-5h-utilization", "0.5").body(body).unwrap()
}
