//! The thread that writes: one compare-and-swap after another, each as one statement. No reader waits for it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use quota_core::Clock;
use quota_core::store::{CasOutcome, StoreError, StoreKey, StoreRead, Version, WriteState};
use rusqlite::{Connection, ErrorCode};
use tokio::sync::oneshot;

use crate::file::{Access, File};
use crate::lock_timeout::LockTimeout;
use crate::options::SqliteOptions;
use crate::reader::ReadRequest;
use crate::sql::{self, Write};

/// A request to the thread.
#[derive(Debug)]
pub(crate) enum WriterRequest {
    Swap(WriteRequest),
    /// Removes the file if this document has this version.
    Remove(StoreKey, Version, oneshot::Sender<Result<(), StoreError>>),
}

/// A compare-and-swap of a waiting caller.
#[derive(Debug)]
pub(crate) struct WriteRequest {
    pub(crate) key: StoreKey,
    pub(crate) expected: Option<Version>,
    pub(crate) body: Bytes,
    pub(crate) ttl: Duration,
    pub(crate) now: Timestamp,
    pub(crate) reply: oneshot::Sender<Result<CasOutcome, StoreError>>,
}

/// The thread's state.
#[derive(Debug)]
pub(crate) struct Writer {
    file: File,
    clock: Clock,
    lock_timeout: LockTimeout,
    /// The last write timed out waiting for the lock.
    lock_timed_out: bool,
    reader: Sender<ReadRequest>,
}

/// One write in this many, at random, also removes expired documents. The choice is random so that short-lived processes take
/// part too.
const SWEEP_ONE_IN: u32 = 64;
/// After a conflict the current version is read. If it is now the expected version, the writer tries again.
const MAX_ATTEMPTS: u32 = 3;

impl Writer {
    pub(crate) fn new(options: Arc<SqliteOptions>, reader: Sender<ReadRequest>) -> Self {
        let (clock, lock_timeout) = (options.clock.clone(), LockTimeout::new(options.busy_timeout));
        Self { file: File::new(options, Access::Writes), clock, lock_timeout, lock_timed_out: false, reader }
    }

    /// Runs until the last store handle is dropped.
    pub(crate) fn run(mut self, requests: &Receiver<WriterRequest>) {
        while let Ok(request) = requests.recv() {
            let request = match request {
                WriterRequest::Swap(request) => request,
                WriterRequest::Remove(key, version, reply) => {
                    let _ = reply.send(self.file.remove(&key, version, self.clock.now()));
                    continue;
                }
            };
            // Skip the write of a cancelled caller: other callers must not wait for it behind a held lock.
            if request.reply.is_closed() {
                continue;
            }
            let outcome = match self.swap(&request) {
                Err(error) if self.file.try_set_aside(&error) => self.swap(&request),
                outcome => outcome,
            };
            if let Ok(CasOutcome::Applied(version)) = outcome {
                // If the reader is gone, there are no waiters.
                let _ = self.reader.send(ReadRequest::Written { key: request.key, version });
            }
            if let Err(error) = &outcome
                && self.lock_timed_out
            {
                // These writes have waited for the same lock. Otherwise each would wait for the full timeout in turn.
                for waiting in requests.try_iter() {
                    match waiting {
                        WriterRequest::Swap(waiting) => drop(waiting.reply.send(Err(error.clone()))),
                        WriterRequest::Remove(.., reply) => drop(reply.send(Err(error.clone()))),
                    }
                }
            }
            let _ = request.reply.send(outcome);
        }
    }

    fn swap(&mut self, request: &WriteRequest) -> Result<CasOutcome, StoreError> {
        let begun_at = self.clock.instant();
        let lock_timeout = self.lock_timeout.next(begun_at);
        self.lock_timed_out = false;
        let connection = self.file.for_writing()?;
        let swapped = connection.busy_timeout(lock_timeout).and_then(|()| try_swap(connection, request));
        match swapped {
            Ok(swap) => {
                self.lock_timeout.succeeded();
                match swap {
                    Some(swap) => Ok(swap),
                    None => {
                        // A newer program may have migrated the file. Opening it again reports that.
                        self.file.forget();
                        self.file.for_writing()?;
                        Err(StoreError::unavailable(
                            WriteState::NotApplied,
                            "the document changes too often; try again",
                        ))
                    }
                }
            }
            Err(error) => {
                if is_locked(&error) {
                    let now = self.clock.instant();
                    self.lock_timeout.failed(now.saturating_since(begun_at), now);
                    self.lock_timed_out = true;
                }
                self.file.forget();
                Err(self.file.map_error(error, WriteState::Unknown))
            }
        }
    }
}

fn is_locked(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

fn try_swap(connection: &Connection, request: &WriteRequest) -> rusqlite::Result<Option<CasOutcome>> {
    let WriteRequest { key, expected, body, ttl, now, .. } = request;
    let now_ms = now.as_millisecond();
    let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
    let version = Version::random();
    let write =
        Write { key, expected: *expected, version, body, now_ms, expires_ms: now_ms.saturating_add(ttl_ms) };
    for _ in 0..MAX_ATTEMPTS {
        if sql::write(connection, &write)? {
            if fastrand::u32(..SWEEP_ONE_IN) == 0 {
                // The write is applied, so a failed sweep does not matter.
                let _ = sql::sweep(connection, now_ms);
            }
            return Ok(Some(CasOutcome::Applied(version)));
        }
        let reading = StoreRead::new(sql::read(connection, key, now_ms)?, *now);
        if reading.version() != *expected {
            return Ok(Some(CasOutcome::Conflict(reading)));
        }
    }
    Ok(None)
}
