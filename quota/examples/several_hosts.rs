//! One of several hosts that share readings through a store. Run it twice at the same time, on one or two machines.
//!
//! ```text
//! cargo run -p quota --features redis,testing --example several_hosts -- redis://127.0.0.1:6379
//! ```
//!
//! One process calls the provider, and the other reads the result from the store. `several_hosts_watch` prints it on a third
//! host. With the default, `memory:`, the processes share no data and each makes a call.
#![expect(clippy::print_stdout, reason = "an example prints its result")]

use quota::QuotaManager;
use quota::testing::FakeProvider;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "memory:".to_owned());
    let provider = FakeProvider::answering("example", 42.0);
    let quota = QuotaManager::builder(quota::open_store(&url)?).fetcher(provider.clone()).build()?;

    let usage = quota.account(&"example/main".parse()?).get().await?;

    for window in usage.snapshot().windows() {
        println!("{}: {}", window.id(), usage.used(window.id()));
    }
    println!("calls of this process: {}", provider.calls());
    quota.close().await;
    Ok(())
}
