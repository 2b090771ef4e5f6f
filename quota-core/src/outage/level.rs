//! A place for the documents of an outage.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

#[cfg(doc)]
use crate::store::StoreKey;
use crate::store::{DocumentEntry, QuotaStore, StoreError, Version};

/// A place for the documents of an outage, such as a file. All processes of this machine and user must find the same one.
#[async_trait]
pub trait OutageLevel: fmt::Debug + Send + Sync + 'static {
    /// Where it is, for messages.
    fn place(&self) -> String;

    /// Whether it exists. Each use of the store checks this, so it must cost no more than a `stat`.
    fn exists(&self) -> bool;

    /// Opens it. The store must never create the file: a process that is late would otherwise write into a new file after the
    /// outage.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`]. The next level is then used.
    fn open(&self) -> Result<Arc<dyn QuotaStore>, StoreError>;

    /// Opens it so that its first write creates the file, unless that exists.
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

    /// Removes the file, with its content, if its document of the outage, [`StoreKey::outage`], still has this version. Processes
    /// that have it open must notice that.
    ///
    /// A later file at the same place must stay: this process may have been suspended while others ended this outage and began the
    /// next one. So must a file whose lease for the attempt another process has taken over. Both have another version.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`], also if the version is another one. The file then stays in use, and the next attempt merges it again.
    async fn remove(&self, version: Version) -> Result<(), StoreError>;
}
