//! Full disks and read-only folders: reads work, writes are rejected.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use quota_core::QuotaStore;
use quota_core::store::{CasOutcome, StoreError};

use crate::env::{TTL, body, key, new_path, open, raw, write};
use crate::processes::{ChildStore, this_program};

/// The id of an unprivileged user, for tests that run as root: file modes do not restrict root.
const UNPRIVILEGED: u32 = 65_534;

#[tokio::test]
async fn a_full_disk_rejects_writes_and_keeps_its_data() {
    let (_folder, path) = new_path();
    write(&open(&path), "main", "one").await;
    // A file size limit fails a write just as a full disk does, and needs no privileges.
    let mut limited = Command::new("sh");
    limited.args(["-c", r#"trap "" XFSZ; ulimit -f 80; exec "$0" "$@""#]).arg(this_program());
    let store = ChildStore::by(limited, &path);
    let large = Bytes::from(vec![b'x'; 200 * 1024]);

    let rejected = store.compare_and_swap(&key("other"), None, large, TTL).await.unwrap_err();

    assert!(matches!(rejected, StoreError::Rejected { .. }), "{rejected}");
    assert!(rejected.to_string().contains("is the disk full"), "{rejected}");
    assert_eq!(body(store.read(&key("main")).await.unwrap()).as_deref(), Some("one"));
    let small = store.compare_and_swap(&key("other"), None, Bytes::from_static(b"small"), TTL).await;
    assert!(matches!(small, Ok(CasOutcome::Applied(_))), "a write that fits is applied: {small:?}");
}

#[tokio::test]
async fn a_read_only_folder_serves_reads_and_rejects_writes() {
    let (folder, path) = new_path();
    write(&open(&path), "main", "one").await;
    // The state after a copy to a read-only medium: one file without a log.
    raw(&path).query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(())).unwrap();
    for log in ["quota.db-wal", "quota.db-shm"] {
        let _ = fs::remove_file(folder.path().join(log));
    }
    let store = ChildStore::by(without_rights(folder.path(), &path), &path);

    let reading = store.read(&key("main")).await.unwrap();
    let rejected = store
        .compare_and_swap(&key("main"), reading.version(), Bytes::from_static(b"two"), TTL)
        .await
        .unwrap_err();

    assert_eq!(body(reading).as_deref(), Some("one"));
    assert!(matches!(rejected, StoreError::Rejected { .. }), "{rejected}");
    assert!(rejected.to_string().contains("read-only"), "{rejected}");
    drop(store);
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_read_only_folder_is_read_with_its_log() {
    let (folder, path) = new_path();
    write(&open(&path), "main", "one").await;
    let store = ChildStore::by(without_rights(folder.path(), &path), &path);

    let reading = store.read(&key("main")).await.unwrap();

    assert_eq!(body(reading).as_deref(), Some("one"));
    drop(store);
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_log_without_its_index_is_found_through_any_path() {
    let (folder, path) = new_path();
    write(&open(&path), "main", "one").await;
    fs::remove_file(folder.path().join("quota.db-shm")).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("link.db");
    symlink(&path, &link).unwrap();
    fs::set_permissions(elsewhere.path(), Permissions::from_mode(0o755)).unwrap();
    let program_for_link = program_without_rights(folder.path(), &path);
    let by_name = ChildStore::by(without_rights(folder.path(), &path), &path);
    let by_link = ChildStore::by(program_for_link, &link);

    for store in [&by_name, &by_link] {
        let rejected = store.read(&key("main")).await;
        assert!(matches!(rejected, Err(StoreError::Rejected { .. })), "{rejected:?}");
    }

    drop((by_name, by_link));
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_folder_without_permission_is_named_with_the_command_that_opens_it() {
    let (folder, _) = new_path();
    let path = folder.path().join("quota").join("quota.db");
    write(&open(&path), "main", "one").await;
    let quota = path.parent().unwrap();
    // Run as another user, or as the owner if the tests do not run as root. Neither has permission.
    let is_root = fs::metadata(&path).unwrap().uid() == 0;
    let program = program_without_rights(folder.path(), &path);
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(quota, Permissions::from_mode(if is_root { 0o700 } else { 0o000 })).unwrap();
    let store = ChildStore::by(program, &path);

    let message = store.read(&key("main")).await.unwrap_err().to_string();

    let command = if is_root { format!("sudo chown {UNPRIVILEGED}") } else { "chmod u+rwx".to_owned() };
    assert!(message.ends_with(&format!("run: {command} {}", quota.display())), "{message}");
    drop(store);
    fs::set_permissions(quota, Permissions::from_mode(0o700)).unwrap();
}

#[tokio::test]
async fn the_chown_command_lists_all_files_of_another_user() {
    let (folder, path) = new_path();
    write(&open(&path), "main", "one").await;
    if fs::metadata(&path).unwrap().uid() != 0 {
        // Only root can give a file to another user.
        return;
    }
    let program = program_without_rights(folder.path(), &path);
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let store = ChildStore::by(program, &path);

    let message = store.read(&key("main")).await.unwrap_err().to_string();

    let all = format!("{0} {0}-wal {0}-shm", path.display());
    assert!(message.ends_with(&format!("run: sudo chown {UNPRIVILEGED} {all}")), "{message}");
}

/// A command that starts this program as a user who may read the files but not write to them or to the folder.
fn without_rights(folder: &Path, path: &Path) -> Command {
    let is_root = fs::metadata(path).expect("the file exists").uid() == 0;
    let command = program_without_rights(folder, path);
    for name in ["quota.db", "quota.db-wal", "quota.db-shm"].map(|name| folder.join(name)) {
        if name.exists() {
            fs::set_permissions(&name, Permissions::from_mode(0o400)).expect("this process owns it");
            if is_root {
                chown(&name, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).expect("root may change the owner");
            }
        }
    }
    fs::set_permissions(folder, Permissions::from_mode(0o555)).expect("this process owns it");
    command
}

/// A command that starts a copy of this program in this folder, as an unprivileged user if root owns the file.
fn program_without_rights(folder: &Path, path: &Path) -> Command {
    let is_root = fs::metadata(path).is_ok_and(|found| found.uid() == 0);
    // A copy, because an unprivileged user may not be able to read the build folder.
    let program = folder.join("program");
    // Let another process make the copy. If this process forked a child while it wrote the copy, the child would keep the file open for
    // writing, and the copy could not be run.
    let copied = Command::new("cp").arg(this_program()).arg(&program).status().expect("cp is installed");
    assert!(copied.success(), "the copy succeeds");
    let mut command = Command::new(&program);
    command.current_dir("/");
    if is_root {
        command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
    }
    command
}
