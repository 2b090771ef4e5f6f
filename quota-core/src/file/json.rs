//! One JSON file that several processes change: whole or not at all, one after the other, and never over damage.
//! What is in it is its users' business.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::lock::FileLock;
use super::permissions::{self, Untrusted};
use crate::file::{self, blocking};
use crate::{Clock, SecretBuffer};

/// Why a file could not be read or written. It was left as it is.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file is there and is not what it should be. Mend it or move it away.
    #[error("{} is damaged (line {line}, column {column}); mend it or move it away", path.display())]
    #[non_exhaustive]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// The line where understanding ended; 0 if it ended before the first.
        line: usize,
        /// The column.
        column: usize,
    },
    /// The file was written by a newer version of this program: it can be read, and must not be changed.
    #[error("{} was written by a newer program; update this one", path.display())]
    #[non_exhaustive]
    UnsupportedVersion {
        /// Which file.
        path: PathBuf,
    },
    /// The file holds secrets, and others than its owner may read or change it.
    #[error("others than its owner may read or change {0}: run `chmod 600 {0}`", path.display())]
    #[non_exhaustive]
    InsecurePermissions {
        /// Which file.
        path: PathBuf,
    },
    /// The file names hosts and programs, and another user may have written it.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// Another process has been changing the file for too long.
    #[error("{} is being changed by another process", path.display())]
    #[non_exhaustive]
    Locked {
        /// Which file.
        path: PathBuf,
    },
    /// The disk, or the rights to it, are not in order.
    #[error("could not {operation} {}", path.display())]
    #[non_exhaustive]
    Io {
        /// What could not be done: read, write or lock.
        operation: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
}

/// What can be kept in such a file.
pub trait JsonContent: Serialize + DeserializeOwned + Default + Send + 'static {
    /// The number of the form that this program writes.
    const VERSION: u32;
    /// Whether it holds secrets, so that a file that others may read is refused.
    const OWNER_ONLY: bool = false;

    /// The number of the form it was read in.
    fn version(&self) -> u32;
}

/// One file.
#[derive(Debug, Clone)]
pub struct JsonFile {
    path: PathBuf,
    clock: Clock,
    /// Whether a file that another user may have written is refused.
    is_trusted_only: bool,
}

/// No file is larger.
const LIMIT: u64 = 64 * 1024 * 1024;
/// How long to wait for another process.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

impl JsonFile {
    /// The file at that path. Waits for its lock are bounded by this clock.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>, clock: Clock) -> Self {
        Self { path: path.into(), clock, is_trusted_only: false }
    }

    /// Refuses a file that a user other than this one and root may have written.
    pub fn trusted_only(self) -> Self {
        Self { is_trusted_only: true, ..self }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file as it is now; nothing, if there is none. Writers replace it whole, so no lock is needed.
    pub async fn load<T: JsonContent>(&self) -> Result<T, FileError> {
        let (path, is_trusted_only) = (self.path.clone(), self.is_trusted_only);
        let failed = self.failed("read");
        blocking(move || Ok(read(&path, is_trusted_only))).await.map_err(failed)?
    }

    /// The same on this thread, which waits for the disk.
    pub fn load_blocking<T: JsonContent>(&self) -> Result<T, FileError> {
        read(&self.path, self.is_trusted_only)
    }

    /// Reads the file, changes what is in it, and writes it, while no other process does.
    ///
    /// Dropping the future leaves the change undone, or done; never half done.
    pub async fn update<T: JsonContent, R: Send + 'static>(
        &self,
        change: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> Result<R, FileError> {
        let lock = self.lock().await?;
        let (path, is_trusted_only) = (self.path.clone(), self.is_trusted_only);
        let work = move || {
            let changed = replace(&lock, &path, is_trusted_only, change);
            drop(lock);
            Ok(changed)
        };
        blocking(work).await.map_err(self.failed("write"))?
    }

    async fn lock(&self) -> Result<FileLock, FileError> {
        self.lock_sibling(".lock", LOCK_TIMEOUT).await
    }

    /// Takes the lock in the file of this ending, and waits that long for it. It ends when it is dropped, or its process ends.
    pub async fn lock_sibling(&self, ending: &str, patience: Duration) -> Result<FileLock, FileError> {
        let lock = FileLock::acquire(&self.path, ending, &self.clock, patience).await;
        lock.map_err(self.failed("lock"))?.ok_or_else(|| self.busy())
    }

    /// What whoever has waited in vain is told.
    pub fn busy(&self) -> FileError {
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
    let opened = file::open(path).and_then(|opened| {
        let rights = if is_trusted_only { permissions::check(&opened, path)? } else { Ok(()) };
        let rights = (is_private(&opened)?, rights);
        Ok((rights, file::read(opened, LIMIT)?))
    });
    let contents = match opened {
        Ok(((false, _), _)) if T::OWNER_ONLY => {
            return Err(FileError::InsecurePermissions { path: path.to_owned() });
        }
        Ok(((_, Err(untrusted)), _)) => return Err(untrusted.into()),
        Ok((_, contents)) => contents,
        Err(error) if file::is_not_found(&error) => return Ok(T::default()),
        Err(error) => return Err(io_error("read", path, error)),
    };
    serde_json::from_slice(file::strip_bom(&contents)).map_err(|error| {
        // Its text could repeat what stands there; where it stands is enough to find it.
        FileError::Malformed { path: path.to_owned(), line: error.line(), column: error.column() }
    })
}

fn replace<T: JsonContent, R>(
    lock: &FileLock,
    path: &Path,
    is_trusted_only: bool,
    change: impl FnOnce(&mut T) -> R,
) -> Result<R, FileError> {
    let mut content: T = read(path, is_trusted_only)?;
    if content.version() > T::VERSION {
        return Err(FileError::UnsupportedVersion { path: path.to_owned() });
    }
    let result = change(&mut content);
    let failed = |error| io_error("write", path, error);
    // Wiped when it is dropped, since it may hold secrets.
    let mut text = SecretBuffer::default();
    serde_json::to_writer_pretty(&mut text, &content).map_err(|error| failed(error.into()))?;
    text.extend_from_slice(b"\n");
    lock.replace(&text).map_err(failed)?;
    Ok(result)
}

/// Whether nobody but its owner may read or change it.
#[cfg(unix)]
fn is_private(file: &File) -> io::Result<bool> {
    Ok(std::os::unix::fs::MetadataExt::mode(&file.metadata()?) & 0o066 == 0)
}

#[cfg(not(unix))]
fn is_private(_file: &File) -> io::Result<bool> {
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde::Deserialize;

    use super::*;

    fn beside(path: &Path, suffix: &str) -> PathBuf {
        let mut name = path.file_name().unwrap().to_owned();
        name.push(suffix);
        path.with_file_name(name)
    }

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Counted {
        #[serde(default)]
        version: u32,
        #[serde(default)]
        count: u64,
        #[serde(flatten)]
        unknown: serde_json::Map<String, serde_json::Value>,
    }

    impl JsonContent for Counted {
        const VERSION: u32 = 1;

        fn version(&self) -> u32 {
            self.version
        }
    }

    fn document(dir: &tempfile::TempDir) -> JsonFile {
        JsonFile::at(dir.path().join("below").join("a.json"), Clock::system())
    }

    fn given(dir: &tempfile::TempDir, text: &str) -> JsonFile {
        let document = document(dir);
        fs::create_dir_all(document.path().parent().unwrap()).unwrap();
        fs::write(document.path(), text).unwrap();
        document
    }

    async fn count(document: &JsonFile) -> Result<u64, FileError> {
        document
            .update(|counted: &mut Counted| {
                counted.count += 1;
                counted.count
            })
            .await
    }

    // B93
    #[tokio::test]
    async fn a_missing_file_is_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();

        assert_eq!(document(&dir).load::<Counted>().await.unwrap(), Counted::default());
    }

    // B93
    #[tokio::test]
    async fn a_damaged_file_is_an_error_and_stays_as_it_is() {
        for text in ["", "{\"count\": 1", "[]", "\0\0\0"] {
            let dir = tempfile::tempdir().unwrap();
            let document = given(&dir, text);

            let loaded = document.load::<Counted>().await.unwrap_err();
            let updated = count(&document).await.unwrap_err();

            assert!(matches!(loaded, FileError::Malformed { .. }), "{text:?} {loaded:?}");
            assert!(matches!(updated, FileError::Malformed { .. }), "{text:?} {updated:?}");
            assert_eq!(fs::read_to_string(document.path()).unwrap(), text);
        }
    }

    #[tokio::test]
    async fn what_stands_in_a_damaged_file_is_not_repeated() {
        let dir = tempfile::tempdir().unwrap();

        let error = given(&dir, "{\"count\": \"n33dle\"}").load::<Counted>().await.unwrap_err();

        assert!(!format!("{error} {error:?}").contains("n33dle"), "{error:?}");
    }

    // B97
    #[tokio::test]
    async fn fields_of_a_newer_program_survive() {
        let dir = tempfile::tempdir().unwrap();
        let document = given(&dir, r#"{"version":1,"count":4,"colour":"green"}"#);

        assert_eq!(count(&document).await.unwrap(), 5);

        assert!(fs::read_to_string(document.path()).unwrap().contains("green"));
    }

    // B97
    #[tokio::test]
    async fn a_file_of_a_higher_version_is_read_and_never_written() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"version":2,"count":4}"#;
        let document = given(&dir, text);

        let updated = count(&document).await.unwrap_err();

        assert!(matches!(updated, FileError::UnsupportedVersion { .. }), "{updated:?}");
        assert_eq!(document.load::<Counted>().await.unwrap().count, 4);
        assert_eq!(fs::read_to_string(document.path()).unwrap(), text);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn nobody_else_may_read_it() {
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().unwrap();
        let document = document(&dir);

        count(&document).await.unwrap();

        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(document.path()), 0o600);
        assert_eq!(mode(&beside(document.path(), ".lock")), 0o600);
        assert_eq!(mode(document.path().parent().unwrap()), 0o700);
    }

    #[tokio::test]
    async fn what_a_killed_writer_left_is_no_hindrance() {
        let dir = tempfile::tempdir().unwrap();
        let document = given(&dir, r#"{"version":1,"count":4}"#);
        fs::write(beside(document.path(), ".quota-new"), "{\"cou").unwrap();

        assert_eq!(count(&document).await.unwrap(), 5);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_link_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let document = given(&dir, r#"{"version":1,"count":4}"#);
        let link = JsonFile::at(dir.path().join("link.json"), Clock::system());
        std::os::unix::fs::symlink(document.path(), link.path()).unwrap();

        count(&link).await.unwrap();

        assert!(fs::symlink_metadata(link.path()).unwrap().is_symlink());
        assert_eq!(document.load::<Counted>().await.unwrap().count, 5);
    }

    #[cfg(unix)]
    #[tokio::test(start_paused = true)]
    async fn a_file_and_a_link_to_it_have_one_lock() {
        let dir = tempfile::tempdir().unwrap();
        let document = given(&dir, "{}");
        let link = JsonFile::at(dir.path().join("link.json"), Clock::system());
        std::os::unix::fs::symlink(document.path(), link.path()).unwrap();
        let _held = FileLock::try_acquire(document.path(), ".lock").unwrap().unwrap();

        let error = count(&link).await.unwrap_err();

        assert!(matches!(error, FileError::Locked { .. }), "{error:?}");
    }

    #[cfg(unix)]
    #[tokio::test(start_paused = true)]
    async fn a_link_to_a_file_that_is_not_there_yet_has_its_lock_and_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let document = document(&dir);
        let link = JsonFile::at(dir.path().join("link.json"), Clock::system());
        std::os::unix::fs::symlink(document.path(), link.path()).unwrap();
        let held = FileLock::try_acquire(document.path(), ".lock").unwrap().unwrap();
        assert!(matches!(count(&link).await, Err(FileError::Locked { .. })));
        drop(held);

        count(&link).await.unwrap();

        assert!(fs::symlink_metadata(link.path()).unwrap().is_symlink());
        assert_eq!(document.load::<Counted>().await.unwrap().count, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_locked_for_too_long_is_busy() {
        let dir = tempfile::tempdir().unwrap();
        let document = document(&dir);
        let _held = FileLock::try_acquire(document.path(), ".lock").unwrap().unwrap();

        let error = count(&document).await.unwrap_err();

        assert!(matches!(error, FileError::Locked { .. }), "{error:?}");
    }

    // B89
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_two_hundred_changes_by_eight_writers_none_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let writers = (0..8).map(|_| {
            let document = document(&dir);
            async move {
                for _ in 0..25 {
                    count(&document).await.unwrap();
                }
            }
        });

        let mut tasks = tokio::task::JoinSet::new();
        writers.for_each(|writer| drop(tasks.spawn(writer)));
        tasks.join_all().await;

        assert_eq!(document(&dir).load::<Counted>().await.unwrap().count, 200);
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_write_is_refused_where_that_is_asked() {
        use std::os::unix::fs::PermissionsExt as _;

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        fs::write(&path, r#"{"count":7}"#).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
        let document = JsonFile::at(&path, Clock::system());

        assert_eq!(document.load_blocking::<Counted>().unwrap().count, 7);
        let refused = document.trusted_only().load_blocking::<Counted>();
        assert!(matches!(refused, Err(FileError::Untrusted(_))), "{refused:?}");
    }
}
