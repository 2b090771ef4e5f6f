//! Atomic replacement of a small file under a lock in a sibling file. JSON files are in `json`.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::held_file::HeldFile;
use crate::clock::Clock;
use crate::file::{self, blocking, is_not_found, owner_only, sibling_path};

/// How often to retry a lock that another process holds.
const LOCK_POLL: Duration = Duration::from_millis(10);
/// The suffix of the temporary file that replaces the target.
const TEMPORARY_SUFFIX: &str = ".quota-new";

/// An exclusive lock for replacing a file. It is released when it is dropped or when the process ends.
///
/// The lock is a separate sibling file, because a lock on the replaced file itself would guard the old inode. Symbolic links
/// are followed: a link stays a link, and a file and a link to it share a lock.
///
/// On a file system without file locks (`ENOLCK`, `EOPNOTSUPP`), a file named after the lock file plus `.held` exists while the lock is
/// held. The system does not remove it if its process is killed; after five minutes another process takes the lock over.
///
/// ```
/// use std::time::Duration;
///
/// use quota_core::file::FileLock;
/// use quota_core::Clock;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// # let folder = std::env::temp_dir().join(format!("quota-doc-{}", std::process::id()));
/// let path = folder.join("settings.toml");
/// let lock = FileLock::acquire(&path, ".lock", &Clock::system(), Duration::from_secs(5)).await?;
/// let lock = lock.expect("no other process holds it");
///
/// assert!(lock.replace_if_unchanged(None, b"a = 1\n")?, "there was no file");
/// assert!(!lock.replace_if_unchanged(Some(b"a = 0\n"), b"a = 2\n")?, "another program wrote it");
/// assert_eq!(std::fs::read(&path)?, b"a = 1\n");
/// # std::fs::remove_dir_all(folder)
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct FileLock {
    _file: File,
    /// The lock itself, if the file system has no file locks.
    held: Option<HeldFile>,
    path: PathBuf,
    target: PathBuf,
    remove_on_release: bool,
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Removed before the lock is released. A process that opened the file earlier then finds it missing at its path.
        #[cfg(unix)]
        if self.remove_on_release {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl FileLock {
    /// Waits for the lock file, whose name is the target's name plus `suffix`. Returns `None` if another process holds it for
    /// longer than `timeout`. Missing folders are created with access for their owner only.
    ///
    /// Dropping the future cancels the wait and leaves no lock behind.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub async fn acquire(
        path: &Path,
        suffix: &str,
        clock: &Clock,
        timeout: Duration,
    ) -> io::Result<Option<Self>> {
        let waiting = async {
            loop {
                let (path, suffix) = (path.to_owned(), suffix.to_owned());
                match blocking(move || Self::try_acquire(&path, &suffix)).await {
                    Ok(None) => clock.sleep(LOCK_POLL).await,
                    done => return done,
                }
            }
        };
        clock.bounded(timeout, waiting).await.unwrap_or(Ok(None))
    }

    /// Acquires the lock, or returns `None` if another process holds it.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn try_acquire(path: &Path, suffix: &str) -> io::Result<Option<Self>> {
        let target = resolve_symlinks(path);
        let path = sibling_path(&target, suffix);
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            create_owner_only_dir(folder)?;
        }
        let file = owner_only().create(true).truncate(false).write(true).open(&path)?;
        match file.try_lock() {
            // A previous holder may have removed the file after this process opened it. Then it is no longer the lock.
            Ok(()) if is_at(&file, &path)? => {
                Ok(Some(Self { _file: file, held: None, path, target, remove_on_release: false }))
            }
            Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) if is_lock_unsupported(&error) => {
                let held = HeldFile::try_acquire(sibling_path(&path, ".held"))?;
                Ok(held.map(|held| Self {
                    _file: file,
                    held: Some(held),
                    path,
                    target,
                    remove_on_release: false,
                }))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// The file to replace, with symbolic links resolved.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Replaces the file. The new file is accessible to its owner only.
    ///
    /// # Errors
    ///
    /// The system's error; the file is then unchanged.
    pub fn replace(&self, contents: &[u8]) -> io::Result<()> {
        let temporary = self.write_temporary(contents, Durability::Durable)?;
        self.rename(&temporary, Durability::Durable)
    }

    /// Replaces the file like [`replace`](Self::replace), without a wait for the disk. Only for a cache: after a power failure the
    /// file may be missing, empty or old.
    ///
    /// # Errors
    ///
    /// The system's error; the file is then unchanged.
    pub fn replace_cache(&self, contents: &[u8]) -> io::Result<()> {
        let temporary = self.write_temporary(contents, Durability::Cache)?;
        self.rename(&temporary, Durability::Cache)
    }

    /// Replaces the file if its content is still `expected`; `None` expects that the file does not exist. Returns whether it did.
    ///
    /// The check is for programs that ignore the lock, such as editors. An existing file keeps its permissions and group; a new one
    /// is accessible to its owner only.
    ///
    /// # Errors
    ///
    /// The system's error; the file is then unchanged.
    pub fn replace_if_unchanged(&self, expected: Option<&[u8]>, contents: &[u8]) -> io::Result<bool> {
        let temporary = self.write_temporary(contents, Durability::Durable)?;
        let replaced = match expected {
            // A rename would replace a file that another program created after the read.
            None => match fs::hard_link(&temporary, &self.target) {
                Ok(()) => sync_dir(self.target.parent()).map(|()| true),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                Err(_) => self.create_without_links(&temporary),
            },
            Some(expected) => self.replace_expected(&temporary, expected),
        };
        // After a rename there is nothing to remove.
        let _ = fs::remove_file(&temporary);
        replaced
    }

    fn replace_expected(&self, temporary: &Path, expected: &[u8]) -> io::Result<bool> {
        match copy_permissions(temporary, &self.target) {
            Err(error) if is_not_found(&error) => return Ok(false),
            copied => copied?,
        }
        if has_content(&self.target, expected) {
            self.rename(temporary, Durability::Durable)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Creates the file on a file system without hard links, such as exFAT. An empty file reserves the name first.
    fn create_without_links(&self, temporary: &Path) -> io::Result<bool> {
        match owner_only().create_new(true).write(true).open(&self.target) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(error) => return Err(error),
        }
        self.rename(temporary, Durability::Durable)
            .map(|()| true)
            .inspect_err(|_| drop(fs::remove_file(&self.target)))
    }

    /// Removes the lock file on release. Otherwise it would stay in the user's own folder.
    #[must_use]
    pub fn remove_on_release(mut self) -> Self {
        self.remove_on_release = true;
        self
    }

    fn write_temporary(&self, contents: &[u8], durability: Durability) -> io::Result<PathBuf> {
        let temporary = sibling_path(&self.target, TEMPORARY_SUFFIX);
        // The lock is held, so an existing temporary file is a leftover of a killed process.
        match fs::remove_file(&temporary) {
            Err(error) if !is_not_found(&error) => return Err(error),
            _ => {}
        }
        let mut file = owner_only().create_new(true).write(true).open(&temporary)?;
        let written = file.write_all(contents).and_then(|()| match durability {
            Durability::Durable => file.sync_all(),
            Durability::Cache => Ok(()),
        });
        written.inspect_err(|_| drop(fs::remove_file(&temporary)))?;
        Ok(temporary)
    }

    fn rename(&self, temporary: &Path, durability: Durability) -> io::Result<()> {
        if let Some(held) = &self.held
            && !held.is_held()?
        {
            let _ = fs::remove_file(temporary);
            return Err(io::Error::other(
                "this process was stopped for so long that another took over its lock",
            ));
        }
        fs::rename(temporary, &self.target)?;
        match durability {
            Durability::Durable => sync_dir(self.target.parent()),
            Durability::Cache => Ok(()),
        }
    }
}

/// Whether a replacement must survive a power failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durability {
    Durable,
    Cache,
}

/// Whether the error means that the file system has no file locks, as some network file systems.
#[must_use]
pub fn is_lock_unsupported(error: &io::Error) -> bool {
    #[cfg(unix)]
    {
        use rustix::io::Errno;

        // The two constants have the same value on Linux.
        let unsupported = [Errno::NOLCK, Errno::OPNOTSUPP, Errno::NOTSUP, Errno::NOSYS];
        unsupported.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
    }
    #[cfg(not(unix))]
    {
        error.kind() == io::ErrorKind::Unsupported
    }
}

/// The path with symbolic links resolved. Dangling links are resolved too.
#[must_use]
pub fn resolve_symlinks(path: &Path) -> PathBuf {
    /// The maximum number of links to follow, as on Linux.
    const MAX_LINKS: usize = 40;
    let mut target = path.to_owned();
    for _ in 0..MAX_LINKS {
        let Ok(next) = fs::read_link(&target) else { break };
        target = target.parent().unwrap_or(Path::new("")).join(next);
    }
    // Links may also lead to the folder.
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (fs::canonicalize(folder), target.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => target,
    }
}

/// Whether a regular file has this content.
fn has_content(path: &Path, expected: &[u8]) -> bool {
    let contents = file::open(path).and_then(|file| file::read(file, expected.len() as u64));
    contents.is_ok_and(|contents| *contents == *expected)
}

/// Whether the path still refers to this open file.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;

    let file_id = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino());
    match fs::metadata(path) {
        Ok(metadata) => Ok(file_id(&metadata) == file_id(&file.metadata()?)),
        Err(error) if is_not_found(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(not(unix))]
fn is_at(_file: &File, _path: &Path) -> io::Result<bool> {
    Ok(true)
}

/// Copies the permissions and the group of another file.
#[cfg(unix)]
fn copy_permissions(file: &Path, from: &Path) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};

    const GROUP: u32 = 0o070;
    let (source, own) = (fs::metadata(from)?, fs::metadata(file)?);
    let mut mode = source.mode() & 0o777;
    if source.gid() != own.gid() && chown(file, None, Some(source.gid())).is_err() {
        // This user is not a member of that group. The file's current group must not get the rights of that group.
        mode &= !GROUP;
    }
    fs::set_permissions(file, fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn copy_permissions(_file: &Path, _from: &Path) -> io::Result<()> {
    Ok(())
}

/// Flushes the directory. Otherwise a power failure could undo the rename.
#[cfg(unix)]
fn sync_dir(dir: Option<&Path>) -> io::Result<()> {
    let dir = dir.filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

#[cfg(not(unix))]
fn sync_dir(_dir: Option<&Path>) -> io::Result<()> {
    Ok(())
}

fn create_owner_only_dir(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(path: &Path) -> FileLock {
        FileLock::try_acquire(path, ".lock").unwrap().expect("no other process holds it")
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_lock_has_one_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");

        let first = lock(&path);
        assert!(FileLock::try_acquire(&path, ".lock").unwrap().is_none());
        drop(first);

        assert!(FileLock::try_acquire(&path, ".lock").unwrap().is_some());
    }

    #[test]
    fn a_file_is_replaced_only_if_its_content_is_expected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "saved by an editor").unwrap();
        let lock = lock(&path);

        assert!(!lock.replace_if_unchanged(Some(b"read before"), b"new").unwrap());
        assert!(!lock.replace_if_unchanged(None, b"new").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"saved by an editor");

        assert!(lock.replace_if_unchanged(Some(b"saved by an editor"), b"new").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_deleted_file_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let lock = lock(&dir.path().join("a"));

        assert!(!lock.replace_if_unchanged(Some(b"read before"), b"new").unwrap());
    }

    #[test]
    fn without_hard_links_a_file_is_created_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let lock = lock(&path);
        let create = |contents| {
            lock.create_without_links(&lock.write_temporary(contents, Durability::Durable).unwrap()).unwrap()
        };

        assert!(create(b"1"));
        assert!(!create(b"2"));
        assert_eq!(fs::read(&path).unwrap(), b"1");
    }

    #[test]
    fn temporary_and_lock_files_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(dir.path().join("a.quota-new"), "left by a killed process").unwrap();
        let lock = lock(&path).remove_on_release();

        assert!(lock.replace_if_unchanged(None, b"1").unwrap());
        assert!(lock.replace_if_unchanged(Some(b"1"), b"2").unwrap());
        assert!(!lock.replace_if_unchanged(Some(b"1"), b"3").unwrap());
        drop(lock);

        assert_eq!(names(dir.path()), ["a"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_in_place_of_the_file_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();

        assert!(!lock(&path).replace_if_unchanged(Some(b"1"), b"2").unwrap());
    }

    #[cfg(unix)]
    #[test]
    fn a_removed_lock_file_does_not_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let opened = File::create(dir.path().join("a.lock")).unwrap();
        fs::remove_file(dir.path().join("a.lock")).unwrap();

        assert!(!is_at(&opened, &dir.path().join("a.lock")).unwrap());
        let _other = lock(&path);
        assert!(!is_at(&opened, &dir.path().join("a.lock")).unwrap());
    }

    #[cfg(unix)]
    #[test]
    fn an_existing_file_keeps_its_mode_and_a_new_one_is_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let lock = lock(&path);

        lock.replace_if_unchanged(None, b"1").unwrap();
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        lock.replace_if_unchanged(Some(b"1"), b"2").unwrap();

        assert_eq!(mode(), 0o644);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        fs::write(&target, "1").unwrap();
        std::os::unix::fs::symlink("target", &link).unwrap();

        let lock = lock(&link);
        lock.replace_if_unchanged(Some(b"1"), b"2").unwrap();

        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&target).unwrap(), b"2");
    }
}
