//! One process that refreshes an account repeatedly: `refresher STORE PROVIDER [once]`, where both are URLs.
//!
//! It prints `calling` when it calls the provider, and `served` when it has a reading. With `once` it only gets a reading, and
//! never refreshes. It exits at the end of its input.
#![expect(clippy::print_stdout, reason = "the parent reads it")]

use std::error::Error;
use std::io::{Read, stdin};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use quota::anthropic;
use quota::credentials::StaticCredential;
use quota::http::Fetcher;
use quota::policy::{Backoff, Budget};
use quota::{
    Account, AccountId, Credential, FetchError, Policy, ProviderId, QuotaManager, Secret, UsageFetcher,
    UsageReport, open_store,
};

/// Prints a line for each call.
#[derive(Debug)]
struct Announcing(Fetcher);

#[async_trait]
impl UsageFetcher for Announcing {
    fn provider(&self) -> ProviderId {
        self.0.provider()
    }

    async fn fetch(&self, account: &AccountId, credential: &Credential) -> Result<UsageReport, FetchError> {
        println!("calling");
        self.0.fetch(account, credential).await
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (store, provider, once) = match &arguments[..] {
        [store, provider] => (store, provider, false),
        [store, provider, word] if word == "once" => (store, provider, true),
        _ => return Err("usage: refresher STORE PROVIDER [once]".into()),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let _entered = runtime.enter();
    let login = Arc::new(StaticCredential::new(Secret::new("sim-token-main".to_owned())));
    let fetcher = Announcing(Fetcher::builder(&anthropic::PROVIDER).base_url(provider.parse()?).build()?);
    let quota =
        QuotaManager::builder(open_store(store)?).provider(fetcher, login).policy(policy(once)).build()?;
    let main = quota.account(&"anthropic/main".parse()?);
    runtime.spawn(run(main, once));
    stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

async fn run(main: Account, once: bool) {
    loop {
        let served = if once {
            main.get().await.is_ok()
        } else {
            main.refresh().await.is_ok_and(|refreshed| refreshed.error.is_none())
        };
        if served {
            println!("served");
        }
        if served && once {
            return;
        }
    }
}

/// The timeout is short, because the lease of a killed process lasts two seconds longer. With `once` the parent process counts
/// calls, so no call may time out before the parent has killed the calling process.
fn policy(once: bool) -> Policy {
    let timeout = Duration::from_millis(if once { 3_000 } else { 500 });
    let backoff = Backoff::doubling(Duration::from_millis(10), Duration::from_millis(100));
    Policy::default()
        .min_call_interval(Duration::ZERO)
        .fetch_timeout(timeout)
        .error_backoff(backoff)
        .budget(Budget::new(100_000, 0))
}
