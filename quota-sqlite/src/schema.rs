//! The tables in the file, their number, and how an older number becomes the present one.
//! Whose the file is and how it comes to be is in `file`.

use quota_core::{Applied, StoreError};
use rusqlite::{Connection, TransactionBehavior};
use std::path::Path;

use crate::failure;

/// What SQLite's header calls the program that a file belongs to: `quot`.
const APPLICATION: i32 = 0x7175_6f74;

/// The number of the schema begins here, so that a file with that number is ours without a second look: `qu`.
const NUMBER_BASE: i32 = 0x7175_0000;

/// What leads from each number to the next, each applied whole or not at all. The first makes the tables.
///
/// What was released is never changed; another step is put behind it.
const STEPS: [&str; 1] = ["
    CREATE TABLE document (
        key TEXT NOT NULL UNIQUE,
        version INTEGER NOT NULL,
        expires_ms INTEGER NOT NULL,
        body BLOB NOT NULL
    ) STRICT;
    CREATE INDEX document_by_expiry ON document (expires_ms);
"];

/// What a file of the present form has as its `user_version`.
pub(crate) fn form() -> i32 {
    NUMBER_BASE + known(&STEPS)
}

fn known(steps: &[&str]) -> i32 {
    i32::try_from(steps.len()).expect("there are few steps")
}

/// Makes the tables in a file that is new.
pub(crate) fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "application_id", APPLICATION)?;
    apply(connection, 0, &STEPS)
}

/// Whether the file is ours, and of this number; one of an older number is brought up to it.
///
/// # Errors
///
/// [`StoreError`] if it is another program's, or of a newer number: then it is left as it is.
pub(crate) fn check(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    check_with(connection, path, &STEPS)
}

/// Whether a file with these numbers, being damaged, may be replaced: it is ours, and of no newer form.
pub(crate) fn may_be_replaced(application: i32, version: i32) -> bool {
    application == APPLICATION && version.wrapping_sub(NUMBER_BASE) <= known(&STEPS)
}

fn check_with(connection: &mut Connection, path: &Path, steps: &[&str]) -> Result<(), StoreError> {
    let told = |error| failure::of_sqlite(error, path, Applied::No);
    // The only thing that a reader asks besides what it came for.
    let number = pragma(connection, "user_version").map_err(told)?.wrapping_sub(NUMBER_BASE);
    let known = known(steps);
    if number == known {
        return Ok(());
    }
    let at = path.display();
    if pragma(connection, "application_id").map_err(told)? != APPLICATION || number < 1 {
        // These numbers are zero in what is left of a file that was cut off, too. Then it is damage, which SQLite finds here.
        connection.query_row("SELECT count(*) FROM sqlite_master", (), |_| Ok(())).map_err(told)?;
        return Err(StoreError::unusable(format!(
            "{at} is not a database of quota; nothing in it was changed: name another file"
        )));
    }
    if number > known {
        return Err(StoreError::unusable(format!(
            "{at} was written by a newer quota (its form is {number}, and {known} is known here); update this program"
        )));
    }
    apply(connection, number, steps).map_err(told)
}

/// Goes all steps from `number` on. Who comes second finds them gone already.
fn apply(connection: &mut Connection, number: i32, steps: &[&str]) -> rusqlite::Result<()> {
    let first = usize::try_from(number).unwrap_or(0);
    for (done, step) in steps.iter().enumerate().skip(first) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = i32::try_from(done).expect("there are few steps");
        let stands = pragma(&transaction, "user_version")?;
        if stands > NUMBER_BASE + done {
            continue;
        }
        transaction.execute_batch(step)?;
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

    fn checked(connection: &mut Connection, steps: &[&str]) -> Result<(), StoreError> {
        check_with(connection, Path::new(PATH), steps)
    }

    #[test]
    fn a_file_that_was_made_is_ours() {
        assert!(checked(&mut created(), &STEPS).is_ok());
    }

    #[test]
    fn an_older_form_is_brought_forward_with_all_that_is_in_it() {
        let mut connection = created();
        connection.execute("INSERT INTO document VALUES ('a', 1, 2, x'00')", ()).unwrap();
        let steps = [STEPS[0], "ALTER TABLE document ADD COLUMN note TEXT", "CREATE TABLE other (x) STRICT"];

        // STRICT wants a type: a step that fails leaves what was there before it.
        assert!(checked(&mut connection, &steps).is_err());
        let steps = [steps[0], steps[1], "CREATE TABLE other (x TEXT) STRICT"];
        checked(&mut connection, &steps).unwrap();

        let key: String = connection
            .query_row("SELECT key FROM document WHERE note IS NULL", (), |row| row.get(0))
            .unwrap();
        assert_eq!((key.as_str(), pragma(&connection, "user_version").unwrap()), ("a", NUMBER_BASE + 3));
    }

    #[test]
    fn a_newer_form_is_left_alone() {
        let mut connection = created();
        checked(&mut connection, &[STEPS[0], "CREATE TABLE other (x TEXT)"]).unwrap();

        let error = checked(&mut connection, &STEPS).unwrap_err();

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

            let error = checked(&mut connection, &STEPS).unwrap_err();

            assert!(error.to_string().contains("not a database of quota"), "{error}");
            assert_eq!(pragma(&connection, "user_version").unwrap(), number);
        }
    }
}
