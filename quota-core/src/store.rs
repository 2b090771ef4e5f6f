//! The register that shares records: a document under a version, swapped whole.
//! A store knows nothing of quotas. Every rule is in `record`, so a new backend is three methods.
//!
//! # Writing a store
//!
//! Keep three promises and the rest follows:
//!
//! 1. **One winner.** Of any number of [`compare_and_swap`](QuotaStore::compare_and_swap)s with one expected version, at most one is applied, on
//!    whatever hosts they run.
//! 2. **No version twice.** A version names one state of a key for ever, even after the document has expired and come
//!    back; so a process that was suspended cannot mistake a new document for the one it had.
//! 3. **Honest errors.** If a swap may have been applied although its answer was lost, say so with
//!    [`StoreError::unavailable`]`(`[`WriteState::Unknown`]`, …)`: the caller asks again, and rules are made for that.
//!
//! `quota_core::store_conformance!` (feature `testing`) makes a test of each of them; `examples/own_store.rs` is a whole
//! backend with its proof.

mod lease_doc;
pub(crate) mod memory;
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
pub use self::update::{DocumentBody, MAX_CAS_ATTEMPTS, Outcome, Start, Updated, update};
use crate::{AccountId, ProviderId, random};

/// A shared register of small documents, each under a version.
///
/// All methods may be dropped at any moment. A dropped `swap` may have been applied or not.
#[async_trait]
pub trait QuotaStore: fmt::Debug + Send + Sync + 'static {
    /// Reads the document, linearizable with [`compare_and_swap`](Self::compare_and_swap) on the same key.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`]; a document that is not there is not an error.
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError>;

    /// Writes `body` if the version is still `expected`, or, with `None`, if there is no document.
    ///
    /// Of any number of racers with one `expected`, at most one is applied; the others learn the winner's document in
    /// the same trip. The store may drop the document once it was not written for `keep`.
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

    /// Waits until the document may have moved past `seen` (with `None`: until there may be one).
    ///
    /// A hint: it may wake early, and callers bound it with a timer of their own. It returns at once if the document has
    /// moved already, and it wakes when a connection was lost, since something may have been missed.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`]; the caller waits a while before it asks again.
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

    /// What holds for all accounts of a provider: `anthropic`.
    #[must_use]
    pub fn provider(provider: &ProviderId) -> Self {
        Self(provider.as_str().into())
    }

    /// A key under which nothing is stored: `*`. To read it is to find out whether the store can be used.
    #[must_use]
    pub fn probe() -> Self {
        Self("*".into())
    }

    /// A document of an extension, beside an account's record: `anthropic/main#reservations`.
    ///
    /// No account's name has a `#`, so such a key is never a record's. What is in the document, and who may write it, is
    /// up to the extension that names it.
    ///
    /// # Panics
    ///
    /// Panics if `what` is not made of lower-case letters, digits and `-`.
    #[must_use]
    pub fn account_extension(account: &AccountId, what: &'static str) -> Self {
        assert_is_plain(what);
        Self(format!("{account}#{what}").into())
    }

    /// The same beside what holds for all accounts of a provider: `anthropic#logins`.
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

/// Names one state of a document; never given to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u64);

impl Version {
    /// Takes the store's own number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// A version that no other write has, for stores in which writers name what they write: one in 2⁶⁴ for each pair. Never 0.
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

/// A document as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Document {
    /// The state it is in.
    pub version: Version,
    /// Its content.
    pub body: Bytes,
}

impl Document {
    /// A document of this content in this state.
    #[must_use]
    pub fn new(version: Version, body: Bytes) -> Self {
        Self { version, body }
    }
}

/// What a read found, and when by the store's own clock.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreRead {
    /// The document, if there is one.
    pub document: Option<Document>,
    /// What the time was, by the one clock that all users of the store share.
    pub now: Timestamp,
}

impl StoreRead {
    /// What was found, at `now` by the store's clock.
    #[must_use]
    pub fn new(document: Option<Document>, now: Timestamp) -> Self {
        Self { document, now }
    }

    /// The state of the document; `None` if there is none.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.document.as_ref().map(|document| document.version)
    }
}

/// What became of a swap.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub enum CasOutcome {
    /// It was applied, and the document is now in this state.
    Applied(Version),
    /// Another writer was first; this is the current document.
    Conflict(StoreRead),
}

/// Whether a write happened although its answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WriteState {
    /// It did not.
    NotApplied,
    /// It may have.
    Unknown,
}

/// Why a store did not do what it was asked, sorted by what follows from it. It never holds an address's password.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store could not be reached, or did not answer in time. Go on alone; it may come back.
    #[error("the store is unavailable: {reason}")]
    #[non_exhaustive]
    Unavailable {
        /// Whether a write may have happened all the same.
        applied: WriteState,
        /// What happened.
        reason: Cow<'static, str>,
        /// The failure underneath, if there was one.
        source: Option<Arc<dyn Error + Send + Sync>>,
    },
    /// The store rejected the operation: no permission, no space, read-only. A person must fix it.
    #[error("the store refused: {reason}")]
    #[non_exhaustive]
    Rejected {
        /// What it refused.
        reason: Cow<'static, str>,
        /// The failure underneath, if there was one.
        source: Option<Arc<dyn Error + Send + Sync>>,
    },
    /// What the store holds is damaged or not ours. It was left as it is.
    #[error("the store's content is unusable: {reason}")]
    #[non_exhaustive]
    Corrupt {
        /// What is wrong with it.
        reason: Cow<'static, str>,
        /// The failure underneath, if there was one.
        source: Option<Arc<dyn Error + Send + Sync>>,
    },
}

impl StoreError {
    /// The store could not be reached, or did not answer.
    #[must_use]
    pub fn unavailable(applied: WriteState, reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Unavailable { applied, reason: reason.into(), source: None }
    }

    /// The store refuses.
    #[must_use]
    pub fn rejected(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Rejected { reason: reason.into(), source: None }
    }

    /// What the store holds cannot be used.
    #[must_use]
    pub fn corrupt(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Corrupt { reason: reason.into(), source: None }
    }

    /// Keeps the failure underneath.
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
