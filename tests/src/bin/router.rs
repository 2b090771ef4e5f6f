//! One process that routes requests over `anthropic/main`, `b` and `c`: `router STORE PROVIDER REQUESTS`, the first two URLs.
//!
//! It says `ready`, waits for a line, and then routes that many requests at once. It answers with how many of them were told that
//! nobody has room, and ends.
#![expect(clippy::print_stdout, reason = "the parent reads it")]

use std::error::Error;
use std::io::{BufRead, stdin};
use std::sync::Arc;
use std::time::Duration;

use quota::accounts::{
    AccountsConfig, CredentialSource, FallbackAccountManager, Fixed, PerAccount, Request, RouteError, Secret,
};
use quota::anthropic::Anthropic;
use quota::{AccountId, Policy, QuotaManager, open_store};
use tokio::task::JoinSet;

const NAMES: [&str; 3] = ["main", "b", "c"];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, provider, requests] = &arguments[..] else {
        return Err("usage: router STORE PROVIDER REQUESTS".into());
    };
    let requests: usize = requests.parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let accounts = accounts(store, provider)?;
        println!("ready");
        stdin().lock().read_line(&mut String::new())?;

        let mut routes = JoinSet::new();
        for _ in 0..requests {
            let accounts = accounts.clone();
            routes.spawn(async move {
                matches!(accounts.route(Request::new()).await, Err(RouteError::Nobody { .. }))
            });
        }
        let refused = routes.join_all().await.into_iter().filter(|refused| *refused).count();
        println!("{refused}");
        Ok(())
    })
}

fn accounts(store: &str, provider: &str) -> Result<FallbackAccountManager, Box<dyn Error>> {
    let ids: Vec<AccountId> =
        NAMES.iter().map(|name| format!("anthropic/{name}").parse()).collect::<Result<_, _>>()?;
    let login = |name| Arc::new(Fixed::new(Secret::new(format!("sim-token-{name}"))));
    let named = ids.iter().zip(NAMES);
    let logins = named.fold(PerAccount::new(), |all, (id, name)| all.with(id.clone(), login(name)));
    let logins: Arc<dyn CredentialSource> = Arc::new(logins);
    let fetcher = Anthropic::builder(Arc::clone(&logins)).base_url(provider.parse()?).build()?;
    let policy = Policy::default().gap(Duration::ZERO).parallel(3);
    let quota = QuotaManager::builder_on(open_store(store)?).fetcher(fetcher).policy(policy).build()?;
    let config =
        ids[1..].iter().fold(AccountsConfig::new(ids[0].clone()), |all, id| all.fallback(id.clone()));
    Ok(FallbackAccountManager::builder(config).quota_manager(quota).credentials(logins).build()?)
}
