//! A location for the documents of an outage.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

#[cfg(doc)]
use crate::store::StoreKey;
use crate::store::{DocumentEntry, QuotaStore, StoreError, Version};

/// A location for the documents of an outage, such as a file. All processes of this user on this machine must find the
/// same one.
#[async_trait]
pub trait OutageLevel: fmt::Debug + Send + Sync + 'static {
    /// The location, for messages.
    fn place(&self) -> String;

    /// Whether it exists. Each store operation checks this, so it must cost no more than a `stat`.
    fn exists(&self) -> bool;

    /// Opens it. The store must never create the file. Otherwise a late process would write to a new file after the
    /// outage.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`]. The next level is then used.
    fn open(&self) -> Result<Arc<dyn QuotaStore>, StoreError>;

    /// Opens it so that the first write creates the file unless it exists.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`], for example because a folder belongs to another user. The next level is then used.
    fn create(&self) -> Result<Arc<dyn QuotaStore>, StoreError>;

    /// The documents in it.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`].
    async fn documents(&self) -> Result<Vec<DocumentEntry>, StoreError>;

    /// Removes the file with its content, if its outage document, [`StoreKey::outage`], still has this version.
    /// Processes that have the file open must notice the removal.
    ///
    /// A newer file at the same path must be kept, because this process may have been suspended while others ended this
    /// outage and began the next one. A file whose lease for the attempt another process has taken over must be kept
    /// too. Both have a different version.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`], also if the version differs. The file then stays in use, and the next attempt merges it
    /// again.
    async fn remove(&self, version: Version) -> Result<(), StoreError>;
}
