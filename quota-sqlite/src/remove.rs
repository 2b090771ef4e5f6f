//! Removes the database file, for files that are needed only for a while.

use std::path::Path;
use std::{fs, io};

use quota_core::store::StoreError;

use crate::error::{self, sibling};
use crate::folder::{self, FolderLock};

/// Removes a database with its log and the log's index. Stores that have it open use the file that is at the path from then on.
///
/// No process opens the file in between. If this process is killed in between, a log may stay without its file. Then
/// [`SqliteOptions::set_damaged_aside`](crate::SqliteOptions::set_damaged_aside) lets the next store create the file.
///
/// This waits for up to half a second for processes that open the file.
///
/// # Errors
///
/// [`StoreError`] if other processes open the file all the time, or the system refuses. A missing file is not an error.
pub fn remove(path: &Path) -> Result<(), StoreError> {
    let _lock = FolderLock::exclusive(path).ok_or_else(folder::being_replaced)?;
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
