//! The thread that writes: one swap after the other, each as one statement.
//! Nobody who reads waits for it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use quota_core::{Applied, Clock, Reading, StoreError, StoreKey, Swap, Version};
use rusqlite::{Connection, ErrorCode};
use tokio::sync::oneshot;

use crate::document::{self, Write};
use crate::file::{File, Use};
use crate::options::SqliteOptions;
use crate::patience::LockPatience;
use crate::reader::Ask;

/// A swap that somebody waits for.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) key: StoreKey,
    pub(crate) expected: Option<Version>,
    pub(crate) body: Bytes,
    pub(crate) keep: Duration,
    pub(crate) now: Timestamp,
    pub(crate) answer: oneshot::Sender<Result<Swap, StoreError>>,
}

/// The thread's state.
#[derive(Debug)]
pub(crate) struct Writer {
    file: File,
    clock: Clock,
    patience: LockPatience,
    /// The last write did not get the lock.
    is_locked_out: bool,
    reader: Sender<Ask>,
}

/// One write in so many also takes away what has expired; processes that live for one write do so too.
const SWEEP_ONE_IN: u32 = 64;
/// Between a swap that lost and the look at what stands, that may have become what was expected; then it is tried again.
const TRIES: u32 = 3;

impl Writer {
    pub(crate) fn new(options: Arc<SqliteOptions>, reader: Sender<Ask>) -> Self {
        let (clock, patience) = (options.clock.clone(), LockPatience::new(options.busy_timeout));
        Self { file: File::new(options, Use::Writes), clock, patience, is_locked_out: false, reader }
    }

    /// Works until nobody can ask any more.
    pub(crate) fn run(mut self, orders: &Receiver<Order>) {
        while let Ok(order) = orders.recv() {
            // Somebody who has left may not want it any more; and behind a lock that is held, nobody should wait for them.
            if order.answer.is_closed() {
                continue;
            }
            let outcome = match self.swap(&order) {
                Err(error) if self.file.is_replaced(&error) => self.swap(&order),
                outcome => outcome,
            };
            if let Ok(Swap::Applied(version)) = outcome {
                // If the reader is gone, nobody waits.
                let _ = self.reader.send(Ask::Wrote { key: order.key, version });
            }
            if let Err(error) = &outcome
                && self.is_locked_out
            {
                // These have waited for the same lock: each would wait for it again, one after the other.
                for waiting in orders.try_iter() {
                    let _ = waiting.answer.send(Err(error.clone()));
                }
            }
            let _ = order.answer.send(outcome);
        }
    }

    fn swap(&mut self, order: &Order) -> Result<Swap, StoreError> {
        let begun_at = self.clock.instant();
        let patience = self.patience.next(begun_at);
        self.is_locked_out = false;
        let connection = self.file.for_writing()?;
        let swapped = connection.busy_timeout(patience).and_then(|()| try_swap(connection, order));
        match swapped {
            Ok(swap) => {
                self.patience.succeeded();
                match swap {
                    Some(swap) => Ok(swap),
                    None => {
                        // A newer program may have brought the file forward: then the next open reports that.
                        self.file.forget();
                        self.file.for_writing()?;
                        Err(StoreError::unavailable(Applied::No, "the document changes all the time"))
                    }
                }
            }
            Err(error) => {
                if is_locked(&error) {
                    let now = self.clock.instant();
                    self.patience.failed(now.saturating_since(begun_at), now);
                    self.is_locked_out = true;
                }
                self.file.forget();
                Err(self.file.told(error, Applied::Perhaps))
            }
        }
    }
}

fn is_locked(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

fn try_swap(connection: &Connection, order: &Order) -> rusqlite::Result<Option<Swap>> {
    let Order { key, expected, body, keep, now, .. } = order;
    let now_ms = now.as_millisecond();
    let keep_ms = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
    let version = Version::random();
    let write =
        Write { key, expected: *expected, version, body, now_ms, expires_ms: now_ms.saturating_add(keep_ms) };
    for _ in 0..TRIES {
        if document::write(connection, &write)? {
            if fastrand::u32(..SWEEP_ONE_IN) == 0 {
                // The write is done, whatever becomes of this.
                let _ = document::sweep(connection, now_ms);
            }
            return Ok(Some(Swap::Applied(version)));
        }
        let reading = Reading::new(document::read(connection, key, now_ms)?, *now);
        if reading.version() != *expected {
            return Ok(Some(Swap::Conflict(reading)));
        }
    }
    Ok(None)
}
