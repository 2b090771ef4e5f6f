//! Reads what is left of an account's windows.
//!
//! ```text
//! cargo run -p quota --features testing --example read
//! ```
//!
//! A scripted provider stands in for a real one, so that the example runs without a login. With a login of Claude Code on this
//! machine, add `.provider(Anthropic::new(), ClaudeCode::from_env())` instead.
#![expect(clippy::print_stdout, reason = "an example prints its result")]

use quota::testing::FakeProvider;
use quota::{MemoryStore, QuotaManager};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let provider = FakeProvider::answering("example", 42.0);
    let quota = QuotaManager::builder(MemoryStore::new()).fetcher(provider).build()?;
    let account = quota.account(&"example/main".parse()?);

    // Fresh readings: the cached ones, or those of one call that all concurrent callers share.
    let usage = account.get().await?;
    for window in usage.snapshot().windows() {
        println!("{}: {}", window.id(), usage.used(window.id()));
    }

    // The cached readings, without a lock and without I/O.
    assert!(!account.peek().is_stale());
    quota.close().await;
    Ok(())
}
