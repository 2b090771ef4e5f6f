//! The store as callers see it: they ask two threads, and wait for an answer.
//! What the threads do is in `reader` and `writer`.

use std::fmt;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use quota_core::{Applied, QuotaStore, Reading, StoreError, StoreKey, Swap, Version};
use tokio::sync::oneshot;

use crate::options::{SqliteOpenError, SqliteOptions};
use crate::reader::{Ask, Reader};
use crate::waiters::Waiter;
use crate::writer::{Order, Writer};

/// A store on one SQLite file.
///
/// It is cheap to clone; all clones share their connections. Nothing is opened before the first call. It needs no runtime: its
/// two threads are started when they are needed, and end when the last clone is gone.
///
/// See the [front page](crate) for URLs, rights, and what happens when things break.
#[derive(Clone)]
pub struct SqliteStore {
    desk: Arc<Desk>,
}

/// Where the threads take what they are asked from.
struct Desk {
    options: Arc<SqliteOptions>,
    reader: OnceLock<Sender<Ask>>,
    writer: OnceLock<Sender<Order>>,
}

impl SqliteOptions {
    /// Opens the store. The file is not touched yet.
    ///
    /// # Errors
    ///
    /// [`SqliteOpenError`] if a setting makes no sense.
    pub fn open(self) -> Result<SqliteStore, SqliteOpenError> {
        self.check()?;
        Ok(SqliteStore::with(self))
    }
}

impl SqliteStore {
    /// Opens the store that a URL names. The file is not touched yet.
    ///
    /// ```
    /// let store = quota_sqlite::SqliteStore::open("sqlite:///home/me/.local/state/quota/quota.db")?;
    /// let error = quota_sqlite::SqliteStore::open("sqlite://quota.db").unwrap_err();
    /// assert_eq!(error.to_string(), "sqlite takes three slashes and an absolute path: sqlite:///home/me/quota.db");
    /// # Ok::<(), quota_sqlite::SqliteOpenError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`SqliteOpenError`] if the URL makes no sense.
    pub fn open(url: &str) -> Result<Self, SqliteOpenError> {
        url.parse::<SqliteOptions>()?.open()
    }

    fn with(options: SqliteOptions) -> Self {
        let desk = Desk { options: Arc::new(options), reader: OnceLock::new(), writer: OnceLock::new() };
        Self { desk: Arc::new(desk) }
    }

    fn now(&self) -> Timestamp {
        self.desk.options.clock.now()
    }
}

impl Desk {
    fn reader(&self) -> &Sender<Ask> {
        self.reader.get_or_init(|| {
            let (sender, asks) = channel();
            let reader = Reader::new(Arc::clone(&self.options));
            start("quota-sqlite-read", move || reader.run(&asks));
            sender
        })
    }

    fn writer(&self) -> &Sender<Order> {
        self.writer.get_or_init(|| {
            let (sender, orders) = channel();
            let writer = Writer::new(Arc::clone(&self.options), self.reader().clone());
            start("quota-sqlite-write", move || writer.run(&orders));
            sender
        })
    }
}

/// Starts a thread. If the system gives none, what it was to own is dropped, and whoever asks is told that nobody is there.
fn start(name: &str, work: impl FnOnce() + Send + 'static) {
    if let Err(error) = thread::Builder::new().name(name.to_owned()).spawn(work) {
        tracing::warn!(%error, "could not start a thread for the store");
    }
}

fn nobody_is_there(applied: Applied) -> StoreError {
    StoreError::unavailable(applied, "the thread that uses the database is gone, or could not be started")
}

#[async_trait]
impl QuotaStore for SqliteStore {
    async fn read(&self, key: &StoreKey) -> Result<Reading, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.desk
            .reader()
            .send(Ask::Read { key: key.clone(), now: self.now(), answer })
            .map_err(|_| nobody_is_there(Applied::No))?;
        let found = answered.await.map_err(|_| nobody_is_there(Applied::No))??;
        Ok(Reading::new(found, self.now()))
    }

    async fn swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        keep: Duration,
    ) -> Result<Swap, StoreError> {
        let (answer, answered) = oneshot::channel();
        let order = Order { key: key.clone(), expected, body, keep, now: self.now(), answer };
        self.desk.writer().send(order).map_err(|_| nobody_is_there(Applied::No))?;
        Ok(match answered.await.map_err(|_| nobody_is_there(Applied::Perhaps))?? {
            // What it waited for a lock must not be missing from the time that the loser is told.
            Swap::Conflict(winner) => Swap::Conflict(Reading::new(winner.document, self.now())),
            swap => swap,
        })
    }

    async fn changed(&self, key: &StoreKey, seen: Option<Version>) -> Result<(), StoreError> {
        let (answer, answered) = oneshot::channel();
        let watch = Ask::Watch { key: key.clone(), now: self.now(), waiter: Waiter { seen, answer } };
        self.desk.reader().send(watch).map_err(|_| nobody_is_there(Applied::No))?;
        answered.await.map_err(|_| nobody_is_there(Applied::No))?
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.desk.options.path).finish_non_exhaustive()
    }
}
