//! Checks of owner and mode, and the errors that name the fix.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use quota_core::store::StoreError;

use crate::env::{body, new_path, open, read, try_write, write};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("the file exists").mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("this process owns the file");
}

#[tokio::test]
async fn created_files_and_folders_are_private() {
    let (folder, _) = new_path();
    let path = folder.path().join("state").join("quota").join("quota.db");

    let store = open(&path);
    write(&store, "main", "one").await;

    for name in ["quota.db", "quota.db-wal", "quota.db-shm"] {
        assert_eq!(mode(&path.with_file_name(name)), 0o600, "{name}");
    }
    assert_eq!(mode(&folder.path().join("state")), 0o700);
    assert_eq!(mode(&folder.path().join("state").join("quota")), 0o700);
}

#[tokio::test]
async fn a_file_that_others_can_access_is_rejected_with_the_command_that_fixes_it() {
    for wide in [0o640, 0o604, 0o660] {
        let (folder, _) = new_path();
        let path = folder.path().join("my quota.db");
        write(&open(&path), "main", "one").await;
        set_mode(&path, wide);
        let store = open(&path);

        let error = read(&store, "main").await.unwrap_err();

        let advice = format!("run: chmod 600 '{}'", path.display());
        assert!(error.to_string().ends_with(&advice), "{error}");
        assert!(matches!(try_write(&store, "main", None, "x").await, Err(StoreError::Rejected { .. })));
        set_mode(&path, 0o600);
        assert_eq!(body(read(&store, "main").await.unwrap()).as_deref(), Some("one"));
    }
}

#[tokio::test]
async fn a_log_that_others_can_access_is_rejected_and_one_command_fixes_all() {
    let (folder, path) = new_path();
    write(&open(&path), "main", "one").await;
    let all = ["quota.db", "quota.db-wal", "quota.db-shm"].map(|name| folder.path().join(name));
    for file in &all {
        set_mode(file, 0o644);
    }

    let message = read(&open(&path), "main").await.unwrap_err().to_string();
    let command = message.rsplit("run: ").next().unwrap();
    assert!(Command::new("sh").args(["-c", command]).status().unwrap().success(), "{message}");

    assert_eq!(all.each_ref().map(|file| mode(file)), [0o600; 3], "{message}");
    assert_eq!(body(read(&open(&path), "main").await.unwrap()).as_deref(), Some("one"));
    set_mode(&all[1], 0o644);
    let message = read(&open(&path), "main").await.unwrap_err().to_string();
    assert!(message.ends_with(&format!("run: chmod 600 {}", all[1].display())), "{message}");
}

#[tokio::test]
async fn a_folder_that_others_can_write_to_is_rejected_with_the_command_that_fixes_it() {
    let (folder, path) = new_path();
    write(&open(&path), "main", "one").await;
    set_mode(folder.path(), 0o770);
    let store = open(&path);

    let error = read(&store, "main").await.unwrap_err();

    assert!(error.to_string().contains("run: chmod go-w "), "{error}");
    set_mode(folder.path(), 0o750);
    assert!(read(&store, "main").await.is_ok());
}

#[tokio::test]
async fn no_file_is_created_in_a_shared_folder() {
    let (folder, path) = new_path();
    set_mode(folder.path(), 0o1777);

    let error = try_write(&open(&path), "main", None, "x").await.unwrap_err();

    assert!(error.to_string().contains("mkdir -m 700 "), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_link_to_a_private_file_is_followed() {
    let (folder, path) = new_path();
    write(&open(&path), "main", "one").await;
    let link = folder.path().join("link.db");
    symlink(&path, &link).unwrap();

    let through_link = open(&link);

    assert_eq!(body(read(&through_link, "main").await.unwrap()).as_deref(), Some("one"));
    write(&through_link, "main", "two").await;
    assert_eq!(body(read(&open(&path), "main").await.unwrap()).as_deref(), Some("two"));
}

#[tokio::test]
async fn the_folder_of_the_target_of_a_link_is_checked() {
    let (folder, path) = new_path();
    write(&open(&path), "main", "one").await;
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("link.db");
    symlink(&path, &link).unwrap();
    set_mode(folder.path(), 0o777);

    let error = read(&open(&link), "main").await.unwrap_err();

    assert!(error.to_string().contains("other users can write to"), "{error}");
}

#[tokio::test]
async fn a_dangling_link_is_rejected_and_its_target_not_created() {
    let (folder, path) = new_path();
    let link = folder.path().join("link.db");
    symlink(&path, &link).unwrap();
    let store = open(&link);

    let error = try_write(&store, "main", None, "x").await.unwrap_err();

    assert!(error.to_string().contains("is a dangling link"), "{error}");
    assert!(read(&store, "main").await.is_err());
    assert!(!path.exists());
}
