//! The store: what is asked, how often, and what becomes of it.
//! Where it is asked is in `servers`, over what in `wire`, and what wakes those who wait in `board`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use quota_core::{Applied, QuotaStore, Reading, StoreError, StoreKey, Swap, Version};

use crate::dial::Dialer;
use crate::failure::Failure;
use crate::keeper::keep;
use crate::key::Key;
use crate::node::Node;
use crate::options::{RedisOpenError, RedisOptions, Settings};
use crate::script::{Order, Outcome, Scripts};
use crate::servers::Routes;
use crate::task::Task;
use crate::wire::Wire;

/// A store on Redis or Valkey.
///
/// It is cheap to clone; all clones share their connections. Nothing is connected to before the first call, and what was
/// lost is connected to again by the next one. It needs tokio, with I/O and time enabled.
///
/// See the [front page](crate) for URLs, rights, and what happens when Redis is away.
#[derive(Clone)]
pub struct RedisStore {
    inner: Arc<Inner>,
}

/// What all clones and keepers share.
pub(crate) struct Inner {
    dialer: Arc<Dialer>,
    routes: Routes,
    scripts: Scripts,
}

/// So many nodes may send us on to another one.
const MOST_REDIRECTIONS: u32 = 5;

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

    pub(crate) fn with(options: RedisOptions) -> Result<Self, RedisOpenError> {
        let RedisOptions { servers, settings, tls } = options;
        let sharded = matches!(servers, crate::options::Servers::Cluster(_));
        #[cfg(feature = "tls")]
        let dialer = Dialer::new(settings, sharded, tls.as_ref().map(crate::tls::config).transpose()?);
        #[cfg(not(feature = "tls"))]
        let dialer = match tls {
            None => Dialer::new(settings, sharded),
            Some(_) => return Err(RedisOpenError::setting("TLS needs the feature tls of quota-redis")),
        };
        let dialer = Arc::new(dialer);
        let routes = Routes::new(&dialer, &servers);
        Ok(Self { inner: Arc::new(Inner { dialer, routes, scripts: Scripts::new() }) })
    }
}

impl Inner {
    pub(crate) fn settings(&self) -> &Settings {
        self.dialer.settings()
    }

    fn key(&self, name: &StoreKey) -> Key {
        Key::new(&self.settings().prefix, self.settings().database, name)
    }

    /// Carries out an order, and tells truly whether a write may have been carried out if it cannot say what came of it.
    async fn perform(&self, key: &Key, order: &Order) -> Result<Outcome, StoreError> {
        let sent = AtomicBool::new(false);
        let settings = self.settings();
        let limit = settings.connect_timeout + settings.response_timeout;
        let answer = settings.clock.bounded(limit, self.pursue(key, order, &sent)).await;
        answer.unwrap_or(Err(Failure::Late)).map_err(|failure| {
            let is_open = order.version().is_some() && sent.load(Ordering::Relaxed);
            failure.into_error(if is_open { Applied::Perhaps } else { Applied::No })
        })
    }

    /// Carries out an order that writes nothing, for a keeper.
    pub(crate) async fn insist(&self, key: &Key, order: &Order) -> Result<Outcome, Failure> {
        self.pursue(key, order, &AtomicBool::new(false)).await
    }

    /// Follows the key to where it is, and tries once more if a connection was lost: a read may be repeated, and so may a
    /// swap, whose version tells that it has been carried out already.
    async fn pursue(&self, key: &Key, order: &Order, sent: &AtomicBool) -> Result<Outcome, Failure> {
        let mut redirections = 0;
        let mut may_try_again = true;
        loop {
            let home = self.routes.home(key).await?;
            let failure = match self.attempt(&home, key, order, sent).await {
                Ok(outcome) => return Ok(outcome),
                Err(failure) => failure,
            };
            if failure.is_ambiguous() {
                sent.store(true, Ordering::Relaxed);
            }
            match &failure {
                Failure::Moved(_) if redirections < MOST_REDIRECTIONS => {
                    redirections += 1;
                    continue;
                }
                Failure::Lost | Failure::Unsent | Failure::ReadOnly => self.routes.doubt(key, &home).await,
                // The node may be gone for good, and another one have taken its slots.
                Failure::Away { .. } | Failure::NotNow(_) if self.routes.is_cluster() => {
                    self.routes.doubt(key, &home).await;
                    let is_elsewhere = !Arc::ptr_eq(&home, &self.routes.home(key).await?);
                    may_try_again &= is_elsewhere;
                }
                _ => return Err(failure),
            }
            if !std::mem::take(&mut may_try_again) {
                return Err(failure);
            }
        }
    }

    async fn attempt(
        &self,
        home: &Arc<Node>,
        key: &Key,
        order: &Order,
        sent: &AtomicBool,
    ) -> Result<Outcome, Failure> {
        let wire = home.wire().await?;
        let trip = wire.board().trip(&key.channel, order.version());
        let outcome = wire.carry_out(&self.scripts, order, key, false, sent).await;
        let (outcome, was_here) = match outcome {
            Err(Failure::Ask(name)) => (self.ask_elsewhere(&wire, &name, key, order, sent).await, false),
            outcome => (outcome, true),
        };
        match &outcome {
            Ok(Outcome::Stands(reading)) => trip.stands(reading.version()),
            Ok(Outcome::Version(version)) => trip.stands(*version),
            Ok(Outcome::Applied { told }) => {
                if let Some(version) = order.version() {
                    trip.wrote(version, *told && was_here);
                }
            }
            Err(failure) => {
                drop(trip);
                self.learn(failure, home, &wire, key);
            }
        }
        outcome
    }

    /// Asks a node that is taking over the slot, this once.
    async fn ask_elsewhere(
        &self,
        wire: &Wire,
        name: &str,
        key: &Key,
        order: &Order,
        sent: &AtomicBool,
    ) -> Result<Outcome, Failure> {
        let node = self.routes.named(wire.address(), name).ok_or(Failure::Lost)?;
        let there = node.wire().await?;
        let outcome = there.carry_out(&self.scripts, order, key, true, sent).await;
        if let Err(failure) = &outcome
            && failure.ends_connection()
        {
            node.lose(&there);
        }
        outcome
    }

    /// What a failure says about the servers.
    fn learn(&self, failure: &Failure, home: &Node, wire: &Arc<Wire>, key: &Key) {
        match failure {
            failure if failure.ends_connection() => home.lose(wire),
            Failure::Moved(name) => {
                if let Some(node) = self.routes.named(wire.address(), name) {
                    self.routes.moved(key, node);
                }
            }
            _ => {}
        }
    }

    async fn wait(self: &Arc<Self>, key: &Key, seen: Option<Version>) -> Result<(), Failure> {
        let mut redirections = 0;
        loop {
            let home = self.routes.home(key).await?;
            let wire = home.wire().await?;
            let visit = wire.board().visit(&key.channel, |start| {
                let (store, wire) = (Arc::downgrade(self), Arc::downgrade(&wire));
                Task::spawn(keep(store, wire, key.clone(), start))
            })?;
            // The connection is over: something may have been missed.
            let Some(visit) = visit else { return Ok(()) };
            match visit.news(seen).await {
                Err(failure) => {
                    drop(visit);
                    self.learn(&failure, &home, &wire, key);
                    if !matches!(failure, Failure::Moved(_)) || redirections == MOST_REDIRECTIONS {
                        return Err(failure);
                    }
                    redirections += 1;
                }
                Ok(()) => return Ok(()),
            }
        }
    }
}

#[async_trait]
impl QuotaStore for RedisStore {
    async fn read(&self, key: &StoreKey) -> Result<Reading, StoreError> {
        match self.inner.perform(&self.inner.key(key), &Order::Read).await? {
            Outcome::Stands(reading) => Ok(reading),
            _ => Err(Failure::Lost.into_error(Applied::No)),
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
        match (self.inner.perform(&self.inner.key(key), &order).await?, order.version()) {
            (Outcome::Applied { .. }, Some(version)) => Ok(Swap::Applied(version)),
            (Outcome::Stands(reading), _) => Ok(Swap::Conflict(reading)),
            _ => Err(Failure::Lost.into_error(Applied::Perhaps)),
        }
    }

    async fn changed(&self, key: &StoreKey, seen: Option<Version>) -> Result<(), StoreError> {
        self.inner.wait(&self.inner.key(key), seen).await.map_err(|failure| failure.into_error(Applied::No))
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("routes", &self.inner.routes).finish_non_exhaustive()
    }
}
