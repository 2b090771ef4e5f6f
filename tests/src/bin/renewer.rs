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
use bytes::Bytes;
use quota::credentials::TokenStore;
use quota::policy::Backoff;
use quota::provider::{TokenError, TokenRefresher, Tokens};
use quota::store::{CasOutcome, Notice, StoreError, StoreKey, StoreRead, Version};
use quota::{AccountId, CredentialSource, ProviderId, QuotaStore, Secret, anthropic, open_store};

/// A token refresher that stops at a step.
#[derive(Debug)]
struct StopAt<R> {
    inner: R,
    at: String,
}

impl<R> StopAt<R> {
    async fn pass(&self, step: &str) {
        if self.at == step {
            println!("here");
            pending::<()>().await;
        }
    }
}

#[async_trait]
impl<R: TokenRefresher> TokenRefresher for StopAt<R> {
    fn provider(&self) -> ProviderId {
        self.inner.provider()
    }

    async fn refresh(&self, refresh_token: &Secret) -> Result<Tokens, TokenError> {
        self.pass("sent").await;
        let tokens = self.inner.refresh(refresh_token).await;
        self.pass("answered").await;
        // The tokens expire soon after they arrive, so that a renewal is always in flight.
        if self.at == "ever" { Ok(tokens?.expires_in(Duration::from_millis(5))) } else { tokens }
    }
}

/// A store that stops at its second swap. That swap releases the lease after everything is written.
#[derive(Debug)]
struct StoppingStore {
    stop_at: StopAt<Arc<dyn QuotaStore>>,
    swaps: AtomicU32,
}

#[async_trait]
impl QuotaStore for StoppingStore {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        self.stop_at.inner.read(key).await
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        keep: Duration,
    ) -> Result<CasOutcome, StoreError> {
        if self.swaps.fetch_add(1, Ordering::SeqCst) == 1 {
            self.stop_at.pass("written").await;
        }
        self.stop_at.inner.compare_and_swap(key, expected, body, keep).await
    }

    async fn wait_for_change(&self, key: &StoreKey, seen: Option<Version>) -> Result<Notice, StoreError> {
        self.stop_at.inner.wait_for_change(key, seen).await
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
        let stop_at = StopAt { inner: open_store(store)?, at: how.clone() };
        let backoff = Backoff::doubling(Duration::from_millis(10), Duration::from_millis(100));
        let logins = TokenStore::builder(file)
            .refresher(Arc::new(StopAt { inner, at: how.clone() }))
            .store(Arc::new(StoppingStore { stop_at, swaps: AtomicU32::new(0) }))
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
