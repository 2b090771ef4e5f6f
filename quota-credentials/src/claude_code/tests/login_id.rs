//! The login id of the credential. The parser has its own tests of the state file.

use super::*;

#[tokio::test]
async fn the_login_id_does_not_change_when_the_token_is_renewed() {
    let home = Home::new();
    home.write(".claude.json", state("account-a", "org-a"));
    home.write(".claude/.credentials.json", login("sk-ant-oat01-old", EARLIER));
    let old = home.login_id().await;

    home.write(".claude/.credentials.json", login("sk-ant-oat01-new", LATER));
    let new = home.login_id().await;

    assert!(old.is_some());
    assert_eq!(new, old);
}

#[tokio::test]
async fn the_login_id_changes_with_the_account() {
    let home = Home::new();
    home.write(".claude.json", state("account-a", "org-a"));
    home.write(".claude/.credentials.json", login("sk-ant-oat01-a", EARLIER));
    let a = home.login_id().await;

    home.write(".claude.json", state("account-b", "org-b"));
    let b = home.login_id().await;

    assert!(b.is_some());
    assert_ne!(a, b);
}

#[tokio::test]
async fn without_a_state_file_there_is_no_login_id() {
    for contents in [None, Some("{"), Some("{}")] {
        let home = Home::new();
        home.write(".claude/.credentials.json", login("sk-ant-oat01-a", EARLIER));
        if let Some(contents) = contents {
            home.write(".claude.json", contents);
        }

        assert_eq!(home.login_id().await, None, "{contents:?}");
    }
}

#[tokio::test]
async fn each_directory_has_its_own_state_file() {
    let home = Home::new();
    let own = home.path("own");
    let home = home.with("CLAUDE_CONFIG_DIR", own);
    home.write("own/.credentials.json", login("sk-ant-oat01-own", LATER));
    home.write(".claude.json", state("account-a", "org-a"));
    let in_home = home.login_id().await;

    home.write("own/.claude.json", state("account-b", "org-b"));
    let in_own = home.login_id().await;

    assert_eq!(in_home, None);
    assert!(in_own.is_some());
}

#[tokio::test]
async fn the_state_file_of_the_default_directory_is_in_home() {
    let home = Home::new();
    home.write(".claude/.credentials.json", login("sk-ant-oat01-home", LATER));
    home.write(".claude.json", state("account-a", "org-a"));

    let source = ClaudeCode::in_dir_from_parts("~/.claude".into(), &home.environment(), None);

    assert!(credential_of(&source).await.unwrap().login.login_id.is_some());
}

#[tokio::test]
async fn a_state_file_of_32_mebibytes_is_read_and_a_larger_one_is_not() {
    let home = Home::new();
    home.write(".claude/.credentials.json", login("sk-ant-oat01-home", LATER));
    let state = state("account-a", "org-a");

    home.write(".claude.json", padded(&state, 32 << 20));
    let whole = home.login_id().await;
    home.write(".claude.json", padded(&state, (32 << 20) + 1));
    let larger = home.login_id().await;

    assert!(whole.is_some());
    assert_eq!(larger, None);
}

#[tokio::test]
async fn other_fields_of_the_state_file_are_ignored() {
    let home = Home::new();
    home.write(".claude/.credentials.json", login("sk-ant-oat01-home", LATER));
    let rest = r#"{"projects":{"/a":{"history":[null,1e999,"\ud800"]}},"#;
    home.write(".claude.json", state("account-a", "org-a").replacen('{', rest, 1));

    assert!(home.login_id().await.is_some());
}

#[tokio::test]
async fn only_the_active_copy_has_a_login_id() {
    let home = Home::new();
    home.write(".claude.json", state("account-a", "org-a"));
    home.write(".claude/.credentials.json", login("sk-ant-oat01-first", EARLIER));
    home.write(".config/claude/.credentials.json", login("sk-ant-oat01-second", LATER));

    let copies = home.source().discover().await;

    let login_ids = copies.iter().map(|copy| copy.result.as_ref().unwrap().login.login_id.is_some());
    assert_eq!(login_ids.collect::<Vec<_>>(), [false, true]);
}

/// A home whose state file is large, and a source that remembers logins, with a clock that is later than all writes.
fn home_with_large_state() -> (Home, ClaudeCode) {
    let home = Home::new();
    home.write(".claude/.credentials.json", login("sk-ant-oat01-home", LATER));
    home.write(".claude.json", padded(&state("account-a", "org-a"), 1 << 20));
    let mut source = home.source();
    let now = Clock::system().now() + Duration::from_secs(3600);
    source.memory = Some(LoginMemory::at(home.path("login-ids.json"), Clock::virtual_at(now)));
    (home, source)
}

async fn login_id_of(source: &ClaudeCode) -> Option<LoginId> {
    credential_of(source).await.unwrap().login.login_id
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_large_state_file_is_parsed_once() {
    let (home, source) = home_with_large_state();
    let first = login_id_of(&source).await.unwrap();
    // Only a source that does not parse the state file returns this id.
    let memory = fs::read_to_string(home.path("login-ids.json")).unwrap();
    home.write("login-ids.json", memory.replace(first.as_str(), "remembered"));

    assert_eq!(login_id_of(&source).await, Some(LoginId::new("remembered")));
}

#[tokio::test(start_paused = true)]
async fn a_changed_large_state_file_is_parsed_again() {
    let (home, source) = home_with_large_state();
    let first = login_id_of(&source).await;

    // The size stays the same.
    home.write(".claude.json", padded(&state("account-b", "org-b"), 1 << 20));
    let second = login_id_of(&source).await;

    assert!(second.is_some());
    assert_ne!(second, first);
}

#[tokio::test(start_paused = true)]
async fn an_incomplete_state_file_is_not_remembered() {
    let (home, source) = home_with_large_state();
    home.write(".claude.json", padded("{", 1 << 20));

    assert_eq!(login_id_of(&source).await, None);
    assert!(!home.path("login-ids.json").exists());
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_to_the_default_directory_has_its_login() {
    let home = Home::new();
    home.write(".claude/.credentials.json", login("sk-ant-oat01-a", LATER));
    home.write(".claude.json", state("account-a", "org-a"));
    let by_default = home.login_id().await;
    let link = home.path("link");
    std::os::unix::fs::symlink(home.path(".claude"), &link).unwrap();

    let by_link = home.with("CLAUDE_CONFIG_DIR", link);

    assert!(by_default.is_some());
    assert_eq!(by_link.login_id().await, by_default);
    by_link.write(".claude/.claude.json", state("account-b", "org-b"));
    assert_ne!(by_link.login_id().await, by_default, "its own state file counts");
}
