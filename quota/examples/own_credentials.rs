//! Reads the credentials of accounts from a vault of your own.
//!
//! ```text
//! cargo run -p quota --features credentials,testing --example own_credentials
//! ```
#![expect(clippy::print_stdout, reason = "an example prints its result")]

use std::time::Duration;

use quota::credentials::from_fn;
use quota::testing::FakeProvider;
use quota::{Credential, QuotaManager};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let vault = from_fn(|account| async move {
        // Query your vault here. The manager limits the wait, and reads again before each call to the provider.
        Ok(Credential::new(format!("token of {account}")))
    });
    let quota = QuotaManager::builder(quota::open_store("memory:")?)
        .provider(FakeProvider::answering("example", 42.0), vault)
        .build()?;
    let account = quota.account(&"example/main".parse()?);

    println!("{} windows", account.get().await?.snapshot().windows().len());

    // The requests of your program use the same source.
    let credential = account.credential(Duration::from_secs(5)).await?.ok_or("the account has a source")?;
    println!("{} bytes", credential.secret.expose().len());
    quota.close().await;
    Ok(())
}
