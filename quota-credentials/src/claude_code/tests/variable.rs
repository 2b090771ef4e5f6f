//! A token in `CLAUDE_CODE_OAUTH_TOKEN`.

use super::*;

#[tokio::test]
async fn a_token_in_the_variable_has_precedence_over_all_logins() {
    let home = Home::new().with("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-variable\n");
    home.write(".claude/.credentials.json", login("sk-ant-oat01-home", LATER));

    assert_eq!(home.token().await, "sk-ant-oat01-variable");
}

#[tokio::test]
async fn a_token_in_the_variable_has_no_login_id() {
    let home = Home::new().with("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-variable");
    home.write(".claude.json", state("account-a", "org-a"));

    let credential = home.credential().await.unwrap();

    assert_eq!(credential.login.login_id, None);
    assert_eq!(credential.login.fingerprint, Some(token::fingerprint(&credential.secret)));
}

#[tokio::test]
async fn a_blank_variable_is_unset() {
    for nothing in ["", " \n"] {
        let home = Home::new().with("CLAUDE_CODE_OAUTH_TOKEN", nothing);
        home.write(".claude/.credentials.json", login("sk-ant-oat01-home", LATER));

        assert_eq!(home.token().await, "sk-ant-oat01-home", "{nothing:?}");
    }
}

#[tokio::test]
async fn an_invalid_variable_is_an_error() {
    let home = Home::new().with("CLAUDE_CODE_OAUTH_TOKEN", "two words");
    home.write(".claude/.credentials.json", login("sk-ant-oat01-home", LATER));

    let error = home.credential().await.unwrap_err();

    assert!(matches!(error, CredentialError::Unreadable { .. }), "{error:?}");
    assert!(error.to_string().contains("CLAUDE_CODE_OAUTH_TOKEN"), "{error}");
    assert!(!error.to_string().contains("two words"), "{error}");
}
