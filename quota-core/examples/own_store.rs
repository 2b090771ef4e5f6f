//! A complete custom store: a folder with one file per document, which all processes of a machine share.
//!
//! `cargo run -p quota-core --example own_store --features testing` uses the store. `cargo test -p quota-core --example
//! own_store` tests it. A backend needs only three methods and one macro line.
#![expect(clippy::print_stdout, reason = "an example prints for the user who runs it")]

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use quota_core::store::{CasOutcome, Document, Notice, StoreError, StoreKey, StoreRead, Version, WriteState};
use quota_core::testing::FakeProvider;
use quota_core::{AccountId, Clock, QuotaManager, QuotaStore};
use serde::{Deserialize, Serialize};

/// Stores each document in its own file, under a lock that the operating system releases if its holder dies.
#[derive(Debug, Clone)]
struct FolderStore {
    folder: PathBuf,
    clock: Clock,
}

/// The content of a file. It stays after the document has expired, so that no version is ever reused.
#[derive(Default, Serialize, Deserialize)]
struct Page {
    version: u64,
    expires_ms: i64,
    body: Vec<u8>,
}

impl FolderStore {
    fn open(folder: impl Into<PathBuf>) -> io::Result<Self> {
        let folder = folder.into();
        fs::create_dir_all(&folder)?;
        Ok(Self { folder, clock: Clock::system() })
    }

    /// Runs `work` on the page of `key` under its lock on a blocking thread, and writes the page that `work` returns.
    async fn with_page<T: Send + 'static>(
        &self,
        key: &StoreKey,
        work: impl FnOnce(Page, StoreRead) -> (T, Option<Page>) + Send + 'static,
    ) -> Result<T, StoreError> {
        let (path, clock) = (self.folder.join(key.as_str().replace('/', "%")), self.clock.clone());
        let result = tokio::task::spawn_blocking(move || -> io::Result<T> {
            let lock = File::create(path.with_extension("lock"))?;
            lock.lock()?;
            let page = load(&path)?;
            let now = clock.now();
            let is_live = page.version > 0 && now.as_millisecond() < page.expires_ms;
            let document =
                is_live.then(|| Document::new(Version::new(page.version), page.body.clone().into()));
            let (result, next) = work(page, StoreRead::new(document, now));
            if let Some(next) = next {
                // Write another file and rename it. A process that is killed in between leaves the old page complete.
                let temporary = path.with_extension("new");
                fs::write(&temporary, serde_json::to_vec(&next)?)?;
                fs::rename(&temporary, &path)?;
            }
            Ok(result)
        });
        match result.await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                Err(StoreError::corrupt("a page is damaged").with_source(error))
            }
            Ok(Err(error)) => {
                Err(StoreError::unavailable(WriteState::Unknown, "could not read or write a page")
                    .with_source(error))
            }
            Err(error) => {
                Err(StoreError::unavailable(WriteState::Unknown, "the runtime shut down").with_source(error))
            }
        }
    }
}

fn load(path: &Path) -> io::Result<Page> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Page::default()),
        Err(error) => Err(error),
    }
}

#[async_trait]
impl QuotaStore for FolderStore {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        self.with_page(key, |_, reading| (reading, None)).await
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        ttl: Duration,
    ) -> Result<CasOutcome, StoreError> {
        self.with_page(key, move |page, reading| {
            if reading.version() != expected {
                return (CasOutcome::Conflict(reading), None);
            }
            let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
            let expires_ms = reading.now.as_millisecond().saturating_add(ttl_ms);
            let next = Page { version: page.version + 1, expires_ms, body: body.to_vec() };
            (CasOutcome::Applied(Version::new(next.version)), Some(next))
        })
        .await
    }

    async fn wait_for_change(&self, key: &StoreKey, seen: Option<Version>) -> Result<Notice, StoreError> {
        // A folder sends no notifications, so this store polls. A late notice is allowed.
        loop {
            let reading = self.read(key).await?;
            if reading.version() != seen {
                // With the document, the caller need not read it again. A store that has only the version at hand returns that.
                return Ok(reading.document.map(Notice::of_document).unwrap_or_default());
            }
            self.clock.sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::temp_dir().join("quota-own-store-example");
    let quota = QuotaManager::builder(FolderStore::open(&folder)?)
        .fetcher(FakeProvider::answering("example", 42.0))
        .build()?;
    let account = quota.account(&"example/main".parse::<AccountId>()?);

    let usage = account.get().await?;

    for window in usage.snapshot().windows() {
        println!("{}: {:?}, shared through {}", window.id(), usage.used(window.id()), folder.display());
    }
    quota.close().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::FolderStore;

    thread_local! {
        /// The folder of one test. Each test runs on its own thread, whose end removes the folder.
        static FOLDER: TempDir = TempDir::new().unwrap();
    }

    quota_core::store_conformance!(folder_store, || async {
        FOLDER.with(|folder| FolderStore::open(folder.path())).unwrap()
    });
}
