//! The tables in the file, their number, and how an older number becomes the present one.
//! Whose the file is and how it comes to be is in `file`.

use quota_core::{Applied, StoreError};
use rusqlite::{Connection, TransactionBehavior};
use std::path::Path;

use crate::error;

/// What SQLite's header calls the program that a file belongs to: `quot`.
const APPLICATION: i32 = 0x7175_6f74;

/// The number of the schema begins here, so that a file with that number is ours without a second look: `qu`.
const NUMBER_BASE: i32 = 0x7175_0000;

/// What leads from each number to the next, each applied whole or not at all. The first makes the tables.
///
/// What was released is never changed; another step is put behind it.
const MIGRATIONS: [&str; 1] = ["
    CREATE TABLE document (
        key TEXT NOT NULL UNIQUE,
        version INTEGER NOT NULL,
        expires_ms INTEGER NOT NULL,
        body BLOB NOT NULL
    ) STRICT;
    CREATE INDEX document_by_expiry ON document (expires_ms);
"];

/// What a file of the present form has as its `user_version`.
pub(crate) fn schema_version() -> i32 {
    NUMBER_BASE + latest_version(&MIGRATIONS)
}

fn latest_version(migrations: &[&str]) -> i32 {
    i32::try_from(migrations.len()).expect("there are few steps")
}

/// Makes the tables in a file that is new.
pub(crate) fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "application_id", APPLICATION)?;
    apply(connection, 0, &MIGRATIONS)
}

/// Whether the file is ours, and of this number; one of an older number is brought up to it.
///
/// # Errors
///
/// [`StoreError`] if it is another program's, or of a newer number: then it is left as it is.
pub(crate) fn check(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    check_with(connection, path, &MIGRATIONS)
}

/// Whether a file with these numbers, being damaged, may be replaced: it is ours, and of no newer form.
pub(crate) fn is_replaceable(application: i32, version: i32) -> bool {
    application == APPLICATION && version.wrapping_sub(NUMBER_BASE) <= latest_version(&MIGRATIONS)
}

fn check_with(connection: &mut Connection, path: &Path, migrations: &[&str]) -> Result<(), StoreError> {
    let map_error = |error| error::from_sqlite(error, path, Applied::No);
    // The only thing that a reader asks besides what it came for.
    let number = pragma(connection, "user_version").map_err(map_error)?.wrapping_sub(NUMBER_BASE);
    let latest_version = latest_version(migrations);
    if number == latest_version {
        return Ok(());
    }
    let at = path.display();
    if pragma(connection, "application_id").map_err(map_error)? != APPLICATION || number < 1 {
        // These numbers are zero in what is left of a file that was cut off, too. Then it is damage, which SQLite finds here.
        connection.query_row("SELECT count(*) FROM sqlite_master", (), |_| Ok(())).map_err(map_error)?;
        return Err(StoreError::unusable(format!(
            "{at} is not a database of quota; nothing in it was changed: name another file"
        )));
    }
    if number > latest_version {
        return Err(StoreError::unusable(format!(
            "{at} was written by a newer quota (its form is {number}, and {latest_version} is known here); update this program"
        )));
    }
    apply(connection, number, migrations).map_err(map_error)
}

/// Goes all steps from `number` on. Who comes second finds them gone already.
fn apply(connection: &mut Connection, number: i32, migrations: &[&str]) -> rusqlite::Result<()> {
    let first = usize::try_from(number).unwrap_or(0);
    for (done, migration) in migrations.iter().enumerate().skip(first) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = i32::try_from(done).expect("there are few steps");
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
        let mut connection = Connection::open_in_memory().expect("memory can be opened");
        create(&mut connection).expect("an empty file takes the tables");
        connection
    }

    fn checked(connection: &mut Connection, migrations: &[&str]) -> Result<(), StoreError> {
        check_with(connection, Path::new(PATH), migrations)
    }

    #[test]
    fn a_file_that_was_made_is_ours() {
        assert!(checked(&mut created(), &MIGRATIONS).is_ok());
    }

    #[test]
    fn an_older_form_is_brought_forward_with_all_that_is_in_it() {
        let mut connection = created();
        connection.execute("INSERT INTO document VALUES ('a', 1, 2, x'00')", ()).unwrap();
        let migrations =
            [MIGRATIONS[0], "ALTER TABLE document ADD COLUMN note TEXT", "CREATE TABLE other (x) STRICT"];

        // STRICT wants a type: a step that fails leaves what was there before it.
        assert!(checked(&mut connection, &migrations).is_err());
        let migrations = [migrations[0], migrations[1], "CREATE TABLE other (x TEXT) STRICT"];
        checked(&mut connection, &migrations).unwrap();

        let key: String = connection
            .query_row("SELECT key FROM document WHERE note IS NULL", (), |row| row.get(0))
            .unwrap();
        assert_eq!((key.as_str(), pragma(&connection, "user_version").unwrap()), ("a", NUMBER_BASE + 3));
    }

    #[test]
    fn a_newer_form_is_left_alone() {
        let mut connection = created();
        checked(&mut connection, &[MIGRATIONS[0], "CREATE TABLE other (x TEXT)"]).unwrap();

        let error = checked(&mut connection, &MIGRATIONS).unwrap_err();

        assert!(error.to_string().contains("newer quota (its form is 2, and 1 is known here)"), "{error}");
        assert_eq!(pragma(&connection, "user_version").unwrap(), NUMBER_BASE + 2);
    }

    #[test]
    fn another_programs_file_is_left_alone() {
        for (application, number) in [(0, 0), (0, 1), (7, NUMBER_BASE + 9), (APPLICATION, 3), (0, i32::MIN)] {
            let mut connection = Connection::open_in_memory().unwrap();
            connection.execute_batch("CREATE TABLE theirs (x)").unwrap();
            connection.pragma_update(None, "application_id", application).unwrap();
            connection.pragma_update(None, "user_version", number).unwrap();

            let error = checked(&mut connection, &MIGRATIONS).unwrap_err();

            assert!(error.to_string().contains("not a database of quota"), "{error}");
            assert_eq!(pragma(&connection, "user_version").unwrap(), number);
        }
    }
}
