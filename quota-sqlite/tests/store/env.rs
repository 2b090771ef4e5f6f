//! Shared helpers: folders, files, and stores in them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use quota_core::QuotaStore;
use quota_core::store::{CasOutcome, StoreError, StoreKey, StoreRead, Version};
use quota_sqlite::{SqliteOptions, SqliteStore};
use tempfile::TempDir;

pub(crate) const TTL: Duration = Duration::from_secs(3600);

/// A new folder, and the path of a missing file in it.
pub(crate) fn new_path() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder can be created");
    let path = folder.path().join("quota.db");
    (folder, path)
}

pub(crate) fn open(path: &Path) -> SqliteStore {
    SqliteOptions::file(path).open().expect("the settings are valid")
}

pub(crate) fn key(name: &str) -> StoreKey {
    StoreKey::account(&format!("example/{name}").parse().expect("the name is valid"))
}

pub(crate) async fn write(store: &SqliteStore, name: &str, body: &'static str) -> Version {
    let current = store.read(&key(name)).await.expect("the store can be read");
    match try_write(store, name, current.version(), body).await.expect("the store can be written") {
        CasOutcome::Applied(version) => version,
        other => panic!("no other process writes: {other:?}"),
    }
}

pub(crate) async fn try_write(
    store: &SqliteStore,
    name: &str,
    expected: Option<Version>,
    body: &'static str,
) -> Result<CasOutcome, StoreError> {
    store.compare_and_swap(&key(name), expected, Bytes::from_static(body.as_bytes()), TTL).await
}

pub(crate) async fn read(store: &SqliteStore, name: &str) -> Result<StoreRead, StoreError> {
    store.read(&key(name)).await
}

pub(crate) fn body(reading: StoreRead) -> Option<String> {
    reading.document.map(|document| String::from_utf8_lossy(&document.body).into_owned())
}

/// A direct connection to the database.
pub(crate) fn raw(path: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(path).expect("the file can be opened")
}
