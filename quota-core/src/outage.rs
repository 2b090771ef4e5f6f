//! A store that continues in a local file while the shared store is unavailable. So commands, which end and forget, obey the same
//! rules during an outage: one call per interval, user and machine.
//!
//! `docs/design/outage.md` explains each step, and what happens if the process ends there.

mod attempt;
mod document;
mod level;
mod merge;

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
use crate::clock::Clock;
use crate::model::ProviderId;
use crate::store::update::{Trips, twice};
use crate::store::{
    CasOutcome, Document, DocumentBody as _, Notice, QuotaStore, StoreError, StoreKey, StoreRead, Version,
    WriteState,
};
use crate::time;

/// A store that uses the first working [`OutageLevel`] while its own store is unavailable or rejects writes.
///
/// Each use first looks for the level's file. If there is none, it uses the store. If that fails, it creates the file, which states
/// until when no process tries the store: 5 s, doubling to 60 s. Until then all processes use the file under the same rules. After
/// that one process tries the store. If it succeeds, it merges the records and cooldowns of the file into the store and removes the
/// file.
///
/// A rejected read and a damaged document are not an outage, because a user must fix them.
///
/// Dropping a future is safe, as for any store. A dropped attempt to end the outage is repeated by another process.
pub struct OutageStore {
    remote: Arc<dyn QuotaStore>,
    levels: Box<[Level]>,
    clock: Clock,
    /// The timeout of one use of the store, in milliseconds.
    timeout_ms: AtomicU64,
    is_disabled: AtomicBool,
    /// Whether an unavailable store begins no outage.
    ignores_timeouts: bool,
    /// The providers whose documents are never in a level.
    without: Vec<ProviderId>,
    offset_ms: Mutex<Option<i64>>,
    /// Whether a copy from the store has failed, so that no further one delays this process.
    copies_fail: AtomicBool,
    outage: Mutex<Option<Outage>>,
}

#[derive(Debug)]
struct Level {
    level: Arc<dyn OutageLevel>,
    store: OnceLock<Arc<dyn QuotaStore>>,
    /// Whether this process cannot use it.
    is_broken: AtomicBool,
}

/// The level in use.
struct Active {
    index: usize,
    store: Arc<dyn QuotaStore>,
    doc: Arc<OutageDoc>,
    now: Timestamp,
}

/// The timeout of one use of a level. A file on a busy machine may take a while.
const LEVEL_TIMEOUT: Duration = Duration::from_secs(8);
/// How long a level keeps the document of the outage if no process runs.
const DOC_TTL: Duration = Duration::from_secs(40 * 24 * 3600);
/// How often a wait for the store checks whether another process has begun an outage.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// The shortest wait for a change during an outage, so that a due attempt of another process causes no busy loop.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
/// A use starts again if the outage begins or ends during it.
const MAX_STARTS: u32 = 4;

impl OutageStore {
    /// Creates a store that uses `remote`, and in an outage the first of `levels` that works. `timeout` bounds each use of `remote`.
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
            without: Vec::new(),
            offset_ms: Mutex::new(None),
            copies_fail: AtomicBool::new(false),
            outage: Mutex::new(None),
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

    /// Never uses a level for the documents of this provider, because its policy allows no calls without the store.
    #[must_use]
    pub fn without_provider(mut self, provider: ProviderId) -> Self {
        self.without.push(provider);
        self
    }

    /// Begins an outage only if the store rejects a write, not if it does not answer in time. An outage of another process still
    /// counts.
    ///
    /// For a program with a shorter timeout than others: on a busy machine its timeouts do not show that the store is unavailable.
    #[must_use]
    pub fn ignoring_timeouts(mut self) -> Self {
        self.ignores_timeouts = true;
        self
    }

    /// Sets the timeout of one use of the store, for a program that knows it only after opening the store.
    pub fn set_timeout(&self, timeout: Duration) {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self.timeout_ms.store(timeout_ms, Ordering::Relaxed);
    }

    /// Uses no level from now on, for [`StoreOutagePolicy::FailClosed`](crate::policy::StoreOutagePolicy::FailClosed).
    pub fn disable(&self) {
        self.is_disabled.store(true, Ordering::Relaxed);
    }

    /// The longest duration of one use, which is the timeout for callers.
    #[must_use]
    pub fn max_duration(&self) -> Duration {
        self.timeout().saturating_add(LEVEL_TIMEOUT * 2)
    }

    /// The outage that the last use of this store met; `None` if it reached the store.
    #[must_use]
    pub fn outage(&self) -> Option<Outage> {
        self.outage.lock().clone()
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

    fn is_disabled_for(&self, key: &StoreKey) -> bool {
        let is_of = |provider: &ProviderId| {
            key.as_str()
                .strip_prefix(provider.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || rest.starts_with('#'))
        };
        self.is_disabled.load(Ordering::Relaxed) || self.without.iter().any(is_of)
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

    /// Records the time of the store.
    fn measure(&self, reading: &StoreRead) {
        let offset_ms = reading.now.as_millisecond().saturating_sub(self.clock.now_ms());
        *self.offset_ms.lock() = Some(offset_ms);
    }

    /// The time of the store, from a time of the level.
    fn store_time(&self, active: &Active, now: Timestamp) -> Timestamp {
        let offset_ms = active.doc.offset_ms.or(*self.offset_ms.lock()).unwrap_or(0);
        time::from_ms(now.as_millisecond().saturating_add(offset_ms))
    }

    async fn read_level(&self, active: &Active, key: &StoreKey) -> Result<StoreRead, StoreError> {
        let mut reading = self.on_level(active.store.read(key)).await?;
        if reading.document.is_none()
            && active.doc.reads_work
            && Kind::of(key).is_merged()
            && let Some(copy) = self.copy(active, key).await?
        {
            reading.document = Some(copy);
        }
        Ok(StoreRead::new(reading.document, self.store_time(active, reading.now)))
    }

    /// Copies a document from a store that rejects only writes, so that its readings stay known.
    async fn copy(&self, active: &Active, key: &StoreKey) -> Result<Option<Document>, StoreError> {
        if self.copies_fail.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let found = match Remote(self).read(key).await {
            Ok(reading) => reading.document,
            Err(_) => {
                self.copies_fail.store(true, Ordering::Relaxed);
                None
            }
        };
        let Some(found) = found else { return Ok(None) };
        Ok(match self.write_level(active, key, None, found.body.clone(), DOC_TTL).await? {
            CasOutcome::Applied(version) => Some(Document::new(version, found.body)),
            CasOutcome::Conflict(winner) => winner.document,
        })
    }

    async fn write_level(
        &self,
        active: &Active,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        ttl: Duration,
    ) -> Result<CasOutcome, StoreError> {
        // List the document before it is written. Otherwise a process that is killed in between would hide it from the merge.
        if Kind::of(key).is_merged() && !active.doc.has_key(key) {
            Self::change(active.store.as_ref(), |doc, _| doc.add_key(key, ttl)).await?;
        }
        let outcome = self.on_level(active.store.compare_and_swap(key, expected, body, ttl)).await?;
        Ok(match outcome {
            CasOutcome::Conflict(winner) => {
                let now = self.store_time(active, winner.now);
                CasOutcome::Conflict(StoreRead::new(winner.document, now))
            }
            applied @ CasOutcome::Applied(_) => applied,
        })
    }

    /// Uses the level in use, or the store. Starts again if the outage begins or ends in between.
    async fn run(&self, operation: Operation<'_>) -> Result<Done, StoreError> {
        if self.is_disabled_for(operation.key) {
            return self.on_remote(&operation).await;
        }
        let is_write = operation.swap.is_some();
        let mut last_error = None;
        for _ in 0..MAX_STARTS {
            if let Some(active) = self.active().await {
                if Kind::of(operation.key) == Kind::OnlyInStore {
                    return match is_write || !active.doc.reads_work {
                        true => Err(without_store()),
                        false => self.on_remote(&operation).await,
                    };
                }
                match self.on_active(&active, &operation).await {
                    Ok(done) => return Ok(done),
                    // The outage has ended in between.
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
                    self.remote_works(&done);
                    return Ok(done);
                }
                Err(error) => error,
            };
            let is_outage = match &error {
                StoreError::Unavailable { .. } => !self.ignores_timeouts,
                StoreError::Rejected { .. } => is_write,
                StoreError::Corrupt { .. } => false,
            };
            let reads_work = is_write && matches!(error, StoreError::Rejected { .. });
            if !is_outage || !self.begin(&error, reads_work).await {
                return Err(error);
            }
            last_error = Some(error);
        }
        Err(last_error.unwrap_or_else(without_store))
    }

    /// Records that the outage has ended. Without a level, a read does not show that: the store may reject writes.
    fn remote_works(&self, done: &Done) {
        let is_write = matches!(done, Done::Swap(CasOutcome::Applied(_)));
        self.outage.lock().take_if(|outage| is_write || outage.place.is_some());
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
                if active.doc.reads_work {
                    // Copies the store's document. Otherwise a swap that expects none would replace its holds and its calls.
                    self.read_level(active, key).await?;
                }
                Done::Swap(self.write_level(active, key, *expected, body.clone(), *ttl).await?)
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

/// The error for a document that only the store may hold.
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

/// The store, with a timeout and one retry for each use.
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

    /// During an outage, waits for a change of the file, but at most until the store is tried again. Its notices are then
    /// without content, because only a read shows which of the two has the document.
    async fn wait_for_change(&self, key: &StoreKey, seen: Option<Version>) -> Result<Notice, StoreError> {
        if self.is_disabled_for(key) || self.levels.is_empty() {
            return self.remote.wait_for_change(key, seen).await;
        }
        if let Some(active) = self.active().await {
            let retry_at = active.doc.retry_at.unwrap_or(active.now);
            let left = time::elapsed(active.now, retry_at).max(SHORTEST_WAIT);
            return match self.clock.bounded(left, active.store.wait_for_change(key, seen)).await {
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
