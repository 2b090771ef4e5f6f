//! One usage call to the simulator through a manager and its fetcher, compared with the same request by reqwest alone. Both keep their
//! connection.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use quota_core::{
    Account, AccountId, Credential, CredentialError, CredentialSource, MemoryStore, Policy, QuotaManager,
    Secret,
};
use quota_http::reqwest::Client;
use quota_http::{Fetcher, anthropic};
use quota_sim::{Script, Simulator};
use tokio::runtime::{Builder, Runtime};
use url::Url;

use super::headers::ANTHROPIC;
use crate::measure::median;
use crate::row::Row;

/// The calls of each account, below the usual budget, so that no record is longer than usual.
const CALLS: usize = 25;
const ACCOUNTS: usize = 40;
const TOKEN: &str = "sim-token-main";

pub(super) fn row() -> Row {
    // The provider has a thread of its own, as it has a host of its own.
    let provider = runtime(Builder::new_multi_thread().worker_threads(1));
    let script = Script::new([quota_sim::Account::new("main").with_token(TOKEN).budget(None)]);
    let simulator = provider.block_on(Simulator::builder(script).start()).expect("a port is free");
    let [ours, bare] = runtime(&mut Builder::new_current_thread()).block_on(measure(&simulator.url()));
    Row::at_most("fetch", (ours, "µs"), ("reqwest alone", bare), 1.1)
}

fn runtime(builder: &mut Builder) -> Runtime {
    builder.enable_all().build().expect("threads can be started")
}

#[derive(Debug)]
struct Token;

#[async_trait]
impl CredentialSource for Token {
    async fn credential(&self, _account: &AccountId) -> Result<Credential, CredentialError> {
        Ok(Credential::new(Secret::new(TOKEN)))
    }
}

/// The median times in microseconds of both calls, which alternate.
async fn measure(url: &Url) -> [f64; 2] {
    let fetcher =
        Fetcher::builder(&anthropic::PROVIDER).base_url(url.clone()).build().expect("the URL is valid");
    let policy = Policy::default().min_call_interval(Duration::ZERO);
    let manager = QuotaManager::builder(MemoryStore::new()).policy(policy).provider(fetcher, Token).build();
    let manager = manager.expect("the settings are valid");
    let accounts: Vec<_> = (0..ACCOUNTS)
        .map(|number| {
            manager.account(&AccountId::new(ANTHROPIC, &format!("account-{number}")).expect("a valid name"))
        })
        .collect();
    // The default crypto provider, which only a client of one's own needs.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().no_proxy().build().expect("the settings are valid");
    let url = url.join("api/oauth/usage").expect("the path is valid");
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..CALLS {
        for account in &accounts {
            times[0].push(timed(ours(account)).await);
            times[1].push(timed(bare(&client, &url)).await);
        }
    }
    manager.close().await;
    times.map(median)
}

async fn timed(call: impl Future<Output = ()>) -> f64 {
    let start = Instant::now();
    call.await;
    start.elapsed().as_secs_f64() * 1e6
}

async fn ours(account: &Account) {
    let outcome = account.refresh().await.expect("there is a reading");
    assert!(outcome.fetched, "{:?}", outcome.error);
}

async fn bare(client: &Client, url: &Url) {
    let request = client.get(url.clone()).bearer_auth(TOKEN);
    let request = request.header("anthropic-beta", "oauth-2025-04-20").header("accept", "application/json");
    let response = request.send().await.expect("the provider responds");
    assert!(response.status().is_success(), "{}", response.status());
    drop(response.bytes().await.expect("the response is complete"));
}
