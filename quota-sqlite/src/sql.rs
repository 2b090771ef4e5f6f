//! The SQL statements. Each write is one statement, because a process that is stopped inside a transaction blocks all writers. The
//! callers provide the time.

use std::time::Duration;

use bytes::Bytes;
use quota_core::store::{Document, DocumentEntry, StoreKey, Version};
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Row, params};

use crate::schema;

const READ: &str = "SELECT version, body FROM document WHERE key = ?1 AND expires_ms > ?2";
const VERSION: &str = "SELECT version FROM document WHERE key = ?1 AND expires_ms > ?2";
const VERSIONS: &str = "SELECT key, version FROM document WHERE expires_ms > ?1";
const ENTRIES: &str = "SELECT key, version, expires_ms FROM document WHERE expires_ms > ?1";
const ROWS: &str = "SELECT COALESCE(MAX(rowid), 0) FROM document";
const DATA_VERSION: &str = "PRAGMA data_version";
/// An expired document counts as missing. Neither statement writes to a file that a newer program has migrated.
const CREATE: &str = "
    INSERT INTO document (key, version, expires_ms, body)
    SELECT ?1, ?2, ?3, ?4 WHERE (SELECT user_version FROM pragma_user_version) = ?6
    ON CONFLICT (key) DO UPDATE SET version = ?2, expires_ms = ?3, body = ?4 WHERE expires_ms <= ?5";
const REPLACE: &str = "
    UPDATE document SET version = ?2, expires_ms = ?3, body = ?4
    WHERE key = ?1 AND expires_ms > ?5 AND version = ?7
        AND (SELECT user_version FROM pragma_user_version) = ?6";
/// Removes a limited number of rows, so that the lock is held only briefly.
const SWEEP: &str = "
    DELETE FROM document WHERE rowid IN (SELECT rowid FROM document WHERE expires_ms <= ?1 LIMIT 100)";

const BEGIN: &str = "BEGIN";
const END: &str = "COMMIT";

/// The parameters of a write.
#[derive(Debug)]
pub(crate) struct Write<'a> {
    pub(crate) key: &'a StoreKey,
    pub(crate) expected: Option<Version>,
    pub(crate) version: Version,
    pub(crate) body: &'a Bytes,
    pub(crate) now_ms: i64,
    pub(crate) expires_ms: i64,
}

/// Starts a read transaction: until [`end`], all reads see one snapshot.
pub(crate) fn begin(connection: &Connection) -> rusqlite::Result<()> {
    prepare(connection, BEGIN)?.execute(()).map(drop)
}

/// Ends the read transaction.
pub(crate) fn end(connection: &Connection) -> rusqlite::Result<()> {
    prepare(connection, END)?.execute(()).map(drop)
}

/// Reads a document.
pub(crate) fn read(
    connection: &Connection,
    key: &StoreKey,
    now_ms: i64,
) -> rusqlite::Result<Option<Document>> {
    let document = |row: &Row<'_>| {
        let body = row.get_ref(1)?.as_blob()?;
        Ok(Document::new(to_version(row.get(0)?), Bytes::copy_from_slice(body)))
    };
    prepare(connection, READ)?.query_row(params![key.as_str(), now_ms], document).optional()
}

/// Reads only the version of a document.
pub(crate) fn version(
    connection: &Connection,
    key: &StoreKey,
    now_ms: i64,
) -> rusqlite::Result<Option<Version>> {
    let version = |row: &Row<'_>| Ok(to_version(row.get(0)?));
    prepare(connection, VERSION)?.query_row(params![key.as_str(), now_ms], version).optional()
}

/// Calls `each` with the key and version of every document, without reading bodies on overflow pages.
pub(crate) fn versions(
    connection: &Connection,
    now_ms: i64,
    mut each: impl FnMut(&str, Version),
) -> rusqlite::Result<()> {
    let mut statement = prepare(connection, VERSIONS)?;
    let mut rows = statement.query([now_ms])?;
    while let Some(row) = rows.next()? {
        each(row.get_ref(0)?.as_str()?, to_version(row.get(1)?));
    }
    Ok(())
}

/// All documents, without reading bodies on overflow pages.
pub(crate) fn entries(connection: &Connection, now_ms: i64) -> rusqlite::Result<Vec<DocumentEntry>> {
    let entry = |row: &Row<'_>| {
        let left_ms = row.get::<_, i64>(2)?.saturating_sub(now_ms);
        Ok(DocumentEntry {
            key: StoreKey::stored(row.get_ref(0)?.as_str()?),
            version: to_version(row.get(1)?),
            ttl: Duration::from_millis(u64::try_from(left_ms).unwrap_or(0)),
        })
    };
    prepare(connection, ENTRIES)?.query_map([now_ms], entry)?.collect()
}

/// An upper bound of the number of documents, without visiting them.
pub(crate) fn max_rows(connection: &Connection) -> rusqlite::Result<usize> {
    let last: i64 = prepare(connection, ROWS)?.query_row((), |row| row.get(0))?;
    Ok(usize::try_from(last).unwrap_or(0))
}

/// A number that changes when another connection, of any process, has written.
pub(crate) fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    prepare(connection, DATA_VERSION)?.query_row((), |row| row.get(0))
}

/// Writes if the current version is the expected one and the schema is that of this program. Returns whether it wrote.
pub(crate) fn write(connection: &Connection, write: &Write<'_>) -> rusqlite::Result<bool> {
    let Write { key, expected, version, body, now_ms, expires_ms } = write;
    let (key, version, body, schema_version) =
        (key.as_str(), from_version(*version), &body[..], schema::schema_version());
    let changed = match expected {
        None => prepare(connection, CREATE)?.execute(params![
            key,
            version,
            expires_ms,
            body,
            now_ms,
            schema_version
        ]),
        Some(expected) => {
            let expected = from_version(*expected);
            prepare(connection, REPLACE)?.execute(params![
                key,
                version,
                expires_ms,
                body,
                now_ms,
                schema_version,
                expected
            ])
        }
    };
    Ok(changed? == 1)
}

/// Removes some expired documents.
pub(crate) fn sweep(connection: &Connection, now_ms: i64) -> rusqlite::Result<usize> {
    prepare(connection, SWEEP)?.execute([now_ms])
}

fn prepare<'a>(connection: &'a Connection, text: &str) -> rusqlite::Result<CachedStatement<'a>> {
    connection.prepare_cached(text)
}

/// SQLite has signed integers only; the conversion keeps all bits.
fn from_version(version: Version) -> i64 {
    version.number().cast_signed()
}

fn to_version(number: i64) -> Version {
    Version::new(number.cast_unsigned())
}
