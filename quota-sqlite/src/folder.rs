//! A lock on the folder of the database: shared to open the file, exclusive to replace it. The system releases it when its process ends,
//! and no lock file remains.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::thread;
use std::time::Duration;

use quota_core::store::{StoreError, WriteState};

/// Holds the lock until it is dropped.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _folder: Option<File>,
}

/// The number of attempts to acquire the lock. With the pauses between them, they take half a second.
const MAX_ATTEMPTS: u32 = 250;
const PAUSE: Duration = Duration::from_millis(2);

impl FolderLock {
    /// Locks the folder to open the file. `None` if another process holds the exclusive lock for too long.
    ///
    /// Succeeds where folders cannot be locked, because no process replaces files there.
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

    /// Locks the folder to replace the file. `None` if the lock is not available.
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

/// The error if another process holds the exclusive lock for too long.
pub(crate) fn being_replaced() -> StoreError {
    StoreError::unavailable(WriteState::NotApplied, "another process is replacing the file")
}

#[cfg(unix)]
fn open_folder(file: &Path) -> Option<File> {
    File::open(file.parent()?).ok()
}

/// On other systems a folder cannot be opened, and an open file cannot be replaced.
#[cfg(not(unix))]
fn open_folder(_file: &Path) -> Option<File> {
    None
}
