//! A token in the variable of Claude Code.
//! The source for other variables is tested in `env_var`.

use super::*;

#[tokio::test]
async fn a_token_in_the_variable_goes_before_every_login() {
    let home = Home::new().with("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-variable\n");
    home.write(".claude/.credentials.json", login("sk-ant-oat01-home", LATER));

    assert_eq!(home.token().await, "sk-ant-oat01-variable");
}

#[tokio::test]
async fn a_token_in_the_variable_has_a_mark_and_no_lineage() {
    let home = Home::new().with("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-variable");
    home.write(".claude.json", state("account-a", "org-a"));

    let credential = home.found().await.unwrap();

    assert_eq!(credential.login.lineage, None);
    assert_eq!(credential.login.mark, Some(token::mark(&credential.secret)));
}

#[tokio::test]
async fn a_variable_that_is_empty_is_not_set() {
    for nothing in ["", " \n"] {
        let home = Home::new().with("CLAUDE_CODE_OAUTH_TOKEN", nothing);
        home.write(".claude/.credentials.json", login("sk-ant-oat01-home", LATER));

        assert_eq!(home.token().await, "sk-ant-oat01-home", "{nothing:?}");
    }
}

#[tokio::test]
async fn a_variable_that_holds_no_token_is_told_and_not_passed_over() {
    let home = Home::new().with("CLAUDE_CODE_OAUTH_TOKEN", "two words");
    home.write(".claude/.credentials.json", login("sk-ant-oat01-home", LATER));

    let error = home.found().await.unwrap_err();

    assert!(matches!(error, CredentialError::Unreadable { .. }), "{error:?}");
    assert!(error.to_string().contains("CLAUDE_CODE_OAUTH_TOKEN"), "{error}");
    assert!(!error.to_string().contains("two words"), "{error}");
}
