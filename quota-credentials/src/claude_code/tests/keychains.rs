//! Logins in the macOS keychain, with a shell script in place of `security`.

use std::time::Duration;

use quota_core::{MemoryStore, QuotaManager};

use super::*;

/// A source for this home directory whose `security` is this shell script.
fn source(home: &Home, script: &str) -> ClaudeCode {
    ClaudeCode::from_parts(&home.environment(), Some(Keychain::with_program("/bin/sh", &["-c", script])))
}

const FRESH: &str =
    r#"echo '{"claudeAiOauth":{"accessToken":"sk-ant-oat01-keychain","expiresAt":1900000000000}}'"#;

#[tokio::test]
async fn an_item_that_expires_after_the_file_is_used() {
    let home = Home::new();
    home.write(".claude/.credentials.json", login("sk-ant-oat01-file", EARLIER));

    let credential = credential_of(&source(&home, FRESH)).await.unwrap();

    assert_eq!(credential.secret.expose(), "sk-ant-oat01-keychain");
}

#[tokio::test]
async fn the_item_is_used_if_copies_expire_together() {
    let home = Home::new();
    home.write(".claude/.credentials.json", login("sk-ant-oat01-file", LATER));

    let credential = credential_of(&source(&home, FRESH)).await.unwrap();

    assert_eq!(credential.secret.expose(), "sk-ant-oat01-keychain");
}

#[tokio::test]
async fn a_locked_keychain_or_missing_item_does_not_hide_the_file() {
    for script in ["exit 44", "exit 36", "echo", "echo not json"] {
        let home = Home::new();
        home.write(".claude/.credentials.json", login("sk-ant-oat01-file", EARLIER));

        let credential = credential_of(&source(&home, script)).await.unwrap();

        assert_eq!(credential.secret.expose(), "sk-ant-oat01-file", "{script}");
    }
}

#[tokio::test]
async fn without_a_file_a_locked_keychain_is_an_error() {
    let error = credential_of(&source(&Home::new(), "exit 36")).await.unwrap_err();

    assert!(matches!(error, CredentialError::Unreadable { .. }), "{error:?}");
    assert!(error.to_string().contains("security unlock-keychain"), "{error}");
}

#[tokio::test]
async fn a_missing_item_is_listed_in_the_error() {
    let error = credential_of(&source(&Home::new(), "exit 44")).await.unwrap_err();

    assert!(matches!(error, CredentialError::NotLoggedIn { .. }), "{error:?}");
    assert!(
        error.to_string().starts_with("the keychain item \"Claude Code-credentials\" does not exist, "),
        "{error}"
    );
}

#[tokio::test]
async fn with_a_token_in_the_variable_the_keychain_is_not_read() {
    let home = Home::new();
    let trace = home.path("trace");
    let home = home.with("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-variable");
    let source = source(&home, &format!("touch '{}'", trace.display()));

    let _ = credential_of(&source).await;

    assert!(!trace.exists());
}

#[tokio::test]
async fn each_directory_has_its_own_item() {
    let home = Home::new();
    let keychain = Keychain::with_program("/bin/sh", &["-c", "exit 44"]);
    let item_of = |dir: &str| {
        let source = ClaudeCode::in_dir_from_parts(dir.into(), &home.environment(), Some(keychain.clone()));
        source.locations[0].to_string()
    };

    assert_eq!(item_of("~/.claude"), "the keychain item \"Claude Code-credentials\"");
    // printf /home/me/.claude-work | sha256sum | cut -c1-8
    assert_eq!(item_of("/home/me/.claude-work"), "the keychain item \"Claude Code-credentials-95e632f0\"");
}

#[tokio::test]
async fn a_manager_reads_the_keychain_again_after_five_minutes() {
    let home = Home::new();
    let runs = home.path("runs");
    let script = format!(
        r#"echo run >> '{}'; echo '{{"claudeAiOauth":{{"accessToken":"sk-ant-oat01-keychain"}}}}'"#,
        runs.display()
    );
    let clock = Clock::virtual_at("2026-06-01T12:00:00Z".parse().unwrap());
    let quota = QuotaManager::builder(MemoryStore::new()).clock(clock).build().unwrap();
    let main = quota.account(&"anthropic/main".parse().unwrap());
    main.set_credentials(source(&home, &script));
    let mut counted = Vec::new();

    for wait in [0, 200, 100] {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(wait)).await;
        tokio::time::resume();
        for _ in 0..100 {
            let credential = main.credential(Duration::from_secs(10)).await.unwrap().unwrap();
            assert_eq!(credential.secret.expose(), "sk-ant-oat01-keychain");
        }
        counted.push(fs::read_to_string(&runs).unwrap().lines().count());
    }

    assert_eq!(counted, [1, 1, 2]);
}
