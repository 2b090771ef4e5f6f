//! Damaged files that are set aside: only ours, only once, and with all of their bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use quota_core::{StoreError, Swap};
use quota_sqlite::{SqliteOptions, SqliteStore, is_damage};

use crate::env::{body, open, place, raw, read, try_write, write};

/// A store that sets damaged files aside, and where it says that it has put them.
fn recovering(path: &Path) -> (SqliteStore, Arc<Mutex<Vec<PathBuf>>>) {
    let copies = Arc::<Mutex<Vec<PathBuf>>>::default();
    let told = Arc::clone(&copies);
    let notice = move |copy: &Path| {
        told.lock().push(copy.to_owned());
    };
    (SqliteOptions::file(path).set_damaged_aside(notice).open().expect("the options are sound"), copies)
}

/// A file with a hundred documents, all of which are in the file and not in its log.
async fn filled(path: &Path) {
    let store = open(path);
    for number in 0..100 {
        write(&store, &format!("a{number}"), "x".repeat(900).leak()).await;
    }
    drop(store);
    raw(path).query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(())).expect("the log is written back");
}

fn cut_header(path: &Path) {
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .expect("the file is there")
        .set_len(50)
        .expect("the file can be cut");
}

fn spoil_a_page_in_the_middle(path: &Path) {
    let mut bytes = fs::read(path).expect("the file can be read");
    let middle = bytes.len() / 4096 / 2 * 4096;
    bytes[middle..middle + 4096].fill(0xa5);
    fs::write(path, bytes).expect("the file can be written");
}

fn replace_by_text(path: &Path) {
    fs::write(path, "[accounts]\nThis is a text file.\n").expect("the file can be written");
}

/// Reads every document that was there. `Err` if one of them cannot be read.
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
        ("page in the middle", spoil_a_page_in_the_middle),
        ("text", replace_by_text),
    ] {
        let (_folder, path) = place();
        filled(&path).await;
        spoil(&path);
        let damaged = fs::read(&path).unwrap();
        let (store, told) = recovering(&path);

        read_all(&store).await.unwrap();
        let version = write(&store, "main", "one").await;

        assert_eq!(read(&open(&path), "main").await.unwrap().version(), Some(version), "{name}");
        let copies = copies_beside(&path);
        assert_eq!(copies.len(), 1, "{name}: {copies:?}");
        assert_eq!(*told.lock(), copies, "{name}");
        assert_eq!(fs::read(&copies[0]).unwrap(), damaged, "{name}");
    }
}

#[tokio::test]
async fn a_write_that_finds_the_damage_is_made_in_the_new_file() {
    let (_folder, path) = place();
    filled(&path).await;
    replace_by_text(&path);
    let (store, told) = recovering(&path);

    write(&store, "main", "one").await;

    assert_eq!(body(read(&store, "main").await.unwrap()).as_deref(), Some("one"));
    assert_eq!(told.lock().len(), 1);
}

#[tokio::test]
async fn the_log_of_a_damaged_file_goes_with_it() {
    let (_folder, path) = place();
    filled(&path).await;
    write(&open(&path), "main", "one").await;
    let log = fs::read(path.with_file_name("quota.db-wal")).unwrap();
    assert!(!log.is_empty());
    spoil_a_page_in_the_middle(&path);
    let (store, told) = recovering(&path);

    read_all(&store).await.unwrap();

    let copy = told.lock()[0].clone();
    let copied = fs::read(format!("{}-wal", copy.display())).unwrap();
    assert_eq!(copied, log);
    write(&store, "other", "two").await;
    assert!(read(&store, "main").await.unwrap().document.is_none());
}

#[tokio::test]
async fn logs_whose_file_was_set_aside_by_a_killed_process_follow_it() {
    // Killed after the first rename and after the second; and an index alone, as a user may leave it.
    for left in [&["-shm", "-wal"][..], &["-wal"], &["-shm"]] {
        for reads_first in [false, true] {
            let (_folder, path) = place();
            // Its connections go on using the log and the index.
            let old = open(&path);
            write(&old, "main", "old").await;
            let copy = path.with_file_name("quota.db.damaged-20260101T000000Z");
            fs::rename(&path, &copy).unwrap();
            let beside = |path: &Path, ending: &str| PathBuf::from(format!("{}{ending}", path.display()));
            for ending in ["-shm", "-wal"].iter().filter(|ending| !left.contains(ending)) {
                fs::rename(beside(&path, ending), beside(&copy, ending)).unwrap();
            }
            let bytes: Vec<_> = left.iter().map(|ending| fs::read(beside(&path, ending)).unwrap()).collect();
            let (store, told) = recovering(&path);

            if reads_first {
                assert!(read(&store, "main").await.unwrap().document.is_none(), "{left:?}");
            }
            write(&store, "other", "new").await;

            assert_eq!(body(read(&open(&path), "other").await.unwrap()).as_deref(), Some("new"), "{left:?}");
            assert!(read(&store, "main").await.unwrap().document.is_none(), "{left:?}");
            let told = told.lock();
            let [moved] = &told[..] else { panic!("{left:?}: {told:?}") };
            let name =
                moved.to_str().unwrap().strip_suffix(left[left.len() - 1]).expect("it is the log's name");
            for (ending, bytes) in left.iter().zip(bytes) {
                assert_eq!(fs::read(format!("{name}{ending}")).unwrap(), bytes, "{left:?} {ending}");
            }
            assert!(copy.exists(), "{left:?}");
        }
    }
}

#[tokio::test]
async fn a_log_that_was_set_aside_alone_is_not_overwritten_by_the_next_one() {
    let (_folder, path) = place();
    let copies = || {
        let entries = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|entry| entry.to_string_lossy().contains(".damaged-")).count()
    };
    let (store, told) = recovering(&path);
    for number in 1..4 {
        fs::write(path.with_file_name("quota.db-wal"), format!("log {number}")).unwrap();
        read(&store, "main").await.unwrap();
        assert_eq!((copies(), told.lock().len()), (number, number));
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_damaged_file_whose_log_could_not_follow_it_stays() {
    let (folder, short) = place();
    filled(&short).await;
    write(&open(&short), "main", "one").await;
    spoil_a_page_in_the_middle(&short);
    // The name of the copy fits into a folder, and that of its log does not.
    let path = folder.path().join("q".repeat(228));
    for ending in ["", "-wal", "-shm"] {
        let named = |path: &Path| format!("{}{ending}", path.display());
        fs::rename(named(&short), named(&path)).unwrap();
    }
    let (store, told) = recovering(&path);

    assert!(is_damage(&read_all(&store).await.unwrap_err()));

    assert!(path.exists() && told.lock().is_empty());
    assert!(PathBuf::from(format!("{}-wal", path.display())).exists());
}

#[tokio::test]
async fn damage_that_only_an_index_shows_is_set_aside() {
    let (_folder, path) = place();
    filled(&path).await;
    // Documents that the index lacks: a quick check does not compare the two.
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
    let (store, told) = recovering(&path);

    let version = read(&store, "a50").await.unwrap().version();
    let outcome = try_write(&store, "a50", version, "one").await.unwrap();

    assert!(matches!(&outcome, Swap::Conflict(new) if new.document.is_none()), "{outcome:?}");
    assert_eq!(told.lock().len(), 1);
}

/// A damaged file that stays, as it is of a newer form.
async fn newer(path: &Path) {
    filled(path).await;
    let numbers = "PRAGMA user_version = 0x71757777; PRAGMA wal_checkpoint(TRUNCATE);";
    raw(path).execute_batch(numbers).expect("the form can be changed");
    // SQLite finds this damage before the store reads the form.
    fs::OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(4000)).expect("it can be cut");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_damaged_file_that_stays_costs_no_descriptor_each_time() {
    let (_folder, path) = place();
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
    let (_folder, path) = place();
    newer(&path).await;
    let (store, told) = recovering(&path);
    assert!(is_damage(&read(&store, "main").await.unwrap_err()));
    // The same file, which would be set aside if it were examined now.
    replace_by_text(&path);

    for store in [store, recovering(&path).0] {
        assert!(is_damage(&read(&store, "main").await.unwrap_err()));
    }

    assert!(told.lock().is_empty() && copies_beside(&path).is_empty());
}

#[tokio::test]
async fn a_damaged_file_of_another_program_or_a_newer_form_stays() {
    for (name, pragma) in [
        ("another application id", "application_id = 7"),
        ("another program", "application_id = 7; PRAGMA user_version = 3"),
        ("newer", "user_version = 0x71757777"),
    ] {
        let (_folder, path) = place();
        filled(&path).await;
        let numbers = format!("PRAGMA {pragma}; PRAGMA wal_checkpoint(TRUNCATE);");
        raw(&path).execute_batch(&numbers).unwrap();
        spoil_a_page_in_the_middle(&path);
        let before = fs::read(&path).unwrap();
        let (store, told) = recovering(&path);

        let outcome = read_all(&store).await;

        assert!(matches!(outcome, Err(StoreError::Unusable { .. })), "{name}: {outcome:?}");
        assert_eq!((copies_beside(&path).len(), told.lock().len()), (0, 0), "{name}");
        assert_eq!(fs::read(&path).unwrap(), before, "{name}");
    }
}

#[tokio::test]
async fn a_damaged_file_stays_where_that_was_not_asked_for_and_is_told_from_others() {
    let (_folder, path) = place();
    filled(&path).await;
    spoil_a_page_in_the_middle(&path);
    let before = fs::read(&path).unwrap();

    let error = read_all(&open(&path)).await.unwrap_err();

    assert!(is_damage(&error), "{error}");
    assert!(copies_beside(&path).is_empty());
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[cfg(unix)]
#[tokio::test]
async fn a_damaged_file_behind_a_link_stays() {
    let (_folder, path) = place();
    filled(&path).await;
    replace_by_text(&path);
    let link = path.with_file_name("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();

    let (store, told) = recovering(&link);

    assert!(read_all(&store).await.is_err());
    assert!(told.lock().is_empty() && path.exists());
}

#[tokio::test]
async fn of_many_stores_that_find_one_file_damaged_one_sets_it_aside() {
    let (_folder, path) = place();
    filled(&path).await;
    spoil_a_page_in_the_middle(&path);
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
    let told: usize = stores.iter().map(|(_, told)| told.lock().len()).sum();
    assert_eq!(told, 1);
    for number in 0..8 {
        assert!(read(&open(&path), &format!("new-{number}")).await.unwrap().document.is_some(), "{number}");
    }
}
