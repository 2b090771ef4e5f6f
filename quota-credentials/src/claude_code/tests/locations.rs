//! The locations that are read.

use super::*;

#[tokio::test]
async fn a_login_is_found_in_the_home_directory() {
    let home = Home::new();
    home.write(".claude/.credentials.json", login("sk-ant-oat01-home", LATER));

    assert_eq!(home.token().await, "sk-ant-oat01-home");
}

#[tokio::test]
async fn a_login_is_found_in_the_config_directory() {
    let home = Home::new();
    home.write(".config/claude/.credentials.json", login("sk-ant-oat01-config", LATER));

    assert_eq!(home.token().await, "sk-ant-oat01-config");
}

#[tokio::test]
async fn the_config_directory_follows_xdg_config_home() {
    let elsewhere = Home::new();
    let home = Home::new().with("XDG_CONFIG_HOME", elsewhere.path("xdg"));
    elsewhere.write("xdg/claude/.credentials.json", login("sk-ant-oat01-xdg", EARLIER));
    home.write(".config/claude/.credentials.json", login("sk-ant-oat01-config", LATER));

    assert_eq!(home.token().await, "sk-ant-oat01-xdg");
}

#[tokio::test]
async fn an_empty_or_relative_xdg_config_home_is_ignored() {
    for odd in ["", "relative"] {
        let home = Home::new().with("XDG_CONFIG_HOME", odd);
        home.write(".config/claude/.credentials.json", login("sk-ant-oat01-config", LATER));

        assert_eq!(home.token().await, "sk-ant-oat01-config", "{odd:?}");
    }
}

#[tokio::test]
async fn claude_config_dir_is_the_only_location() {
    let home = Home::new();
    let own = home.path("own");
    let home = home.with("CLAUDE_CONFIG_DIR", own);
    home.write("own/.credentials.json", login("sk-ant-oat01-own", EARLIER));
    home.write(".claude/.credentials.json", login("sk-ant-oat01-home", LATER));
    home.write(".config/claude/.credentials.json", login("sk-ant-oat01-config", LATER));

    let token = home.token().await;
    fs::remove_file(home.path("own/.credentials.json")).unwrap();
    let missing = home.credential().await;

    assert_eq!(token, "sk-ant-oat01-own");
    assert!(missing.is_err());
}

#[tokio::test]
async fn an_empty_claude_config_dir_is_unset() {
    let home = Home::new().with("CLAUDE_CONFIG_DIR", "");
    home.write(".claude/.credentials.json", login("sk-ant-oat01-home", LATER));

    assert_eq!(home.token().await, "sk-ant-oat01-home");
}

#[tokio::test]
async fn in_dir_ignores_the_token_variable() {
    let home = Home::new().with("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-variable");
    home.write("work/.credentials.json", login("sk-ant-oat01-work", LATER));

    let source = ClaudeCode::in_dir_from_parts("~/work".into(), &home.environment(), None);

    assert_eq!(credential_of(&source).await.unwrap().secret.expose(), "sk-ant-oat01-work");
}

#[tokio::test]
async fn without_a_home_directory_the_error_says_so() {
    let source = ClaudeCode::from_parts(&Environment::from_vars([("A", "")]), None);

    let error = credential_of(&source).await.unwrap_err();

    assert!(error.to_string().contains("HOME"), "{error}");
}

#[tokio::test]
async fn another_provider_does_not_get_the_token() {
    let home = Home::new().with("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-variable");

    let error = home.source().credential(&"openai/main".parse().unwrap()).await.unwrap_err();

    assert!(matches!(error, CredentialError::NotLoggedIn { .. }), "{error:?}");
    assert!(error.to_string().contains("openai/main"), "{error}");
}
