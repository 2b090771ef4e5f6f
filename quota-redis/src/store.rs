//! `RedisStore`, the implementation of `QuotaStore`.
//! `client` runs the commands; `subscriptions` wakes the waiters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use quota_core::QuotaStore;
use quota_core::store::{CasOutcome, Notice, StoreError, StoreKey, StoreRead, Version, WriteState};

use crate::client::Client;
use crate::connector::Connector;
use crate::error::Error;
use crate::options::{RedisOpenError, RedisOptions, Servers};
use crate::script::{Command, Reply};
use crate::wait::wait;

/// A store on Redis or Valkey.
///
/// Clones are cheap and share their connections. The first call connects, and the first call after a lost connection
/// reconnects. The store needs a tokio runtime with I/O and time enabled.
///
/// See the [front page](crate) for URLs, permissions and behavior during an outage.
#[derive(Debug, Clone)]
pub struct RedisStore {
    client: Arc<Client>,
}

impl RedisOptions {
    /// Creates the store. The first call connects.
    ///
    /// # Errors
    ///
    /// [`RedisOpenError`] if a setting is not valid, or a certificate cannot be used.
    pub fn open(self) -> Result<RedisStore, RedisOpenError> {
        self.check()?;
        RedisStore::with(self)
    }
}

impl RedisStore {
    /// Creates the store that a URL names. The first call connects.
    ///
    /// ```
    /// let store = quota_redis::RedisStore::open("redis://127.0.0.1:6379/0?prefix=team-a")?;
    /// let error = quota_redis::RedisStore::open("redis://127.0.0.1?perfix=team-a").unwrap_err();
    /// assert!(error.to_string().starts_with("unknown query key in a redis: URL"));
    /// # Ok::<(), quota_redis::RedisOpenError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`RedisOpenError`], which never repeats the URL, because it may contain a password.
    pub fn open(url: &str) -> Result<Self, RedisOpenError> {
        url.parse::<RedisOptions>()?.open()
    }

    fn with(options: RedisOptions) -> Result<Self, RedisOpenError> {
        let RedisOptions { servers, settings, tls } = options;
        let sharded = matches!(servers, Servers::Cluster(_));
        #[cfg(feature = "tls")]
        let connector = Connector::new(settings, sharded, tls.as_ref().map(crate::tls::config).transpose()?);
        #[cfg(not(feature = "tls"))]
        let connector = match tls {
            None => Connector::new(settings, sharded),
            Some(_) => return Err(RedisOpenError::setting("TLS needs the feature tls of quota-redis")),
        };
        Ok(Self { client: Arc::new(Client::new(connector, &servers)) })
    }

    async fn execute(&self, key: &StoreKey, command: &Command) -> Result<Reply, StoreError> {
        let sent = AtomicBool::new(false);
        self.client.execute(&self.client.key(key), command, &sent).await.map_err(|error| {
            let may_be_applied = command.version().is_some() && sent.load(Ordering::Relaxed);
            error.into_store_error(if may_be_applied { WriteState::Unknown } else { WriteState::NotApplied })
        })
    }
}

#[async_trait]
impl QuotaStore for RedisStore {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        match self.execute(key, &Command::Read).await? {
            Reply::Current(reading) => Ok(reading),
            Reply::Version(_) | Reply::Applied { .. } => {
                Err(Error::Lost.into_store_error(WriteState::NotApplied))
            }
        }
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        ttl: Duration,
    ) -> Result<CasOutcome, StoreError> {
        let command = Command::swap(expected, &body, ttl);
        match (self.execute(key, &command).await?, command.version()) {
            (Reply::Applied { .. }, Some(version)) => Ok(CasOutcome::Applied(version)),
            (Reply::Current(reading), _) => Ok(CasOutcome::Conflict(reading)),
            _ => Err(Error::Lost.into_store_error(WriteState::Unknown)),
        }
    }

    async fn wait_for_change(&self, key: &StoreKey, seen: Option<Version>) -> Result<Notice, StoreError> {
        let key = self.client.key(key);
        wait(&self.client, &key, seen).await.map_err(|error| error.into_store_error(WriteState::NotApplied))
    }
}
