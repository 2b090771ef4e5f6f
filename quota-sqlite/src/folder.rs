//! A lock on the folder of the file: shared by those who open the file, and held alone by the one who replaces it.
//! It ends with its process, and leaves no file behind.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::thread;
use std::time::Duration;

/// The lock, until it is dropped.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _folder: Option<File>,
}

/// How often it is tried, and how long it is waited in between: half a second in all.
const MAX_ATTEMPTS: u32 = 250;
const PAUSE: Duration = Duration::from_millis(2);

impl FolderLock {
    /// For opening the file beside others. `None` if another process replaces the file and does not end.
    ///
    /// Where folders cannot be locked, files are not replaced, so there is nothing to wait for.
    pub(crate) fn shared(file: &Path) -> Option<Self> {
        let Some(folder) = open_folder(file) else { return Some(Self { _folder: None }) };
        for _ in 0..MAX_ATTEMPTS {
            match folder.try_lock_shared() {
                Ok(()) => return Some(Self { _folder: Some(folder) }),
                Err(TryLockError::WouldBlock) => thread::park_timeout(PAUSE),
                Err(TryLockError::Error(_)) => return Some(Self { _folder: None }),
            }
        }
        None
    }

    /// For replacing the file. `None` if it cannot be had.
    pub(crate) fn exclusive(file: &Path) -> Option<Self> {
        let folder = open_folder(file)?;
        for _ in 0..MAX_ATTEMPTS {
            match folder.try_lock() {
                Ok(()) => return Some(Self { _folder: Some(folder) }),
                Err(TryLockError::WouldBlock) => thread::park_timeout(PAUSE),
                Err(TryLockError::Error(_)) => return None,
            }
        }
        None
    }
}

#[cfg(unix)]
fn open_folder(file: &Path) -> Option<File> {
    File::open(file.parent()?).ok()
}

/// Elsewhere a folder cannot be opened, and a file that is open cannot be replaced.
#[cfg(not(unix))]
fn open_folder(_file: &Path) -> Option<File> {
    None
}
