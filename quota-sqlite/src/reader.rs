//! The thread that reads, and that polls for writes of other processes while a caller waits for one. It never writes and never waits for
//! a writer.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use jiff::Timestamp;
use quota_core::store::{Document, DocumentEntry, StoreError, StoreKey, Version, WriteState};
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::file::{Access, File};
use crate::options::SqliteOptions;
use crate::sql;
use crate::waiters::{Waiter, Waiters};

/// A request to the thread. It carries the caller's time, because a paused test clock is paused only in the caller's thread.
#[derive(Debug)]
pub(crate) enum ReadRequest {
    Read {
        key: StoreKey,
        now: Timestamp,
        reply: oneshot::Sender<Result<Option<Document>, StoreError>>,
    },
    List {
        now: Timestamp,
        reply: oneshot::Sender<Result<Vec<DocumentEntry>, StoreError>>,
    },
    WaitForChange {
        key: StoreKey,
        now: Timestamp,
        waiter: Waiter,
    },
    /// This process has written, so its waiters need not wait for the next poll.
    Written {
        key: StoreKey,
        version: Version,
    },
}

/// At most this many requests share one read transaction, so that no transaction lasts long.
const MAX_BATCH: usize = 256;

/// The thread's state.
#[derive(Debug)]
pub(crate) struct Reader {
    options: Arc<SqliteOptions>,
    file: File,
    waiters: Waiters,
    /// The `data_version` of the last poll; `None` if the file is missing or was replaced.
    last_data_version: Option<i64>,
    poll_delay: Duration,
}

impl Reader {
    pub(crate) fn new(options: Arc<SqliteOptions>) -> Self {
        let (file, poll_delay) = (File::new(Arc::clone(&options), Access::Reads), options.min_poll_interval);
        Self { options, file, waiters: Waiters::default(), last_data_version: None, poll_delay }
    }

    /// Runs until the last store handle is dropped.
    pub(crate) fn run(mut self, requests: &Receiver<ReadRequest>) {
        loop {
            let request = if self.waiters.is_empty() {
                requests.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                requests.recv_timeout(self.poll_delay)
            };
            match request {
                Ok(first) => self.process_batch(first, requests),
                Err(RecvTimeoutError::Timeout) => {
                    // Do not do this at each read, because with many waiters it costs more than the read.
                    self.waiters.remove_closed();
                    // Poll less often while nothing changes.
                    self.poll_delay = (self.poll_delay * 2).min(self.options.max_poll_interval);
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // Poll after requests too, because a flood of requests must not stop the polls.
            if !self.waiters.is_empty() {
                self.poll();
            }
        }
    }

    /// Processes all queued requests in one read transaction: finding and locking the file takes longer than reading it.
    fn process_batch(&mut self, first: ReadRequest, requests: &Receiver<ReadRequest>) {
        // Collect the requests before the transaction starts: a request after a write must not read an older snapshot.
        let others: Vec<_> = requests.try_iter().take(MAX_BATCH).collect();
        if !others.is_empty() {
            // If the transaction cannot start, each request reads on its own and reports the error.
            let _ = self.with_file((), sql::begin);
        }
        [first].into_iter().chain(others).for_each(|request| self.process(request));
        self.file.end_transaction();
    }

    fn process(&mut self, request: ReadRequest) {
        match request {
            ReadRequest::Read { key, now, reply } if !reply.is_closed() => {
                let found =
                    self.with_file(None, |connection| sql::read(connection, &key, now.as_millisecond()));
                let _ = reply.send(found);
            }
            ReadRequest::Read { .. } => {}
            ReadRequest::List { now, reply } => {
                let found =
                    self.with_file(Vec::new(), |connection| sql::entries(connection, now.as_millisecond()));
                let _ = reply.send(found);
            }
            ReadRequest::WaitForChange { key, now, waiter } => self.watch(key, now, waiter),
            ReadRequest::Written { key, version } => {
                self.waiters.notify(&key, Some(version));
            }
        }
    }

    fn watch(&mut self, key: StoreKey, now: Timestamp, waiter: Waiter) {
        let now_ms = now.as_millisecond();
        match self.with_file(None, |connection| sql::version(connection, &key, now_ms)) {
            Ok(current) if current == waiter.seen => {
                self.poll_delay = self.options.min_poll_interval;
                self.waiters.add(key, waiter);
            }
            Ok(current) => waiter.wake(current),
            Err(error) => {
                let _ = waiter.reply.send(Err(error));
            }
        }
    }

    /// Checks whether another connection has written, and wakes the waiters of changed documents.
    fn poll(&mut self) {
        let state = self.with_file(None, |connection| sql::data_version(connection).map(Some));
        match state {
            Ok(state) if state.is_some() && state == self.last_data_version => {}
            Ok(state) => {
                self.last_data_version = state;
                if let Err(error) = self.wake_changed() {
                    self.waiters.fail(&error);
                }
            }
            Err(error) => self.waiters.fail(&error),
        }
    }

    /// Compares the versions of the awaited documents with those of their waiters.
    fn wake_changed(&mut self) -> Result<(), StoreError> {
        let now_ms = self.options.clock.now().as_millisecond();
        let keys = self.waiters.keys();
        // Use one transaction, because finding and locking the file takes longer than reading a version.
        let _ = self.with_file((), sql::begin);
        let found = self.with_file(HashMap::new(), |connection| current(connection, &keys, now_ms));
        self.file.end_transaction();
        let found = found?;
        for key in keys {
            if self.waiters.notify(&key, found.get(key.as_str()).copied()) {
                self.poll_delay = self.options.min_poll_interval;
            }
        }
        Ok(())
    }

    /// Runs `work` on the file. Returns `if_missing` if the file is missing.
    fn with_file<T>(
        &mut self,
        if_missing: T,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        match self.try_with_file(work) {
            Ok(Some(found)) => Ok(found),
            Ok(None) => Ok(if_missing),
            Err(error) if self.file.try_set_aside(&error) => {
                self.last_data_version = None;
                Ok(if_missing)
            }
            Err(error) => Err(error),
        }
    }

    fn try_with_file<T>(
        &mut self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        let Some((connection, is_new)) = self.file.for_reading()? else {
            self.last_data_version = None;
            return Ok(None);
        };
        if is_new {
            self.last_data_version = None;
        }
        work(connection).map(Some).map_err(|error| {
            self.file.forget();
            self.file.map_error(error, WriteState::NotApplied)
        })
    }
}

/// The versions of the documents with these keys. If they are a large part of the file, one statement reads all versions. Otherwise a
/// write of another process would cost one query for each followed account.
fn current(
    connection: &Connection,
    keys: &[StoreKey],
    now_ms: i64,
) -> rusqlite::Result<HashMap<String, Version>> {
    let mut found = HashMap::with_capacity(keys.len());
    if keys.len() * SCAN_FRACTION < sql::max_rows(connection)? {
        for key in keys {
            if let Some(version) = sql::version(connection, key, now_ms)? {
                found.insert(key.as_str().to_owned(), version);
            }
        }
        return Ok(found);
    }
    sql::versions(connection, now_ms, |key, version| {
        found.insert(key.to_owned(), version);
    })?;
    Ok(found)
}

/// Scanning a row costs about a quarter of a query by key.
const SCAN_FRACTION: usize = 4;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use quota_core::AccountId;
    use rusqlite::trace::TraceEventCodes;

    use super::*;
    use crate::schema;
    use crate::sql::Write;

    fn key(number: usize) -> StoreKey {
        StoreKey::account(&format!("anthropic/a{number}").parse::<AccountId>().unwrap())
    }

    /// A hundred documents; the first has expired.
    fn hundred() -> (Connection, Vec<Version>) {
        let mut connection = Connection::open_in_memory().unwrap();
        schema::create(&mut connection).unwrap();
        let versions: Vec<_> = (0..100).map(|_| Version::random()).collect();
        for (number, version) in versions.iter().enumerate() {
            let (key, body) = (key(number), Bytes::from_static(b"x"));
            let expires_ms = if number == 0 { 50 } else { 1000 };
            let write =
                Write { key: &key, expected: None, version: *version, body: &body, now_ms: 0, expires_ms };
            assert!(sql::write(&connection, &write).unwrap());
        }
        (connection, versions)
    }

    #[test]
    fn the_versions_of_many_documents_are_read_by_one_statement() {
        static STATEMENTS: AtomicUsize = AtomicUsize::new(0);
        let (connection, _) = hundred();
        let keys: Vec<_> = (0..100).map(key).collect();
        connection.trace_v2(
            TraceEventCodes::SQLITE_TRACE_STMT,
            Some(|_| _ = STATEMENTS.fetch_add(1, Ordering::Relaxed)),
        );

        current(&connection, &keys, 100).unwrap();

        // One statement reads the versions, the other the number of documents.
        assert_eq!(STATEMENTS.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_scan_and_single_queries_find_the_same_versions() {
        let (connection, versions) = hundred();
        for followed in [1, 2, 24, 25, 100] {
            let keys: Vec<_> = (0..followed).chain([100]).map(key).collect();

            let found = current(&connection, &keys, 100).unwrap();

            assert_eq!(found.get("anthropic/a0"), None, "it has expired");
            assert_eq!(found.get("anthropic/a100"), None, "it never existed");
            for (number, version) in versions.iter().enumerate().take(followed).skip(1) {
                assert_eq!(found.get(key(number).as_str()), Some(version), "{followed}");
            }
        }
    }
}
