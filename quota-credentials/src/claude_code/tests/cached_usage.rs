//! The usage that Claude Code caches. The parser has its own tests of the state file.

use super::*;

#[tokio::test]
async fn cached_usage_has_the_login_id_of_the_credential() {
    let home = Home::new();
    home.write(".claude/.credentials.json", login("sk-ant-oat01-home", LATER));
    home.write(".claude.json", state("account-a", "org-a"));

    let usage = home.source().cached_usage().await.unwrap();

    assert_eq!(usage.login_id.map(|id| id.to_string()), home.login_id().await);
}

#[tokio::test]
async fn without_a_state_file_there_is_no_cached_usage() {
    assert_eq!(Home::new().source().cached_usage().await, None);
}

#[tokio::test]
async fn a_token_in_the_variable_has_no_cached_usage() {
    let home = Home::new().with("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-variable");
    home.write(".claude.json", state("account-a", "org-a"));

    assert_eq!(home.source().cached_usage().await, None);
}
