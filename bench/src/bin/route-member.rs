//! One process that routes: `route-member STORE PROVIDER REQUESTS`. STORE is a URL, and PROVIDER a loopback port.
//!
//! It prints `ready` and waits for a line. Then it routes that many requests at once over accounts without readings, and prints
//! how many of them were rejected because no account was available.
#![expect(clippy::print_stdout, reason = "the parent reads it")]

use std::error::Error;
use std::io::{BufRead, stdin};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use quota_accounts::{AccountsConfig, FallbackAccountManager, Request, RouteError};
use quota_core::{
    AccountId, Credential, FetchError, Percent, Policy, ProviderId, QuotaManager, QuotaStore, UsageFetcher,
    UsageReport, WindowId, WindowReading,
};
use quota_redis::RedisStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// A provider that sends each call to the parent process, and returns its response.
#[derive(Debug)]
struct Parent {
    port: u16,
}

impl Parent {
    async fn call(&self, number: u8) -> std::io::Result<u8> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        stream.write_u8(number).await?;
        stream.read_u8().await
    }
}

#[async_trait]
impl UsageFetcher for Parent {
    fn provider(&self) -> ProviderId {
        ProviderId::from_static("bench")
    }

    async fn fetch(&self, account: &AccountId, _credential: &Credential) -> Result<UsageReport, FetchError> {
        let number = account.name().parse().map_err(|_| FetchError::unavailable("no such account"))?;
        let used =
            self.call(number).await.map_err(|_| FetchError::unavailable("the parent process has exited"))?;
        let used = Percent::from_percent(f64::from(used)).expect("the percentage is finite");
        Ok(UsageReport::polled([WindowReading::new(WindowId::five_hour(), used)]))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, port, requests] = &arguments[..] else {
        return Err("usage: route-member STORE PROVIDER REQUESTS".into());
    };
    let (port, requests): (u16, usize) = (port.parse()?, requests.parse()?);
    let config =
        AccountsConfig::new("bench/0".parse()?).fallback("bench/1".parse()?).fallback("bench/2".parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store: Arc<dyn QuotaStore> = Arc::new(RedisStore::open(url)?);
        let policy = Policy::default().min_call_interval(Duration::ZERO).max_concurrent_calls(3);
        let quota = QuotaManager::builder(store).fetcher(Parent { port }).policy(policy).build()?;
        let accounts = FallbackAccountManager::builder(config).quota_manager(quota).build()?;
        println!("ready");
        stdin().lock().read_line(&mut String::new())?;

        let mut routes = JoinSet::new();
        for _ in 0..requests {
            let accounts = accounts.clone();
            routes.spawn(async move {
                matches!(accounts.route(Request::new()).await, Err(RouteError::NoAccountAvailable { .. }))
            });
        }
        let refused = routes.join_all().await.into_iter().filter(|refused| *refused).count();
        println!("{refused}");
        Ok(())
    })
}
