//! Checks that the file system has file locks. SQLite reports their absence as a lock that another process holds, and waits for it.

use std::fs::{self, File};
use std::path::Path;

use quota_core::store::StoreError;

use crate::error::sibling;
use crate::permissions::create_new;

/// Checks the file system of the database, before SQLite locks anything.
pub(crate) fn check(path: &Path) -> Result<(), StoreError> {
    // Do not check the database itself, because closing a file releases all POSIX locks that this process holds on it.
    // SQLite never locks the log.
    if let Ok(log) = File::open(sibling(path, "-wal")) {
        return check_file(&log, path);
    }
    let probe = sibling(path, &format!(".lock-{:016x}", fastrand::u64(..)));
    // Without permission to create a file, SQLite finds out by itself.
    let Ok(file) = create_new(&probe) else { return Ok(()) };
    let checked = check_file(&file, path);
    let _ = fs::remove_file(probe);
    checked
}

/// Checks the file system of this file, which is not in use by SQLite.
#[cfg(unix)]
pub(crate) fn check_file(file: &File, path: &Path) -> Result<(), StoreError> {
    use rustix::fs::{FlockOperation, fcntl_lock};

    // A shared lock needs a file that is open for reading, an exclusive one a file that is open for writing.
    for operation in [FlockOperation::NonBlockingLockShared, FlockOperation::NonBlockingLockExclusive] {
        if let Err(error) = fcntl_lock(file, operation)
            && quota_core::file::is_lock_unsupported(&error.into())
        {
            return Err(StoreError::rejected(format!(
                "the file system of {} does not support file locks; use a store on a local disk",
                path.display()
            ))
            .with_source(std::io::Error::from(error)));
        }
    }
    Ok(())
}

/// Other systems have file locks.
#[cfg(not(unix))]
pub(crate) fn check_file(_file: &File, _path: &Path) -> Result<(), StoreError> {
    Ok(())
}
