//! Files that are needed only for a while: removed by one process, and not created again by another.

use quota_core::QuotaStore;
use quota_sqlite::{SqliteOptions, SqliteStore};

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
    let store = open(&path);
    write(&store, "main", "one").await;
    let late = existing(&path);
    let version = read(&late, "main").await.unwrap().version();

    store.remove_file(&key("main"), version.unwrap()).await.unwrap();

    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
    assert_eq!(body(read(&late, "main").await.unwrap()), None);
    assert!(try_write(&late, "main", version, "two").await.unwrap_err().is_transient());
}

#[tokio::test]
async fn a_file_whose_document_has_changed_stays() {
    let (_folder, path) = new_path();
    let store = open(&path);
    write(&store, "main", "one").await;
    let late = existing(&path);
    let version = read(&late, "main").await.unwrap().version();
    let _ = try_write(&store, "main", version, "two").await.unwrap();

    assert!(late.remove_file(&key("main"), version.unwrap()).await.unwrap_err().is_transient());

    assert!(path.exists());
}

#[tokio::test]
async fn a_file_that_has_replaced_that_of_the_version_stays() {
    let (_folder, path) = new_path();
    let [suspended, other] = [(); 2].map(|()| open(&path));
    write(&suspended, "main", "one").await;
    let version = read(&suspended, "main").await.unwrap().version().unwrap();
    other.remove_file(&key("main"), version).await.unwrap();
    write(&other, "main", "two").await;
    // Now its connection is that of the later file.
    write(&suspended, "other", "one").await;

    assert!(suspended.remove_file(&key("main"), version).await.unwrap_err().is_transient());

    assert_eq!(body(read(&other, "main").await.unwrap()).as_deref(), Some("two"));
}

#[tokio::test]
async fn a_missing_file_counts_as_removed() {
    let (_folder, path) = new_path();
    let store = open(&path);
    write(&store, "main", "one").await;
    let version = read(&store, "main").await.unwrap().version().unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::remove_file(path.with_extension("db-wal")).unwrap();

    store.remove_file(&key("main"), version).await.unwrap();
}

#[tokio::test]
async fn its_documents_are_listed_without_expired_ones() {
    let (_folder, path) = new_path();
    let store = open(&path);
    assert!(store.documents().await.unwrap().is_empty());
    for name in ["main", "other"] {
        write(&store, name, "one").await;
    }

    let mut entries = store.documents().await.unwrap();

    entries.sort_by(|a, b| a.key.cmp(&b.key));
    let keys: Vec<_> = entries.iter().map(|entry| entry.key.clone()).collect();
    assert_eq!(keys, [key("main"), key("other")]);
    assert_eq!(read(&store, "main").await.unwrap().version(), Some(entries[0].version));
}

#[tokio::test]
async fn a_waiter_wakes_when_the_file_is_removed() {
    let (_folder, path) = new_path();
    let store = open(&path);
    write(&store, "main", "one").await;
    let late = existing(&path);
    let version = read(&late, "main").await.unwrap().version();
    let key = key("main");

    let removal = store.remove_file(&key, version.unwrap());
    let (woken, removed) = tokio::join!(late.wait_for_change(&key, version), removal);

    woken.and(removed).unwrap();
}
