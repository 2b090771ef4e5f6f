//! One process that renews an owned login: `renewer FILE PROVIDER STORE HOW`. FILE is a path, and PROVIDER and STORE are URLs.
//!
//! It prints `ready` and waits for a line. Then it resolves the credential of `anthropic/main`, prints the token or the error, and
//! exits. HOW is a step at which it prints `here` and stops: `sent` before the token is sent, `answered` after the new token has
//! arrived, `written` after it is written. With `ever` it resolves the credential repeatedly, with tokens that expire at once.
#![expect(clippy::print_stdout, reason = "the parent reads it")]

use std::error::Error;
use std::future::pending;
use std::io::{BufRead, stdin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use quota::credentials::TokenStore;
use quota::policy::Backoff;
use quota::provider::{TokenError, TokenRefresher, Tokens};
use quota::store::StoreError;
use quota::testing::{HookedStore, StoreCall, StoreHooks};
use quota::{AccountId, CredentialSource, ProviderId, Secret, anthropic, open_store};

/// The step at which this process stops.
#[derive(Debug, Clone)]
struct StopAt(String);

impl StopAt {
    async fn pass(&self, step: &str) {
        if self.0 == step {
            println!("here");
            pending::<()>().await;
        }
    }
}

/// Stops before the token is sent, or after the new one has arrived.
#[derive(Debug)]
struct StoppingRefresher<R> {
    inner: R,
    stop_at: StopAt,
}

#[async_trait]
impl<R: TokenRefresher> TokenRefresher for StoppingRefresher<R> {
    fn provider(&self) -> ProviderId {
        self.inner.provider()
    }

    async fn refresh(&self, refresh_token: &Secret) -> Result<Tokens, TokenError> {
        self.stop_at.pass("sent").await;
        let tokens = self.inner.refresh(refresh_token).await;
        self.stop_at.pass("answered").await;
        // The tokens expire soon after they arrive, so that a renewal is always in flight.
        if self.stop_at.0 == "ever" { Ok(tokens?.expires_in(Duration::from_millis(5))) } else { tokens }
    }
}

/// Stops before the second swap, which releases the lease after everything is written.
#[derive(Debug)]
struct StopBeforeRelease {
    stop_at: StopAt,
    swaps: AtomicU32,
}

#[async_trait]
impl StoreHooks for StopBeforeRelease {
    async fn before(&self, call: StoreCall<'_>) -> Result<(), StoreError> {
        if call.is_swap() && self.swaps.fetch_add(1, Ordering::SeqCst) == 1 {
            self.stop_at.pass("written").await;
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, provider, store, how] = &arguments[..] else {
        return Err("usage: renewer FILE PROVIDER STORE HOW".into());
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let inner = anthropic::refresher("sim-client").base_url(provider.parse()?).build()?;
        let stop_at = StopAt(how.clone());
        let hooks = StopBeforeRelease { stop_at: stop_at.clone(), swaps: AtomicU32::new(0) };
        let backoff = Backoff::doubling(Duration::from_millis(10), Duration::from_millis(100));
        let logins = TokenStore::builder(file)
            .refresher(Arc::new(StoppingRefresher { inner, stop_at }))
            .store(Arc::new(HookedStore::new(open_store(store)?, hooks)))
            .backoff(backoff)
            .build();
        let main: AccountId = "anthropic/main".parse()?;
        println!("ready");
        stdin().lock().read_line(&mut String::new())?;
        loop {
            match logins.credential(&main).await {
                Ok(credential) => println!("{}", credential.secret.expose()),
                Err(error) => println!("error: {error}"),
            }
            if how != "ever" {
                break;
            }
        }
        logins.close().await;
        Ok(())
    })
}
