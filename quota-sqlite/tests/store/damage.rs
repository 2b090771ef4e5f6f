//! Files of other programs, damaged files and removed files: the store never changes them, and reads what it can.

use std::fs;
use std::time::Duration;

use quota_core::store::{CasOutcome, StoreError, WriteState};
use quota_sqlite::SqliteOptions;

use crate::env::{body, new_path, open, raw, read, try_write, write};

/// Writes a private file with this content.
fn write_private(path: &std::path::Path, content: &[u8]) {
    fs::write(path, content).expect("the file can be written");
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .expect("this process owns the file");
}

#[tokio::test]
async fn a_file_that_is_not_a_database_is_corrupt_and_not_changed() {
    for content in [&b"[accounts]\n"[..], &[0; 4096], b"SQLite format 3\0 and then no database"] {
        let (_folder, path) = new_path();
        write_private(&path, content);
        let store = open(&path);

        let errors = [
            read(&store, "main").await.unwrap_err(),
            try_write(&store, "main", None, "x").await.unwrap_err(),
        ];

        for error in errors {
            assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        }
        assert_eq!(fs::read(&path).unwrap(), content);
    }
}

#[tokio::test]
async fn an_empty_file_is_an_uncreated_database() {
    let (_folder, path) = new_path();
    write_private(&path, b"");
    let store = open(&path);
    assert_eq!(read(&store, "main").await.unwrap().document, None);
    assert_eq!(fs::read(&path).unwrap(), b"");

    write(&store, "main", "one").await;

    assert_eq!(body(read(&open(&path), "main").await.unwrap()).as_deref(), Some("one"));
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_to_an_empty_file_stays_a_link() {
    let (folder, path) = new_path();
    let target = folder.path().join("target.db");
    write_private(&target, b"");
    std::os::unix::fs::symlink(&target, &path).unwrap();

    write(&open(&path), "main", "one").await;

    assert!(path.is_symlink());
    assert_eq!(body(read(&open(&target), "main").await.unwrap()).as_deref(), Some("one"));
}

#[cfg(unix)]
#[tokio::test]
async fn an_accessible_empty_file_is_not_replaced() {
    let (_folder, path) = new_path();
    write_private(&path, b"");
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();

    let error = try_write(&open(&path), "main", None, "x").await.unwrap_err();

    assert!(error.to_string().contains("run: chmod 600 "), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"");
}

#[tokio::test]
async fn an_empty_file_with_a_log_is_not_replaced() {
    let (_folder, path) = new_path();
    write(&open(&path), "main", "one").await;
    fs::write(&path, b"").unwrap();

    let error = try_write(&open(&path), "main", None, "x").await.unwrap_err();

    assert!(error.to_string().contains("is missing or empty, but its log"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"");
}

#[tokio::test]
async fn another_programs_database_is_corrupt_and_not_changed() {
    let (_folder, path) = new_path();
    write_private(&path, b"");
    raw(&path).execute_batch("CREATE TABLE document (key TEXT)").unwrap();
    let before = fs::read(&path).unwrap();
    let store = open(&path);

    let error = try_write(&store, "main", None, "x").await.unwrap_err();

    assert!(error.to_string().contains("is not a quota database"), "{error}");
    assert!(matches!(read(&store, "main").await, Err(StoreError::Corrupt { .. })));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn a_file_migrated_by_a_newer_program_is_not_written() {
    let (_folder, path) = new_path();
    let store = open(&path);
    let version = write(&store, "main", "one").await;
    let other = raw(&path);
    let number: i64 = other.query_row("PRAGMA user_version", (), |row| row.get(0)).unwrap();
    other.pragma_update(None, "user_version", number + 1).unwrap();

    for (name, expected) in [("main", Some(version)), ("other", None)] {
        let error = try_write(&store, name, expected, "two").await.unwrap_err();
        assert!(error.to_string().contains("written by a newer quota"), "{error}");
    }

    let bodies: String = other
        .query_row("SELECT group_concat(CAST(body AS TEXT)) FROM document", (), |row| row.get(0))
        .unwrap();
    assert_eq!(bodies, "one");
}

#[tokio::test]
async fn a_file_without_its_tables_is_corrupt() {
    let (_folder, path) = new_path();
    write(&open(&path), "main", "one").await;
    raw(&path).execute_batch("DROP TABLE document").unwrap();

    let error = read(&open(&path), "main").await.unwrap_err();

    assert!(error.to_string().contains("lacks the tables of quota"), "{error}");
}

#[tokio::test]
async fn a_folder_at_the_path_is_rejected() {
    let (folder, _) = new_path();

    let error = read(&open(folder.path()), "main").await.unwrap_err();

    assert!(error.to_string().contains("is not a regular file"), "{error}");
}

#[tokio::test]
async fn reading_creates_no_file_and_no_folder() {
    let (folder, _) = new_path();
    let path = folder.path().join("not").join("there.db");

    let found = read(&open(&path), "main").await.unwrap();

    assert_eq!(found.document, None);
    assert!(!folder.path().join("not").exists());
}

#[tokio::test]
async fn creating_leaves_only_the_database() {
    let (folder, path) = new_path();

    write(&open(&path), "main", "one").await;

    let names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(
        names
            .iter()
            .all(|name| ["quota.db", "quota.db-wal", "quota.db-shm"].iter().any(|expected| name == expected))
    );
}

#[tokio::test]
async fn a_deleted_file_is_created_again() {
    let (folder, path) = new_path();
    let store = open(&path);
    let old = write(&store, "main", "one").await;
    for entry in fs::read_dir(folder.path()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }

    assert_eq!(read(&store, "main").await.unwrap().document, None);
    let new = write(&store, "main", "two").await;

    assert_eq!(body(read(&open(&path), "main").await.unwrap()).as_deref(), Some("two"));
    assert_ne!(old, new);
}

#[tokio::test]
async fn a_log_without_its_file_is_not_applied_to_another_one() {
    let (folder, path) = new_path();
    let store = open(&path);
    write(&store, "main", "one").await;
    let (away, log) = (folder.path().join("away.db"), folder.path().join("quota.db-wal"));
    fs::rename(&path, &away).unwrap();

    for store in [&store, &open(&path)] {
        let errors =
            [read(store, "main").await.unwrap_err(), try_write(store, "main", None, "x").await.unwrap_err()];

        for error in errors {
            assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
            let advice = format!("run: rm -f {} {}/quota.db-shm", log.display(), folder.path().display());
            assert!(error.to_string().ends_with(&advice), "{error}");
        }
    }

    assert!(!path.exists());
    fs::rename(&away, &path).unwrap();
    assert_eq!(body(read(&store, "main").await.unwrap()).as_deref(), Some("one"));
}

#[tokio::test]
async fn the_hint_to_move_a_file_includes_its_log() {
    let (_folder, path) = new_path();
    write_private(&path, b"no database");

    let error = read(&open(&path), "main").await.unwrap_err();

    let advice = "move it away together with quota.db-wal and quota.db-shm; quota then creates a new one";
    assert!(error.to_string().ends_with(advice), "{error}");
}

#[tokio::test]
async fn a_stopped_writer_does_not_block_readers() {
    let (_folder, path) = new_path();
    let store = SqliteOptions::file(&path).busy_timeout(Duration::from_millis(1)).open().unwrap();
    let version = write(&store, "main", "one").await;
    let stopped = raw(&path);
    stopped.execute_batch("BEGIN IMMEDIATE; UPDATE document SET body = x'00'").unwrap();

    let refused = try_write(&store, "main", Some(version), "two").await;

    assert!(
        matches!(refused, Err(StoreError::Unavailable { applied: WriteState::NotApplied, .. })),
        "{refused:?}"
    );
    assert_eq!(body(read(&store, "main").await.unwrap()).as_deref(), Some("one"));
    drop(stopped);
    let written = try_write(&store, "main", Some(version), "two").await;
    assert!(matches!(written, Ok(CasOutcome::Applied(_))), "the system has released its lock: {written:?}");
}

#[tokio::test]
async fn a_truncated_log_loses_only_its_last_writes() {
    let (folder, path) = new_path();
    write(&open(&path), "main", "one").await;
    raw(&path).query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(())).unwrap();
    write(&open(&path), "main", "two").await;
    // The state after a power failure: a torn log without its index.
    let copy = folder.path().join("copy.db");
    write_private(&copy, &fs::read(&path).unwrap());
    let log = fs::read(folder.path().join("quota.db-wal")).unwrap();
    write_private(&folder.path().join("copy.db-wal"), &log[..log.len() - 100]);

    let store = open(&copy);

    assert_eq!(body(read(&store, "main").await.unwrap()).as_deref(), Some("one"));
    write(&store, "main", "three").await;
    assert_eq!(body(read(&open(&copy), "main").await.unwrap()).as_deref(), Some("three"));
}
