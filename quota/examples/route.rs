//! Sends each request to an account with quota left, and reports the response.
//!
//! ```text
//! cargo run -p quota --features accounts,testing --example route
//! ```
#![expect(clippy::print_stdout, reason = "an example prints its result")]

use quota::accounts::{AccountsConfig, FallbackAccountManager, Request, RequestOutcome};
use quota::testing::FakeProvider;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let provider = FakeProvider::answering("example", 42.0);
    let config = AccountsConfig::new("example/main".parse()?).fallback("example/work".parse()?);
    let accounts =
        FallbackAccountManager::builder(config).fetcher(provider.clone()).credentials(provider).build()?;

    let route = accounts.route(Request::new().with_model("a-model").with_session("a-session")).await?;
    println!("first request: {} ({})", route.account(), route.reason());

    // Send the request with `route.credential()`. Here the provider responds with 429 and demands a wait of 30 seconds.
    let outcome = RequestOutcome::from_response(429, [("retry-after", "30")]);
    let report = accounts.report(&route, outcome).await?;
    println!("after the response: {:?}", report.next);

    let route = accounts.route(Request::new().with_model("a-model").with_session("a-session")).await?;
    println!("second request: {} ({})", route.account(), route.reason());
    Ok(())
}
