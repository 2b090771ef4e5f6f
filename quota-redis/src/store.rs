//! The store as callers see it.
//! What becomes of a call is in `calls`, and what wakes those who wait in `board`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use quota_core::{Applied, QuotaStore, Reading, StoreError, StoreKey, Swap, Version};

use crate::calls::Calls;
use crate::dial::Dialer;
use crate::failure::Failure;
use crate::options::{RedisOpenError, RedisOptions, Servers};
use crate::script::{Order, Outcome};
use crate::wait::wait;

/// A store on Redis or Valkey.
///
/// It is cheap to clone; all clones share their connections. Nothing is connected to before the first call, and what was
/// lost is connected to again by the next one. It needs tokio, with I/O and time enabled.
///
/// See the [front page](crate) for URLs, rights, and what happens when Redis is away.
#[derive(Debug, Clone)]
pub struct RedisStore {
    calls: Arc<Calls>,
}

impl RedisOptions {
    /// Opens the store. Nothing is connected to yet.
    ///
    /// # Errors
    ///
    /// [`RedisOpenError`] if a setting makes no sense, or a certificate cannot be used.
    pub fn open(self) -> Result<RedisStore, RedisOpenError> {
        self.check()?;
        RedisStore::with(self)
    }
}

impl RedisStore {
    /// Opens the store that a URL names. Nothing is connected to yet.
    ///
    /// ```
    /// let store = quota_redis::RedisStore::open("redis://127.0.0.1:6379/0?prefix=team-a")?;
    /// let error = quota_redis::RedisStore::open("redis://127.0.0.1?perfix=team-a").unwrap_err();
    /// assert_eq!(error.to_string(), "redis: knows prefix, connect_ms, response_ms behind the ?, and nothing else");
    /// # Ok::<(), quota_redis::RedisOpenError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`RedisOpenError`], which never repeats the URL: it may hold a password.
    pub fn open(url: &str) -> Result<Self, RedisOpenError> {
        url.parse::<RedisOptions>()?.open()
    }

    fn with(options: RedisOptions) -> Result<Self, RedisOpenError> {
        let RedisOptions { servers, settings, tls } = options;
        let sharded = matches!(servers, Servers::Cluster(_));
        #[cfg(feature = "tls")]
        let dialer = Dialer::new(settings, sharded, tls.as_ref().map(crate::tls::config).transpose()?);
        #[cfg(not(feature = "tls"))]
        let dialer = match tls {
            None => Dialer::new(settings, sharded),
            Some(_) => return Err(RedisOpenError::setting("TLS needs the feature tls of quota-redis")),
        };
        Ok(Self { calls: Arc::new(Calls::new(dialer, &servers)) })
    }

    async fn perform(&self, key: &StoreKey, order: &Order) -> Result<Outcome, StoreError> {
        let sent = AtomicBool::new(false);
        self.calls.carry_out(&self.calls.key(key), order, &sent).await.map_err(|failure| {
            let is_open = order.version().is_some() && sent.load(Ordering::Relaxed);
            failure.into_error(if is_open { Applied::Perhaps } else { Applied::No })
        })
    }
}

#[async_trait]
impl QuotaStore for RedisStore {
    async fn read(&self, key: &StoreKey) -> Result<Reading, StoreError> {
        match self.perform(key, &Order::Read).await? {
            Outcome::Stands(reading) => Ok(reading),
            Outcome::Version(_) | Outcome::Applied { .. } => Err(Failure::Lost.into_error(Applied::No)),
        }
    }

    async fn swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        keep: Duration,
    ) -> Result<Swap, StoreError> {
        let order = Order::swap(expected, &body, keep);
        match (self.perform(key, &order).await?, order.version()) {
            (Outcome::Applied { .. }, Some(version)) => Ok(Swap::Applied(version)),
            (Outcome::Stands(reading), _) => Ok(Swap::Conflict(reading)),
            _ => Err(Failure::Lost.into_error(Applied::Perhaps)),
        }
    }

    async fn changed(&self, key: &StoreKey, seen: Option<Version>) -> Result<(), StoreError> {
        let key = self.calls.key(key);
        wait(&self.calls, &key, seen).await.map_err(|failure| failure.into_error(Applied::No))
    }
}
