//! Replacing a small file whole or not at all, under a lock in a file beside it.
//! What the file holds is its users' business; files of JSON are in `json`.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Clock;
use crate::file::{self, blocking, is_not_found};

/// How often a lock that another process holds is tried.
const LOCK_POLL: Duration = Duration::from_millis(10);
/// What is appended to the name of a file for the file that replaces it.
const TEMPORARY: &str = ".quota-new";

/// The right to replace a file. It is released when it is dropped, or when its process ends.
///
/// The lock is a file of its own beside the target, because a lock on a file that is replaced guards the wrong inode. Symbolic
/// links are followed: a link stays a link, and a file and a link to it have one lock.
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
/// let lock = lock.expect("no other process has it");
///
/// assert!(lock.replace_if_unchanged(None, b"a = 1\n")?, "there was no file");
/// assert!(!lock.replace_if_unchanged(Some(b"a = 0\n"), b"a = 2\n")?, "another program has written it");
/// assert_eq!(std::fs::read(&path)?, b"a = 1\n");
/// # std::fs::remove_dir_all(folder)
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct FileLock {
    _file: File,
    path: PathBuf,
    target: PathBuf,
    is_removed: bool,
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // While it is held. A process that has opened the file finds that it is no longer at its path.
        #[cfg(unix)]
        if self.is_removed {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl FileLock {
    /// Waits for the lock in the file whose name is the target's with `suffix` appended. `None` if another process held it for
    /// longer than `timeout`. Folders that do not exist are created, for their owner alone.
    ///
    /// Dropping the future takes no lock.
    ///
    /// # Errors
    ///
    /// Those of the system.
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

    /// Takes the lock, if no other process has it.
    pub fn try_acquire(path: &Path, suffix: &str) -> io::Result<Option<Self>> {
        let target = resolve_symlinks(path);
        let path = beside(&target, suffix);
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            create_private_dir(folder)?;
        }
        let file = private().create(true).truncate(false).write(true).open(&path)?;
        match file.try_lock() {
            // Its holder may have removed the file after it was opened here: then it is no longer the lock.
            Ok(()) if is_at(&file, &path)? => Ok(Some(Self { _file: file, path, target, is_removed: false })),
            Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// The file itself: where the links lead to, if the path is one.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Replaces the file, which is its owner's alone from then on.
    ///
    /// # Errors
    ///
    /// Those of the system. The file is then as it was.
    pub fn replace(&self, contents: &[u8]) -> io::Result<()> {
        let temporary = self.write_temporary(contents)?;
        self.rename(&temporary)
    }

    /// Replaces the file if it still holds `expected`, or creates it if that is `None` and there is none. Returns whether it did: a
    /// program that does not know the lock, such as an editor, may have written it. A file keeps its permissions and its group;
    /// a new one is its owner's alone.
    ///
    /// # Errors
    ///
    /// Those of the system. The file is then as it was.
    pub fn replace_if_unchanged(&self, expected: Option<&[u8]>, contents: &[u8]) -> io::Result<bool> {
        let temporary = self.write_temporary(contents)?;
        let replaced = match expected {
            // Not a rename, which would replace a file that was created after the read.
            None => match fs::hard_link(&temporary, &self.target) {
                Ok(()) => sync_dir(self.target.parent()).map(|()| true),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                Err(_) => self.create_without_links(&temporary),
            },
            Some(expected) => self.replace_expected(&temporary, expected),
        };
        // Absent after a rename.
        let _ = fs::remove_file(&temporary);
        replaced
    }

    fn replace_expected(&self, temporary: &Path, expected: &[u8]) -> io::Result<bool> {
        match keep_permissions(temporary, &self.target) {
            Err(error) if is_not_found(&error) => return Ok(false),
            kept => kept?,
        }
        if holds(&self.target, expected) {
            self.rename(temporary)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Creates the file on a file system without hard links, such as exFAT: its name is taken first, empty.
    fn create_without_links(&self, temporary: &Path) -> io::Result<bool> {
        match private().create_new(true).write(true).open(&self.target) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(error) => return Err(error),
        }
        self.rename(temporary).map(|()| true).inspect_err(|_| drop(fs::remove_file(&self.target)))
    }

    /// Removes the lock's file when it is released, from a folder in which a person keeps files.
    #[must_use]
    pub fn removed_when_released(mut self) -> Self {
        self.is_removed = true;
        self
    }

    fn write_temporary(&self, contents: &[u8]) -> io::Result<PathBuf> {
        let temporary = beside(&self.target, TEMPORARY);
        // Only the holder of the lock gets here, so this is what a killed process left.
        match fs::remove_file(&temporary) {
            Err(error) if !is_not_found(&error) => return Err(error),
            _ => {}
        }
        let mut file = private().create_new(true).write(true).open(&temporary)?;
        let written = file.write_all(contents).and_then(|()| file.sync_all());
        written.inspect_err(|_| drop(fs::remove_file(&temporary)))?;
        Ok(temporary)
    }

    fn rename(&self, temporary: &Path) -> io::Result<()> {
        fs::rename(temporary, &self.target)?;
        sync_dir(self.target.parent())
    }
}

/// The file that a path leads to, or is to lead to: links are followed, also one whose target does not exist yet.
#[must_use]
pub fn resolve_symlinks(path: &Path) -> PathBuf {
    /// No system follows more.
    const MAX_LINKS: usize = 40;
    let mut target = path.to_owned();
    for _ in 0..MAX_LINKS {
        let Ok(next) = fs::read_link(&target) else { break };
        target = target.parent().unwrap_or(Path::new("")).join(next);
    }
    // The folder has one name too, whatever links lead to it.
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (fs::canonicalize(folder), target.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => target,
    }
}

/// Whether a regular file has these contents.
fn holds(path: &Path, expected: &[u8]) -> bool {
    let contents = file::open(path).and_then(|file| file::read(file, expected.len() as u64));
    contents.is_ok_and(|contents| *contents == *expected)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

/// Whether an open file is the one at this path.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;

    let identity = |found: &fs::Metadata| (found.dev(), found.ino());
    match fs::metadata(path) {
        Ok(found) => Ok(identity(&found) == identity(&file.metadata()?)),
        Err(error) if is_not_found(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(not(unix))]
fn is_at(_file: &File, _path: &Path) -> io::Result<bool> {
    Ok(true)
}

/// Gives a file the permissions and the group of another one.
#[cfg(unix)]
fn keep_permissions(file: &Path, of: &Path) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};

    const GROUP: u32 = 0o070;
    let (found, own) = (fs::metadata(of)?, fs::metadata(file)?);
    let mut mode = found.mode() & 0o777;
    if found.gid() != own.gid() && chown(file, None, Some(found.gid())).is_err() {
        // This user is not in that group, and another group gets no rights in its place.
        mode &= !GROUP;
    }
    fs::set_permissions(file, fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn keep_permissions(_file: &Path, _of: &Path) -> io::Result<()> {
    Ok(())
}

/// Without this, a power cut could bring the old file back.
#[cfg(unix)]
fn sync_dir(dir: Option<&Path>) -> io::Result<()> {
    let dir = dir.filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

#[cfg(not(unix))]
fn sync_dir(_dir: Option<&Path>) -> io::Result<()> {
    Ok(())
}

/// For its owner alone.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn create_private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(path: &Path) -> FileLock {
        FileLock::try_acquire(path, ".lock").unwrap().expect("no other process has it")
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_lock_is_held_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");

        let first = lock(&path);
        assert!(FileLock::try_acquire(&path, ".lock").unwrap().is_none());
        drop(first);

        assert!(FileLock::try_acquire(&path, ".lock").unwrap().is_some());
    }

    #[test]
    fn a_file_is_replaced_only_if_it_holds_what_was_expected() {
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
    fn a_file_that_was_deleted_since_it_was_read_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let lock = lock(&dir.path().join("a"));

        assert!(!lock.replace_if_unchanged(Some(b"read before"), b"new").unwrap());
    }

    #[test]
    fn where_there_are_no_hard_links_a_file_is_created_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let lock = lock(&path);
        let create = |contents| lock.create_without_links(&lock.write_temporary(contents).unwrap()).unwrap();

        assert!(create(b"1"));
        assert!(!create(b"2"));
        assert_eq!(fs::read(&path).unwrap(), b"1");
    }

    #[test]
    fn nothing_but_the_file_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(dir.path().join("a.quota-new"), "left by a killed process").unwrap();
        let lock = lock(&path).removed_when_released();

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
    fn a_removed_lock_file_is_no_lock() {
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
    fn a_file_keeps_its_permissions_and_a_new_one_is_private() {
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
