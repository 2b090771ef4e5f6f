//! The files that replace a store during an outage: one per store, in the first usable folder.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use quota_core::QuotaStore;
use quota_core::file::{check_private_folder, create_private_folder, private_temp_folder};
use quota_core::outage::OutageLevel;
use quota_core::store::{DocumentEntry, StoreError, StoreKey, Version};
use quota_sqlite::{SqliteOptions, SqliteStore};
use sha2::{Digest, Sha256};
use url::Url;

/// The files that hold the documents of the store with this URL during an outage, for
/// [`QuotaManagerBuilder::outage_store`](quota_core::manager::QuotaManagerBuilder::outage_store).
///
/// The program `quota` uses the same files, so its commands and this program share them. The name of a file contains a
/// hash of the URL without its password. The folders are, in this order:
///
/// 1. `$XDG_STATE_HOME/quota`, otherwise `~/.local/state/quota`;
/// 2. `$XDG_RUNTIME_DIR/quota`;
/// 3. `quota-UID` in the temporary directory, which must belong to this user alone.
///
/// ```
/// use quota::QuotaManager;
/// use quota::policy::StoreOutagePolicy;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let url = "sqlite:///home/me/.local/state/quota/quota.db";
/// let command = QuotaManager::builder(quota::open_store(url)?).outage_store(quota::outage_files(url)).build()?;
/// assert_eq!(command.outage(), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The result is empty for `memory:` and for text that is not a URL.
#[must_use]
pub fn outage_files(url: &str) -> Vec<Arc<dyn OutageLevel>> {
    let Some(name) = file_name(url) else { return Vec::new() };
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || variable("HOME").or_else(|| variable("USERPROFILE"));
    let state = variable("XDG_STATE_HOME").or_else(|| Some(home()?.join(".local").join("state")));
    let folders = [
        state.map(|state| Folder::Own(state.join("quota"))),
        variable("XDG_RUNTIME_DIR").map(Folder::Runtime),
        Some(Folder::Private(private_temp_folder())),
    ];
    let level = |folder: Folder| Arc::new(OutageFile::new(folder, &name)) as Arc<dyn OutageLevel>;
    folders.into_iter().flatten().map(level).collect()
}

/// The query keys that set only a timeout. They do not identify a store.
const TIMEOUTS: [&str; 3] = ["busy_ms", "connect_ms", "response_ms"];

/// The name of the file: `outage-0123456789abcdef.db`.
fn file_name(url: &str) -> Option<String> {
    let mut url = Url::parse(url).ok().filter(|url| url.scheme() != "memory")?;
    // A URL without a host has no password either.
    let _ = url.set_password(None);
    let query: Vec<_> = url
        .query_pairs()
        .filter(|(key, _)| !TIMEOUTS.contains(&&**key))
        .map(|pair| format!("{pair:?}"))
        .collect();
    url.set_query(None);
    let hash = Sha256::digest(format!("{url} {}", query.join(" ")));
    let hash: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Some(format!("outage-{hash}.db"))
}

/// A folder for the file.
#[derive(Debug)]
enum Folder {
    /// The state folder. The first write creates it.
    Own(PathBuf),
    /// The folder that the system provides while this user is logged in. It is never created.
    Runtime(PathBuf),
    /// A folder in the temporary directory, which all users share.
    Private(PathBuf),
}

/// One file.
#[derive(Debug)]
struct OutageFile {
    folder: Folder,
    path: PathBuf,
    /// The store of this process, opened when it is needed.
    opened: OnceLock<SqliteStore>,
}

/// How long a write waits for the lock of the file. Many processes may start at once.
const BUSY_TIMEOUT: Duration = Duration::from_secs(3);

impl OutageFile {
    fn new(folder: Folder, name: &str) -> Self {
        let path = match &folder {
            Folder::Own(folder) | Folder::Private(folder) => folder.join(name),
            Folder::Runtime(folder) => folder.join("quota").join(name),
        };
        Self { folder, path, opened: OnceLock::new() }
    }

    /// Checks the folder. `quota-sqlite` checks the owner and the mode of the file and of its folder.
    fn check(&self, is_new: bool) -> io::Result<()> {
        match &self.folder {
            Folder::Own(_) => Ok(()),
            Folder::Runtime(folder) => {
                if is_new && !folder.is_dir() {
                    return Err(io::ErrorKind::NotFound.into());
                }
                Ok(())
            }
            Folder::Private(folder) => {
                if is_new {
                    create_private_folder(folder)?;
                }
                check_private_folder(folder)
            }
        }
    }

    fn options(&self, is_new: bool) -> Result<SqliteOptions, StoreError> {
        self.check(is_new).map_err(|error| {
            let reason = format!("could not use the folder of {}: {error}", self.path.display());
            StoreError::rejected(reason).with_source(error)
        })?;
        // A damaged file is replaced. What it held is lost, which costs at most one call per account.
        let notice = |_: &Path| ();
        Ok(SqliteOptions::file(&self.path).busy_timeout(BUSY_TIMEOUT).set_damaged_aside(notice))
    }

    fn store(&self) -> Result<&SqliteStore, StoreError> {
        let options = self.options(false)?;
        if let Some(store) = self.opened.get() {
            return Ok(store);
        }
        let store = open(options.must_exist())?;
        Ok(self.opened.get_or_init(|| store))
    }
}

fn open(options: SqliteOptions) -> Result<SqliteStore, StoreError> {
    options.open().map_err(|error| StoreError::rejected(error.to_string()))
}

#[async_trait]
impl OutageLevel for OutageFile {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn exists(&self) -> bool {
        self.path.exists()
    }

    fn open(&self) -> Result<Arc<dyn QuotaStore>, StoreError> {
        Ok(Arc::new(self.store()?.clone()))
    }

    fn create(&self) -> Result<Arc<dyn QuotaStore>, StoreError> {
        Ok(Arc::new(open(self.options(true)?)?))
    }

    async fn documents(&self) -> Result<Vec<DocumentEntry>, StoreError> {
        self.store()?.documents().await
    }

    async fn remove(&self, version: Version) -> Result<(), StoreError> {
        self.store()?.remove_file(&StoreKey::outage(), version).await
    }
}

#[cfg(test)]
mod tests {
    use quota_core::store::CasOutcome;

    use super::*;

    #[test]
    fn the_name_depends_on_the_store_but_not_on_its_password_or_timeouts() {
        let name = |url| file_name(url).unwrap();
        let plain = name("redis://me@host:6379/?prefix=a");

        assert_eq!(plain, name("redis://me:hunter2@host:6379/?prefix=a&connect_ms=5"));
        assert!(plain.starts_with("outage-") && plain.ends_with(".db") && plain.len() == 26, "{plain}");
        for other in [
            "redis://host:6379/?prefix=a",
            "redis://me@host:6379/?prefix=b",
            "redis://me@other:6379/?prefix=a",
        ] {
            assert_ne!(plain, name(other), "{other}");
        }
        assert_eq!(name("sqlite:///x/quota.db"), name("sqlite:///x/quota.db?busy_ms=20"));
    }

    #[test]
    fn a_memory_store_has_no_file() {
        assert!(outage_files("memory:").is_empty() && outage_files("no url").is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn a_planted_link_in_the_temporary_directory_is_not_used() {
        let temp = tempfile::tempdir().unwrap();
        let elsewhere = temp.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        let folder = temp.path().join("quota-1000");
        std::os::unix::fs::symlink(&elsewhere, &folder).unwrap();
        let level = OutageFile::new(Folder::Private(folder), "outage-1.db");

        assert!(level.create().is_err() && level.open().is_err());
    }

    #[test]
    fn a_missing_runtime_folder_is_not_created() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("user");
        let level = OutageFile::new(Folder::Runtime(folder.clone()), "outage-1.db");

        assert!(level.create().is_err());
        assert!(!folder.exists());
    }

    fn level(temp: &tempfile::TempDir) -> OutageFile {
        OutageFile::new(Folder::Own(temp.path().join("state")), "outage-1.db")
    }

    async fn write(store: &Arc<dyn QuotaStore>, expected: Option<Version>) -> Result<CasOutcome, StoreError> {
        store.compare_and_swap(&StoreKey::outage(), expected, "one".into(), BUSY_TIMEOUT).await
    }

    async fn version(store: &Arc<dyn QuotaStore>) -> Version {
        store.read(&StoreKey::outage()).await.unwrap().version().unwrap()
    }

    /// Creates the file, and returns its store and the version of its document.
    async fn created(level: &OutageFile) -> (Arc<dyn QuotaStore>, Version) {
        let written = write(&level.create().unwrap(), None).await.unwrap();
        assert!(matches!(written, CasOutcome::Applied(_)), "{written:?}");
        let store = level.open().unwrap();
        let version = version(&store).await;
        (store, version)
    }

    #[tokio::test]
    async fn a_removed_file_does_not_come_back() {
        let temp = tempfile::tempdir().unwrap();
        let [level, other] = [(); 2].map(|()| level(&temp));
        let (_, first) = created(&level).await;
        let late = other.open().unwrap();
        assert!(level.exists() && version(&late).await == first);

        level.remove(first).await.unwrap();

        assert!(write(&late, Some(first)).await.unwrap_err().is_transient());
        assert!(!level.exists() && std::fs::read_dir(temp.path().join("state")).unwrap().next().is_none());
    }

    /// Another task of the suspended process has written to the newer file, so its connection belongs to the newer
    /// file.
    #[tokio::test]
    async fn the_file_of_a_later_outage_is_not_removed() {
        let temp = tempfile::tempdir().unwrap();
        let [suspended, other] = [(); 2].map(|()| level(&temp));
        let (store, first) = created(&suspended).await;
        other.remove(first).await.unwrap();
        let (_, later) = created(&other).await;
        let _ = store.compare_and_swap(&StoreKey::probe(), None, "two".into(), BUSY_TIMEOUT).await.unwrap();

        assert!(suspended.remove(first).await.is_err());

        assert!(suspended.exists() && version(&other.open().unwrap()).await == later);
    }

    #[tokio::test]
    async fn a_file_whose_attempt_another_process_has_taken_over_is_not_removed() {
        let temp = tempfile::tempdir().unwrap();
        let [suspended, other] = [(); 2].map(|()| level(&temp));
        let (_, first) = created(&suspended).await;
        let _ = write(&other.open().unwrap(), Some(first)).await.unwrap();

        assert!(suspended.remove(first).await.is_err());

        assert!(suspended.exists());
    }

    #[tokio::test]
    async fn its_documents_are_listed_with_their_remaining_ttl() {
        let temp = tempfile::tempdir().unwrap();
        let level = level(&temp);
        let (_, version) = created(&level).await;

        let entries = level.documents().await.unwrap();

        assert_eq!(entries.len(), 1);
        assert_eq!((&entries[0].key, entries[0].version), (&StoreKey::outage(), version));
        assert!(entries[0].ttl <= BUSY_TIMEOUT && !entries[0].ttl.is_zero());
    }
}
