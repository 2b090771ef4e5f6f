//! A program on one of several hosts that share a store: run it twice at once, here or elsewhere.
//!
//! ```text
//! cargo run -p quota --features redis,testing --example shared_store -- redis://127.0.0.1:6379
//! ```
//!
//! Whichever runs first asks the provider; the other reads what it found, and `shared_store_watch` shows it on a third. The feature decides which stores are compiled in,
//! the URL which of them is used: with `memory:` each asks for itself.
#![expect(clippy::print_stdout, reason = "an example speaks to whoever runs it")]

use quota::testing::FakeProvider;
use quota::{AccountId, QuotaManager};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "memory:".to_owned());
    let provider = FakeProvider::answering("example", 42.0);
    let quota = QuotaManager::builder(quota::open_store(&url)?).fetcher(provider.clone()).build()?;
    let account = quota.account(&"example/main".parse::<AccountId>()?);

    let answer = account.get().await?;

    for window in answer.snapshot().windows() {
        println!("{}: {:?}", window.id(), answer.used(window.id()));
    }
    println!("this process asked the provider {} time(s)", provider.calls());
    quota.close().await;
    Ok(())
}
