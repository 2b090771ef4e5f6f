//! Observes the responses to a reqwest client with a middleware, against an HTTP server in this process.
//!
//! ```text
//! cargo run -p quota-http --features reqwest-middleware --example observe_reqwest
//! ```
//!
//! The server replaces a provider: it streams events, with the headers of Anthropic.
#![expect(clippy::print_stdout, reason = "an example prints its result")]
#![expect(clippy::disallowed_methods, reason = "the example ends its server")]

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use quota_core::{AccountId, MemoryStore, QuotaManager, WindowId};
use quota_http::observe::ObserveMiddleware;
use quota_http::reqwest::Client;
use tokio::net::TcpListener;

async fn serve(listener: TcpListener) -> std::io::Result<()> {
    let stream = || async {
        let used = ("anthropic-ratelimit-unified-7d-utilization", "0.07");
        (
            [(CONTENT_TYPE.as_str(), "text/event-stream"), used],
            "event: message_start\n\nevent: message_stop\n\n",
        )
    };
    axum::serve(listener, Router::new().route("/v1/messages", get(stream))).await
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}/v1/messages", listener.local_addr()?);
    let server = tokio::spawn(serve(listener));

    // This workspace builds reqwest without a provider of cryptography.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let quota = QuotaManager::builder(MemoryStore::new()).build()?;
    let accounts = quota.clone();
    let client = reqwest_middleware::ClientBuilder::new(Client::builder().no_proxy().build()?)
        // Each request states its account.
        .with(ObserveMiddleware::new(move |request| {
            request.extensions.get::<AccountId>().map(|id| accounts.account(id))
        }))
        .build();

    let work: AccountId = "anthropic/work".parse()?;
    let mut response = client.get(url).with_extension(work.clone()).send().await?;
    while let Some(chunk) = response.chunk().await? {
        println!("received: {} bytes", chunk.len());
    }

    println!("7-day window: {} used", quota.account(&work).peek().used(&WindowId::seven_day()));
    server.abort();
    Ok(())
}
