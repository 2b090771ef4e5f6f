//! Logins of this program's own: given, renewed and lost, under a clock that stands still until it is moved.
//! The rules alone have their tests beside them; real processes and a real provider are in `tests/stories`.

// Clippy lets tests unwrap, and their helpers too if it is told that all of this is a test.
#![cfg(test)]

mod alone;
mod provider;
mod shared;
mod trouble;

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

struct World {
    dir: TempDir,
    clock: Clock,
    provider: Arc<Provider>,
}

impl World {
    fn new() -> Self {
        let clock = Clock::anchored(noon());
        let provider = Arc::new(Provider::new(clock.clone()));
        Self { dir: tempfile::tempdir().unwrap(), clock, provider }
    }

    /// What a process of its own would have, on the file of this name.
    fn process_on(&self, file: &str) -> TokenStoreBuilder {
        TokenStore::builder(self.dir.path().join(file))
            .clock(self.clock.clone())
            .refresher(self.provider.clone())
            .login_hint("example login")
    }

    fn process(&self) -> TokenStore {
        self.process_on("logins.json").build()
    }

    /// Logs in, with an access token that ends in so many seconds.
    async fn log_in(&self, logins: &TokenStore, name: &str, ends_in: i64) {
        let (access, refresh) = self.provider.log_in(name);
        let ends = self.clock.now() + SignedDuration::from_secs(ends_in);
        let login = NewLogin::new(Secret::new(access)).refresh_token(Secret::new(refresh)).expires_at(ends);
        let _ = logins.put(&id(name), login).await.unwrap();
    }
}

async fn token(logins: &TokenStore, name: &str) -> Result<String, CredentialError> {
    logins.credential(&id(name)).await.map(|credential| credential.secret.expose().to_owned())
}
