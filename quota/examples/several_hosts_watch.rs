//! A host that never calls the provider. It prints the readings that `several_hosts` shares whenever they change.
//!
//! ```text
//! cargo run -p quota --features redis --example several_hosts_watch -- redis://127.0.0.1:6379 3
//! cargo run -p quota --features redis,testing --example several_hosts -- redis://127.0.0.1:6379
//! ```
//!
//! It exits after that many changes (3 above). A manager without a fetcher makes no calls, so this host needs no login.
#![expect(clippy::print_stdout, reason = "an example prints its result")]

use quota::{AccountUsage, QuotaManager};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("usage: several_hosts_watch URL [CHANGES]")?;
    let changes: usize = arguments.next().map_or(Ok(1), |count| count.parse())?;
    let quota = QuotaManager::builder(quota::open_store(&url)?).build()?;
    let account = quota.account(&"example/main".parse()?);
    let mut watch = account.watch();

    print(&account.sync().await);
    for _ in 0..changes {
        print(&watch.next().await.ok_or("the manager was closed")?);
    }
    quota.close().await;
    Ok(())
}

fn print(usage: &AccountUsage) {
    let outage = if usage.store_unavailable_since().is_some() { " (store unavailable)" } else { "" };
    println!("{} windows{outage}", usage.snapshot().windows().len());
    for window in usage.snapshot().windows() {
        println!("  {}: {}", window.id(), usage.used(window.id()));
    }
}
