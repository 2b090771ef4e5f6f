//! Observes the responses of an in-process service with a layer of tower: rate limits on standard output, and the usage of an
//! account in a quota manager.
//!
//! ```text
//! cargo run -p quota-http --features tower --example observe_tower
//! ```
//!
//! The service replaces a provider. A proxy puts the layer around its HTTP client, for example `hyper_util::client::legacy`, and a
//! server behind axum around its router.
#![expect(clippy::print_stdout, reason = "an example prints its result")]

use std::convert::Infallible;

use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use quota_core::{MemoryStore, QuotaManager, WindowId};
use quota_http::observe::{ObserveLayer, ObservedResponse};
use tower::{Service as _, ServiceBuilder, ServiceExt as _};

/// A provider that allows the first request and rejects the second.
async fn provider(
    request: Request<Full<&'static [u8]>>,
) -> Result<Response<Full<&'static [u8]>>, Infallible> {
    let (status, body): (_, &[u8]) = match request.uri().path() {
        "/v1/messages" => (200, b"hello"),
        _ => (429, br#"{"error":{"type":"overloaded_error"}}"#),
    };
    let response = Response::builder()
        .status(status)
        .header("anthropic-ratelimit-unified-5h-utilization", "0.42")
        .body(Full::new(body));
    Ok(response.expect("the headers are valid"))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let quota = QuotaManager::builder(MemoryStore::new()).build()?;
    let main = quota.account(&"anthropic/main".parse()?);

    let account = main.clone();
    let mut service = ServiceBuilder::new()
        // A function of one's own.
        .layer(ObserveLayer::for_each(|response| {
            println!("observed: {}, {} bytes of its body", response.status, response.body.len());
        }))
        // An account of a quota manager, chosen by the request. A function can also return a closure, see below.
        .layer(ObserveLayer::new(move |request| (request.path == "/v1/messages").then(|| account.clone())))
        .layer(ObserveLayer::new(|request| {
            let path = request.path.to_owned();
            Some(move |response: &ObservedResponse<'_>| {
                let parsed = response.parse(&quota_http::anthropic::ANTHROPIC);
                println!("{path}: {:?}", parsed.failure.map(|failure| failure.kind));
            })
        }))
        .service(tower::service_fn(provider));

    for path in ["/v1/messages", "/v1/other"] {
        let request = Request::builder().uri(path).body(Full::default())?;
        let response = service.ready().await?.call(request).await?;
        let body = response.into_body().collect().await?.to_bytes();
        println!("received: {} bytes", body.len());
    }

    let usage = main.peek();
    println!("5-hour window: {} used", usage.used(&WindowId::five_hour()));
    Ok(())
}
