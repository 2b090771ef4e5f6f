//! The login files of all programs. Each error is checked for a part of the file that looks like a token.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use quota_core::{AccountId, CredentialSource};
use quota_credentials::{ClaudeCode, LoginFile};
use quota_http::{OwnLogin, PROVIDERS};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Its clock is paused, because a source reads a malformed file twice, with a delay in between.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().expect("a runtime starts")
});

/// In memory, if the system has such a folder.
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("the disk has space")
});

fuzz_target!(|file: &[u8]| {
    const MARK: &str = "made-up-token";
    let contains_mark = file.windows(MARK.len()).any(|part| part == MARK.as_bytes());
    for provider in PROVIDERS {
        let account = AccountId::new(provider.id(), "main").expect("a constant name is valid");
        let read = match provider.own_login() {
            Some(OwnLogin::File(login)) => {
                for name in login.files {
                    write(name, file);
                }
                let source = LoginFile::new(provider.id(), *login).in_dir(FOLDER.path());
                RUNTIME.block_on(source.credential(&account))
            }
            Some(_) => {
                write(".credentials.json", file);
                RUNTIME.block_on(ClaudeCode::in_dir(FOLDER.path()).credential(&account))
            }
            None => continue,
        };
        if contains_mark {
            let text = read.map_or_else(|error| error.to_string(), |credential| format!("{credential:?}"));
            assert!(!text.contains(MARK), "{text}");
        }
    }
});

fn write(name: &str, contents: &[u8]) {
    let path = FOLDER.path().join(name);
    if let Some(parent) = path.parent() {
        let _ = std::fs::create_dir_all(parent);
    }
    std::fs::write(path, contents).expect("the disk has space");
}
