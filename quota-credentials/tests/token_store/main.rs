//! Tests of the token store with a paused clock and a fake provider. `policy` tests the rules alone; `tests/stories` uses real
//! processes and the simulator.

// This lets clippy accept `unwrap` in helpers, as in tests.
#![cfg(test)]

mod failures;
mod log_in;
mod many_processes;
mod one_process;
mod provider;

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use provider::Provider;
use quota_core::{AccountId, Clock};
use quota_core::{CredentialError, CredentialSource, Secret};
use quota_credentials::{NewLogin, TokenStore, TokenStoreBuilder};
use tempfile::TempDir;

const HOUR: Duration = Duration::from_secs(3600);

fn id(name: &str) -> AccountId {
    format!("example/{name}").parse().unwrap()
}

fn noon() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

struct Env {
    dir: TempDir,
    clock: Clock,
    provider: Arc<Provider>,
}

impl Env {
    fn new() -> Self {
        let clock = Clock::virtual_at(noon());
        let provider = Arc::new(Provider::new(clock.clone()));
        Self { dir: tempfile::tempdir().unwrap(), clock, provider }
    }

    /// The settings of another process that uses the file with this name.
    fn process_on(&self, file: &str) -> TokenStoreBuilder {
        TokenStore::builder(self.dir.path().join(file))
            .clock(self.clock.clone())
            .refresher(self.provider.clone())
            .login_hint("example login")
    }

    fn process(&self) -> TokenStore {
        self.process_on("logins.json").build()
    }

    /// Logs in with an access token that expires in `expires_in` seconds.
    async fn log_in(&self, logins: &TokenStore, name: &str, expires_in: i64) {
        let (access, refresh) = self.provider.log_in(name);
        let expiry = self.clock.now() + SignedDuration::from_secs(expires_in);
        let login = NewLogin::new(Secret::new(access)).refresh_token(Secret::new(refresh)).expires_at(expiry);
        let _ = logins.put(&id(name), login).await.unwrap();
    }
}

async fn token(logins: &TokenStore, name: &str) -> Result<String, CredentialError> {
    logins.credential(&id(name)).await.map(|credential| credential.secret.expose().to_owned())
}
