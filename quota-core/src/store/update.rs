//! The single loop that reads a document, decides on a change, and writes it by compare-and-swap.
//! The caller passes the decision as a pure function. The record, the cooldown and all other documents use this loop.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{CasOutcome, QuotaStore, StoreError, StoreKey, StoreRead, Version, WriteState};
use crate::clock::Clock;
use crate::time;

/// The maximum number of swaps that one update attempts.
///
/// A swap conflicts only if another writer's swap was applied, so some writer always makes progress. In the worst measured
/// case, 32 writers without pauses need 21 swaps each.
pub const MAX_CAS_ATTEMPTS: u32 = 24;

/// The maximum pause after a conflict, before jitter.
const MAX_PAUSE: Duration = Duration::from_millis(32);

/// The content of a document that [`update`] changes. [`Default`] is the content if there is no document.
pub trait DocumentBody: Clone + Default + PartialEq + Send + Sync {
    /// Decodes a stored body.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if the document is damaged. The update then ends and leaves the document unchanged. A document
    /// of a newer format must decode, and a decision must not change it.
    fn decode(body: &[u8]) -> Result<Self, StoreError>;

    /// Encodes the content for a store.
    fn encode(&self) -> Bytes;
}

/// The `format` of a stored JSON body, regardless of its other fields; `None` if it states none.
///
/// If a body cannot be decoded, it is damaged, or a newer program has changed the form of its fields. Only the number
/// distinguishes the two: a damaged document may be replaced, but a newer program's document must be kept.
#[must_use]
pub fn format_of(body: &[u8]) -> Option<u32> {
    #[derive(Deserialize)]
    struct Envelope {
        format: u32,
        #[serde(flatten)]
        _fields: IgnoredAny,
    }
    serde_json::from_slice(body).ok().map(|Envelope { format, .. }| format)
}

/// The document that the first attempt decides on. After a conflict, the next attempt uses the document that the conflict
/// returned.
#[derive(Debug)]
#[non_exhaustive]
pub enum Start<D> {
    /// The document that a read returns.
    Read,
    /// The caller's cached document. If it is outdated, the swap conflicts.
    Known {
        /// The content.
        document: Arc<D>,
        /// Its version; `None` if there is no document.
        version: Option<Version>,
        /// The caller's estimate of the store's time.
        now: Timestamp,
    },
    /// No document. If there is one, the swap conflicts. If the decision changes nothing, a read follows.
    AssumeAbsent {
        /// The caller's estimate of the store's time.
        now: Timestamp,
    },
}

/// The result of an update.
#[derive(Debug)]
#[non_exhaustive]
pub struct Updated<D, T> {
    /// The value that the decision returned.
    pub value: T,
    /// The document that is now in the store.
    pub document: Arc<D>,
    /// The version of the document; `None` if there is none.
    pub version: Option<Version>,
    /// The store's time at the decision.
    pub now: Timestamp,
    /// Whether the document was written.
    pub outcome: Outcome,
}

/// Whether an update wrote the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The decision changed nothing.
    Unchanged,
    /// This update wrote the document.
    Applied,
    /// The store already contains this body: either the response was lost, or another process wrote the same body.
    AlreadyApplied,
}

/// Changes a document with `decide`, which receives the document and the store's time.
///
/// After a conflict and a pause with jitter, `decide` runs again on the other writer's document. It must be a pure function
/// of its arguments, because its result is discarded on a conflict. If it changes nothing, nothing is written.
///
/// A swap with a lost response is retried once. If the first swap was applied, the retry conflicts with its own body and
/// counts as applied. If another process has written since, `decide` runs on a document that already contains its change. A
/// change that must happen only once therefore needs a marker in the document, such as a random id. Of two processes that
/// write the same body, each may get [`Outcome::AlreadyApplied`].
///
/// `timeout` bounds each call to the store, and [`MAX_CAS_ATTEMPTS`] bounds the number of swaps. The future may be dropped at
/// any time: the change is then applied completely or not at all.
///
/// ```
/// use std::time::Duration;
/// use quota_core::MemoryStore;
/// use quota_core::model::RequestId;
/// use quota_core::store::{Acquire, LeaseDoc, Start, StoreKey, update};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let store = MemoryStore::new();
/// let key = StoreKey::account_extension(&"anthropic/main".parse()?, "example");
/// let (ttl, timeout) = (Duration::from_secs(60), Duration::from_millis(250));
/// let holder = RequestId::random();
///
/// let acquired = update(&store, &key, Start::Read, ttl, timeout, |lease: &mut LeaseDoc, now| {
///     lease.acquire(holder, now, Duration::from_secs(30))
/// })
/// .await?;
///
/// assert_eq!(acquired.value, Acquire::Acquired);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// Any [`StoreError`], including one if every attempt conflicted. The change may have been applied unless the error contains
/// [`WriteState::NotApplied`].
pub async fn update<D: DocumentBody, T>(
    store: &dyn QuotaStore,
    key: &StoreKey,
    start: Start<D>,
    ttl: Duration,
    timeout: Duration,
    decide: impl FnMut(&mut D, Timestamp) -> T,
) -> Result<Updated<D, T>, StoreError> {
    update_through(&Bounded { store, timeout }, key, start, ttl, decide).await
}

/// Like [`update`], but through calls that already have a timeout and a retry.
pub(crate) async fn update_through<D: DocumentBody, T>(
    trips: &impl Trips,
    key: &StoreKey,
    start: Start<D>,
    ttl: Duration,
    decide: impl FnMut(&mut D, Timestamp) -> T,
) -> Result<Updated<D, T>, StoreError> {
    run(trips, key, start, ttl, &mut Closure { decide, document: PhantomData }).await
}

/// The store calls of the loop. Each has a timeout and is retried once if the store is unreachable.
pub(crate) trait Trips: Sync {
    fn read(&self, key: &StoreKey) -> impl Future<Output = Result<StoreRead, StoreError>> + Send;

    fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        ttl: Duration,
    ) -> impl Future<Output = Result<CasOutcome, StoreError>> + Send;
}

/// A change to a document. The manager's implementation can decode from its cached copy.
pub(crate) trait Change {
    type Document: Clone + PartialEq;
    type Output;

    /// Decodes the result of a read or a conflict.
    fn decode(&mut self, found: &StoreRead) -> Result<Arc<Self::Document>, StoreError>;

    /// Called after a conflict; receives the document of the next attempt.
    fn on_conflict(&mut self, _document: &Arc<Self::Document>, _version: Option<Version>) {}

    fn decide(&mut self, document: &mut Self::Document, now: Timestamp) -> Self::Output;

    /// Encodes a document that the decision changed.
    fn encode(&mut self, document: &mut Self::Document) -> Bytes;
}

/// The document that the next attempt decides on.
struct Base<D> {
    document: Arc<D>,
    version: Option<Version>,
    now: Timestamp,
    /// Whether the absence of the document is assumed instead of read.
    is_assumed: bool,
}

pub(crate) async fn run<C: Change>(
    trips: &impl Trips,
    key: &StoreKey,
    start: Start<C::Document>,
    ttl: Duration,
    change: &mut C,
) -> Result<Updated<C::Document, C::Output>, StoreError>
where
    C::Document: Default,
{
    let mut base = match start {
        Start::Read => read(trips, key, change).await?,
        Start::Known { document, version, now } => Base { document, version, now, is_assumed: false },
        Start::AssumeAbsent { now } => {
            Base { document: Arc::default(), version: None, now, is_assumed: true }
        }
    };
    for attempt in 0..MAX_CAS_ATTEMPTS {
        let mut next = (*base.document).clone();
        let value = change.decide(&mut next, base.now);
        let now = base.now;
        if next == *base.document {
            if base.is_assumed {
                base = read(trips, key, change).await?;
                continue;
            }
            let Base { document, version, .. } = base;
            return Ok(Updated { value, document, version, now, outcome: Outcome::Unchanged });
        }
        let body = change.encode(&mut next);
        let winner = match trips.compare_and_swap(key, base.version, body.clone(), ttl).await? {
            CasOutcome::Applied(version) => {
                let (document, version) = (Arc::new(next), Some(version));
                return Ok(Updated { value, document, version, now, outcome: Outcome::Applied });
            }
            CasOutcome::Conflict(winner) => winner,
        };
        if winner.document.as_ref().is_some_and(|found| found.body == body) {
            let (document, version) = (Arc::new(next), winner.version());
            return Ok(Updated { value, document, version, now, outcome: Outcome::AlreadyApplied });
        }
        let is_assumed = base.is_assumed;
        base = found(&winner, change)?;
        change.on_conflict(&base.document, base.version);
        // A wrong assumption does not indicate contention.
        if !is_assumed {
            base.now = time::saturating_add(base.now, pause(attempt).await);
        }
    }
    Err(StoreError::unavailable(WriteState::NotApplied, "too many concurrent writers"))
}

async fn read<C: Change>(
    trips: &impl Trips,
    key: &StoreKey,
    change: &mut C,
) -> Result<Base<C::Document>, StoreError> {
    let reading = trips.read(key).await?;
    found(&reading, change)
}

fn found<C: Change>(reading: &StoreRead, change: &mut C) -> Result<Base<C::Document>, StoreError> {
    let document = change.decode(reading)?;
    Ok(Base { document, version: reading.version(), now: reading.now, is_assumed: false })
}

/// Pauses with jitter, so that conflicting writers retry at different times. Returns the elapsed time.
async fn pause(attempt: u32) -> Duration {
    let limit = Duration::from_millis(1).saturating_mul(2u32.saturating_pow(attempt)).min(MAX_PAUSE);
    let clock = Clock::system();
    let began_at = clock.instant();
    clock.sleep(limit.mul_f64(fastrand::f64())).await;
    clock.instant().saturating_since(began_at)
}

/// A [`Change`] from a closure and a [`DocumentBody`].
struct Closure<D, F> {
    decide: F,
    document: PhantomData<fn() -> D>,
}

impl<D: DocumentBody, T, F: FnMut(&mut D, Timestamp) -> T> Change for Closure<D, F> {
    type Document = D;
    type Output = T;

    fn decode(&mut self, found: &StoreRead) -> Result<Arc<D>, StoreError> {
        found
            .document
            .as_ref()
            .map_or_else(|| Ok(Arc::default()), |document| D::decode(&document.body).map(Arc::new))
    }

    fn decide(&mut self, document: &mut D, now: Timestamp) -> T {
        (self.decide)(document, now)
    }

    fn encode(&mut self, document: &mut D) -> Bytes {
        document.encode()
    }
}

/// A store whose calls time out after `timeout`.
struct Bounded<'a> {
    store: &'a dyn QuotaStore,
    timeout: Duration,
}

impl Bounded<'_> {
    async fn bounded<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let late = || StoreError::unavailable(WriteState::Unknown, "it timed out");
        Clock::system().bounded(self.timeout, call).await.unwrap_or_else(|| Err(late()))
    }
}

impl Trips for Bounded<'_> {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        self.bounded(twice(|| self.store.read(key))).await
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        ttl: Duration,
    ) -> Result<CasOutcome, StoreError> {
        // Retry after a timeout too: only a retry shows whether the swap was applied.
        twice(|| self.bounded(self.store.compare_and_swap(key, expected, body.clone(), ttl))).await
    }
}

/// Makes a call, and retries it once if the store was unreachable. In many clients the first command after a dropped
/// connection fails. Reads and swaps are safe to retry.
pub(crate) async fn twice<T, F>(call: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let first = match call().await {
        Err(error) if error.is_transient() => error,
        answer => return answer,
    };
    // A retry that was not applied does not show whether the first call was.
    let is_not_applied = |second: &StoreError| {
        matches!(second, StoreError::Unavailable { applied: WriteState::NotApplied, .. })
    };
    call().await.map_err(|second| if is_not_applied(&second) { first } else { second })
}

#[cfg(test)]
mod tests;
