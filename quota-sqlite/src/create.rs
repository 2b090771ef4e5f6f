//! Creates the database file: writes a draft in the same folder and links it to the final name. `file` decides when.

use std::fs;
use std::io;
use std::path::Path;

use parking_lot::Mutex;
use quota_core::store::{StoreError, WriteState};
use rusqlite::{Connection, OpenFlags};

use crate::aside::has_wal;
use crate::error::sibling;
use crate::folder::{self, FolderLock};
use crate::{error, locks, permissions, schema};

/// Held while creating or opening the file. Creating closes a descriptor, which releases all POSIX locks of this process on the file.
pub(crate) static CREATE_LOCK: Mutex<()> = Mutex::new(());

/// Creates the file, unless another process creates it first or an orphaned log exists.
///
/// A draft is linked to the final name, so no process opens a partial file.
pub(crate) fn create(path: &Path) -> Result<(), StoreError> {
    // Replace the target of a link, not the link.
    let target = if path.is_symlink() { path.canonicalize().ok() } else { None };
    let path = target.as_deref().unwrap_or(path);
    let folder = path.parent().unwrap_or(path);
    create_folder(folder).map_err(|error| permissions::from_io("create the folder", folder, error))?;
    permissions::check_folder_of(path)?;
    let draft = sibling(path, &format!(".new-{:016x}", fastrand::u64(..)));
    let _creating = CREATE_LOCK.lock();
    let made = write_draft(&draft, path).and_then(|()| link(&draft, path));
    for name in [draft.clone(), sibling(&draft, "-wal"), sibling(&draft, "-shm"), sibling(&draft, "-journal")]
    {
        // A missing file needs no removal, and a leftover is harmless.
        let _ = fs::remove_file(name);
    }
    made
}

/// Links the draft to its final name.
fn link(draft: &Path, path: &Path) -> Result<(), StoreError> {
    // A process that replaces a file moves its log afterwards. SQLite would apply that log to a file that is created in
    // between.
    let lock = FolderLock::shared(path).ok_or_else(folder::being_replaced)?;
    if has_wal(path) {
        return Ok(());
    }
    let linked = fs::hard_link(draft, path);
    drop(lock);
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(error::from_io("create", path, error))
        }
        Err(_) => replace_empty(draft, path),
        Ok(()) => Ok(()),
    }
}

/// Replaces an empty file with the draft, but not a file that another process has created.
fn replace_empty(draft: &Path, path: &Path) -> Result<(), StoreError> {
    let _lock = FolderLock::exclusive(path).ok_or_else(folder::being_replaced)?;
    match fs::symlink_metadata(path) {
        Ok(found) if permissions::is_empty_file(&found) => {
            permissions::check_files(path, &found)?;
            fs::rename(draft, path).map_err(|error| error::from_io("create", path, error))
        }
        _ => Ok(()),
    }
}

fn write_draft(draft: &Path, path: &Path) -> Result<(), StoreError> {
    let file = permissions::create_new(draft).map_err(|error| permissions::from_io("create", path, error))?;
    locks::check_file(&file, path)?;
    drop(file);
    let map_error = |error| error::from_sqlite(error, draft, WriteState::NotApplied);
    let mut connection =
        Connection::open_with_flags(draft, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(map_error)?;
    // Sync before linking: a power failure must not leave an empty file under the final name.
    connection.pragma_update(None, "synchronous", "full").map_err(map_error)?;
    schema::create(&mut connection).map_err(map_error)?;
    connection.close().map_err(|(_, error)| map_error(error))
}

fn create_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(path)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn no_file_is_created_while_another_process_replaces_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("quota.db");
        let replacing = fs::File::open(folder.path()).unwrap();
        replacing.lock().unwrap();

        let made = create(&path);

        assert!(matches!(made, Err(StoreError::Unavailable { .. })), "{made:?}");
        assert!(!path.exists());
    }

    #[test]
    fn no_file_is_created_beside_an_orphaned_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("quota.db");
        fs::write(sibling(&path, "-wal"), "a log").unwrap();

        create(&path).unwrap();

        assert!(!path.exists());
    }

    #[test]
    fn a_missing_folder_is_created_with_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state").join("quota.db");

        create(&path).unwrap();

        assert!(fs::metadata(&path).is_ok_and(|found| found.is_file() && found.len() > 0));
    }
}
