//! A response without headers about limits costs no allocation, with and without an observer.
#![cfg(test)]
#![cfg(feature = "tower")]

use std::convert::Infallible;
use std::task::{Context, Poll, Waker};

use allocation_counter::measure;
use http::{HeaderMap, Request, Response};
use http_body_util::Empty;
use quota_core::ProviderId;
use quota_core::provider::ResponseMeta;
use quota_http::observe::ObserveLayer;
use quota_http::parse_response;
use tower::{Layer, Service, service_fn};

/// Twenty headers that providers send.
fn unrelated() -> Vec<(String, String)> {
    (0..20).map(|at| (format!("X-Made-Up-{at}"), "text/event-stream; charset=utf-8".to_owned())).collect()
}

const PROVIDERS: [ProviderId; 3] = [
    ProviderId::from_static("anthropic"),
    ProviderId::from_static("openai"),
    ProviderId::from_static("other"),
];

#[test]
fn a_success_without_headers_about_limits_costs_no_allocation() {
    let headers = unrelated();
    let now = "2026-01-01T12:00:00Z".parse().unwrap();
    for provider in PROVIDERS {
        let info = measure(|| {
            let parsed = parse_response(&provider, &ResponseMeta::new(200, &headers, now));
            assert!(parsed.usage.is_empty() && parsed.failure.is_none());
        });

        assert_eq!(info.count_total, 0, "{provider}");
    }
}

#[test]
fn the_layer_adds_no_allocation_to_a_success_without_headers_about_limits() {
    let headers: HeaderMap = unrelated()
        .into_iter()
        .map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap()))
        .collect();
    let [provider, ..] = PROVIDERS;
    let inner = service_fn(|response: Request<Response<Empty<&'static [u8]>>>| async {
        Ok::<_, Infallible>(response.into_body())
    });
    let layer = ObserveLayer::for_each(move |response| assert!(response.parse(&provider).usage.is_empty()));
    let mut service = layer.layer(inner);
    let mut response = Response::new(Empty::new());
    *response.headers_mut() = headers;
    let mut request = Some(Request::new(response));
    let mut observed = None;

    let info = measure(|| {
        let mut future = std::pin::pin!(service.call(request.take().unwrap()));
        let Poll::Ready(passed) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
            unreachable!("the service responds at once")
        };
        observed = Some(passed.unwrap());
    });

    assert_eq!(info.count_total, 0);
    drop(observed);
}
