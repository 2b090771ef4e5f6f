//! Reports the responses of a client to a router, with a layer of tower.
//!
//! ```text
//! cargo run -p quota --features accounts,anthropic,testing,tower --example observe
//! ```
//!
//! A function replaces the client. The layer fits around any tower service of HTTP requests, such as one of hyper.
#![expect(clippy::print_stdout, reason = "an example prints its result")]

use std::sync::Arc;

use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use quota::accounts::{AccountsConfig, FallbackAccountManager, RequestOutcome, Route};
use quota::anthropic::AnthropicResponseParser;
use quota::http::observe::{ObserveLayer, ObservedResponse};
use quota::testing::FakeProvider;
use tokio::sync::mpsc;
use tower::{Layer as _, ServiceExt as _, service_fn};

type Body = Empty<&'static [u8]>;

/// The provider rejects the first account, whose 5-hour window is exhausted.
async fn provider(request: Request<Body>) -> Result<Response<Body>, http::Error> {
    let is_main = request.headers()["x-account"] == "anthropic/main";
    let (status, window) = if is_main { (429, "rejected") } else { (200, "allowed") };
    let response = Response::builder().status(status).header("anthropic-ratelimit-unified-5h-status", window);
    response.body(Body::new())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let usage = FakeProvider::answering("anthropic", 42.0);
    let config = AccountsConfig::new("anthropic/main".parse()?).fallback("anthropic/work".parse()?);
    let router = FallbackAccountManager::builder(config)
        .fetcher(usage.clone())
        .credentials(usage)
        .response_parser(AnthropicResponseParser)
        .build()?;

    // An observer must not wait, so a task reports. Each request carries its route.
    let (outcomes, mut received) = mpsc::unbounded_channel::<(Arc<Route>, RequestOutcome)>();
    let layer = ObserveLayer::new(move |request| {
        let route = Arc::clone(request.extensions.get::<Arc<Route>>()?);
        let outcomes = outcomes.clone();
        Some(move |response: &ObservedResponse<'_>| {
            let outcome = RequestOutcome::from_response(response.status.as_u16(), response.headers)
                .body(response.body)
                .received_at(response.received_at);
            let _ = outcomes.send((Arc::clone(&route), outcome));
        })
    });
    let client = layer.layer(service_fn(provider));

    for _ in 0..2 {
        let route = Arc::new(router.route(Default::default()).await?);
        let request = Request::post("https://api.anthropic.com/v1/messages")
            .header("x-account", route.account().to_string())
            .extension(Arc::clone(&route))
            .body(Body::new())?;
        let response = client.clone().oneshot(request).await?;
        println!("{}: {}", route.account(), response.status());
        response.into_body().collect().await?;

        let (route, outcome) = received.recv().await.ok_or("the layer observes each response")?;
        let report = router.report(&route, outcome).await?;
        println!("  {:?}", report.next);
    }
    Ok(())
}
