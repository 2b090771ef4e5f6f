//! The layer of tower around a service in this process, compared with the service alone.

use std::cell::RefCell;
use std::convert::Infallible;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use allocation_counter::measure;
use http::{HeaderMap, Request, Response};
use http_body_util::Empty;
use quota_http::observe::{ObserveLayer, ObservedResponse};
use tower::{Layer, Service, service_fn};

use super::headers::{ANTHROPIC, all, none};
use crate::measure::interleaved;
use crate::row::Row;

const ITERATIONS: usize = 4_000;
/// The most that the layer may add, in nanoseconds.
const MAX_ADDED: f64 = 2_000.0;

type Body = Empty<&'static [u8]>;

thread_local! {
    /// The headers of the next response, so that neither routine builds or frees them.
    static HEADERS: RefCell<HeaderMap> = RefCell::default();
}

async fn answer(_: Request<Body>) -> Result<Response<Body>, Infallible> {
    let mut response = Response::new(Body::new());
    *response.headers_mut() = HEADERS.take();
    Ok(response)
}

/// Sends one request, and keeps the headers of the response for the next.
fn send<B>(service: &mut impl Service<Request<Body>, Response = Response<B>, Error = Infallible>) {
    let future = pin!(service.call(black_box(Request::new(Body::new()))));
    let mut context = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(mut response)) = future.poll(&mut context) else {
        unreachable!("the service responds at once")
    };
    HEADERS.set(std::mem::take(response.headers_mut()));
    drop(black_box(response));
}

fn observe(response: &ObservedResponse<'_>) {
    black_box(response.parse(&ANTHROPIC));
}

pub(super) fn rows() -> [Row; 2] {
    [row("layer.none", none()), row("layer.all", all())]
}

fn row(name: &str, headers: HeaderMap) -> Row {
    let with_none = name == "layer.none";
    let figures = interleaved(
        1,
        ITERATIONS,
        [
            &|range| {
                HEADERS.set(headers.clone());
                let mut service = ObserveLayer::for_each(observe).layer(service_fn(answer));
                range.for_each(|_| send(&mut service));
            },
            &|range| {
                HEADERS.set(headers.clone());
                let mut service = service_fn(answer);
                range.for_each(|_| send(&mut service));
            },
        ],
    );
    let [observed, alone] = figures;
    HEADERS.set(headers.clone());
    let mut service = ObserveLayer::for_each(observe).layer(service_fn(answer));
    let allocations = measure(|| send(&mut service)).count_total;
    let (target, is_met) = if with_none {
        (format!("≤ {MAX_ADDED} ns added, 0 allocations ({allocations})"), allocations == 0)
    } else {
        (format!("≤ {MAX_ADDED} ns added"), true)
    };
    let is_met = is_met && observed - alone <= MAX_ADDED;
    Row::within(name, (observed, "ns"), ("the service alone", alone), &target, is_met)
}
