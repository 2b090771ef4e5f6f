//! Expiry, a changing clock, and creating a store without touching the file.

use std::time::Duration;

use jiff::Timestamp;
use quota_core::store::CasOutcome;
use quota_core::{Clock, QuotaStore};
use quota_sqlite::SqliteOptions;

use crate::env::{TTL, key, new_path, open, raw, read, write};

fn at(text: &str) -> Timestamp {
    text.parse().expect("a timestamp")
}

#[tokio::test]
async fn creating_a_store_touches_no_file() {
    let (folder, path) = new_path();

    let store = open(&path);

    drop(store);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_store_uses_the_configured_clock() {
    let (_folder, path) = new_path();
    let clock = Clock::virtual_at(at("2026-11-23T11:55:00Z"));

    let store = SqliteOptions::file(&path).clock(clock).open().unwrap();

    assert_eq!(read(&store, "main").await.unwrap().now, at("2026-11-23T11:55:00Z"));
}

#[tokio::test]
async fn a_clock_that_was_set_back_finds_earlier_writes() {
    let (_folder, path) = new_path();
    let future =
        SqliteOptions::file(&path).clock(Clock::virtual_at(at("2026-11-23T12:00:00Z"))).open().unwrap();
    let version = write(&future, "main", "one").await;

    let back =
        SqliteOptions::file(&path).clock(Clock::virtual_at(at("2026-11-23T11:00:00Z"))).open().unwrap();

    assert_eq!(read(&back, "main").await.unwrap().version(), Some(version));
}

#[tokio::test]
async fn expired_documents_are_removed_by_writes_only() {
    let (_folder, path) = new_path();
    let early =
        SqliteOptions::file(&path).clock(Clock::virtual_at(at("2026-11-23T11:00:00Z"))).open().unwrap();
    for number in 0..300 {
        let swap = early.compare_and_swap(&key(&format!("old-{number}")), None, "x".into(), TTL).await;
        assert!(matches!(swap, Ok(CasOutcome::Applied(_))), "{swap:?}");
    }
    let late =
        SqliteOptions::file(&path).clock(Clock::virtual_at(at("2026-11-23T13:00:00Z"))).open().unwrap();
    let count =
        || raw(&path).query_row("SELECT count(*) FROM document", (), |row| row.get::<_, i64>(0)).unwrap();

    assert_eq!(read(&late, "old-0").await.unwrap().document, None);
    assert_eq!(count(), 300);
    // Each write sweeps with a chance of one in 64. The probability that none of these does is one in 10^13.
    let mut version = None;
    for _ in 0..2000 {
        match late.compare_and_swap(&key("main"), version, "x".into(), Duration::from_secs(7200)).await {
            Ok(CasOutcome::Applied(applied)) => version = Some(applied),
            other => panic!("no other process writes: {other:?}"),
        }
    }

    assert_eq!(count(), 1);
}
