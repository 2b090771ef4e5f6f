//! Explains which account the next request would get, and why.
//!
//! ```text
//! cargo run -p quota --features accounts,testing --example explain
//! ```
#![expect(clippy::print_stdout, reason = "an example prints its result")]

use quota::accounts::{AccountsConfig, FallbackAccountManager, Request};
use quota::testing::FakeProvider;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = AccountsConfig::new("example/main".parse()?).fallback("example/work".parse()?);
    let provider = FakeProvider::answering("example", 42.0);
    let accounts = FallbackAccountManager::builder(config).fetcher(provider).build()?;

    // Does the same refreshes as a request, but reserves no quota. `explain` decides from the cached readings alone.
    let decision = accounts.decide(&Request::new()).await;

    println!("{decision}");
    Ok(())
}
