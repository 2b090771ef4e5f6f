//! A store that continues in a local file while the shared store is unavailable. So short-lived commands obey the same
//! rules during an outage: one call per interval, user and machine.
//!
//! `docs/design/outage.md` explains each step, and the effect if the process ends there.

mod attempt;
mod copy;
mod document;
mod level;
mod merge;
mod verdict;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;

pub use self::document::Outage;
use self::document::OutageDoc;
pub use self::level::OutageLevel;
use self::merge::Kind;
pub use self::verdict::NoTimeLeft;
use crate::clock::{Clock, Instant};
use crate::store::update::{Trips, twice};
use crate::store::{
    CasOutcome, DocumentBody as _, Notice, QuotaStore, StoreError, StoreKey, StoreRead, Version, WriteState,
};
use crate::time;

/// A store that uses the first working [`OutageLevel`] while its own store is unavailable or rejects writes.
///
/// Each operation first looks for the level's file. If there is none, it uses the store. If that fails, it creates the
/// file, which states until when no process tries the store: 5 s, doubling to 60 s. Until then, all processes use the
/// file under the same rules. Afterwards, one process tries the store. If it succeeds, it merges the records and
/// cooldowns in the file into the store and removes the file. If some documents cannot be merged, such as those of one
/// shard of a cluster, only these stay in the file, and the others return to the store.
///
/// A rejected read or a damaged document is not an outage, because a user must fix it. A file system without file locks
/// counts as one.
///
/// Dropping a future is safe, as for any store. A dropped attempt to end the outage is repeated by another process.
pub struct OutageStore {
    remote: Arc<dyn QuotaStore>,
    levels: Box<[Level]>,
    clock: Clock,
    /// The timeout of one store operation, in milliseconds.
    timeout_ms: AtomicU64,
    is_disabled: AtomicBool,
    /// Whether an unavailable store does not begin an outage.
    ignores_timeouts: bool,
    is_brief: bool,
    offset_ms: Mutex<Option<i64>>,
    copies: Mutex<Copies>,
    /// Whether this process ran out of time in an attempt to end the outage. It makes no further attempt.
    lacks_time: AtomicBool,
    /// The level that the last operation found, and when.
    recent: Mutex<Option<(Instant, Active)>>,
    outage: Mutex<Option<Outage>>,
    /// The number of outages that this store has met.
    outages: AtomicU64,
}

#[derive(Debug)]
struct Level {
    level: Arc<dyn OutageLevel>,
    store: OnceLock<Arc<dyn QuotaStore>>,
    /// Whether this process cannot use the level.
    is_broken: AtomicBool,
}

/// The documents that this process has copied from a store that rejects only writes.
#[derive(Debug, Default)]
struct Copies {
    /// The version in the store of the last copy of each document.
    versions: HashMap<StoreKey, Version>,
    /// When each document of the store was last read, and whether the store had it.
    reads: HashMap<StoreKey, (Instant, bool)>,
    /// When a copy last failed. After that, no copy delays this process for a while.
    failed_at: Option<Instant>,
}

/// The level in use.
#[derive(Clone)]
struct Active {
    index: usize,
    store: Arc<dyn QuotaStore>,
    doc: Arc<OutageDoc>,
    now: Timestamp,
}

/// The timeout of one operation on a level. A file on a busy machine may be slow.
const LEVEL_TIMEOUT: Duration = Duration::from_secs(8);
/// How long a level keeps a copy, and the outage document, if no process runs.
const DOC_TTL: Duration = Duration::from_secs(40 * 24 * 3600);
/// How often a wait for the store checks whether another process has begun an outage.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// The minimum wait for a change during an outage, so that another process's due attempt does not cause a busy loop.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
/// How often an operation restarts because the outage began or ended during it.
const MAX_STARTS: u32 = 4;

impl OutageStore {
    /// Creates a store that uses `remote`, and during an outage the first of `levels` that works. `timeout` bounds each
    /// operation on `remote`.
    #[must_use]
    pub fn new(
        remote: impl QuotaStore,
        levels: impl IntoIterator<Item = Arc<dyn OutageLevel>>,
        timeout: Duration,
    ) -> Self {
        let level = |level| Level { level, store: OnceLock::new(), is_broken: AtomicBool::new(false) };
        let store = Self {
            remote: Arc::new(remote),
            levels: levels.into_iter().map(level).collect(),
            clock: Clock::system(),
            timeout_ms: AtomicU64::new(0),
            is_disabled: AtomicBool::new(false),
            ignores_timeouts: false,
            is_brief: false,
            offset_ms: Mutex::new(None),
            copies: Mutex::default(),
            lacks_time: AtomicBool::new(false),
            recent: Mutex::default(),
            outage: Mutex::new(None),
            outages: AtomicU64::new(0),
        };
        store.set_timeout(timeout);
        store
    }

    /// Replaces the system clock, for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Begins an outage only if the store rejects a write, not after a timeout. An outage that another process has
    /// begun still applies.
    ///
    /// This is for a program with a shorter timeout than others. On a busy machine, its timeouts do not prove that the
    /// store is unavailable.
    #[must_use]
    pub fn ignoring_timeouts(mut self) -> Self {
        self.ignores_timeouts = true;
        self
    }

    /// For a process that limits the time of all its store operations, such as a statusline. After an attempt to end an outage has run
    /// out of that time, no such process makes another for 5 seconds. Otherwise one after the other would wait for a slow store.
    #[must_use]
    pub fn brief(mut self) -> Self {
        self.is_brief = true;
        self
    }

    /// Sets the timeout of one store operation, for a program that learns it only after opening the store.
    pub fn set_timeout(&self, timeout: Duration) {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self.timeout_ms.store(timeout_ms, Ordering::Relaxed);
    }

    /// Stops using levels, for [`StoreOutagePolicy::FailClosed`](crate::policy::StoreOutagePolicy::FailClosed).
    pub fn disable(&self) {
        self.is_disabled.store(true, Ordering::Relaxed);
    }

    /// The maximum duration of one operation, which is the timeout for callers.
    #[must_use]
    pub fn max_duration(&self) -> Duration {
        self.timeout().saturating_add(LEVEL_TIMEOUT * 2)
    }

    /// The outage that the last operation encountered; `None` if it reached the store.
    #[must_use]
    pub fn outage(&self) -> Option<Outage> {
        self.outage.lock().clone()
    }

    /// The number of outages that uses of this store have met.
    #[must_use]
    pub fn outages(&self) -> u64 {
        self.outages.load(Ordering::Relaxed)
    }

    fn record_outage(&self, outage: Outage) {
        if self.outage.lock().replace(outage).is_none() {
            self.outages.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Looks for an outage without using the store, for diagnostics.
    ///
    /// # Errors
    ///
    /// The error of a level that exists and cannot be read.
    pub async fn find_outage(&self) -> Result<Option<Outage>, StoreError> {
        for (index, level) in self.levels.iter().enumerate().filter(|(_, level)| level.level.exists()) {
            let reading = self.on_level(self.open(index)?.read(&StoreKey::outage())).await?;
            if let Some(document) = reading.document {
                let doc = OutageDoc::decode(&document.body)?;
                return Ok(Some(doc.describe(level.level.place(), reading.now)));
            }
        }
        Ok(None)
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.load(Ordering::Relaxed))
    }

    fn is_disabled(&self) -> bool {
        self.is_disabled.load(Ordering::Relaxed)
    }

    fn levels(&self) -> impl Iterator<Item = (usize, &Level)> {
        self.levels.iter().enumerate().filter(|(_, level)| !level.is_broken.load(Ordering::Relaxed))
    }

    fn is_any_present(&self) -> bool {
        self.levels().any(|(_, level)| level.level.exists())
    }

    fn open(&self, index: usize) -> Result<Arc<dyn QuotaStore>, StoreError> {
        let Level { level, store, .. } = &self.levels[index];
        if let Some(store) = store.get() {
            return Ok(Arc::clone(store));
        }
        let opened = level.open()?;
        Ok(Arc::clone(store.get_or_init(|| opened)))
    }

    async fn on_level<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let late = || StoreError::unavailable(WriteState::Unknown, "the file for outages timed out");
        self.clock.bounded(LEVEL_TIMEOUT, work).await.unwrap_or_else(|| Err(late()))
    }

    /// Records the store's time.
    fn measure(&self, reading: &StoreRead) {
        let offset_ms = reading.now.as_millisecond().saturating_sub(self.clock.now_ms());
        *self.offset_ms.lock() = Some(offset_ms);
    }

    /// Converts a time of the level to the store's time. All processes add the same offset.
    fn store_time(active: &Active, now: Timestamp) -> Timestamp {
        time::shifted(now, active.doc.offset_ms.unwrap_or(0))
    }

    /// Runs an operation on the level in use, or on the store. Restarts it if the outage begins or ends in between.
    async fn run(&self, operation: Operation<'_>) -> Result<Done, StoreError> {
        if self.is_disabled() {
            return self.on_remote(&operation).await;
        }
        let is_write = operation.swap.is_some();
        let mut last_error = None;
        for _ in 0..MAX_STARTS {
            let active = self.active().await;
            if let Some(active) = active.as_ref().filter(|active| active.doc.covers(operation.key)) {
                self.meet(active);
                if Kind::of(operation.key) == Kind::OnlyInStore {
                    return match is_write || !active.doc.reads_work(operation.key) {
                        true => Err(without_store()),
                        false => self.on_remote(&operation).await,
                    };
                }
                let done = self.on_active(active, &operation).await;
                if done.is_err() {
                    *self.recent.lock() = None;
                }
                match done {
                    Ok(done) => return Ok(done),
                    // The outage has ended in the meantime.
                    Err(_) if !self.levels[active.index].level.exists() => {}
                    Err(error) => {
                        self.skip(active.index, &error);
                        if error.is_transient() {
                            return Err(error);
                        }
                    }
                }
                continue;
            }
            let error = match self.on_remote(&operation).await {
                Ok(done) => {
                    if active.is_none() {
                        self.remote_works(&done);
                    }
                    return Ok(done);
                }
                Err(error) => error,
            };
            let is_ignored = self.ignores_timeouts && matches!(error, StoreError::Unavailable { .. });
            if is_ignored
                || !verdict::shows_outage(&error, is_write)
                || !self.begin(&error, operation.key).await
            {
                return Err(error);
            }
            last_error = Some(error);
        }
        Err(last_error.unwrap_or_else(without_store))
    }

    /// Records that the outage has ended. Without a level, a successful read does not prove this, because the store may
    /// reject writes.
    fn remote_works(&self, done: &Done) {
        let is_write = matches!(done, Done::Swap(CasOutcome::Applied(_)));
        let ended = self.outage.lock().take_if(|outage| is_write || outage.place.is_some());
        if ended.is_some() {
            *self.copies.lock() = Copies::default();
        }
    }

    async fn on_remote(&self, Operation { key, swap }: &Operation<'_>) -> Result<Done, StoreError> {
        let remote = Remote(self);
        Ok(match swap {
            None => Done::Read(remote.read(key).await?),
            Some(Swap { expected, body, ttl }) => {
                Done::Swap(remote.compare_and_swap(key, *expected, body.clone(), *ttl).await?)
            }
        })
    }

    async fn on_active(
        &self,
        active: &Active,
        Operation { key, swap }: &Operation<'_>,
    ) -> Result<Done, StoreError> {
        Ok(match swap {
            None => Done::Read(self.read_level(active, key).await?),
            Some(Swap { expected, body, ttl }) => {
                if active.doc.reads_work(key) {
                    // Copy the store's document first. Otherwise a swap that expects no document would replace its
                    // holds and calls.
                    self.read_level(active, key).await?;
                }
                let local = Local { store: self, active };
                Done::Swap(local.compare_and_swap(key, *expected, body.clone(), *ttl).await?)
            }
        })
    }
}

/// One call of the store.
struct Operation<'a> {
    key: &'a StoreKey,
    /// `None` for a read.
    swap: Option<Swap>,
}

struct Swap {
    expected: Option<Version>,
    body: Bytes,
    ttl: Duration,
}

/// The result of an [`Operation`].
enum Done {
    Read(StoreRead),
    Swap(CasOutcome),
}

/// The error for a document that may exist only in the store.
fn without_store() -> StoreError {
    StoreError::unavailable(WriteState::NotApplied, "running without the shared store")
}

fn cause(error: &StoreError) -> &str {
    match error {
        StoreError::Unavailable { reason, .. }
        | StoreError::Rejected { reason, .. }
        | StoreError::Corrupt { reason, .. } => reason,
    }
}

/// The store, with a timeout and one retry for each operation.
struct Remote<'a>(&'a OutageStore);

impl Remote<'_> {
    async fn bounded<T, F>(&self, call: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let late = || StoreError::unavailable(WriteState::Unknown, "it timed out");
        self.0.clock.bounded(self.0.timeout(), twice(call)).await.unwrap_or_else(|| Err(late()))
    }
}

impl Trips for Remote<'_> {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        let reading = self.bounded(|| self.0.remote.read(key)).await?;
        self.0.measure(&reading);
        Ok(reading)
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        ttl: Duration,
    ) -> Result<CasOutcome, StoreError> {
        let outcome =
            self.bounded(|| self.0.remote.compare_and_swap(key, expected, body.clone(), ttl)).await?;
        if let CasOutcome::Conflict(reading) = &outcome {
            self.0.measure(reading);
        }
        Ok(outcome)
    }
}

/// The level in use, with a timeout for each operation, and with the store's times.
struct Local<'a> {
    store: &'a OutageStore,
    active: &'a Active,
}

impl Trips for Local<'_> {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        let reading = self.store.on_level(self.active.store.read(key)).await?;
        Ok(StoreRead::new(reading.document, OutageStore::store_time(self.active, reading.now)))
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        ttl: Duration,
    ) -> Result<CasOutcome, StoreError> {
        let swap = self.active.store.compare_and_swap(key, expected, body, ttl);
        Ok(match self.store.on_level(swap).await? {
            CasOutcome::Conflict(winner) => {
                let now = OutageStore::store_time(self.active, winner.now);
                CasOutcome::Conflict(StoreRead::new(winner.document, now))
            }
            applied @ CasOutcome::Applied(_) => applied,
        })
    }
}

#[async_trait]
impl QuotaStore for OutageStore {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        match self.run(Operation { key, swap: None }).await? {
            Done::Read(reading) => Ok(reading),
            Done::Swap(_) => unreachable!("the operation is a read"),
        }
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        ttl: Duration,
    ) -> Result<CasOutcome, StoreError> {
        match self.run(Operation { key, swap: Some(Swap { expected, body, ttl }) }).await? {
            Done::Swap(outcome) => Ok(outcome),
            Done::Read(_) => unreachable!("the operation is a swap"),
        }
    }

    /// During an outage, waits for a change of the file, but at most until the next attempt to use the store. Notices
    /// then have no content, because only a read shows whether the file or the store has the document.
    async fn wait_for_change(&self, key: &StoreKey, seen: Option<Version>) -> Result<Notice, StoreError> {
        if self.is_disabled() || self.levels.is_empty() {
            return self.remote.wait_for_change(key, seen).await;
        }
        if let Some(active) = self.active().await {
            let retry_at = active.doc.retry_at.unwrap_or(active.now);
            let left = time::elapsed(active.now, retry_at).max(SHORTEST_WAIT);
            if !active.doc.covers(key) {
                let change = self.clock.bounded(left, self.remote.wait_for_change(key, seen)).await;
                return change.unwrap_or_else(|| Ok(Notice::default()));
            }
            self.meet(&active);
            let change = async {
                tokio::select! {
                    changed = active.store.wait_for_change(key, seen) => changed,
                    () = self.wait_for_copy(&active, key) => Ok(Notice::default()),
                }
            };
            return match self.clock.bounded(left, change).await {
                Some(Err(error)) if self.levels[active.index].level.exists() => Err(error),
                Some(_) | None => Ok(Notice::default()),
            };
        }
        let mut change = pin!(self.remote.wait_for_change(key, seen));
        loop {
            match self.clock.bounded(LOOK_INTERVAL, change.as_mut()).await {
                Some(changed) => return changed,
                None if self.is_any_present() => return Ok(Notice::default()),
                None => {}
            }
        }
    }
}

impl fmt::Debug for OutageStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutageStore")
            .field("remote", &self.remote)
            .field("levels", &self.levels)
            .finish_non_exhaustive()
    }
}
