//! Renames a damaged file, so that a new one replaces it. Nothing is deleted. `reader` and `writer` report the damage;
//! this module verifies that the file is ours, and still damaged.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::error::{self, sibling};
use crate::folder::FolderLock;
use crate::permissions::{self, FileId};
use crate::schema;

/// The result of setting a damaged file aside.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Aside {
    /// This process moved it to this path.
    Moved(PathBuf),
    /// Another process moved it, or the file was replaced.
    Gone,
    /// The file stays in place: another program owns it, its schema is newer, it is not damaged after all, or it cannot be moved.
    Stays,
}

/// A damaged file that this process has examined.
struct Examined {
    /// Never closed: closing any descriptor of a file releases the POSIX locks of every connection that this process has to it.
    /// While it is open, no other file gets its inode number.
    file: fs::File,
    stays: bool,
}

/// One descriptor per damaged file, no matter how often a store reports it.
static EXAMINED: Mutex<BTreeMap<FileId, Examined>> = Mutex::new(BTreeMap::new());

/// Renames the file, its log and the log's index, if it is still the damaged file.
///
/// If the file stays in place, this process never examines it again.
pub(crate) fn set_aside(path: &Path, damaged: FileId, now: Timestamp) -> Aside {
    // A new file would replace the link, not its target.
    if path.is_symlink() {
        return Aside::Stays;
    }
    let mut all = EXAMINED.lock();
    if all.get(&damaged).is_some_and(|examined| examined.stays) {
        return Aside::Stays;
    }
    // While this lock is held, no process opens the file. So no process creates a log for the old file next to the new
    // one.
    let Some(_lock) = FolderLock::exclusive(path) else { return Aside::Stays };
    match fs::metadata(path) {
        Ok(found) if FileId::of(&found) == damaged => {}
        Ok(_) => return Aside::Gone,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Aside::Gone,
        Err(_) => return Aside::Stays,
    }
    let examined = match all.entry(damaged) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => match fs::File::open(path) {
            Ok(file) => entry.insert(Examined { file, stays: false }),
            Err(_) => return Aside::Stays,
        },
    };
    let should_move = match header(&examined.file) {
        Ok(Header::Missing) => is_damaged(path, false),
        Ok(Header::Present { application, version }) if schema::is_replaceable(application, version) => {
            is_damaged(path, true)
        }
        Ok(Header::Present { .. }) => Ok(false),
        Err(_) => return Aside::Stays,
    };
    let moved = match should_move {
        Ok(should_move) => free_name(path, now).filter(|copy| should_move && move_to(path, copy).is_ok()),
        // For example, another process holds a lock. The next report examines the file again.
        Err(_) => return Aside::Stays,
    };
    examined.stays = moved.is_none();
    moved.map_or(Aside::Stays, Aside::Moved)
}

/// Renames a log and index whose file is missing, because a process was killed or a user moved the file. Returns the new path of the log,
/// or of the index if there is no log. Returns `None` if the file exists and is not empty, or if there is neither log nor index.
pub(crate) fn set_side_files_aside(path: &Path, now: Timestamp) -> Option<PathBuf> {
    let _lock = FolderLock::exclusive(path)?;
    let is_empty = || fs::metadata(path).is_ok_and(|found| permissions::is_empty_file(&found));
    if !is_free(path) && !is_empty() {
        return None;
    }
    move_side_files(path, &free_name(path, now)?).ok().flatten()
}

enum Header {
    /// The file has no SQLite header, so it is not another program's database either.
    Missing,
    Present {
        application: i32,
        version: i32,
    },
}

const MAGIC: &[u8] = b"SQLite format 3\0";
const USER_VERSION: usize = 60;
const APPLICATION_ID: usize = 68;
const HEADER: usize = 100;

fn header(mut file: &fs::File) -> io::Result<Header> {
    let mut bytes = Vec::with_capacity(HEADER);
    file.seek(SeekFrom::Start(0))?;
    file.take(HEADER as u64).read_to_end(&mut bytes)?;
    let number = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(i32::from_be_bytes);
    Ok(match (number(APPLICATION_ID), number(USER_VERSION)) {
        (Some(application), Some(version)) if bytes.len() == HEADER && bytes.starts_with(MAGIC) => {
            Header::Present { application, version }
        }
        _ => Header::Missing,
    })
}

/// Whether SQLite still reports damage. The log may contain a newer header than the file; that header must be ours too.
///
/// # Errors
///
/// The error that prevented the examination.
fn is_damaged(path: &Path, has_header: bool) -> rusqlite::Result<bool> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let checked = Connection::open_with_flags(path, flags).and_then(|connection| {
        // Leave the log unchanged, so that the copy keeps its bytes.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        let number = |name| connection.pragma_query_value(None, name, |row| row.get(0));
        if has_header && !schema::is_replaceable(number("application_id")?, number("user_version")?) {
            return Ok(false);
        }
        // Unlike quick_check, this compares the indexes with the table. A write reports that damage too.
        let found: String = connection.query_row("PRAGMA integrity_check(1)", (), |row| row.get(0))?;
        Ok(found != "ok")
    });
    checked.or_else(|error| if error::is_damage_error(&error) { Ok(true) } else { Err(error) })
}

/// A free name for the copies of the file, its log and its index. An earlier call may have set aside a log alone.
fn free_name(path: &Path, now: Timestamp) -> Option<PathBuf> {
    let name = |number: u32| {
        let mut name: OsString = path.as_os_str().to_owned();
        name.push(now.strftime(".damaged-%Y%m%dT%H%M%SZ").to_string());
        if number > 1 {
            name.push(format!("-{number}"));
        }
        PathBuf::from(name)
    };
    (1..1000)
        .map(name)
        .find(|copy| is_free(copy) && SIDE_FILES.iter().all(|ending| is_free(&sibling(copy, ending))))
}

/// Whether the name is free. False for a name that is too long.
fn is_free(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Renames the file first. Otherwise a process killed between the renames would leave the file without its log. The next process would
/// then open the file with a new log, while other processes still write their old log into it.
///
/// A process killed after the first rename leaves a log, an index, or both. No store creates a file in the presence of
/// these; see [`set_side_files_aside`].
fn move_to(path: &Path, copy: &Path) -> io::Result<()> {
    fs::rename(path, copy)?;
    move_side_files(path, copy).map(drop).inspect_err(|_| {
        // The side files move back first, so that the file never exists without them. If this fails too, `set_side_files_aside` moves the
        // rest.
        let _ = fs::rename(sibling(copy, "-shm"), sibling(path, "-shm"));
        let _ = fs::rename(copy, path);
    })
}

/// The index precedes the log: a log alone stops every store from creating a file, an index alone only those that set files aside.
const SIDE_FILES: [&str; 2] = ["-shm", "-wal"];

/// Whether there is a log that is not empty.
pub(crate) fn has_wal(path: &Path) -> bool {
    fs::metadata(sibling(path, "-wal")).is_ok_and(|log| log.len() > 0)
}

/// Whether there is a log or its index, empty or not.
pub(crate) fn has_wal_or_shm(path: &Path) -> bool {
    SIDE_FILES.iter().any(|ending| fs::symlink_metadata(sibling(path, ending)).is_ok())
}

/// Returns the new path of the last one that was renamed.
fn move_side_files(path: &Path, copy: &Path) -> io::Result<Option<PathBuf>> {
    let mut moved = None;
    for ending in SIDE_FILES {
        let to = sibling(copy, ending);
        match fs::rename(sibling(path, ending), &to) {
            Ok(()) => moved = Some(to),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(moved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_whose_log_cannot_be_moved_is_moved_back() {
        let folder = tempfile::tempdir().unwrap();
        let (path, copy) = (folder.path().join("quota.db"), folder.path().join("copy"));
        for ending in ["", "-shm", "-wal"] {
            fs::write(sibling(&path, ending), ending).unwrap();
        }
        // A file cannot be renamed to an existing folder.
        fs::create_dir(sibling(&copy, "-wal")).unwrap();

        assert!(move_to(&path, &copy).is_err());

        for ending in ["", "-shm", "-wal"] {
            assert_eq!(fs::read(sibling(&path, ending)).unwrap(), ending.as_bytes(), "{ending}");
        }
        assert!(!copy.exists());
    }
}
