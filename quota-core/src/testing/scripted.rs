//! A store that fails the calls of an inner store by a script.

use std::collections::VecDeque;
use std::fmt;
use std::future::pending;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::store::{CasOutcome, QuotaStore, StoreError, StoreKey, StoreRead, Version, WriteState};

/// Wraps a store with a script. Each read and each swap takes the next [`Step`]. After the last step every call succeeds.
///
/// ```
/// use quota_core::{MemoryStore, ProviderId, QuotaStore};
/// use quota_core::store::StoreKey;
/// use quota_core::testing::{ScriptedStore, Step};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let store = ScriptedStore::new(MemoryStore::new(), [Step::LoseRequest]);
/// let key = StoreKey::provider(&ProviderId::from_static("anthropic"));
///
/// assert!(store.read(&key).await.is_err());
/// assert!(store.read(&key).await.is_ok());
/// assert_eq!((store.reads(), store.swaps()), (2, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ScriptedStore<S> {
    inner: S,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    script: VecDeque<Step>,
    reads: usize,
    swaps: usize,
}

/// The behavior of a [`ScriptedStore`] for one call.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Step {
    /// Responds normally.
    Answer,
    /// Loses the request. It is not applied, and the caller gets an error that it may have been.
    LoseRequest,
    /// Loses the response. The call is applied, and the caller gets an error that it may have been.
    LoseAnswer,
    /// Hangs without applying the call.
    HangBefore,
    /// Applies the call and then hangs.
    HangAfter,
    /// Replaces the document with this body as another writer, and then makes the call.
    WriteFirst(Bytes),
    /// Returns this error.
    Fail(StoreError),
}

enum Call {
    Read,
    Swap,
}

/// The TTL of a document that [`Step::WriteFirst`] writes.
const TTL: Duration = Duration::from_secs(3600);

impl<S: QuotaStore> ScriptedStore<S> {
    /// Wraps `inner` with this script.
    #[must_use]
    pub fn new(inner: S, script: impl IntoIterator<Item = Step>) -> Self {
        let state = State { script: script.into_iter().collect(), reads: 0, swaps: 0 };
        Self { inner, state: Mutex::new(state) }
    }

    /// The inner store, which never fails by the script.
    #[must_use]
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// The number of reads.
    #[must_use]
    pub fn reads(&self) -> usize {
        self.state.lock().reads
    }

    /// The number of swaps.
    #[must_use]
    pub fn swaps(&self) -> usize {
        self.state.lock().swaps
    }

    fn next(&self, call: &Call) -> Step {
        let mut state = self.state.lock();
        match call {
            Call::Read => state.reads += 1,
            Call::Swap => state.swaps += 1,
        }
        state.script.pop_front().unwrap_or(Step::Answer)
    }

    async fn write_first(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
        let version = self.inner.read(key).await?.version();
        let _ = self.inner.compare_and_swap(key, version, body, TTL).await?;
        Ok(())
    }

    /// Runs the step of the script before the call, and returns what happens after it.
    async fn before(&self, key: &StoreKey, call: Call) -> Result<After, StoreError> {
        match self.next(&call) {
            Step::Answer => Ok(After::Answer),
            Step::LoseRequest => Err(lost()),
            Step::LoseAnswer => Ok(After::Lose),
            Step::HangBefore => pending().await,
            Step::HangAfter => Ok(After::Hang),
            Step::WriteFirst(body) => self.write_first(key, body).await.map(|()| After::Answer),
            Step::Fail(error) => Err(error),
        }
    }
}

enum After {
    Answer,
    Lose,
    Hang,
}

impl After {
    async fn then<T>(self, answer: T) -> Result<T, StoreError> {
        match self {
            Self::Answer => Ok(answer),
            Self::Lose => Err(lost()),
            Self::Hang => pending().await,
        }
    }
}

fn lost() -> StoreError {
    StoreError::unavailable(WriteState::Unknown, "a scripted loss")
}

impl<S: fmt::Debug> fmt::Debug for ScriptedStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedStore").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[async_trait]
impl<S: QuotaStore> QuotaStore for ScriptedStore<S> {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        let after = self.before(key, Call::Read).await?;
        after.then(self.inner.read(key).await?).await
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        ttl: Duration,
    ) -> Result<CasOutcome, StoreError> {
        let after = self.before(key, Call::Swap).await?;
        after.then(self.inner.compare_and_swap(key, expected, body, ttl).await?).await
    }

    async fn wait_for_change(&self, key: &StoreKey, version: Option<Version>) -> Result<(), StoreError> {
        self.inner.wait_for_change(key, version).await
    }
}
