//! What can go wrong with the file, and what a caller of the store is told of it: what failed, why, and what to do.
//! Whether to try again is the caller's business.

use std::io;
use std::path::{Path, PathBuf};

use quota_core::{Applied, StoreError};
use rusqlite::{ErrorCode, ffi};

/// What SQLite said, sorted by what follows from it. `applied` is said of what may have happened all the same.
pub(crate) fn from_sqlite(error: rusqlite::Error, path: &Path, applied: Applied) -> StoreError {
    let at = path.display();
    let code = error.sqlite_error().copied();
    let unavailable = |reason: String| StoreError::unavailable(applied, reason);
    let mapped = match code.map(|code| (code.code, code.extended_code)) {
        Some((ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _)) => {
            // Nothing is written before the lock is held.
            StoreError::unavailable(Applied::No, format!("another process holds the lock of {at}"))
        }
        Some((ErrorCode::DiskFull, _)) => StoreError::refused(format!("no room to write {at}; free some")),
        Some((ErrorCode::SystemIoFailure, extended)) if is_write_error(extended) => {
            StoreError::refused(format!("could not write {at}; is the disk full, or a limit reached?"))
        }
        Some((ErrorCode::ReadOnly, _)) => {
            StoreError::refused(format!("{at} or its folder is read-only; name a store that can be written"))
        }
        Some((ErrorCode::CannotOpen | ErrorCode::PermissionDenied, _)) => StoreError::refused(format!(
            "could not open {at}; may this user read and write it, and its folder?"
        )),
        Some((ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt, _)) => StoreError::unusable(format!(
            "{at} is damaged, or no database; nothing in it was changed: {}",
            reset_hint(path)
        )),
        Some((ErrorCode::TooBig, _)) => StoreError::refused("the document is too large for SQLite"),
        Some((ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory, _)) => {
            unavailable(format!("the system failed to read or write {at}"))
        }
        Some((ErrorCode::FileLockingProtocolFailed, _)) => {
            unavailable(format!("could not lock {at}; is it on a disk of this machine?"))
        }
        _ => StoreError::unusable(format!(
            "{at} has not the tables it should have; nothing in it was changed: {}",
            reset_hint(path)
        )),
    };
    mapped.because(error)
}

/// Whether a store on a file failed because SQLite found the file damaged, or to be no database. Another program's file, and one of a
/// newer version of this crate, are not damaged.
///
/// ```
/// use quota_core::StoreError;
///
/// assert!(!quota_sqlite::is_damage(&StoreError::unusable("something else")));
/// ```
#[must_use]
pub fn is_damage(error: &StoreError) -> bool {
    let StoreError::Unusable { source: Some(source), .. } = error else { return false };
    source.downcast_ref::<rusqlite::Error>().is_some_and(is_damage_error)
}

pub(crate) fn is_damage_error(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

/// Whether the disk would not take what was to be written.
fn is_write_error(extended: i32) -> bool {
    matches!(
        extended,
        ffi::SQLITE_IOERR_WRITE
            | ffi::SQLITE_IOERR_FSYNC
            | ffi::SQLITE_IOERR_DIR_FSYNC
            | ffi::SQLITE_IOERR_TRUNCATE
            | ffi::SQLITE_IOERR_SHMSIZE
            | ffi::SQLITE_IOERR_COMMIT_ATOMIC
    )
}

/// What the system said of a file or a folder.
pub(crate) fn from_io(what: &str, path: &Path, error: io::Error) -> StoreError {
    StoreError::refused(format!("could not {what} {}: {error}", path.display())).because(error)
}

/// What to do with a file that is of no use. Its log goes with it, or would be taken for that of the next one.
pub(crate) fn reset_hint(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!("move it away together with {name}-wal and {name}-shm, and a new one is made")
}

/// The file was taken away, and its log was not.
pub(crate) fn orphaned_wal(path: &Path) -> StoreError {
    let [log, index] = [sibling(path, "-wal"), sibling(path, "-shm")];
    StoreError::unusable(format!(
        "{} is gone or empty, and its log {} is not; put the file back, or run: rm -f {} {}",
        path.display(),
        log.display(),
        shell_quoted(&log),
        shell_quoted(&index)
    ))
}

/// The path of what SQLite lays beside the file.
pub(crate) fn sibling(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// A path as a shell takes it.
pub(crate) fn shell_quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%".contains(c);
    if text.chars().all(is_plain) { text.into_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(code: i32) -> StoreError {
        let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        from_sqlite(error, Path::new("/x/quota.db"), Applied::Perhaps)
    }

    #[test]
    fn what_passes_is_told_from_what_must_be_mended() {
        for code in
            [ffi::SQLITE_BUSY, ffi::SQLITE_BUSY_RECOVERY, ffi::SQLITE_IOERR_READ, ffi::SQLITE_PROTOCOL]
        {
            assert!(mapped(code).is_transient(), "{code}");
        }
        for code in [
            ffi::SQLITE_FULL,
            ffi::SQLITE_IOERR_WRITE,
            ffi::SQLITE_READONLY,
            ffi::SQLITE_READONLY_CANTINIT,
            ffi::SQLITE_CANTOPEN,
        ] {
            assert!(matches!(mapped(code), StoreError::Refused { .. }), "{code}");
        }
        for code in [ffi::SQLITE_NOTADB, ffi::SQLITE_CORRUPT, ffi::SQLITE_ERROR] {
            assert!(matches!(mapped(code), StoreError::Unusable { .. }), "{code}");
        }
    }

    #[test]
    fn a_write_that_got_no_lock_was_not_made() {
        assert!(matches!(mapped(ffi::SQLITE_BUSY), StoreError::Unavailable { applied: Applied::No, .. }));
    }

    #[test]
    fn a_path_is_quoted_as_a_shell_takes_it() {
        assert_eq!(shell_quoted(Path::new("/home/me/quota.db")), "/home/me/quota.db");
        assert_eq!(shell_quoted(Path::new("/my $home's/q")), r"'/my $home'\''s/q'");
    }
}
