//! A program on another host than `shared_store`: it asks nobody, and shows what the others have found, when they find it.
//!
//! ```text
//! cargo run -p quota --features redis --example shared_store_watch -- redis://127.0.0.1:6379 3
//! cargo run -p quota --features redis,testing --example shared_store -- redis://127.0.0.1:6379
//! ```
//!
//! It ends after that many changes. A manager without a fetcher asks no provider, so nothing here needs a login.
#![expect(clippy::print_stdout, reason = "an example speaks to whoever runs it")]

use quota::{AccountId, AccountUsage, QuotaManager};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("usage: shared_store_watch URL [CHANGES]")?;
    let changes: usize = arguments.next().map_or(Ok(1), |count| count.parse())?;
    let quota = QuotaManager::builder(quota::open_store(&url)?).build()?;
    let account = quota.account(&"example/main".parse::<AccountId>()?);
    let mut watch = account.watch();

    show(&account.sync().await);
    for _ in 0..changes {
        show(&watch.next().await.ok_or("the manager is gone")?);
    }
    quota.close().await;
    Ok(())
}

fn show(answer: &AccountUsage) {
    let away = if answer.store_unavailable_since().is_some() { "; the store is away" } else { "" };
    println!("{} windows are known{away}", answer.snapshot().windows().len());
    for window in answer.snapshot().windows() {
        println!("  {}: {:?}", window.id(), answer.used(window.id()));
    }
}
