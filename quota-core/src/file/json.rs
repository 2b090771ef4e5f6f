//! A JSON file that several processes read and change under a lock. Each change replaces the whole file. A malformed file is
//! never overwritten.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::lock::FileLock;
use super::permissions::{self, Untrusted};
use crate::clock::Clock;
use crate::file::{self, blocking};
use crate::secret::SecretBuffer;

/// Why a file could not be read or written. The file is unchanged.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The content is not valid JSON, or its structure is wrong.
    #[error("could not parse {}: invalid at line {line}, column {column}; fix or delete it", path.display())]
    #[non_exhaustive]
    Malformed {
        /// The path of the file.
        path: PathBuf,
        /// The line where parsing stopped; 0 if the position is unknown.
        line: usize,
        /// The column.
        column: usize,
    },
    /// A newer version of this program wrote the file. It can be read but must not be changed.
    #[error("could not change {}: a newer version of this program wrote it; update this program", path.display())]
    #[non_exhaustive]
    UnsupportedVersion {
        /// The path of the file.
        path: PathBuf,
    },
    /// The file holds secrets, and other users may read or change it.
    #[error("{0} is accessible to other users; run `chmod 600 {0}`", path.display())]
    #[non_exhaustive]
    InsecurePermissions {
        /// The path of the file.
        path: PathBuf,
    },
    /// Another user may have written the file, which names hosts and programs.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// Another process held the lock of the file for too long.
    #[error("could not lock {}: another process is changing it", path.display())]
    #[non_exhaustive]
    Locked {
        /// The path of the file.
        path: PathBuf,
    },
    /// The system reported an error.
    #[error("could not {operation} {}", path.display())]
    #[non_exhaustive]
    Io {
        /// What failed: `read`, `write` or `lock`.
        operation: &'static str,
        /// The path of the file.
        path: PathBuf,
        /// The system's error.
        source: Arc<io::Error>,
    },
}

/// The content of a [`JsonFile`].
pub trait JsonContent: Serialize + DeserializeOwned + Default + Send + 'static {
    /// The format number that this program writes.
    const VERSION: u32;
    /// Whether the file holds secrets. If other users may read it, it is rejected.
    const OWNER_ONLY: bool = false;

    /// The format number of the content.
    fn version(&self) -> u32;

    /// Parses the text of the file.
    ///
    /// # Errors
    ///
    /// serde's error. The file is then reported as malformed and never overwritten.
    fn parse(text: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(text)
    }
}

/// A JSON file that several processes read and change.
#[derive(Debug, Clone)]
pub struct JsonFile {
    path: PathBuf,
    clock: Clock,
    /// Whether to reject a file that another user may have written.
    is_trusted_only: bool,
    /// Whether an update removes the lock file.
    removes_lock_file: bool,
    /// Whether an update waits for the disk.
    is_durable: bool,
}

/// The maximum size of a file.
const LIMIT: u64 = 64 * 1024 * 1024;
/// How long to wait for the lock of a file.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

impl JsonFile {
    /// Creates a handle for the file at this path. `clock` measures the wait for its lock.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>, clock: Clock) -> Self {
        Self { path: path.into(), clock, is_trusted_only: false, removes_lock_file: false, is_durable: true }
    }

    /// Rejects a file that a user other than this one or root may have written.
    pub fn trusted_only(self) -> Self {
        Self { is_trusted_only: true, ..self }
    }

    /// Removes the lock file after each update. Otherwise each of many files would have one.
    #[must_use]
    pub fn without_lock_file(self) -> Self {
        Self { removes_lock_file: true, ..self }
    }

    /// Does not wait for the disk; see [`FileLock::replace_cache`].
    #[must_use]
    pub fn without_sync(self) -> Self {
        Self { is_durable: false, ..self }
    }

    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file; a missing file has the default content. Needs no lock, because writers replace the whole file.
    pub async fn load<T: JsonContent>(&self) -> Result<T, FileError> {
        let (path, is_trusted_only) = (self.path.clone(), self.is_trusted_only);
        let failed = self.failed("read");
        blocking(move || Ok(read(&path, is_trusted_only))).await.map_err(failed)?
    }

    /// Reads the file; `None` if it does not exist.
    ///
    /// Another program may replace the file by removing and creating it. So a caller must not drop its state in memory
    /// when the file is missing.
    pub async fn load_existing<T: JsonContent>(&self) -> Result<Option<T>, FileError> {
        let (path, is_trusted_only) = (self.path.clone(), self.is_trusted_only);
        let failed = self.failed("read");
        blocking(move || Ok(read_existing(&path, is_trusted_only))).await.map_err(failed)?
    }

    /// Reads the file like [`load`](Self::load), but blocks the thread.
    pub fn load_blocking<T: JsonContent>(&self) -> Result<T, FileError> {
        read(&self.path, self.is_trusted_only)
    }

    /// Reads, changes and writes the file under its lock. A missing file is created. If the content stays the same,
    /// nothing is written.
    ///
    /// If the future is dropped, the change is applied completely or not at all.
    pub async fn update<T: JsonContent, R: Send + 'static>(
        &self,
        change: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> Result<R, FileError> {
        self.update_under_lock(read::<T>, change).await
    }

    /// Changes the file like [`update`](Self::update), but never creates it.
    ///
    /// # Errors
    ///
    /// [`FileError::Io`] with [`io::ErrorKind::NotFound`] if the file does not exist. The change is then not applied.
    pub async fn update_existing<T: JsonContent, R: Send + 'static>(
        &self,
        change: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> Result<R, FileError> {
        let read = |path: &Path, is_trusted_only| match read_existing::<T>(path, is_trusted_only)? {
            Some(content) => Ok(content),
            None => Err(io_error("read", path, io::ErrorKind::NotFound.into())),
        };
        self.update_under_lock(read, change).await
    }

    async fn update_under_lock<T: JsonContent, R: Send + 'static>(
        &self,
        read: impl FnOnce(&Path, bool) -> Result<T, FileError> + Send + 'static,
        change: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> Result<R, FileError> {
        let lock = self.lock_sibling(".lock", LOCK_TIMEOUT).await?;
        let lock = if self.removes_lock_file { lock.remove_on_release() } else { lock };
        let (path, is_trusted_only) = (self.path.clone(), self.is_trusted_only);
        let is_durable = self.is_durable;
        let work = move || {
            let changed = read(&path, is_trusted_only)
                .and_then(|content| replace(&lock, is_durable, &path, content, change));
            drop(lock);
            Ok(changed)
        };
        blocking(work).await.map_err(self.failed("write"))?
    }

    /// Waits at most `timeout` for the lock of the sibling file with this suffix. The lock is released when it is dropped or
    /// when the process ends.
    pub async fn lock_sibling(&self, suffix: &str, timeout: Duration) -> Result<FileLock, FileError> {
        let lock = FileLock::acquire(&self.path, suffix, &self.clock, timeout).await;
        lock.map_err(self.failed("lock"))?.ok_or_else(|| self.locked_error())
    }

    /// Returns the error for a caller that timed out while waiting for the lock.
    pub fn locked_error(&self) -> FileError {
        FileError::Locked { path: self.path.clone() }
    }

    fn failed(&self, operation: &'static str) -> impl Fn(io::Error) -> FileError + use<> {
        let path = self.path.clone();
        move |error| io_error(operation, &path, error)
    }
}

fn io_error(operation: &'static str, path: &Path, error: io::Error) -> FileError {
    FileError::Io { operation, path: path.to_owned(), source: Arc::new(error) }
}

fn read<T: JsonContent>(path: &Path, is_trusted_only: bool) -> Result<T, FileError> {
    read_existing(path, is_trusted_only).map(Option::unwrap_or_default)
}

fn read_existing<T: JsonContent>(path: &Path, is_trusted_only: bool) -> Result<Option<T>, FileError> {
    let opened = file::open(path).and_then(|opened| {
        let trusted = if is_trusted_only { permissions::check(&opened, path)? } else { Ok(()) };
        Ok((is_owner_only(&opened)?, trusted, file::read(opened, LIMIT)?))
    });
    let contents = match opened {
        Ok((false, ..)) if T::OWNER_ONLY => {
            return Err(FileError::InsecurePermissions { path: path.to_owned() });
        }
        Ok((_, Err(untrusted), _)) => return Err(untrusted.into()),
        Ok((.., contents)) => contents,
        Err(error) if file::is_not_found(&error) => return Ok(None),
        Err(error) => return Err(io_error("read", path, error)),
    };
    T::parse(file::strip_bom(&contents)).map(Some).map_err(|error| {
        // The parser's own text could repeat the content, so only the position is reported.
        FileError::Malformed { path: path.to_owned(), line: error.line(), column: error.column() }
    })
}

fn replace<T: JsonContent, R>(
    lock: &FileLock,
    is_durable: bool,
    path: &Path,
    mut content: T,
    change: impl FnOnce(&mut T) -> R,
) -> Result<R, FileError> {
    if content.version() > T::VERSION {
        return Err(FileError::UnsupportedVersion { path: path.to_owned() });
    }
    let failed = |error| io_error("write", path, error);
    let before = text_of(&content).map_err(failed)?;
    let result = change(&mut content);
    let after = text_of(&content).map_err(failed)?;
    if *after != *before {
        let replaced = if is_durable { lock.replace(&after) } else { lock.replace_cache(&after) };
        replaced.map_err(failed)?;
    }
    Ok(result)
}

fn text_of(content: &impl Serialize) -> io::Result<SecretBuffer> {
    let mut text = SecretBuffer::default();
    serde_json::to_writer_pretty(&mut text, content)?;
    text.extend_from_slice(b"\n");
    Ok(text)
}

/// Whether only its owner may read or change the file.
#[cfg(unix)]
fn is_owner_only(file: &File) -> io::Result<bool> {
    Ok(std::os::unix::fs::MetadataExt::mode(&file.metadata()?) & 0o066 == 0)
}

#[cfg(not(unix))]
fn is_owner_only(_file: &File) -> io::Result<bool> {
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde::Deserialize;

    use super::*;

    fn sibling_path(path: &Path, suffix: &str) -> PathBuf {
        let mut name = path.file_name().unwrap().to_owned();
        name.push(suffix);
        path.with_file_name(name)
    }

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Counter {
        #[serde(default)]
        version: u32,
        #[serde(default)]
        count: u64,
        #[serde(flatten)]
        unknown: serde_json::Map<String, serde_json::Value>,
    }

    impl JsonContent for Counter {
        const VERSION: u32 = 1;

        fn version(&self) -> u32 {
            self.version
        }
    }

    fn json_file(dir: &tempfile::TempDir) -> JsonFile {
        JsonFile::at(dir.path().join("below").join("a.json"), Clock::system())
    }

    fn file_with(dir: &tempfile::TempDir, text: &str) -> JsonFile {
        let file = json_file(dir);
        fs::create_dir_all(file.path().parent().unwrap()).unwrap();
        fs::write(file.path(), text).unwrap();
        file
    }

    async fn increment(file: &JsonFile) -> Result<u64, FileError> {
        file.update(|counter: &mut Counter| {
            counter.count += 1;
            counter.count
        })
        .await
    }

    #[tokio::test]
    async fn a_missing_file_loads_as_the_default() {
        let dir = tempfile::tempdir().unwrap();

        assert_eq!(json_file(&dir).load::<Counter>().await.unwrap(), Counter::default());
    }

    #[tokio::test]
    async fn a_malformed_file_is_an_error_and_stays_unchanged() {
        for text in ["", "{\"count\": 1", "[]", "\0\0\0"] {
            let dir = tempfile::tempdir().unwrap();
            let file = file_with(&dir, text);

            let loaded = file.load::<Counter>().await.unwrap_err();
            let updated = increment(&file).await.unwrap_err();

            assert!(matches!(loaded, FileError::Malformed { .. }), "{text:?} {loaded:?}");
            assert!(matches!(updated, FileError::Malformed { .. }), "{text:?} {updated:?}");
            assert_eq!(fs::read_to_string(file.path()).unwrap(), text);
        }
    }

    #[tokio::test]
    async fn an_error_does_not_repeat_the_content_of_the_file() {
        let dir = tempfile::tempdir().unwrap();

        let error = file_with(&dir, "{\"count\": \"n33dle\"}").load::<Counter>().await.unwrap_err();

        assert!(!format!("{error} {error:?}").contains("n33dle"), "{error:?}");
    }

    #[tokio::test]
    async fn unknown_fields_survive_an_update() {
        let dir = tempfile::tempdir().unwrap();
        let file = file_with(&dir, r#"{"version":1,"count":4,"colour":"green"}"#);

        assert_eq!(increment(&file).await.unwrap(), 5);

        assert!(fs::read_to_string(file.path()).unwrap().contains("green"));
    }

    #[tokio::test]
    async fn a_file_of_a_higher_version_is_read_but_never_written() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"version":2,"count":4}"#;
        let file = file_with(&dir, text);

        let updated = increment(&file).await.unwrap_err();

        assert!(matches!(updated, FileError::UnsupportedVersion { .. }), "{updated:?}");
        assert_eq!(file.load::<Counter>().await.unwrap().count, 4);
        assert_eq!(fs::read_to_string(file.path()).unwrap(), text);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn only_the_owner_may_read_the_file() {
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().unwrap();
        let file = json_file(&dir);

        increment(&file).await.unwrap();

        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(file.path()), 0o600);
        assert_eq!(mode(&sibling_path(file.path(), ".lock")), 0o600);
        assert_eq!(mode(file.path().parent().unwrap()), 0o700);
    }

    #[tokio::test]
    async fn a_leftover_temporary_file_does_not_block_writers() {
        let dir = tempfile::tempdir().unwrap();
        let file = file_with(&dir, r#"{"version":1,"count":4}"#);
        fs::write(sibling_path(file.path(), ".quota-new"), "{\"cou").unwrap();

        assert_eq!(increment(&file).await.unwrap(), 5);
    }

    #[tokio::test]
    async fn a_change_without_effect_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let missing = JsonFile::at(dir.path().join("missing.json"), Clock::system());
        let file = file_with(&dir, r#"{ "count": 4 }"#);

        missing.update(|_: &mut Counter| ()).await.unwrap();
        file.update(|counter: &mut Counter| counter.count = 4).await.unwrap();

        assert!(!missing.path().exists());
        assert_eq!(fs::read_to_string(file.path()).unwrap(), r#"{ "count": 4 }"#);
    }

    #[tokio::test]
    async fn an_update_of_an_existing_file_does_not_create_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = json_file(&dir);

        let error = file.update_existing(|counter: &mut Counter| counter.count = 1).await.unwrap_err();

        let FileError::Io { source, .. } = error else { panic!("{error:?}") };
        assert_eq!(source.kind(), io::ErrorKind::NotFound);
        assert!(!file.path().exists());
        assert_eq!(file.load_existing::<Counter>().await.unwrap(), None);

        increment(&file).await.unwrap();
        file.update_existing(|counter: &mut Counter| counter.count = 7).await.unwrap();
        assert_eq!(file.load_existing::<Counter>().await.unwrap().unwrap().count, 7);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_link_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let file = file_with(&dir, r#"{"version":1,"count":4}"#);
        let link = JsonFile::at(dir.path().join("link.json"), Clock::system());
        std::os::unix::fs::symlink(file.path(), link.path()).unwrap();

        increment(&link).await.unwrap();

        assert!(fs::symlink_metadata(link.path()).unwrap().is_symlink());
        assert_eq!(file.load::<Counter>().await.unwrap().count, 5);
    }

    #[cfg(unix)]
    #[tokio::test(start_paused = true)]
    async fn a_file_and_a_link_to_it_share_a_lock() {
        let dir = tempfile::tempdir().unwrap();
        let file = file_with(&dir, "{}");
        let link = JsonFile::at(dir.path().join("link.json"), Clock::system());
        std::os::unix::fs::symlink(file.path(), link.path()).unwrap();
        let _held = FileLock::try_acquire(file.path(), ".lock").unwrap().unwrap();

        let error = increment(&link).await.unwrap_err();

        assert!(matches!(error, FileError::Locked { .. }), "{error:?}");
    }

    #[cfg(unix)]
    #[tokio::test(start_paused = true)]
    async fn a_dangling_link_uses_its_targets_lock_and_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let file = json_file(&dir);
        let link = JsonFile::at(dir.path().join("link.json"), Clock::system());
        std::os::unix::fs::symlink(file.path(), link.path()).unwrap();
        let held = FileLock::try_acquire(file.path(), ".lock").unwrap().unwrap();
        assert!(matches!(increment(&link).await, Err(FileError::Locked { .. })));
        drop(held);

        increment(&link).await.unwrap();

        assert!(fs::symlink_metadata(link.path()).unwrap().is_symlink());
        assert_eq!(file.load::<Counter>().await.unwrap().count, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_the_lock_times_out() {
        let dir = tempfile::tempdir().unwrap();
        let file = json_file(&dir);
        let _held = FileLock::try_acquire(file.path(), ".lock").unwrap().unwrap();

        let error = increment(&file).await.unwrap_err();

        assert!(matches!(error, FileError::Locked { .. }), "{error:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn concurrent_writers_lose_no_update() {
        let dir = tempfile::tempdir().unwrap();
        let writers = (0..8).map(|_| {
            let file = json_file(&dir);
            async move {
                for _ in 0..25 {
                    increment(&file).await.unwrap();
                }
            }
        });

        let mut tasks = tokio::task::JoinSet::new();
        writers.for_each(|writer| drop(tasks.spawn(writer)));
        tasks.join_all().await;

        assert_eq!(json_file(&dir).load::<Counter>().await.unwrap().count, 200);
    }

    #[cfg(unix)]
    #[test]
    fn trusted_only_rejects_a_file_that_others_may_write() {
        use std::os::unix::fs::PermissionsExt as _;

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        fs::write(&path, r#"{"count":7}"#).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
        let file = JsonFile::at(&path, Clock::system());

        assert_eq!(file.load_blocking::<Counter>().unwrap().count, 7);
        let rejected = file.trusted_only().load_blocking::<Counter>();
        assert!(matches!(rejected, Err(FileError::Untrusted(_))), "{rejected:?}");
    }
}
