//! Reads how much of an account's windows is left.
//!
//! ```text
//! cargo run -p quota --features testing --example read
//! ```
//!
//! A scripted provider replaces the real one, so that the example runs without a login. If Claude Code is logged in on this
//! machine, use `.provider(Fetcher::new(&anthropic::PROVIDER), ClaudeCode::from_env())` instead.
#![expect(clippy::print_stdout, reason = "an example prints its result")]

use quota::testing::FakeProvider;
use quota::{MemoryStore, QuotaManager};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let provider = FakeProvider::answering("example", 42.0);
    let quota = QuotaManager::builder(MemoryStore::new()).fetcher(provider).build()?;
    let account = quota.account(&"example/main".parse()?);

    // Fresh readings: either cached ones, or those of a call that all concurrent callers share.
    let usage = account.get().await?;
    for window in usage.snapshot().windows() {
        println!("{}: {}", window.id(), usage.used(window.id()));
    }

    // The cached readings, without a lock and without I/O.
    assert!(!account.peek().is_stale());
    quota.close().await;
    Ok(())
}
