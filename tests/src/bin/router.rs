//! One process that routes requests over `anthropic/main`, `b` and `c`: `router STORE PROVIDER REQUESTS SHARE`. STORE and PROVIDER
//! are URLs. SHARE is the estimate of each request in percent of the five-hour window, or 0 for no estimate.
//!
//! It prints `ready` and waits for a line. Then it routes that many requests at once, without reporting an outcome. It prints how
//! many were rejected because no account was available, and how many each account got, and exits.
#![expect(clippy::print_stdout, reason = "the parent reads it")]

use std::error::Error;
use std::io::{BufRead, stdin};
use std::sync::Arc;
use std::time::Duration;

use quota::Secret;
use quota::accounts::{AccountsConfig, FallbackAccountManager, Request, RouteError, RoutingPolicy};
use quota::anthropic;
use quota::credentials::{CredentialMap, StaticCredential};
use quota::http::Fetcher;
use quota::{AccountId, Percent, Policy, QuotaManager, WindowId, open_store};
use tokio::task::JoinSet;

const NAMES: [&str; 3] = ["main", "b", "c"];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, provider, requests, share] = &arguments[..] else {
        return Err("usage: router STORE PROVIDER REQUESTS SHARE".into());
    };
    let requests: usize = requests.parse()?;
    let share = Percent::from_percent(share.parse()?).filter(|share| *share != Percent::ZERO);
    let request =
        share.map_or_else(Request::new, |share| Request::new().with_estimate(WindowId::five_hour(), share));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let accounts = accounts(store, provider)?;
        println!("ready");
        stdin().lock().read_line(&mut String::new())?;

        let mut routes = JoinSet::new();
        for _ in 0..requests {
            let (accounts, request) = (accounts.clone(), request.clone());
            routes.spawn(async move { accounts.route(request).await });
        }
        let routes = routes.join_all().await;
        let refused =
            routes.iter().filter(|route| matches!(route, Err(RouteError::NoAccountAvailable { .. }))).count();
        let given = NAMES.map(|name| {
            let given = routes
                .iter()
                .filter(|route| route.as_ref().is_ok_and(|route| route.account().name() == name));
            given.count()
        });
        println!("{refused} {} {} {}", given[0], given[1], given[2]);
        Ok(())
    })
}

fn accounts(store: &str, provider: &str) -> Result<FallbackAccountManager, Box<dyn Error>> {
    let ids: Vec<AccountId> =
        NAMES.iter().map(|name| format!("anthropic/{name}").parse()).collect::<Result<_, _>>()?;
    let login = |name| Arc::new(StaticCredential::new(Secret::new(format!("sim-token-{name}"))));
    let named = ids.iter().zip(NAMES);
    let logins = named.fold(CredentialMap::new(), |all, (id, name)| all.with(id.clone(), login(name)));
    let fetcher = Fetcher::builder(&anthropic::PROVIDER).base_url(provider.parse()?).build()?;
    let policy = Policy::default().min_call_interval(Duration::ZERO).max_concurrent_calls(3);
    let store = open_store(store)?;
    let quota = QuotaManager::builder(Arc::clone(&store)).provider(fetcher, logins).policy(policy).build()?;
    let config =
        ids[1..].iter().fold(AccountsConfig::new(ids[0].clone()), |all, id| all.fallback(id.clone()));
    let accounts = FallbackAccountManager::builder(config).quota_manager(quota);
    // The timeout is long enough for a busy machine, because the test counts admitted requests.
    let policy = RoutingPolicy::default().reservation_timeout(Duration::from_secs(60));
    Ok(accounts.reservations(store).policy(policy).build()?)
}
