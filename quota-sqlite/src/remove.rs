//! Removes a database file that was needed only temporarily.

use std::path::Path;
use std::{fs, io};

use quota_core::store::{StoreError, WriteState};

use crate::error::{self, sibling};
use crate::folder::{self, FolderLock};
use crate::permissions::FileId;

/// Removes the file at this path, with its log and the log's index, if it is still `which` and has its expected content. The caller has
/// that file open, so no other file gets its id.
///
/// No process opens the file during the removal. If this process is killed during it, a log may remain without its file. Then
/// [`SqliteOptions::set_damaged_aside`](crate::SqliteOptions::set_damaged_aside) lets the next store create the file.
pub(crate) fn remove(
    path: &Path,
    which: FileId,
    is_expected: impl FnOnce() -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    let _lock = FolderLock::exclusive(path).ok_or_else(folder::being_replaced)?;
    match fs::metadata(path) {
        Ok(found) if FileId::of(&found) == which && is_expected()? => {}
        Ok(_) => {
            let reason = "another process has replaced or changed the file";
            return Err(StoreError::unavailable(WriteState::NotApplied, reason));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error::from_io("find", path, error)),
    }
    // The file comes first. Otherwise a process could open it with a new log, while others still write their old log into it.
    for name in [path.to_owned(), sibling(path, "-shm"), sibling(path, "-wal")] {
        match fs::remove_file(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error::from_io("remove", &name, error));
            }
            _ => {}
        }
    }
    Ok(())
}
