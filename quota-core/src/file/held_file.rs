//! A lock for file systems without file locks: a file that exists while the lock is held.
//!
//! The system does not remove it when its process ends, so a lock that is too old is taken over.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::file::{is_not_found, owner_only, sibling_path};
use crate::model::RequestId;

/// The age from which a lock is taken over. It is longer than any holder needs: renewing a login, including the waits
/// for the provider and the store, takes less than three minutes.
const STALE_AFTER: Duration = Duration::from_secs(5 * 60);

/// The lock. Dropping it removes the file.
#[derive(Debug)]
pub(super) struct HeldFile {
    path: PathBuf,
    owner: String,
}

impl HeldFile {
    /// Creates the file, or returns `None` if another process holds the lock.
    pub(super) fn try_acquire(path: PathBuf) -> io::Result<Option<Self>> {
        let held = Self { path, owner: RequestId::random().to_string() };
        let draft = sibling_path(&held.path, &format!(".{}", held.owner));
        let acquired = held.write_and_link(&draft);
        // After a takeover there is nothing to remove.
        let _ = fs::remove_file(&draft);
        match acquired {
            Ok(true) => Ok(Some(held)),
            other => {
                // Do not run the destructor, because there is nothing to release.
                std::mem::forget(held);
                other.map(|_| None)
            }
        }
    }

    fn write_and_link(&self, draft: &Path) -> io::Result<bool> {
        owner_only().create_new(true).write(true).open(draft)?.write_all(self.owner.as_bytes())?;
        match fs::hard_link(draft, &self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.take_over(draft),
            // The file system has no hard links. The file is briefly empty, and cannot be taken over while it has no
            // owner.
            Err(_) => match owner_only().create_new(true).write(true).open(&self.path) {
                Ok(mut file) => file.write_all(self.owner.as_bytes()).map(|()| true),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.take_over(draft),
                Err(error) => Err(error),
            },
        }
    }

    /// Replaces a lock that is too old. A marker file per owner admits one process, so that no process replaces the
    /// lock of a faster one.
    fn take_over(&self, draft: &Path) -> io::Result<bool> {
        let Some(owner) = stale_owner(&self.path, draft)? else { return Ok(false) };
        let marker = sibling_path(&self.path, &format!(".{owner}.stale"));
        match owner_only().create_new(true).write(true).open(&marker) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // A process that was killed at this point left it behind.
                if stale_owner(&marker, draft)?.is_some() {
                    let _ = fs::remove_file(&marker);
                }
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        let replaced = match read_owner(&self.path)? {
            Some(current) if current == owner => fs::rename(draft, &self.path).map(|()| true),
            _ => Ok(false),
        };
        let _ = fs::remove_file(&marker);
        replaced
    }

    /// Whether this process still holds the lock.
    pub(super) fn is_held(&self) -> io::Result<bool> {
        Ok(read_owner(&self.path)?.is_some_and(|owner| owner == self.owner))
    }
}

impl Drop for HeldFile {
    fn drop(&mut self) {
        if self.is_held().unwrap_or(false) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The owner of a lock file that is too old. Both times are those of the file system, so the clocks of hosts do not matter.
fn stale_owner(path: &Path, draft: &Path) -> io::Result<Option<String>> {
    let now = fs::metadata(draft)?.modified()?;
    let created = match fs::metadata(path) {
        Err(error) if is_not_found(&error) => return Ok(None),
        metadata => metadata?.modified()?,
    };
    let is_stale = now.duration_since(created).is_ok_and(|age| age > STALE_AFTER);
    if is_stale { read_owner(path) } else { Ok(None) }
}

/// The owner in a lock file; `None` if the file does not exist.
fn read_owner(path: &Path) -> io::Result<Option<String>> {
    match fs::read(path) {
        // Accept only letters and digits, because the owner becomes part of a file name.
        Ok(contents) => {
            let owner = contents.iter().take(32).filter(|byte| byte.is_ascii_alphanumeric());
            Ok(Some(owner.map(|byte| char::from(*byte)).collect()))
        }
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn acquire(folder: &Path) -> Option<HeldFile> {
        HeldFile::try_acquire(folder.join("lock")).unwrap()
    }

    fn make_old(path: &Path) {
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        fs::File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
    }

    fn count(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn a_lock_has_one_holder_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();

        let first = acquire(folder.path()).unwrap();
        assert!(acquire(folder.path()).is_none());
        assert_eq!((first.is_held().unwrap(), count(folder.path())), (true, 1));
        drop(first);

        assert_eq!(count(folder.path()), 0);
        assert!(acquire(folder.path()).is_some());
    }

    #[test]
    fn an_old_lock_is_taken_over_and_its_holder_notices() {
        let folder = tempfile::tempdir().unwrap();
        let first = acquire(folder.path()).unwrap();
        make_old(&folder.path().join("lock"));

        let second = acquire(folder.path()).unwrap();

        assert!(!first.is_held().unwrap());
        drop(first);
        assert!(second.is_held().unwrap(), "the old holder does not release the lock of another process");
        assert_eq!(count(folder.path()), 1);
    }

    #[test]
    fn an_old_lock_is_taken_over_by_one_process() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..20 {
            fs::write(folder.path().join("lock"), "aaaa").unwrap();
            make_old(&folder.path().join("lock"));

            let held: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| acquire(folder.path()))).collect();
                threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
            });

            assert!(held.len() <= 1, "{held:?}");
            drop(held);
            let _ = fs::remove_file(folder.path().join("lock"));
        }
    }

    #[test]
    fn a_process_that_was_killed_during_a_takeover_does_not_block_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["lock", "lock.aaaa.stale"] {
            fs::write(folder.path().join(name), "aaaa").unwrap();
            make_old(&folder.path().join(name));
        }

        assert!(acquire(folder.path()).is_none(), "this attempt removes the marker");
        assert!(acquire(folder.path()).is_some());
    }

    #[test]
    fn concurrent_holders_exclude_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let inside = std::sync::atomic::AtomicU32::new(0);

        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut done = 0;
                    while done < 25 {
                        let Some(held) = acquire(folder.path()) else { continue };
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        drop(held);
                        done += 1;
                    }
                });
            }
        });
    }
}
