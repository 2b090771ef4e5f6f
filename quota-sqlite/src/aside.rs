//! Setting a damaged file aside, so that a new one takes its place. Nothing is deleted.
//! That SQLite reports damage is found by `reader` and `writer`; here it is made sure that the file is ours, and is damaged still.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::mem;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::failure::{self, beside};
use crate::folder::FolderLock;
use crate::rights::Which;
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

/// Moves the file away, with its log and the log's index, if it is still the damaged one.
pub(crate) fn set_aside(path: &Path, damaged: Which, now: Timestamp) -> Aside {
    // What a link leads to cannot be replaced by a new file in its place.
    if path.is_symlink() {
        return Aside::Stays;
    }
    // No process opens the file meanwhile, so none lays a log of the old file beside the new one.
    let Some(_lock) = FolderLock::exclusive(path) else { return Aside::Stays };
    match fs::metadata(path) {
        Ok(found) if Which::of(&found) == damaged => {}
        Ok(_) => return Aside::Gone,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Aside::Gone,
        Err(_) => return Aside::Stays,
    }
    let is_to_go = match header(path) {
        Ok(Header::None) => is_damaged(path, false),
        Ok(Header::Of { application, version }) => {
            schema::may_be_replaced(application, version) && is_damaged(path, true)
        }
        Err(_) => false,
    };
    if !is_to_go {
        return Aside::Stays;
    }
    move_away(path, now).map_or(Aside::Stays, Aside::Moved)
}

/// What the file says of itself.
enum Header {
    /// It is no database, or less than a header of one: then it is no other program's either.
    None,
    Of {
        application: i32,
        version: i32,
    },
}

const MAGIC: &[u8] = b"SQLite format 3\0";
const USER_VERSION: usize = 60;
const APPLICATION_ID: usize = 68;
const HEADER: usize = 100;

fn header(path: &Path) -> io::Result<Header> {
    let mut bytes = Vec::with_capacity(HEADER);
    let mut file = fs::File::open(path)?;
    let read = file.by_ref().take(HEADER as u64).read_to_end(&mut bytes);
    // Never closed: that would give up the locks of every connection that this process has to the file.
    mem::forget(file);
    read?;
    let number = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(i32::from_be_bytes);
    Ok(match (number(APPLICATION_ID), number(USER_VERSION)) {
        (Some(application), Some(version)) if bytes.len() == HEADER && bytes.starts_with(MAGIC) => {
            Header::Of { application, version }
        }
        _ => Header::None,
    })
}

/// Whether SQLite still finds it damaged. The log may have a newer header than the file: if there is one, it must be ours too.
fn is_damaged(path: &Path, has_header: bool) -> bool {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let checked = Connection::open_with_flags(path, flags).and_then(|connection| {
        // The log stays as it is: the copy is to keep its bytes.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        let number = |name| connection.pragma_query_value(None, name, |row| row.get(0));
        if has_header && !schema::may_be_replaced(number("application_id")?, number("user_version")?) {
            return Ok(false);
        }
        let found: String = connection.query_row("PRAGMA quick_check(1)", (), |row| row.get(0))?;
        Ok(found != "ok")
    });
    checked.unwrap_or_else(|error| failure::is_of_damage(&error))
}

/// The file before its log: a log beside a new file would be taken for that file's.
fn move_away(path: &Path, now: Timestamp) -> Option<PathBuf> {
    let name = |number: u32| {
        let mut name: OsString = path.as_os_str().to_owned();
        name.push(now.strftime(".damaged-%Y%m%dT%H%M%SZ").to_string());
        if number > 1 {
            name.push(format!("-{number}"));
        }
        PathBuf::from(name)
    };
    let copy = (1..1000).map(name).find(|copy| fs::symlink_metadata(copy).is_err())?;
    fs::rename(path, &copy).ok()?;
    for ending in ["-wal", "-shm"] {
        // Where there is none there is nothing to move.
        let _ = fs::rename(beside(path, ending), beside(&copy, ending));
    }
    Some(copy)
}
