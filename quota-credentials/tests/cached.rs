//! The sources behind the manager's cache: what is read again, and when.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quota_core::{Account, AccountId, CredentialSource, MemoryStore, QuotaManager, Secret};
use quota_credentials::{ClaudeCode, CommandToken, CredentialMap, FileToken, NewLogin, TokenStore};
use tempfile::TempDir;

fn account(source: impl CredentialSource) -> Account {
    let quota = QuotaManager::builder(MemoryStore::new()).build().expect("the default policy is valid");
    let main = quota.account(&id());
    main.set_credentials(source);
    main
}

fn id() -> AccountId {
    "anthropic/main".parse().expect("a valid account")
}

async fn token(account: &Account) -> Option<String> {
    let credential = account.credential(Duration::from_secs(10)).await.ok()??;
    Some(credential.secret.expose().to_owned())
}

/// Replaces a file as login programs do. It is private, as a file with a token must be.
fn replace(path: &Path, contents: &str) {
    let new = path.with_extension("new");
    fs::write(&new, contents).expect("a file in a new directory can be written");
    #[cfg(unix)]
    fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .expect("the owner may change the mode");
    fs::rename(&new, path).expect("the file can be replaced");
}

/// A command that adds a line to a file for each run, and the path of that file.
fn counted(folder: &TempDir, end: &str) -> (CommandToken, PathBuf) {
    let runs = folder.path().join("runs");
    let script = format!("echo run >> '{}'; {end}", runs.display());
    (CommandToken::new("sh").arg("-c").arg(script), runs)
}

fn lines_of(path: &Path) -> usize {
    fs::read_to_string(path).expect("the command ran").lines().count()
}

#[cfg(unix)]
#[tokio::test]
async fn a_command_runs_once_for_many_callers() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (command, runs) = counted(&folder, "echo n33dle");
    let main = account(CredentialMap::new().with(id(), command));

    for _ in 0..100 {
        assert_eq!(token(&main).await.expect("the command prints a token"), "n33dle");
    }

    assert_eq!(lines_of(&runs), 1);
}

#[cfg(unix)]
#[tokio::test]
async fn a_failing_command_runs_once_for_concurrent_callers() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (command, runs) = counted(&folder, "exit 1");
    let main = account(command);
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..1_000 {
        let main = main.clone();
        callers.spawn(async move { token(&main).await });
    }

    assert!(callers.join_all().await.iter().all(Option::is_none));

    assert_eq!(lines_of(&runs), 1);
}

#[cfg(unix)]
#[tokio::test]
async fn a_rejected_token_of_a_command_is_replaced() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (command, runs) = counted(&folder, &format!("wc -l < '{}'", folder.path().join("runs").display()));
    let main = account(command);
    let timeout = Duration::from_secs(10);
    let first = main.credential(timeout).await.expect("a token").expect("a source");

    let second = main.renew_credential(first.login.fingerprint, timeout).await.expect("a token");

    assert_ne!(second.expect("a source").secret.expose(), first.secret.expose());
    assert_eq!(lines_of(&runs), 2);
}

#[tokio::test]
async fn a_replaced_token_file_is_read_at_once() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("token");
    let main = account(FileToken::new(&path));
    let missing = token(&main).await;
    replace(&path, "one");
    let one = token(&main).await;
    replace(&path, "two");

    let two = token(&main).await;

    assert_eq!((missing, one.as_deref(), two.as_deref()), (None, Some("one"), Some("two")));
}

#[tokio::test]
async fn a_replaced_login_of_claude_code_is_read_at_once() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join(".credentials.json");
    let main = account(ClaudeCode::in_dir(folder.path()));
    let login = |token: &str| format!(r#"{{"claudeAiOauth":{{"accessToken":"{token}"}}}}"#);
    replace(&path, &login("one"));
    let one = token(&main).await;
    replace(&path, &login("two"));

    let two = token(&main).await;

    assert_eq!((one.as_deref(), two.as_deref()), (Some("one"), Some("two")));
}

#[tokio::test]
async fn a_new_login_in_the_token_store_is_used_at_once() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let logins = TokenStore::builder(folder.path().join("logins.json")).build();
    let main = account(logins.clone());
    let _ = logins.put(&id(), NewLogin::new(Secret::new("one"))).await.expect("the file can be written");
    let one = token(&main).await;
    let _ = logins.put(&id(), NewLogin::new(Secret::new("two"))).await.expect("the file can be written");

    let two = token(&main).await;

    assert_eq!((one.as_deref(), two.as_deref()), (Some("one"), Some("two")));
}

#[tokio::test]
async fn a_login_stored_after_a_failed_read_is_used_at_once() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let logins = TokenStore::builder(folder.path().join("logins.json")).build();
    let main = account(logins.clone());
    let before = token(&main).await;

    let _ = logins.put(&id(), NewLogin::new(Secret::new("one"))).await.expect("the file can be written");

    assert_eq!((before, token(&main).await.as_deref()), (None, Some("one")));
}
