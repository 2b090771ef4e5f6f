//! Finds and opens the database file, and notices when the path leads to another file. `create` creates it; `schema` and `sql` own its
//! content.

use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use quota_core::store::{StoreError, StoreKey, Version, WriteState};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::aside::{self, Aside, has_wal, has_wal_or_shm};
use crate::create::{self, CREATE_LOCK};
use crate::folder::{self, FolderLock};
use crate::options::SqliteOptions;
use crate::permissions::{self, FileId};
use crate::{error, locks, remove, schema, sql};

/// One connection to the file, opened when it is needed.
#[derive(Debug)]
pub(crate) struct File {
    options: Arc<SqliteOptions>,
    access: Access,
    open: Option<Open>,
    /// The file of the last attempt to open one, successful or not.
    last: Option<FileId>,
}

/// The purpose of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Reads,
    Writes,
}

#[derive(Debug)]
struct Open {
    connection: Connection,
    which: FileId,
    /// Opened as immutable: it shows the content at the time of opening.
    is_immutable: bool,
}

impl Open {
    fn in_transaction(&self) -> bool {
        !self.connection.is_autocommit()
    }
}

/// How often to try creating the file, because it may be removed again, or another process may first move an orphaned
/// log.
const MAX_CREATE_ATTEMPTS: u32 = 3;

impl File {
    pub(crate) fn new(options: Arc<SqliteOptions>, access: Access) -> Self {
        Self { options, access, open: None, last: None }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.options.path
    }

    /// Maps an error of SQLite for this file.
    pub(crate) fn map_error(&self, error: rusqlite::Error, applied: WriteState) -> StoreError {
        error::from_sqlite(error, self.path(), applied)
    }

    /// The connection, and whether it is new; `None` if the file is missing.
    pub(crate) fn for_reading(&mut self) -> Result<Option<(&Connection, bool)>, StoreError> {
        if self.open.as_ref().is_some_and(Open::in_transaction) {
            // The transaction belongs to this file, even if the path leads to another one now.
            return Ok(self.open.as_ref().map(|open| (&open.connection, false)));
        }
        let Some(which) = find(&self.options)? else {
            self.open = None;
            return Ok(None);
        };
        let is_new = match self.connection(&which) {
            Ok((_, is_new)) => is_new,
            // Another process may have set the file aside since it was found.
            Err(error) => return if find(&self.options)?.is_none() { Ok(None) } else { Err(error) },
        };
        Ok(self.open.as_ref().map(|open| (&open.connection, is_new)))
    }

    /// The connection. Creates the file if it is missing.
    pub(crate) fn for_writing(&mut self) -> Result<&Connection, StoreError> {
        let mut found = find(&self.options)?;
        if found.is_none() {
            self.open = None;
            if self.options.must_exist {
                let reason = format!("{} does not exist", self.path().display());
                return Err(StoreError::unavailable(WriteState::NotApplied, reason));
            }
            for _ in 0..MAX_CREATE_ATTEMPTS {
                create::create(&self.options.path)?;
                found = find(&self.options)?;
                if found.is_some() {
                    break;
                }
            }
        }
        let gone = || {
            StoreError::unavailable(
                WriteState::NotApplied,
                "the file was removed while it was created; try again",
            )
        };
        let found = found.ok_or_else(gone)?;
        self.connection(&found).map(|(connection, _)| connection)
    }

    /// Ends the read transaction, if there is one, so that later reads see later writes.
    pub(crate) fn end_transaction(&mut self) {
        let open = self.open.as_ref().filter(|open| open.in_transaction());
        if open.is_some_and(|open| sql::end(&open.connection).is_err()) {
            self.forget();
        }
    }

    /// Drops the connection after a failure; the next call opens a new one.
    pub(crate) fn forget(&mut self) {
        self.open = None;
    }

    /// Removes the file if its document `key` has this version at `now`. A missing file counts as removed.
    pub(crate) fn remove(
        &mut self,
        key: &StoreKey,
        version: Version,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let Some(found) = find(&self.options)? else {
            self.open = None;
            return Ok(());
        };
        self.connection(&found)?;
        let open = self.open.take().expect("it was opened above");
        let is_expected = || {
            sql::version(&open.connection, key, now.as_millisecond())
                .map(|found| found == Some(version))
                .map_err(|error| self.map_error(error, WriteState::NotApplied))
        };
        // Keep the connection open until then, so that no other file gets this file's inode number.
        let removed = {
            let _creating = CREATE_LOCK.lock();
            remove::remove(&self.options.path, open.which, is_expected)
        };
        drop(open);
        removed
    }

    /// Sets the file aside if this error reports damage and the options allow it. Returns whether a new file can take its place.
    pub(crate) fn try_set_aside(&mut self, error: &StoreError) -> bool {
        let (Some(notice), Some(damaged)) = (&self.options.on_aside, self.last) else { return false };
        if !error::is_damage(error) {
            return false;
        }
        self.open = None;
        let creating = CREATE_LOCK.lock();
        let aside = aside::set_aside(&self.options.path, damaged, self.options.clock.now());
        drop(creating);
        match aside {
            Aside::Moved(copy) => {
                tracing::warn!(copy = %copy.display(), "set the damaged database aside");
                (notice.0)(&copy);
                true
            }
            Aside::Gone => true,
            Aside::Stays => false,
        }
    }

    fn connection(&mut self, found: &DbFile) -> Result<(&Connection, bool), StoreError> {
        let which = FileId::of(&found.metadata);
        let is_current = self.open.as_ref().is_some_and(|open| open.which == which && !open.is_immutable);
        if !is_current {
            // Close the old connection before opening another: closing releases all POSIX locks of this process on the file.
            self.open = None;
            self.last = Some(which);
            let file = found.check(&self.options.path)?;
            let (connection, is_immutable) = connect(&self.options, &file)?;
            if self.access == Access::Writes {
                prepare_to_write(&connection)
                    .map_err(|error| self.map_error(error, WriteState::NotApplied))?;
            }
            self.open = Some(Open { connection, which, is_immutable });
        }
        let open = self.open.as_ref().expect("it was opened above");
        Ok((&open.connection, !is_current))
    }
}

/// An existing file.
struct DbFile {
    metadata: Metadata,
}

fn find(options: &SqliteOptions) -> Result<Option<DbFile>, StoreError> {
    let path = &options.path;
    if let Some(found) = stat_file(path)? {
        return Ok(Some(found));
    }
    if path.is_symlink() && !path.exists() {
        return Err(StoreError::rejected(format!("{} is a dangling link; fix or delete it", path.display())));
    }
    // An empty log or a lone index counts only if it may be moved, because another process may still use it with the
    // removed file.
    let is_left = || has_wal(path) || options.on_aside.is_some() && has_wal_or_shm(path);
    if !is_left() {
        return Ok(None);
    }
    // A process that replaces the file moves the log right after it. A process that has just created the file may already have written.
    drop(FolderLock::shared(path));
    let found = stat_file(path)?;
    if found.is_some() || !is_left() {
        return Ok(found);
    }
    if let Some(notice) = &options.on_aside
        && let Some(copy) = aside::set_side_files_aside(path, options.clock.now())
    {
        tracing::warn!(copy = %copy.display(), "set the log of a missing database aside");
        (notice.0)(&copy);
    }
    match stat_file(path)? {
        Some(found) => Ok(Some(found)),
        // SQLite would apply the log to the next file.
        None if has_wal(path) => Err(error::orphaned_wal(path)),
        None => Ok(None),
    }
}

fn stat_file(path: &Path) -> Result<Option<DbFile>, StoreError> {
    match fs::metadata(path) {
        // Like SQLite, treat an empty file as a database that does not exist yet.
        Ok(metadata) if permissions::is_empty_file(&metadata) => Ok(None),
        Ok(metadata) => Ok(Some(DbFile { metadata })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(permissions::from_io("find", path, error)),
    }
}

impl DbFile {
    /// Checks the permissions. Returns the path with links resolved, because SQLite creates the log next to the target,
    /// not next to a link.
    fn check(&self, path: &Path) -> Result<PathBuf, StoreError> {
        if !self.metadata.is_file() {
            return Err(StoreError::rejected(format!(
                "{} is not a regular file; use the path of a file",
                path.display()
            )));
        }
        let map_error = |error| permissions::from_io("find", path, error);
        let is_link = path.symlink_metadata().map_err(map_error)?.is_symlink();
        let file = if is_link { path.canonicalize().map_err(map_error)? } else { path.to_owned() };
        permissions::check_files(&file, &self.metadata)?;
        permissions::check_folder_of(&file)?;
        Ok(file)
    }
}

fn connect(options: &SqliteOptions, file: &Path) -> Result<(Connection, bool), StoreError> {
    let _creating = CREATE_LOCK.lock();
    let path = &options.path;
    // Hold the lock until the log is open too. Otherwise the log could be created next to the file that replaces this
    // one.
    let _lock = FolderLock::shared(file).ok_or_else(folder::being_replaced)?;
    locks::check(file)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    match open(path, path, flags, options) {
        // The folder is read-only: without a log, or with an empty one, the file can be read as immutable.
        Err(OpenError { is_wal_error: true, .. }) if !has_wal(file) => {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
                | OpenFlags::SQLITE_OPEN_URI
                | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection =
                open(&immutable_uri(path), path, flags, options).map_err(|failed| failed.error)?;
            Ok((connection, true))
        }
        Ok(connection) => Ok((connection, false)),
        Err(failed) => Err(failed.error),
    }
}

/// The pages of the log before a checkpoint. The first process to open the file reads the whole log, so this is small.
const LOG_PAGES: u32 = 16;

fn prepare_to_write(connection: &Connection) -> rusqlite::Result<()> {
    // Do not wait for the disk at each write: docs/design/sqlite.md gives the cost of a power failure.
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)
}

struct OpenError {
    error: StoreError,
    is_wal_error: bool,
}

fn open(at: &Path, path: &Path, flags: OpenFlags, options: &SqliteOptions) -> Result<Connection, OpenError> {
    let map_error = |error: rusqlite::Error| OpenError {
        is_wal_error: matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly)),
        error: error::from_sqlite(error, path, WriteState::NotApplied),
    };
    let mut connection = Connection::open_with_flags(at, flags).map_err(map_error)?;
    connection.busy_timeout(options.busy_timeout).map_err(map_error)?;
    // Otherwise the last of many short-lived processes would checkpoint and delete the log, and the next one create it again.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(map_error)?;
    // The first read of the file: until now its content is unverified.
    let is_wal_error = |error: &StoreError| matches!(error, StoreError::Rejected { .. });
    schema::check(&mut connection, path)
        .map_err(|error| OpenError { is_wal_error: is_wal_error(&error), error })?;
    Ok(connection)
}

/// The URI that promises SQLite that the file does not change. The reader opens such a file again for each read.
fn immutable_uri(path: &Path) -> PathBuf {
    const UNESCAPED: AsciiSet = NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');
    let path = percent_encode(path.as_os_str().as_encoded_bytes(), &UNESCAPED);
    format!("file:{path}?immutable=1").into()
}
