//! Real processes that change one file of accounts at once, and some that are killed while they do.
//! The test is its own child: run with a file named in the environment, it writes to it.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use quota_accounts::{AccountConfig, AccountsFile};

const FILE: &str = "QUOTA_TEST_ACCOUNTS_FILE";
const WRITER: &str = "QUOTA_TEST_WRITER";
const WRITERS: usize = 8;
const ROUNDS: usize = 20;

/// Starts a process that runs one test of this file as a writer.
fn start(test: &str, file: &Path, writer: usize) -> Child {
    let program = std::env::current_exe().expect("a test has a program");
    Command::new(program)
        .args([test, "--exact", "--test-threads", "1"])
        .env(FILE, file)
        .env(WRITER, writer.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a program can be started")
}

/// The file to write to, and as whom, if this process is a writer.
fn as_writer() -> Option<(AccountsFile, String)> {
    Some((AccountsFile::at(std::env::var_os(FILE)?), std::env::var(WRITER).ok()?))
}

async fn add(file: &AccountsFile, writer: &str, round: usize) {
    let account = format!("example/w{writer}-{round}").parse().expect("a valid name");
    file.update(|config| config.upsert(AccountConfig::new(account))).await.expect("the file can be changed");
}

#[tokio::test]
async fn of_what_eight_processes_add_nothing_is_lost() {
    if let Some((file, writer)) = as_writer() {
        for round in 0..ROUNDS {
            add(&file, &writer, round).await;
        }
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = AccountsFile::at(dir.path().join("accounts.json"));

    let name = "of_what_eight_processes_add_nothing_is_lost";
    let writers: Vec<Child> = (0..WRITERS).map(|writer| start(name, file.path(), writer)).collect();
    let ended: Vec<bool> =
        writers.into_iter().map(|mut writer| writer.wait().is_ok_and(|status| status.success())).collect();

    assert_eq!(ended, [true; WRITERS]);
    assert_eq!(file.load().await.unwrap().accounts().len(), WRITERS * ROUNDS);
}

#[tokio::test]
async fn a_writer_that_is_killed_leaves_a_whole_file_and_no_lock() {
    if let Some((file, writer)) = as_writer() {
        for round in 0.. {
            add(&file, &writer, round).await;
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let file = AccountsFile::at(dir.path().join("accounts.json"));

    let name = "a_writer_that_is_killed_leaves_a_whole_file_and_no_lock";
    for writer in 0..5 {
        let mut child = start(name, file.path(), writer);
        // Until it is in the midst of it.
        let before = file.load().await.unwrap().accounts().len();
        while file.load().await.unwrap().accounts().len() < before + 3 {
            assert!(child.try_wait().unwrap().is_none(), "a writer writes until it is killed");
        }
        child.kill().unwrap();
        child.wait().unwrap();

        let left = file.load().await.unwrap().accounts().len();
        add(&file, "parent", writer).await;

        assert_eq!(file.load().await.unwrap().accounts().len(), left + 1);
    }
}
