//! Files that are needed only for a while: removed by one process, and not created again by another.

use quota_core::QuotaStore;
use quota_sqlite::{SqliteOptions, SqliteStore, remove};

use crate::env::{body, key, new_path, open, read, try_write, write};

fn existing(path: &std::path::Path) -> SqliteStore {
    SqliteOptions::file(path).must_exist().open().expect("the settings are valid")
}

#[tokio::test]
async fn a_store_that_must_exist_creates_no_file() {
    let (_folder, path) = new_path();
    let store = existing(&path);

    let written = try_write(&store, "main", None, "one").await;

    assert!(written.unwrap_err().is_transient());
    assert!(!path.exists() && read(&store, "main").await.unwrap().document.is_none());
}

#[tokio::test]
async fn a_removed_file_leaves_nothing_and_open_stores_notice() {
    let (folder, path) = new_path();
    write(&open(&path), "main", "one").await;
    let late = existing(&path);
    let version = read(&late, "main").await.unwrap().version();

    remove(&path).unwrap();

    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
    assert_eq!(body(read(&late, "main").await.unwrap()), None);
    assert!(try_write(&late, "main", version, "two").await.unwrap_err().is_transient());
    remove(&path).unwrap();
}

#[tokio::test]
async fn a_waiter_wakes_when_the_file_is_removed() {
    let (_folder, path) = new_path();
    write(&open(&path), "main", "one").await;
    let late = existing(&path);
    let version = read(&late, "main").await.unwrap().version();
    let key = key("main");

    let (woken, removed) = tokio::join!(late.wait_for_change(&key, version), async { remove(&path) });

    woken.and(removed).unwrap();
}
