//! The store: a shared register of documents, each under a version and replaced by compare-and-swap.
//! A store contains no rules. All rules are in [`record`](crate::record), so a new backend is three methods.
//!
//! # Writing a store
//!
//! A store keeps three promises:
//!
//! 1. **One winner.** Of any number of [`compare_and_swap`](QuotaStore::compare_and_swap)s with one expected version, at most one is applied, on
//!    whatever hosts they run.
//! 2. **No version twice.** A version names one state of a key for ever, even after the document has expired and come
//!    back; so a process that was suspended cannot mistake a new document for the one it had.
//! 3. **Honest errors.** If a swap may have been applied although its answer was lost, say so with
//!    [`StoreError::unavailable`]`(`[`WriteState::Unknown`]`, …)`: the caller asks again, and rules are made for that.
//!
//! `quota_core::store_conformance!` (feature `testing`) tests each of them; `examples/own_store.rs` is a complete backend with
//! its tests.

mod lease_doc;
mod memory;
pub(crate) mod update;

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

pub use self::lease_doc::{Acquire, LeaseDoc};
pub use self::memory::MemoryStore;
pub use self::update::{DocumentBody, MAX_CAS_ATTEMPTS, Outcome, Start, Updated, update};
use crate::model::{AccountId, ProviderId};
use crate::random;

/// A shared register of small documents, each under a version.
///
/// Every future may be dropped at any time. A dropped `compare_and_swap` may have been applied or not.
#[async_trait]
pub trait QuotaStore: fmt::Debug + Send + Sync + 'static {
    /// Reads the document, linearizable with [`compare_and_swap`](Self::compare_and_swap) on the same key.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`]. A missing document is not an error.
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError>;

    /// Writes `body` if the version is still `expected`, or, with `None`, if there is no document.
    ///
    /// Of concurrent writers with one `expected`, at most one is applied; the others get the winner's document in the same round
    /// trip. The store may drop the document once it was not written for `keep`.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`]. After [`StoreError::Unavailable`] with [`WriteState::Unknown`] the write may have happened.
    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        keep: Duration,
    ) -> Result<CasOutcome, StoreError>;

    /// Waits until the document may have a version other than `seen` (with `None`: until it may exist).
    ///
    /// The wake-up is a hint and may be spurious; callers add a timeout. It returns at once if the version differs already, and
    /// after a lost connection, because a change may have been missed.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`]; the caller waits a while before it retries.
    async fn wait_for_change(&self, key: &StoreKey, seen: Option<Version>) -> Result<(), StoreError>;
}

#[async_trait]
impl<T: QuotaStore + ?Sized> QuotaStore for Arc<T> {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        (**self).read(key).await
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        keep: Duration,
    ) -> Result<CasOutcome, StoreError> {
        (**self).compare_and_swap(key, expected, body, keep).await
    }

    async fn wait_for_change(&self, key: &StoreKey, seen: Option<Version>) -> Result<(), StoreError> {
        (**self).wait_for_change(key, seen).await
    }
}

/// The name of a document.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreKey(Arc<str>);

impl StoreKey {
    /// The record of an account: `anthropic/main`.
    #[must_use]
    pub fn account(account: &AccountId) -> Self {
        Self(account.shared_text())
    }

    /// The document for all accounts of a provider: `anthropic`.
    #[must_use]
    pub fn provider(provider: &ProviderId) -> Self {
        Self(provider.as_str().into())
    }

    /// A key without a document: `*`. Reading it shows whether the store is available.
    #[must_use]
    pub fn probe() -> Self {
        Self("*".into())
    }

    /// A document of an extension, beside an account's record: `anthropic/main#reservations`.
    ///
    /// No account's name contains `#`, so such a key never collides with a record. The extension defines the document and who
    /// writes it.
    ///
    /// # Panics
    ///
    /// Panics if `what` is not made of lower-case letters, digits and `-`.
    #[must_use]
    pub fn account_extension(account: &AccountId, what: &'static str) -> Self {
        assert_is_plain(what);
        Self(format!("{account}#{what}").into())
    }

    /// A document of an extension for all accounts of a provider: `anthropic#logins`.
    ///
    /// # Panics
    ///
    /// As [`account_extension`](Self::account_extension).
    #[must_use]
    pub fn provider_extension(provider: &ProviderId, what: &'static str) -> Self {
        assert_is_plain(what);
        Self(format!("{provider}#{what}").into())
    }

    /// The name as text: printable ASCII without spaces or braces.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn assert_is_plain(what: &str) {
    let is_plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    assert!(
        !what.is_empty() && what.bytes().all(is_plain),
        "what stands beside an account is named by lower-case letters, digits and '-'"
    );
}

impl fmt::Display for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreKey({:?})", &*self.0)
    }
}

/// Identifies one state of a document, and is never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u64);

impl Version {
    /// Creates a version from the store's own number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// A random version, for stores whose writers choose versions. Two are equal with a probability of 1 in 2⁶⁴. Never 0.
    #[must_use]
    pub fn random() -> Self {
        Self(random::random_u64().max(1))
    }

    /// The store's own number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// A stored document and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Document {
    /// Its version.
    pub version: Version,
    /// Its content.
    pub body: Bytes,
}

impl Document {
    /// Creates a document of this version and content.
    #[must_use]
    pub fn new(version: Version, body: Bytes) -> Self {
        Self { version, body }
    }
}

/// The result of a read, with the time of the store's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreRead {
    /// The document, if there is one.
    pub document: Option<Document>,
    /// The time, by the one clock that all users of the store share.
    pub now: Timestamp,
}

impl StoreRead {
    /// Creates a result at `now` by the store's clock.
    #[must_use]
    pub fn new(document: Option<Document>, now: Timestamp) -> Self {
        Self { document, now }
    }

    /// The version of the document; `None` if there is none.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.document.as_ref().map(|document| document.version)
    }
}

/// The outcome of a compare-and-swap.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub enum CasOutcome {
    /// It was applied; the document has this version now.
    Applied(Version),
    /// Another writer was first; this is the current document.
    Conflict(StoreRead),
}

/// Whether a write was applied although its answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WriteState {
    /// It was not.
    NotApplied,
    /// It may have been.
    Unknown,
}

/// Why a store operation failed, by what the caller should do. It never contains the password of a URL.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store was unreachable or timed out. Go on without it; it may come back.
    #[error("the store is unavailable: {reason}")]
    #[non_exhaustive]
    Unavailable {
        /// Whether the write may have been applied.
        applied: WriteState,
        /// What happened.
        reason: Cow<'static, str>,
        /// The source, if there is one.
        source: Option<Arc<dyn Error + Send + Sync>>,
    },
    /// The store rejected the operation: no permission, no space, read-only. A person must fix it.
    #[error("the store refused: {reason}")]
    #[non_exhaustive]
    Rejected {
        /// What it rejected.
        reason: Cow<'static, str>,
        /// The source, if there is one.
        source: Option<Arc<dyn Error + Send + Sync>>,
    },
    /// The document is damaged or foreign. It was not changed.
    #[error("the store's content is unusable: {reason}")]
    #[non_exhaustive]
    Corrupt {
        /// What is wrong with it.
        reason: Cow<'static, str>,
        /// The source, if there is one.
        source: Option<Arc<dyn Error + Send + Sync>>,
    },
}

impl StoreError {
    /// Creates an error for a store that was unreachable or timed out.
    #[must_use]
    pub fn unavailable(applied: WriteState, reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Unavailable { applied, reason: reason.into(), source: None }
    }

    /// Creates an error for a rejected operation.
    #[must_use]
    pub fn rejected(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Rejected { reason: reason.into(), source: None }
    }

    /// Creates an error for a damaged or foreign document.
    #[must_use]
    pub fn corrupt(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Corrupt { reason: reason.into(), source: None }
    }

    /// Sets the source.
    #[must_use]
    pub fn with_source(mut self, cause: impl Error + Send + Sync + 'static) -> Self {
        let (Self::Unavailable { source, .. } | Self::Rejected { source, .. } | Self::Corrupt { source, .. }) =
            &mut self;
        *source = Some(Arc::new(cause));
        self
    }

    /// Whether a later retry may succeed without a person fixing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_beside_an_account_has_a_key_that_no_account_can_have() {
        let main: AccountId = "anthropic/main".parse().unwrap();

        let beside = StoreKey::account_extension(&main, "reservations");

        assert_eq!(beside.as_str(), "anthropic/main#reservations");
        assert!(beside.as_str().parse::<AccountId>().is_err());
        assert_eq!(StoreKey::provider_extension(main.provider(), "logins").as_str(), "anthropic#logins");
    }

    #[test]
    #[should_panic(expected = "lower-case letters")]
    fn what_stands_beside_an_account_is_named_in_plain_letters() {
        let main: AccountId = "anthropic/main".parse().unwrap();

        let _ = StoreKey::account_extension(&main, "a b");
    }
}
