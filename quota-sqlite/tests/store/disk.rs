//! Disks that take nothing more, and folders in which nothing may be written: what is there is still read.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use quota_core::{QuotaStore, StoreError, Swap};

use crate::env::{KEEP, body, key, open, place, raw, write};
use crate::processes::{Elsewhere, this_program};

/// Somebody who is nobody, for those who run tests as root: no rights hold root back.
const NOBODY: u32 = 65_534;

#[tokio::test]
async fn a_full_disk_refuses_writes_and_keeps_what_is_there() {
    let (_folder, path) = place();
    write(&open(&path), "main", "one").await;
    // A limit on the size of files, which fails a write as a full disk does, and needs no rights.
    let mut limited = Command::new("sh");
    limited.args(["-c", r#"trap "" XFSZ; ulimit -f 80; exec "$0" "$@""#]).arg(this_program());
    let store = Elsewhere::by(limited, &path);
    let large = Bytes::from(vec![b'x'; 200 * 1024]);

    let refused = store.swap(&key("other"), None, large, KEEP).await.unwrap_err();

    assert!(matches!(refused, StoreError::Refused { .. }), "{refused}");
    assert!(refused.to_string().contains("is the disk full"), "{refused}");
    assert_eq!(body(store.read(&key("main")).await.unwrap()).as_deref(), Some("one"));
    let small = store.swap(&key("other"), None, Bytes::from_static(b"small"), KEEP).await;
    assert!(matches!(small, Ok(Swap::Applied(_))), "what fits is written: {small:?}");
}

#[tokio::test]
async fn a_folder_that_takes_nothing_is_read_and_refuses_writes() {
    let (folder, path) = place();
    write(&open(&path), "main", "one").await;
    // As after a copy to a medium that cannot be written: one file, and no log.
    raw(&path).query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(())).unwrap();
    for log in ["quota.db-wal", "quota.db-shm"] {
        let _ = fs::remove_file(folder.path().join(log));
    }
    let store = Elsewhere::by(without_rights(folder.path(), &path), &path);

    let reading = store.read(&key("main")).await.unwrap();
    let refused =
        store.swap(&key("main"), reading.version(), Bytes::from_static(b"two"), KEEP).await.unwrap_err();

    assert_eq!(body(reading).as_deref(), Some("one"));
    assert!(matches!(refused, StoreError::Refused { .. }), "{refused}");
    assert!(refused.to_string().contains("read-only"), "{refused}");
    drop(store);
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_folder_that_takes_nothing_is_read_with_the_log_that_is_in_it() {
    let (folder, path) = place();
    write(&open(&path), "main", "one").await;
    let store = Elsewhere::by(without_rights(folder.path(), &path), &path);

    let reading = store.read(&key("main")).await.unwrap();

    assert_eq!(body(reading).as_deref(), Some("one"));
    drop(store);
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_log_without_its_index_is_missed_by_no_name_of_the_file() {
    let (folder, path) = place();
    write(&open(&path), "main", "one").await;
    fs::remove_file(folder.path().join("quota.db-shm")).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("link.db");
    symlink(&path, &link).unwrap();
    fs::set_permissions(elsewhere.path(), Permissions::from_mode(0o755)).unwrap();
    let program_for_link = program_without_rights(folder.path(), &path);
    let by_name = Elsewhere::by(without_rights(folder.path(), &path), &path);
    let by_link = Elsewhere::by(program_for_link, &link);

    for store in [&by_name, &by_link] {
        let refused = store.read(&key("main")).await;
        assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
    }

    drop((by_name, by_link));
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_folder_that_lets_nobody_in_is_named_with_the_command_that_opens_it() {
    let (folder, _) = place();
    let path = folder.path().join("quota").join("quota.db");
    write(&open(&path), "main", "one").await;
    let quota = path.parent().unwrap();
    // As another user, or, where tests do not run as root, as its owner, who may not look into it either.
    let is_root = fs::metadata(&path).unwrap().uid() == 0;
    let program = program_without_rights(folder.path(), &path);
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(quota, Permissions::from_mode(if is_root { 0o700 } else { 0o000 })).unwrap();
    let store = Elsewhere::by(program, &path);

    let told = store.read(&key("main")).await.unwrap_err().to_string();

    let command = if is_root { format!("sudo chown {NOBODY}") } else { "chmod u+rwx".to_owned() };
    assert!(told.ends_with(&format!("run: {command} {}", quota.display())), "{told}");
    drop(store);
    fs::set_permissions(quota, Permissions::from_mode(0o700)).unwrap();
}

#[tokio::test]
async fn all_files_that_are_somebody_elses_are_in_the_command_that_gives_them_back() {
    let (folder, path) = place();
    write(&open(&path), "main", "one").await;
    if fs::metadata(&path).unwrap().uid() != 0 {
        // Only root can give a file to somebody else.
        return;
    }
    let program = program_without_rights(folder.path(), &path);
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let store = Elsewhere::by(program, &path);

    let told = store.read(&key("main")).await.unwrap_err().to_string();

    let all = format!("{0} {0}-wal {0}-shm", path.display());
    assert!(told.ends_with(&format!("run: sudo chown {NOBODY} {all}")), "{told}");
}

/// A command that starts this program as somebody who owns the files, may only read them, and may not write in the folder.
fn without_rights(folder: &Path, path: &Path) -> Command {
    let is_root = fs::metadata(path).expect("it is there").uid() == 0;
    let command = program_without_rights(folder, path);
    for name in ["quota.db", "quota.db-wal", "quota.db-shm"].map(|name| folder.join(name)) {
        if name.exists() {
            fs::set_permissions(&name, Permissions::from_mode(0o400)).expect("it is ours");
            if is_root {
                chown(&name, Some(NOBODY), Some(NOBODY)).expect("root may");
            }
        }
    }
    fs::set_permissions(folder, Permissions::from_mode(0o555)).expect("it is ours");
    command
}

/// A command that starts a copy of this program, in this folder, as nobody if root owns the file.
fn program_without_rights(folder: &Path, path: &Path) -> Command {
    let is_root = fs::metadata(path).is_ok_and(|found| found.uid() == 0);
    // A copy, for nobody may not come to where the tests are built.
    let program = folder.join("program");
    // By another process: what this one had open for writing, a child started meanwhile would keep open, and it could not be run.
    let copied = Command::new("cp").arg(this_program()).arg(&program).status().expect("there is cp");
    assert!(copied.success(), "it can be copied");
    let mut command = Command::new(&program);
    command.current_dir("/");
    if is_root {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}
