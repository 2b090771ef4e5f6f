//! Setting a damaged file aside, so that a new one takes its place. Nothing is deleted.
//! That SQLite reports damage is found by `reader` and `writer`; here it is made sure that the file is ours, and is damaged still.

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

/// What became of a file that SQLite reported as damaged.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Aside {
    /// This process has moved it there.
    Moved(PathBuf),
    /// Another process has, or the file was replaced.
    Gone,
    /// It stays: it is not ours, of a newer form, not damaged after all, or cannot be moved.
    Stays,
}

/// A damaged file that this process has examined.
struct Examined {
    /// Never closed: closing any descriptor of a file releases the POSIX locks of every connection that this process has to it.
    /// While it is open, no other file gets its inode number.
    file: fs::File,
    stays: bool,
}

/// One descriptor for each damaged file, however often a store reports it.
static EXAMINED: Mutex<BTreeMap<FileId, Examined>> = Mutex::new(BTreeMap::new());

/// Moves the file away, with its log and the log's index, if it is still the damaged one.
///
/// A file that stays is not examined again in this process.
pub(crate) fn set_aside(path: &Path, damaged: FileId, now: Timestamp) -> Aside {
    // What a link leads to cannot be replaced by a new file in its place.
    if path.is_symlink() {
        return Aside::Stays;
    }
    let mut all = EXAMINED.lock();
    if all.get(&damaged).is_some_and(|known| known.stays) {
        return Aside::Stays;
    }
    // No process opens the file under this lock, so none lays a log of the old file beside the new one.
    let Some(_lock) = FolderLock::exclusive(path) else { return Aside::Stays };
    match fs::metadata(path) {
        Ok(found) if FileId::of(&found) == damaged => {}
        Ok(_) => return Aside::Gone,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Aside::Gone,
        Err(_) => return Aside::Stays,
    }
    let examined = match all.entry(damaged) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(place) => match fs::File::open(path) {
            Ok(file) => place.insert(Examined { file, stays: false }),
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
        // Such as a lock that another process holds: the next report is examined.
        Err(_) => return Aside::Stays,
    };
    examined.stays = moved.is_none();
    moved.map_or(Aside::Stays, Aside::Moved)
}

/// Moves away the log and index that a killed process or a user left without their file. Returns where the log is then, or the index
/// if there is no log; `None` if there is a file that is not empty, or neither.
pub(crate) fn set_side_files_aside(path: &Path, now: Timestamp) -> Option<PathBuf> {
    let _lock = FolderLock::exclusive(path)?;
    let is_empty = || fs::metadata(path).is_ok_and(|found| permissions::is_empty_file(&found));
    if !is_free(path) && !is_empty() {
        return None;
    }
    move_side_files(path, &free_name(path, now)?).ok().flatten()
}

/// What the file says of itself.
enum Header {
    /// It is no database, or less than a header of one: then it is no other program's either.
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

/// Whether SQLite still finds it damaged. The log may have a newer header than the file: if there is one, it must be ours too.
///
/// # Errors
///
/// What kept SQLite from examining it.
fn is_damaged(path: &Path, has_header: bool) -> rusqlite::Result<bool> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let checked = Connection::open_with_flags(path, flags).and_then(|connection| {
        // The log stays as it is: the copy is to keep its bytes.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        let number = |name| connection.pragma_query_value(None, name, |row| row.get(0));
        if has_header && !schema::is_replaceable(number("application_id")?, number("user_version")?) {
            return Ok(false);
        }
        // Unlike a quick check, it compares the indexes with the table: a write reports damage there too.
        let found: String = connection.query_row("PRAGMA integrity_check(1)", (), |row| row.get(0))?;
        Ok(found != "ok")
    });
    checked.or_else(|error| if error::is_damage_error(&error) { Ok(true) } else { Err(error) })
}

/// A name for the copy that is free for the file, its log and its index: a log may have been set aside alone.
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

/// Not so for a name that is too long.
fn is_free(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// The file moves first. Otherwise a process killed in between would leave it without its log: the next process would open it with a new
/// log, while processes that have the old log open write that one into the same file.
///
/// A process killed after the file has moved leaves a log, or an index, or both, and no store makes a file beside them
/// (`set_logs_aside`).
fn move_to(path: &Path, copy: &Path) -> io::Result<()> {
    fs::rename(path, copy)?;
    move_side_files(path, copy).map(drop).inspect_err(|_| {
        // Back in reverse, so that the file is never there without them. If this fails too, `set_logs_aside` has the rest to do.
        let _ = fs::rename(sibling(copy, "-shm"), sibling(path, "-shm"));
        let _ = fs::rename(copy, path);
    })
}

/// The index before the log. A log that is left alone keeps even stores that set nothing aside from making a file; an index does not.
const SIDE_FILES: [&str; 2] = ["-shm", "-wal"];

/// Returns where the last one is now.
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
        // No file can be renamed to a folder.
        fs::create_dir(sibling(&copy, "-wal")).unwrap();

        assert!(move_to(&path, &copy).is_err());

        for ending in ["", "-shm", "-wal"] {
            assert_eq!(fs::read(sibling(&path, ending)).unwrap(), ending.as_bytes(), "{ending}");
        }
        assert!(!copy.exists());
    }
}
