//! Processes that change one accounts file concurrently, some of which are killed.
//! Each test starts itself as a child process, with the file in an environment variable.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use quota_accounts::{AccountConfig, AccountsFile};

const FILE: &str = "QUOTA_TEST_ACCOUNTS_FILE";
const WRITER: &str = "QUOTA_TEST_WRITER";
const WRITERS: usize = 8;
const ROUNDS: usize = 20;

/// Starts a process that runs one test of this file as a writer.
fn start(test: &str, file: &Path, writer: usize) -> Child {
    let program = std::env::current_exe().expect("the path of this program");
    Command::new(program)
        .args([test, "--exact", "--test-threads", "1"])
        .env(FILE, file)
        .env(WRITER, writer.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the child process starts")
}

/// The file and the name of the writer, if this process is a writer.
fn as_writer() -> Option<(AccountsFile, String)> {
    Some((AccountsFile::at(std::env::var_os(FILE)?), std::env::var(WRITER).ok()?))
}

async fn add(file: &AccountsFile, writer: &str, round: usize) {
    let account = format!("example/w{writer}-{round}").parse().expect("a valid name");
    file.update(|config| config.upsert(AccountConfig::new(account))).await.expect("the file can be changed");
}

#[tokio::test]
async fn concurrent_processes_lose_no_account() {
    if let Some((file, writer)) = as_writer() {
        for round in 0..ROUNDS {
            add(&file, &writer, round).await;
        }
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = AccountsFile::at(dir.path().join("accounts.json"));

    let name = "concurrent_processes_lose_no_account";
    let writers: Vec<Child> = (0..WRITERS).map(|writer| start(name, file.path(), writer)).collect();
    let ended: Vec<bool> =
        writers.into_iter().map(|mut writer| writer.wait().is_ok_and(|status| status.success())).collect();

    assert_eq!(ended, [true; WRITERS]);
    assert_eq!(file.load().await.unwrap().accounts().len(), WRITERS * ROUNDS);
}

#[tokio::test]
async fn a_killed_writer_leaves_a_complete_file_and_no_lock() {
    if let Some((file, writer)) = as_writer() {
        for round in 0.. {
            add(&file, &writer, round).await;
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let file = AccountsFile::at(dir.path().join("accounts.json"));

    let name = "a_killed_writer_leaves_a_complete_file_and_no_lock";
    for writer in 0..5 {
        let mut child = start(name, file.path(), writer);
        // Wait until the child has written a few times.
        let before = file.load().await.unwrap().accounts().len();
        while file.load().await.unwrap().accounts().len() < before + 3 {
            assert!(child.try_wait().unwrap().is_none(), "the child writes until it is killed");
        }
        child.kill().unwrap();
        child.wait().unwrap();

        let left = file.load().await.unwrap().accounts().len();
        add(&file, "parent", writer).await;

        assert_eq!(file.load().await.unwrap().accounts().len(), left + 1);
    }
}
