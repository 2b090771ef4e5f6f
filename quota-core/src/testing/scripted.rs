//! A store that fails calls of an inner store according to a script.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::pending;
use std::pin::pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::store::{CasOutcome, Notice, QuotaStore, StoreError, StoreKey, StoreRead, Version, WriteState};

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
    /// Whether waits end only by [`ScriptedStore::notify`].
    scripts_notices: bool,
    notified: Notify,
}

#[derive(Debug, Default)]
struct State {
    script: VecDeque<Step>,
    reads: usize,
    swaps: usize,
    notices: VecDeque<(StoreKey, Notice)>,
    /// The versions with which the last waits began.
    seen: HashMap<StoreKey, Option<Version>>,
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
        let state = State { script: script.into_iter().collect(), ..State::default() };
        Self { inner, state: Mutex::new(state), scripts_notices: false, notified: Notify::new() }
    }

    /// Suppresses the inner store's notices: a wait for a change ends only by [`notify`](Self::notify).
    #[must_use]
    pub fn with_scripted_notices(mut self) -> Self {
        self.scripts_notices = true;
        self
    }

    /// Ends the current wait for a change of `key`, or the next one, with this notice. Notices of one key keep their order.
    pub fn notify(&self, key: &StoreKey, notice: Notice) {
        self.state.lock().notices.push_back((key.clone(), notice));
        self.notified.notify_waiters();
    }

    /// The version with which the last wait for a change of `key` began.
    #[must_use]
    pub fn last_seen(&self, key: &StoreKey) -> Option<Version> {
        self.state.lock().seen.get(key).copied().flatten()
    }

    fn next_notice(&self, key: &StoreKey) -> Option<Notice> {
        let notices = &mut self.state.lock().notices;
        let next = notices.iter().position(|(of, _)| of == key)?;
        notices.remove(next).map(|(_, notice)| notice)
    }

    /// The inner store, to which the script does not apply.
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

    async fn wait_for_change(&self, key: &StoreKey, seen: Option<Version>) -> Result<Notice, StoreError> {
        self.state.lock().seen.insert(key.clone(), seen);
        if !self.scripts_notices {
            return self.inner.wait_for_change(key, seen).await;
        }
        loop {
            let mut notified = pin!(self.notified.notified());
            notified.as_mut().enable();
            if let Some(notice) = self.next_notice(key) {
                return Ok(notice);
            }
            notified.await;
        }
    }
}
