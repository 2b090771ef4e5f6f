//! The store: it sends requests to two threads and awaits their replies.
//! `reader` and `writer` are the threads.

use std::fmt;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use quota_core::QuotaStore;
use quota_core::store::{
    CasOutcome, DocumentEntry, Notice, StoreError, StoreKey, StoreRead, Version, WriteState,
};
use tokio::sync::oneshot;

use crate::options::{SqliteOpenError, SqliteOptions};
use crate::reader::{ReadRequest, Reader};
use crate::waiters::Waiter;
use crate::writer::{WriteRequest, Writer, WriterRequest};

/// A store on one SQLite file.
///
/// Clones are cheap and share their connections. The store opens nothing before the first call, and it needs no runtime. Its two threads
/// start when they are needed, and end when the last clone is dropped.
///
/// See the [front page](crate) for URLs, permissions and behavior on faults.
#[derive(Clone)]
pub struct SqliteStore {
    workers: Arc<Workers>,
}

/// The channels to the two threads. Each thread starts with its first request.
struct Workers {
    options: Arc<SqliteOptions>,
    reader: OnceLock<Sender<ReadRequest>>,
    writer: OnceLock<Sender<WriterRequest>>,
}

impl SqliteOptions {
    /// Opens the store, without touching the file.
    ///
    /// # Errors
    ///
    /// [`SqliteOpenError`] if a setting is not valid.
    pub fn open(self) -> Result<SqliteStore, SqliteOpenError> {
        self.check()?;
        Ok(SqliteStore::with(self))
    }
}

impl SqliteStore {
    /// Creates the store that a URL names. The first call opens the file.
    ///
    /// ```
    /// let store = quota_sqlite::SqliteStore::open("sqlite:///home/me/.local/state/quota/quota.db")?;
    /// let error = quota_sqlite::SqliteStore::open("sqlite://quota.db").unwrap_err();
    /// assert_eq!(error.to_string(), "a sqlite URL needs three slashes and an absolute path: sqlite:///home/me/quota.db");
    /// # Ok::<(), quota_sqlite::SqliteOpenError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`SqliteOpenError`] if the URL is not valid.
    pub fn open(url: &str) -> Result<Self, SqliteOpenError> {
        url.parse::<SqliteOptions>()?.open()
    }

    /// The documents in the file.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`]. A missing file has no documents.
    pub async fn documents(&self) -> Result<Vec<DocumentEntry>, StoreError> {
        let (reply, response) = oneshot::channel();
        let request = ReadRequest::List { now: self.now(), reply };
        self.workers.reader().send(request).map_err(|_| worker_gone(WriteState::NotApplied))?;
        response.await.map_err(|_| worker_gone(WriteState::NotApplied))?
    }

    /// Removes the file, with its log, if its document `key` has this version. Other stores that have it open use the file that is at
    /// the path from then on.
    ///
    /// A version is never reused. So a newer file at the same path is kept, even if this process was suspended for a
    /// long time. Later writes of other documents are removed with the file.
    ///
    /// This waits for up to half a second for processes that open the file. If the future is dropped, the file may or may not be removed.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the document has another version, if other processes constantly open the file, or if the
    /// system rejects the removal. A missing file is not an error.
    pub async fn remove_file(&self, key: &StoreKey, version: Version) -> Result<(), StoreError> {
        let (reply, response) = oneshot::channel();
        let request = WriterRequest::Remove(key.clone(), version, reply);
        self.workers.writer().send(request).map_err(|_| worker_gone(WriteState::NotApplied))?;
        response.await.map_err(|_| worker_gone(WriteState::Unknown))?
    }

    fn with(options: SqliteOptions) -> Self {
        let workers =
            Workers { options: Arc::new(options), reader: OnceLock::new(), writer: OnceLock::new() };
        Self { workers: Arc::new(workers) }
    }

    fn now(&self) -> Timestamp {
        self.workers.options.clock.now()
    }
}

impl Workers {
    fn reader(&self) -> &Sender<ReadRequest> {
        self.reader.get_or_init(|| {
            let (sender, requests) = channel();
            let reader = Reader::new(Arc::clone(&self.options));
            spawn_thread("quota-sqlite-read", move || reader.run(&requests));
            sender
        })
    }

    fn writer(&self) -> &Sender<WriterRequest> {
        self.writer.get_or_init(|| {
            let (sender, requests) = channel();
            let writer = Writer::new(Arc::clone(&self.options), self.reader().clone());
            spawn_thread("quota-sqlite-write", move || writer.run(&requests));
            sender
        })
    }
}

/// Starts a thread. If that fails, the receiver is dropped, and later calls report that the thread has ended.
fn spawn_thread(name: &str, work: impl FnOnce() + Send + 'static) {
    if let Err(error) = thread::Builder::new().name(name.to_owned()).spawn(work) {
        tracing::warn!(%error, "could not start a thread for the store");
    }
}

fn worker_gone(applied: WriteState) -> StoreError {
    StoreError::unavailable(applied, "the database thread has ended or could not be started")
}

#[async_trait]
impl QuotaStore for SqliteStore {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        let (reply, response) = oneshot::channel();
        self.workers
            .reader()
            .send(ReadRequest::Read { key: key.clone(), now: self.now(), reply })
            .map_err(|_| worker_gone(WriteState::NotApplied))?;
        let found = response.await.map_err(|_| worker_gone(WriteState::NotApplied))??;
        Ok(StoreRead::new(found, self.now()))
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        ttl: Duration,
    ) -> Result<CasOutcome, StoreError> {
        let (reply, response) = oneshot::channel();
        let request = WriteRequest { key: key.clone(), expected, body, ttl, now: self.now(), reply };
        let request = WriterRequest::Swap(request);
        self.workers.writer().send(request).map_err(|_| worker_gone(WriteState::NotApplied))?;
        Ok(match response.await.map_err(|_| worker_gone(WriteState::Unknown))?? {
            // Report the time after the wait for the lock, not before it.
            CasOutcome::Conflict(winner) => CasOutcome::Conflict(StoreRead::new(winner.document, self.now())),
            swap => swap,
        })
    }

    async fn wait_for_change(&self, key: &StoreKey, seen: Option<Version>) -> Result<Notice, StoreError> {
        let (reply, response) = oneshot::channel();
        let watch =
            ReadRequest::WaitForChange { key: key.clone(), now: self.now(), waiter: Waiter { seen, reply } };
        self.workers.reader().send(watch).map_err(|_| worker_gone(WriteState::NotApplied))?;
        response.await.map_err(|_| worker_gone(WriteState::NotApplied))?
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.workers.options.path).finish_non_exhaustive()
    }
}
