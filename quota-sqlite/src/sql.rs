//! The statements on the one table. Each write is a transaction of its own, for whoever is stopped in one stops all writers.
//! What time it is, and whose turn, is decided by the callers.

use bytes::Bytes;
use quota_core::{Document, StoreKey, Version};
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Row, params};

use crate::schema;

const READ: &str = "SELECT version, body FROM document WHERE key = ?1 AND expires_ms > ?2";
const VERSION: &str = "SELECT version FROM document WHERE key = ?1 AND expires_ms > ?2";
const VERSIONS: &str = "SELECT key, version FROM document WHERE expires_ms > ?1";
const ROWS: &str = "SELECT COALESCE(MAX(rowid), 0) FROM document";
const DATA_VERSION: &str = "PRAGMA data_version";
/// One that has expired counts as none. Neither of these writes in a file that a newer program has brought forward meanwhile.
const CREATE: &str = "
    INSERT INTO document (key, version, expires_ms, body)
    SELECT ?1, ?2, ?3, ?4 WHERE (SELECT user_version FROM pragma_user_version) = ?6
    ON CONFLICT (key) DO UPDATE SET version = ?2, expires_ms = ?3, body = ?4 WHERE expires_ms <= ?5";
const REPLACE: &str = "
    UPDATE document SET version = ?2, expires_ms = ?3, body = ?4
    WHERE key = ?1 AND expires_ms > ?5 AND version = ?7
        AND (SELECT user_version FROM pragma_user_version) = ?6";
/// A few at a time, so that the lock is never held for long.
const SWEEP: &str = "
    DELETE FROM document WHERE rowid IN (SELECT rowid FROM document WHERE expires_ms <= ?1 LIMIT 100)";

const BEGIN: &str = "BEGIN";
const END: &str = "COMMIT";

/// What is to be written.
#[derive(Debug)]
pub(crate) struct Write<'a> {
    pub(crate) key: &'a StoreKey,
    pub(crate) expected: Option<Version>,
    pub(crate) version: Version,
    pub(crate) body: &'a Bytes,
    pub(crate) now_ms: i64,
    pub(crate) expires_ms: i64,
}

/// From the next read on, all reads are of one moment, until [`end`].
pub(crate) fn begin(connection: &Connection) -> rusqlite::Result<()> {
    prepare(connection, BEGIN)?.execute(()).map(drop)
}

/// Ends what was begun. Nothing was written meanwhile.
pub(crate) fn end(connection: &Connection) -> rusqlite::Result<()> {
    prepare(connection, END)?.execute(()).map(drop)
}

/// The document as it stands.
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

/// The version alone.
pub(crate) fn version(
    connection: &Connection,
    key: &StoreKey,
    now_ms: i64,
) -> rusqlite::Result<Option<Version>> {
    let version = |row: &Row<'_>| Ok(to_version(row.get(0)?));
    prepare(connection, VERSION)?.query_row(params![key.as_str(), now_ms], version).optional()
}

/// Calls `each` with the key and version of every document. Bodies that do not fit into a page are not read.
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

/// How many documents there are at most, found without visiting them.
pub(crate) fn max_rows(connection: &Connection) -> rusqlite::Result<usize> {
    let last: i64 = prepare(connection, ROWS)?.query_row((), |row| row.get(0))?;
    Ok(usize::try_from(last).unwrap_or(0))
}

/// A number that is another one once another connection, of whatever process, has written.
pub(crate) fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    prepare(connection, DATA_VERSION)?.query_row((), |row| row.get(0))
}

/// Writes if what stands is still what is expected, and the tables are those of this program. Returns whether it was so.
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

/// Takes away some of what has expired.
pub(crate) fn sweep(connection: &Connection, now_ms: i64) -> rusqlite::Result<usize> {
    prepare(connection, SWEEP)?.execute([now_ms])
}

fn prepare<'a>(connection: &'a Connection, text: &str) -> rusqlite::Result<CachedStatement<'a>> {
    connection.prepare_cached(text)
}

/// SQLite's numbers have a sign; ours keep all of their bits in them.
fn from_version(version: Version) -> i64 {
    version.number().cast_signed()
}

fn to_version(number: i64) -> Version {
    Version::new(number.cast_unsigned())
}
