//! The store: a shared register of versioned documents, which writers replace by compare-and-swap. A store contains no rules.
//! All rules are in [`record`](crate::record), so a new backend has only three methods.
//!
//! # Writing a store
//!
//! A store gives three guarantees:
//!
//! 1. **One winner.** If several [`compare_and_swap`](QuotaStore::compare_and_swap)s expect one version, at most one is
//!    applied, regardless of the hosts.
//! 2. **Unique versions.** A version names one state of a key and is never reused, even after the document expired. Otherwise a
//!    process that was suspended could mistake a new document for its old one.
//! 3. **Honest errors.** If a swap may have been applied although its response was lost, the store returns
//!    [`StoreError::unavailable`]`(`[`WriteState::Unknown`]`, …)`. The caller then retries.
//!
//! `quota_core::store_conformance!` (feature `testing`) tests each guarantee. `examples/own_store.rs` is a complete backend
//! with its tests.

mod lease_doc;
mod login_alias;
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
use sha2::{Digest, Sha256};

pub use self::lease_doc::{Acquire, LeaseDoc};
pub use self::login_alias::{LoginAlias, find_record_key};
pub use self::memory::MemoryStore;
pub use self::update::{DocumentBody, MAX_CAS_ATTEMPTS, Outcome, Start, Updated, format_of, update};
use crate::model::{AccountId, LoginId, ProviderId};
use crate::random;

/// A shared register of small versioned documents.
///
/// Dropping a future is safe at any time. A dropped `compare_and_swap` may or may not have been applied.
#[async_trait]
pub trait QuotaStore: fmt::Debug + Send + Sync + 'static {
    /// Reads the document. Reads and [`compare_and_swap`](Self::compare_and_swap)s of one key are linearizable.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`]. A missing document is not an error.
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError>;

    /// Writes `body` if the version is still `expected`. `None` expects that there is no document.
    ///
    /// Of concurrent writers with the same `expected`, at most one is applied. The others get the winner's document in the
    /// same round trip. The store may drop the document `ttl` after its last write.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`]. After [`StoreError::Unavailable`] with [`WriteState::Unknown`] the write may have been applied.
    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        ttl: Duration,
    ) -> Result<CasOutcome, StoreError>;

    /// Waits until the version of the document may differ from `seen`. `None` waits until the document may exist.
    ///
    /// The future completes at once if the version already differs. It also completes after a lost connection, because
    /// the store may have missed a change. The [`Notice`] contains the information that the store has about the change,
    /// and may be empty. A wake-up may be spurious, late or lost, so callers add a timeout.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`]. The caller must pause before it retries.
    async fn wait_for_change(&self, key: &StoreKey, seen: Option<Version>) -> Result<Notice, StoreError>;
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
        ttl: Duration,
    ) -> Result<CasOutcome, StoreError> {
        (**self).compare_and_swap(key, expected, body, ttl).await
    }

    async fn wait_for_change(&self, key: &StoreKey, seen: Option<Version>) -> Result<Notice, StoreError> {
        (**self).wait_for_change(key, seen).await
    }
}

/// The name of a document.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreKey(Arc<str>);

impl StoreKey {
    /// The key of the record of a login: `anthropic#login:` and 32 hexadecimal digits.
    ///
    /// The digits are the first half of a SHA-256 hash. The `:` distinguishes this key from those of extensions.
    #[must_use]
    pub fn login(provider: &ProviderId, login: &LoginId) -> Self {
        let hash = Sha256::digest(login.as_str().as_bytes());
        let digits: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Self(format!("{provider}#login:{digits}").into())
    }

    /// The key of the record of an account whose credential states no login: `anthropic/main`.
    #[must_use]
    pub fn account(account: &AccountId) -> Self {
        Self(account.shared_text())
    }

    /// The key of the document for all accounts of a provider: `anthropic`.
    #[must_use]
    pub fn provider(provider: &ProviderId) -> Self {
        Self(provider.as_str().into())
    }

    /// A key that never has a document: `*`. Reading it checks whether the store is available.
    #[must_use]
    pub fn probe() -> Self {
        Self("*".into())
    }

    /// The key of the document that describes an outage: `*#outage`. It exists only in the outage file, never in the
    /// store.
    #[must_use]
    pub fn outage() -> Self {
        Self("*#outage".into())
    }

    /// Parses a key from text that [`as_str`](Self::as_str) returned, for a store that lists its documents.
    #[must_use]
    pub fn stored(text: &str) -> Self {
        Self(text.into())
    }

    /// The key of an extension's document for one account: `anthropic/main#reservations`.
    ///
    /// Account names never contain `#`, so the key never collides with a record. The extension defines the document and its
    /// writers.
    ///
    /// # Panics
    ///
    /// If `extension` has characters other than lower-case letters, digits and `-`.
    #[must_use]
    pub fn account_extension(account: &AccountId, extension: &'static str) -> Self {
        assert_is_plain(extension);
        Self(format!("{account}#{extension}").into())
    }

    /// The key of an extension's document for one record, such as that of [`Account::record_key`](crate::Account::record_key).
    ///
    /// # Panics
    ///
    /// Like [`account_extension`](Self::account_extension).
    #[must_use]
    pub fn extension(&self, extension: &'static str) -> Self {
        assert_is_plain(extension);
        Self(format!("{self}#{extension}").into())
    }

    /// The key of an extension's document for all accounts of a provider: `anthropic#logins`.
    ///
    /// # Panics
    ///
    /// Like [`account_extension`](Self::account_extension).
    #[must_use]
    pub fn provider_extension(provider: &ProviderId, extension: &'static str) -> Self {
        assert_is_plain(extension);
        Self(format!("{provider}#{extension}").into())
    }

    /// The key as text: printable ASCII without spaces or braces.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn assert_is_plain(extension: &str) {
    let is_plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    assert!(
        !extension.is_empty() && extension.bytes().all(is_plain),
        "the name of an extension has lower-case letters, digits and '-'"
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

/// A stored document without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentEntry {
    /// The key.
    pub key: StoreKey,
    /// The version of the document.
    pub version: Version,
    /// How long the store still keeps it.
    pub ttl: Duration,
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

    /// Creates a random version, for stores whose writers choose versions. Two are equal with a probability of 2⁻⁶⁴. It is
    /// never 0.
    #[must_use]
    pub fn random() -> Self {
        Self(random::random_u64().max(1))
    }

    /// The number that the store chose.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// A stored document and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Document {
    /// The version of the document.
    pub version: Version,
    /// The content of the document.
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
    /// The time of the one clock that all users of the store share.
    pub now: Timestamp,
}

impl StoreRead {
    /// Creates a result with the store's time `now`.
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

/// Why a wait for a change ended. The default is a notice without content: the caller must read the document.
///
/// A notice has no time of the store, and it may be late: the caller may already have read a later state. So a caller
/// accepts its document only if the document itself proves that it is newer, or merges the two. It must never conclude
/// from a notice that the store lost a write. Only a read or a conflict proves that.
///
/// ```
/// use quota_core::store::{Document, Notice, Version};
///
/// let document = Document::new(Version::new(7), "hello".into());
/// assert_eq!(Notice::of_document(document.clone()).document(), Some(document));
/// assert_eq!(Notice::of_version(Version::new(7)).document(), None);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notice {
    /// The version that a write gave the document, if the store knows it.
    pub version: Option<Version>,
    /// The body of the document of that version, if it is available. There is then a version too.
    pub body: Option<Bytes>,
    /// Whether there is no change, and the store has just checked that changes still reach this caller. A caller that polls
    /// in case a notice was lost can poll less often.
    pub is_unchanged: bool,
}

impl Notice {
    /// Creates the notice of a document that a write stored.
    #[must_use]
    pub fn of_document(document: Document) -> Self {
        Self { version: Some(document.version), body: Some(document.body), is_unchanged: false }
    }

    /// Creates the notice of a version without its document; `None` if the version is unknown or there is no document.
    #[must_use]
    pub fn of_version(version: impl Into<Option<Version>>) -> Self {
        Self { version: version.into(), ..Self::default() }
    }

    /// Creates the notice that nothing changed and that changes still reach this caller.
    #[must_use]
    pub fn unchanged() -> Self {
        Self { is_unchanged: true, ..Self::default() }
    }

    /// The document, if the notice contains it.
    #[must_use]
    pub fn document(&self) -> Option<Document> {
        Some(Document::new(self.version?, self.body.clone()?))
    }
}

/// The outcome of a compare-and-swap.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub enum CasOutcome {
    /// The swap was applied, and the document now has this version.
    Applied(Version),
    /// Another writer was first. This is the current document.
    Conflict(StoreRead),
}

/// Whether a write was applied although its response was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WriteState {
    /// The write was not applied.
    NotApplied,
    /// The write may have been applied.
    Unknown,
}

/// Why a store operation failed, by the caller's reaction. It never contains the password of a URL.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store was unreachable or timed out. The caller continues without it, because it may recover.
    #[error("the store is unavailable: {reason}")]
    #[non_exhaustive]
    Unavailable {
        /// Whether the write may have been applied.
        applied: WriteState,
        /// The failure.
        reason: Cow<'static, str>,
        /// The underlying error, if there is one.
        source: Option<Arc<dyn Error + Send + Sync>>,
    },
    /// The store rejected the operation: no permission, no space, or read-only. A user must fix it.
    #[error("the store rejected the operation: {reason}")]
    #[non_exhaustive]
    Rejected {
        /// The rejected operation.
        reason: Cow<'static, str>,
        /// The underlying error, if there is one.
        source: Option<Arc<dyn Error + Send + Sync>>,
    },
    /// The document is damaged or was not written by quota. The store did not change it.
    #[error("the store's content is invalid: {reason}")]
    #[non_exhaustive]
    Corrupt {
        /// The fault.
        reason: Cow<'static, str>,
        /// The underlying error, if there is one.
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

    /// Creates an error for a damaged document or one that quota did not write.
    #[must_use]
    pub fn corrupt(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Corrupt { reason: reason.into(), source: None }
    }

    /// Sets the underlying error.
    #[must_use]
    pub fn with_source(mut self, cause: impl Error + Send + Sync + 'static) -> Self {
        let (Self::Unavailable { source, .. } | Self::Rejected { source, .. } | Self::Corrupt { source, .. }) =
            &mut self;
        *source = Some(Arc::new(cause));
        self
    }

    /// Whether a retry may succeed before a user fixes anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extension_key_never_equals_an_account_key() {
        let main: AccountId = "anthropic/main".parse().unwrap();

        let key = StoreKey::account_extension(&main, "reservations");

        assert_eq!(key.as_str(), "anthropic/main#reservations");
        assert!(key.as_str().parse::<AccountId>().is_err());
        assert_eq!(StoreKey::provider_extension(main.provider(), "logins").as_str(), "anthropic#logins");
    }

    #[test]
    fn the_key_of_a_login_hides_its_text_and_is_stable() {
        let provider = ProviderId::from_static("anthropic");

        let key = StoreKey::login(&provider, &LoginId::new("account-a"));

        assert_eq!(key.as_str(), "anthropic#login:fc164f8250803ea8d41834f1de858210");
        assert_ne!(key, StoreKey::login(&provider, &LoginId::new("account-b")));
        assert!(key.as_str().parse::<AccountId>().is_err());
    }

    #[test]
    #[should_panic(expected = "lower-case letters")]
    fn an_extension_name_with_a_space_panics() {
        let main: AccountId = "anthropic/main".parse().unwrap();

        let _ = StoreKey::account_extension(&main, "a b");
    }
}
