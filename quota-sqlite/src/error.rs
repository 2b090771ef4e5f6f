//! Maps errors of SQLite and the operating system to a `StoreError`: what failed, why, and what to do. The caller decides whether to
//! retry.

use std::io;
use std::path::{Path, PathBuf};

use quota_core::store::{StoreError, WriteState};
use rusqlite::{ErrorCode, ffi};

/// Maps an error of SQLite. `applied` says whether a write may have been applied despite the error.
pub(crate) fn from_sqlite(error: rusqlite::Error, path: &Path, applied: WriteState) -> StoreError {
    let at = path.display();
    let code = error.sqlite_error().copied();
    let unavailable = |reason: String| StoreError::unavailable(applied, reason);
    let mapped = match code.map(|code| (code.code, code.extended_code)) {
        Some((ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _)) => {
            // SQLite writes nothing before it holds the lock.
            StoreError::unavailable(WriteState::NotApplied, format!("another process holds the lock of {at}"))
        }
        Some((ErrorCode::DiskFull, _)) => {
            StoreError::rejected(format!("disk full while writing {at}; free some space"))
        }
        Some((ErrorCode::SystemIoFailure, extended)) if is_write_error(extended) => {
            StoreError::rejected(format!("could not write {at}; is the disk full, or a limit reached?"))
        }
        Some((ErrorCode::ReadOnly, _)) => {
            StoreError::rejected(format!("{at} or its folder is read-only; use a store that is writable"))
        }
        Some((ErrorCode::CannotOpen | ErrorCode::PermissionDenied, _)) => StoreError::rejected(format!(
            "could not open {at}; check that this user can read and write it and its folder"
        )),
        Some((ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt, _)) => StoreError::corrupt(format!(
            "{at} is damaged or not a database (it was not changed); {}",
            reset_hint(path)
        )),
        Some((ErrorCode::TooBig, _)) => StoreError::rejected("the document is too large for SQLite"),
        Some((ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory, _)) => {
            unavailable(format!("the system could not read or write {at}"))
        }
        Some((ErrorCode::FileLockingProtocolFailed, _)) => {
            unavailable(format!("could not lock {at}; is it on a local disk?"))
        }
        _ => StoreError::corrupt(format!(
            "{at} lacks the tables of quota (it was not changed); {}",
            reset_hint(path)
        )),
    };
    mapped.with_source(error)
}

/// Whether a [`SqliteStore`](crate::SqliteStore) failed because its file is damaged or not a database. A file of another program, or of a
/// newer version of this crate, does not count as damaged.
///
/// ```
/// use quota_core::store::StoreError;
///
/// assert!(!quota_sqlite::is_damage(&StoreError::corrupt("something else")));
/// ```
#[must_use]
pub fn is_damage(error: &StoreError) -> bool {
    let StoreError::Corrupt { source: Some(source), .. } = error else { return false };
    source.downcast_ref::<rusqlite::Error>().is_some_and(is_damage_error)
}

pub(crate) fn is_damage_error(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

/// Whether a write to the disk failed.
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

/// Maps an error of the operating system for a file or a folder.
pub(crate) fn from_io(what: &str, path: &Path, error: io::Error) -> StoreError {
    StoreError::rejected(format!("could not {what} {}: {error}", path.display())).with_source(error)
}

/// The hint for an unusable file. Its log must move with it, because SQLite would apply it to the next file.
pub(crate) fn reset_hint(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!("move it away together with {name}-wal and {name}-shm; quota then creates a new one")
}

/// The error for a log whose file is missing.
pub(crate) fn orphaned_wal(path: &Path) -> StoreError {
    let [log, index] = [sibling(path, "-wal"), sibling(path, "-shm")];
    StoreError::corrupt(format!(
        "{} is missing or empty, but its log {} exists; restore the file, or run: rm -f {} {}",
        path.display(),
        log.display(),
        shell_quoted(&log),
        shell_quoted(&index)
    ))
}

/// The path of a file that SQLite creates next to the database.
pub(crate) fn sibling(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// The path, quoted for a shell.
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
        from_sqlite(error, Path::new("/x/quota.db"), WriteState::Unknown)
    }

    #[test]
    fn temporary_errors_differ_from_those_that_need_a_fix() {
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
            assert!(matches!(mapped(code), StoreError::Rejected { .. }), "{code}");
        }
        for code in [ffi::SQLITE_NOTADB, ffi::SQLITE_CORRUPT, ffi::SQLITE_ERROR] {
            assert!(matches!(mapped(code), StoreError::Corrupt { .. }), "{code}");
        }
    }

    #[test]
    fn a_write_without_the_lock_was_not_applied() {
        assert!(matches!(
            mapped(ffi::SQLITE_BUSY),
            StoreError::Unavailable { applied: WriteState::NotApplied, .. }
        ));
    }

    #[test]
    fn a_path_is_quoted_for_a_shell() {
        assert_eq!(shell_quoted(Path::new("/home/me/quota.db")), "/home/me/quota.db");
        assert_eq!(shell_quoted(Path::new("/my $home's/q")), r"'/my $home'\''s/q'");
    }
}
