//! The tables, their schema version, and the migrations between versions.
//! `file` creates and opens the file.

use quota_core::store::{StoreError, WriteState};
use rusqlite::{Connection, TransactionBehavior};
use std::path::Path;

use crate::error;

/// The `application_id` in the header of SQLite: `quot`.
const APPLICATION: i32 = 0x7175_6f74;

/// The base of the schema version: `qu`. A file with such a `user_version` is ours, so one pragma is enough.
const NUMBER_BASE: i32 = 0x7175_0000;

/// The migrations from each version to the next, each in one transaction. The first creates the tables.
///
/// Never change a released migration; append another one.
const MIGRATIONS: [&str; 1] = ["
    CREATE TABLE document (
        key TEXT NOT NULL UNIQUE,
        version INTEGER NOT NULL,
        expires_ms INTEGER NOT NULL,
        body BLOB NOT NULL
    ) STRICT;
    CREATE INDEX document_by_expiry ON document (expires_ms);
"];

/// The `user_version` of a file with the latest schema.
pub(crate) fn schema_version() -> i32 {
    NUMBER_BASE + latest_version(&MIGRATIONS)
}

fn latest_version(migrations: &[&str]) -> i32 {
    i32::try_from(migrations.len()).expect("there are few migrations")
}

/// Creates the tables in a new file.
pub(crate) fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "application_id", APPLICATION)?;
    apply(connection, 0, &MIGRATIONS)
}

/// Checks that the file is ours, and migrates an older schema.
///
/// # Errors
///
/// [`StoreError`] if another program owns the file or its schema is newer. The file is then unchanged.
pub(crate) fn check(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    check_with(connection, path, &MIGRATIONS)
}

/// Whether a damaged file with these numbers may be replaced: it is ours, and its schema is not newer.
pub(crate) fn is_replaceable(application: i32, version: i32) -> bool {
    application == APPLICATION && version.wrapping_sub(NUMBER_BASE) <= latest_version(&MIGRATIONS)
}

fn check_with(connection: &mut Connection, path: &Path, migrations: &[&str]) -> Result<(), StoreError> {
    let map_error = |error| error::from_sqlite(error, path, WriteState::NotApplied);
    // The only extra query of a reader.
    let number = pragma(connection, "user_version").map_err(map_error)?.wrapping_sub(NUMBER_BASE);
    let latest_version = latest_version(migrations);
    if number == latest_version {
        return Ok(());
    }
    let at = path.display();
    if pragma(connection, "application_id").map_err(map_error)? != APPLICATION || number < 1 {
        // These numbers are also zero in a truncated file. SQLite reports that damage here.
        connection.query_row("SELECT count(*) FROM sqlite_master", (), |_| Ok(())).map_err(map_error)?;
        return Err(StoreError::corrupt(format!(
            "{at} is not a quota database (it was not changed); use another file"
        )));
    }
    if number > latest_version {
        return Err(StoreError::corrupt(format!(
            "{at} was written by a newer quota (schema {number}, this program supports up to {latest_version}); update this program"
        )));
    }
    apply(connection, number, migrations).map_err(map_error)
}

/// Applies all migrations from `number` on. Skips those that another process has applied in the meantime.
fn apply(connection: &mut Connection, number: i32, migrations: &[&str]) -> rusqlite::Result<()> {
    let first = usize::try_from(number).unwrap_or(0);
    for (done, migration) in migrations.iter().enumerate().skip(first) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = i32::try_from(done).expect("there are few migrations");
        let current = pragma(&transaction, "user_version")?;
        if current > NUMBER_BASE + done {
            continue;
        }
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", NUMBER_BASE + done + 1)?;
        transaction.commit()?;
    }
    Ok(())
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i32> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/x/quota.db";

    fn created() -> Connection {
        let mut connection = Connection::open_in_memory().expect("an in-memory database opens");
        create(&mut connection).expect("the tables are created");
        connection
    }

    fn checked(connection: &mut Connection, migrations: &[&str]) -> Result<(), StoreError> {
        check_with(connection, Path::new(PATH), migrations)
    }

    #[test]
    fn a_created_file_is_ours() {
        assert!(checked(&mut created(), &MIGRATIONS).is_ok());
    }

    #[test]
    fn an_older_schema_is_migrated_with_its_data() {
        let mut connection = created();
        connection.execute("INSERT INTO document VALUES ('a', 1, 2, x'00')", ()).unwrap();
        let migrations =
            [MIGRATIONS[0], "ALTER TABLE document ADD COLUMN note TEXT", "CREATE TABLE other (x) STRICT"];

        // STRICT requires a type, so this migration fails and changes nothing.
        assert!(checked(&mut connection, &migrations).is_err());
        let migrations = [migrations[0], migrations[1], "CREATE TABLE other (x TEXT) STRICT"];
        checked(&mut connection, &migrations).unwrap();

        let key: String = connection
            .query_row("SELECT key FROM document WHERE note IS NULL", (), |row| row.get(0))
            .unwrap();
        assert_eq!((key.as_str(), pragma(&connection, "user_version").unwrap()), ("a", NUMBER_BASE + 3));
    }

    #[test]
    fn a_newer_schema_is_not_changed() {
        let mut connection = created();
        checked(&mut connection, &[MIGRATIONS[0], "CREATE TABLE other (x TEXT)"]).unwrap();

        let error = checked(&mut connection, &MIGRATIONS).unwrap_err();

        assert!(
            error.to_string().contains("newer quota (schema 2, this program supports up to 1)"),
            "{error}"
        );
        assert_eq!(pragma(&connection, "user_version").unwrap(), NUMBER_BASE + 2);
    }

    #[test]
    fn another_programs_file_is_not_changed() {
        for (application, number) in [(0, 0), (0, 1), (7, NUMBER_BASE + 9), (APPLICATION, 3), (0, i32::MIN)] {
            let mut connection = Connection::open_in_memory().unwrap();
            connection.execute_batch("CREATE TABLE theirs (x)").unwrap();
            connection.pragma_update(None, "application_id", application).unwrap();
            connection.pragma_update(None, "user_version", number).unwrap();

            let error = checked(&mut connection, &MIGRATIONS).unwrap_err();

            assert!(error.to_string().contains("not a quota database"), "{error}");
            assert_eq!(pragma(&connection, "user_version").unwrap(), number);
        }
    }
}
