//! Setting damaged files aside: only ours, only once, and with all of their bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use quota_core::store::{CasOutcome, StoreError};
use quota_sqlite::{SqliteOptions, SqliteStore, is_damage};

use crate::env::{body, new_path, open, raw, read, try_write, write};

/// A store that sets damaged files aside, and the paths it reports.
fn recovering(path: &Path) -> (SqliteStore, Arc<Mutex<Vec<PathBuf>>>) {
    let copies = Arc::<Mutex<Vec<PathBuf>>>::default();
    let reported = Arc::clone(&copies);
    let notice = move |copy: &Path| {
        reported.lock().push(copy.to_owned());
    };
    (SqliteOptions::file(path).set_damaged_aside(notice).open().expect("the options are valid"), copies)
}

/// Creates a file with a hundred documents, all of them in the file and none in its log.
async fn filled(path: &Path) {
    let store = open(path);
    for number in 0..100 {
        write(&store, &format!("a{number}"), "x".repeat(900).leak()).await;
    }
    drop(store);
    raw(path).query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(())).expect("the checkpoint succeeds");
}

fn cut_header(path: &Path) {
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .expect("the file exists")
        .set_len(50)
        .expect("the file can be truncated");
}

fn overwrite_a_middle_page(path: &Path) {
    let mut bytes = fs::read(path).expect("the file can be read");
    let middle = bytes.len() / 4096 / 2 * 4096;
    bytes[middle..middle + 4096].fill(0xa5);
    fs::write(path, bytes).expect("the file can be written");
}

fn replace_by_text(path: &Path) {
    fs::write(path, "[accounts]\nThis is a text file.\n").expect("the file can be written");
}

/// Reads every document of [`filled`]. `Err` if one of them cannot be read.
async fn read_all(store: &SqliteStore) -> Result<usize, StoreError> {
    let mut found = 0;
    for number in 0..100 {
        found += usize::from(read(store, &format!("a{number}")).await?.document.is_some());
    }
    Ok(found)
}

fn copies_beside(path: &Path) -> Vec<PathBuf> {
    let mut copies: Vec<_> = fs::read_dir(path.parent().expect("a file has a folder"))
        .expect("the folder can be read")
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|entry| entry.to_string_lossy().contains(".damaged-"))
        .filter(|entry| !entry.to_string_lossy().ends_with("-wal"))
        .filter(|entry| !entry.to_string_lossy().ends_with("-shm"))
        .collect();
    copies.sort();
    copies
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_with_its_bytes_and_a_new_one_is_used() {
    for (name, spoil) in [
        ("cut header", cut_header as fn(&Path)),
        ("page in the middle", overwrite_a_middle_page),
        ("text", replace_by_text),
    ] {
        let (_folder, path) = new_path();
        filled(&path).await;
        spoil(&path);
        let damaged = fs::read(&path).unwrap();
        let (store, reported) = recovering(&path);

        read_all(&store).await.unwrap();
        let version = write(&store, "main", "one").await;

        assert_eq!(read(&open(&path), "main").await.unwrap().version(), Some(version), "{name}");
        let copies = copies_beside(&path);
        assert_eq!(copies.len(), 1, "{name}: {copies:?}");
        assert_eq!(*reported.lock(), copies, "{name}");
        assert_eq!(fs::read(&copies[0]).unwrap(), damaged, "{name}");
    }
}

#[tokio::test]
async fn a_write_that_finds_the_damage_goes_to_the_new_file() {
    let (_folder, path) = new_path();
    filled(&path).await;
    replace_by_text(&path);
    let (store, reported) = recovering(&path);

    write(&store, "main", "one").await;

    assert_eq!(body(read(&store, "main").await.unwrap()).as_deref(), Some("one"));
    assert_eq!(reported.lock().len(), 1);
}

#[tokio::test]
async fn the_log_of_a_damaged_file_is_set_aside_too() {
    let (_folder, path) = new_path();
    filled(&path).await;
    write(&open(&path), "main", "one").await;
    let log = fs::read(path.with_file_name("quota.db-wal")).unwrap();
    assert!(!log.is_empty());
    overwrite_a_middle_page(&path);
    let (store, reported) = recovering(&path);

    read_all(&store).await.unwrap();

    let copy = reported.lock()[0].clone();
    let copied = fs::read(format!("{}-wal", copy.display())).unwrap();
    assert_eq!(copied, log);
    write(&store, "other", "two").await;
    assert!(read(&store, "main").await.unwrap().document.is_none());
}

#[tokio::test]
async fn logs_left_by_a_killed_process_are_set_aside() {
    // Killed after the first rename, killed after the second, and an index alone, which a user may leave.
    for left in [&["-shm", "-wal"][..], &["-wal"], &["-shm"]] {
        for reads_first in [false, true] {
            let (_folder, path) = new_path();
            // Its connections still use the log and the index.
            let old = open(&path);
            write(&old, "main", "old").await;
            let copy = path.with_file_name("quota.db.damaged-20260101T000000Z");
            fs::rename(&path, &copy).unwrap();
            let beside = |path: &Path, ending: &str| PathBuf::from(format!("{}{ending}", path.display()));
            for ending in ["-shm", "-wal"].iter().filter(|ending| !left.contains(ending)) {
                fs::rename(beside(&path, ending), beside(&copy, ending)).unwrap();
            }
            let bytes: Vec<_> = left.iter().map(|ending| fs::read(beside(&path, ending)).unwrap()).collect();
            let (store, reported) = recovering(&path);

            if reads_first {
                assert!(read(&store, "main").await.unwrap().document.is_none(), "{left:?}");
            }
            write(&store, "other", "new").await;

            assert_eq!(body(read(&open(&path), "other").await.unwrap()).as_deref(), Some("new"), "{left:?}");
            assert!(read(&store, "main").await.unwrap().document.is_none(), "{left:?}");
            let reported = reported.lock();
            let [moved] = &reported[..] else { panic!("{left:?}: {reported:?}") };
            let name =
                moved.to_str().unwrap().strip_suffix(left[left.len() - 1]).expect("the name of the log");
            for (ending, bytes) in left.iter().zip(bytes) {
                assert_eq!(fs::read(format!("{name}{ending}")).unwrap(), bytes, "{left:?} {ending}");
            }
            assert!(copy.exists(), "{left:?}");
        }
    }
}

#[tokio::test]
async fn a_log_that_was_set_aside_alone_is_not_overwritten_by_the_next_one() {
    let (_folder, path) = new_path();
    let copies = || {
        let entries = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|entry| entry.to_string_lossy().contains(".damaged-")).count()
    };
    let (store, reported) = recovering(&path);
    for number in 1..4 {
        fs::write(path.with_file_name("quota.db-wal"), format!("log {number}")).unwrap();
        read(&store, "main").await.unwrap();
        assert_eq!((copies(), reported.lock().len()), (number, number));
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_damaged_file_whose_log_cannot_be_moved_stays() {
    let (folder, short) = new_path();
    filled(&short).await;
    write(&open(&short), "main", "one").await;
    overwrite_a_middle_page(&short);
    // The name of the copy is short enough for the file system, but that of its log is not.
    let path = folder.path().join("q".repeat(228));
    for ending in ["", "-wal", "-shm"] {
        let named = |path: &Path| format!("{}{ending}", path.display());
        fs::rename(named(&short), named(&path)).unwrap();
    }
    let (store, reported) = recovering(&path);

    assert!(is_damage(&read_all(&store).await.unwrap_err()));

    assert!(path.exists() && reported.lock().is_empty());
    assert!(PathBuf::from(format!("{}-wal", path.display())).exists());
}

#[tokio::test]
async fn a_file_with_a_damaged_index_is_set_aside() {
    let (_folder, path) = new_path();
    filled(&path).await;
    // Documents that are missing in the index. quick_check does not compare the two.
    let schema = "type, name, tbl_name, rootpage, sql FROM sqlite_master WHERE name = 'document_by_expiry'";
    let hide = format!(
        "PRAGMA writable_schema = ON; CREATE TABLE hidden AS SELECT {schema};
         DELETE FROM sqlite_master WHERE name = 'document_by_expiry'"
    );
    raw(&path).execute_batch(&hide).unwrap();
    raw(&path).execute_batch("UPDATE document SET expires_ms = expires_ms + 1").unwrap();
    raw(&path)
        .execute_batch(
            "PRAGMA writable_schema = ON; INSERT INTO sqlite_master SELECT * FROM hidden; DROP TABLE hidden;",
        )
        .unwrap();
    let quick: String = raw(&path).query_row("PRAGMA quick_check(1)", (), |row| row.get(0)).unwrap();
    assert_eq!(quick, "ok");
    let (store, reported) = recovering(&path);

    let version = read(&store, "a50").await.unwrap().version();
    let outcome = try_write(&store, "a50", version, "one").await.unwrap();

    assert!(matches!(&outcome, CasOutcome::Conflict(new) if new.document.is_none()), "{outcome:?}");
    assert_eq!(reported.lock().len(), 1);
}

/// Creates a damaged file that stays in place, because its schema is newer.
async fn newer(path: &Path) {
    filled(path).await;
    let numbers = "PRAGMA user_version = 0x71757777; PRAGMA wal_checkpoint(TRUNCATE);";
    raw(path).execute_batch(numbers).expect("the pragmas can be set");
    // SQLite reports this damage before the store reads the schema version.
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|file| file.set_len(4000))
        .expect("the file can be truncated");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_damaged_file_that_stays_keeps_one_descriptor() {
    let (_folder, path) = new_path();
    newer(&path).await;
    let (store, _) = recovering(&path);
    let descriptors = || {
        let open = fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        open.filter(|target| *target == path).count()
    };
    for _ in 0..20 {
        assert!(is_damage(&read(&store, "main").await.unwrap_err()));
    }

    assert_eq!(descriptors(), 1);
}

#[tokio::test]
async fn a_damaged_file_that_stays_is_not_examined_again() {
    let (_folder, path) = new_path();
    newer(&path).await;
    let (store, reported) = recovering(&path);
    assert!(is_damage(&read(&store, "main").await.unwrap_err()));
    // The same file, which would be set aside if it were examined again.
    replace_by_text(&path);

    for store in [store, recovering(&path).0] {
        assert!(is_damage(&read(&store, "main").await.unwrap_err()));
    }

    assert!(reported.lock().is_empty() && copies_beside(&path).is_empty());
}

#[tokio::test]
async fn a_damaged_file_of_another_program_or_a_newer_schema_stays() {
    for (name, pragma) in [
        ("another application id", "application_id = 7"),
        ("another program", "application_id = 7; PRAGMA user_version = 3"),
        ("newer", "user_version = 0x71757777"),
    ] {
        let (_folder, path) = new_path();
        filled(&path).await;
        let numbers = format!("PRAGMA {pragma}; PRAGMA wal_checkpoint(TRUNCATE);");
        raw(&path).execute_batch(&numbers).unwrap();
        overwrite_a_middle_page(&path);
        let before = fs::read(&path).unwrap();
        let (store, reported) = recovering(&path);

        let outcome = read_all(&store).await;

        assert!(matches!(outcome, Err(StoreError::Corrupt { .. })), "{name}: {outcome:?}");
        assert_eq!((copies_beside(&path).len(), reported.lock().len()), (0, 0), "{name}");
        assert_eq!(fs::read(&path).unwrap(), before, "{name}");
    }
}

#[tokio::test]
async fn a_damaged_file_stays_by_default_and_is_reported_as_damage() {
    let (_folder, path) = new_path();
    filled(&path).await;
    overwrite_a_middle_page(&path);
    let before = fs::read(&path).unwrap();

    let error = read_all(&open(&path)).await.unwrap_err();

    assert!(is_damage(&error), "{error}");
    assert!(copies_beside(&path).is_empty());
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[cfg(unix)]
#[tokio::test]
async fn a_damaged_file_behind_a_link_stays() {
    let (_folder, path) = new_path();
    filled(&path).await;
    replace_by_text(&path);
    let link = path.with_file_name("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();

    let (store, reported) = recovering(&link);

    assert!(read_all(&store).await.is_err());
    assert!(reported.lock().is_empty() && path.exists());
}

#[tokio::test]
async fn one_of_many_stores_sets_a_damaged_file_aside() {
    let (_folder, path) = new_path();
    filled(&path).await;
    overwrite_a_middle_page(&path);
    let stores: Vec<_> = (0..8).map(|_| recovering(&path)).collect();
    let mut work = tokio::task::JoinSet::new();
    for (number, (store, _)) in stores.iter().enumerate() {
        let store = store.clone();
        work.spawn(async move {
            read_all(&store).await.unwrap();
            write(&store, &format!("new-{number}"), "x").await;
        });
    }
    work.join_all().await;

    assert_eq!(copies_beside(&path).len(), 1);
    let reported: usize = stores.iter().map(|(_, reported)| reported.lock().len()).sum();
    assert_eq!(reported, 1);
    for number in 0..8 {
        assert!(read(&open(&path), &format!("new-{number}")).await.unwrap().document.is_some(), "{number}");
    }
}
