//! Logins in the keychain of macOS, whose program is a shell script here.
//! What that program may answer is tested in `keychain`.

use super::*;

/// A source of this home on a machine whose `security` is this shell script.
fn source(home: &Home, script: &str) -> ClaudeCode {
    ClaudeCode::on_machine(&home.environment(), Some(Keychain::by("/bin/sh", &["-c", script])))
}

const FRESH: &str =
    r#"echo '{"claudeAiOauth":{"accessToken":"sk-ant-oat01-keychain","expiresAt":1900000000000}}'"#;

#[tokio::test]
async fn a_keychain_that_is_fresher_than_the_file_counts() {
    let home = Home::new();
    home.write(".claude/.credentials.json", login("sk-ant-oat01-file", EARLIER));

    let credential = credential_of(&source(&home, FRESH)).await.unwrap();

    assert_eq!(credential.secret.expose(), "sk-ant-oat01-keychain");
}

#[tokio::test]
async fn of_equal_copies_that_of_the_keychain_counts() {
    let home = Home::new();
    home.write(".claude/.credentials.json", login("sk-ant-oat01-file", LATER));

    let credential = credential_of(&source(&home, FRESH)).await.unwrap();

    assert_eq!(credential.secret.expose(), "sk-ant-oat01-keychain");
}

#[tokio::test]
async fn a_keychain_without_the_item_or_locked_does_not_hide_the_file() {
    for script in ["exit 44", "exit 36", "echo", "echo not json"] {
        let home = Home::new();
        home.write(".claude/.credentials.json", login("sk-ant-oat01-file", EARLIER));

        let credential = credential_of(&source(&home, script)).await.unwrap();

        assert_eq!(credential.secret.expose(), "sk-ant-oat01-file", "{script}");
    }
}

#[tokio::test]
async fn a_locked_keychain_is_told_where_there_is_no_file() {
    let error = credential_of(&source(&Home::new(), "exit 36")).await.unwrap_err();

    assert!(matches!(error, CredentialError::Unreadable { .. }), "{error:?}");
    assert!(error.to_string().contains("security unlock-keychain"), "{error}");
}

#[tokio::test]
async fn a_keychain_without_the_item_is_named_among_the_places() {
    let error = credential_of(&source(&Home::new(), "exit 44")).await.unwrap_err();

    assert!(matches!(error, CredentialError::NotLoggedIn { .. }), "{error:?}");
    assert!(
        error.to_string().starts_with("the keychain item \"Claude Code-credentials\" does not exist, "),
        "{error}"
    );
}

#[tokio::test]
async fn a_token_in_the_variable_leaves_the_keychain_alone() {
    let home = Home::new();
    let trace = home.path("trace");
    let home = home.with("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-variable");
    let source = source(&home, &format!("touch '{}'", trace.display()));

    let _ = credential_of(&source).await;

    assert!(!trace.exists());
}

#[tokio::test]
async fn a_directory_of_its_own_has_an_item_of_its_own() {
    let home = Home::new();
    let keychain = Keychain::by("/bin/sh", &["-c", "exit 44"]);
    let item_of = |dir: &str| {
        let source = ClaudeCode::in_dir_on_machine(dir.into(), &home.environment(), Some(keychain.clone()));
        source.places[0].to_string()
    };

    assert_eq!(item_of("~/.claude"), "the keychain item \"Claude Code-credentials\"");
    // printf /home/me/.claude-work | sha256sum | cut -c1-8
    assert_eq!(item_of("/home/me/.claude-work"), "the keychain item \"Claude Code-credentials-95e632f0\"");
}
