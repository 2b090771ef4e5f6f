//! The usage that Claude Code keeps.
//! What is read from the state file is tested beside its parser.

use super::*;

#[tokio::test]
async fn cached_usage_is_given_with_the_lineage_of_the_login() {
    let home = Home::new();
    home.write(".claude/.credentials.json", login("sk-ant-oat01-home", LATER));
    home.write(".claude.json", state("account-a", "org-a"));

    let usage = home.source().cached_usage().await.unwrap();

    assert_eq!(usage.lineage.map(|lineage| lineage.to_string()), home.lineage().await);
}

#[tokio::test]
async fn without_a_state_file_there_is_no_cached_usage() {
    assert_eq!(Home::new().source().cached_usage().await, None);
}

#[tokio::test]
async fn cached_usage_is_not_given_for_a_token_in_the_variable() {
    let home = Home::new().with("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-variable");
    home.write(".claude.json", state("account-a", "org-a"));

    assert_eq!(home.source().cached_usage().await, None);
}
