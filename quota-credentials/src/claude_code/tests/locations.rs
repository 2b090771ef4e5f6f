//! Where a login is looked for.
//! Which of several copies counts is tested in `discover`.

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
async fn the_config_directory_may_be_elsewhere() {
    let elsewhere = Home::new();
    let home = Home::new().with("XDG_CONFIG_HOME", elsewhere.path("xdg"));
    elsewhere.write("xdg/claude/.credentials.json", login("sk-ant-oat01-xdg", EARLIER));
    home.write(".config/claude/.credentials.json", login("sk-ant-oat01-config", LATER));

    assert_eq!(home.token().await, "sk-ant-oat01-xdg");
}

#[tokio::test]
async fn a_config_directory_that_is_empty_or_relative_is_not_meant() {
    for odd in ["", "relative"] {
        let home = Home::new().with("XDG_CONFIG_HOME", odd);
        home.write(".config/claude/.credentials.json", login("sk-ant-oat01-config", LATER));

        assert_eq!(home.token().await, "sk-ant-oat01-config", "{odd:?}");
    }
}

#[tokio::test]
async fn a_directory_of_its_own_is_the_only_place() {
    let home = Home::new();
    let own = home.path("own");
    let home = home.with("CLAUDE_CONFIG_DIR", own);
    home.write("own/.credentials.json", login("sk-ant-oat01-own", EARLIER));
    home.write(".claude/.credentials.json", login("sk-ant-oat01-home", LATER));
    home.write(".config/claude/.credentials.json", login("sk-ant-oat01-config", LATER));

    let own = home.token().await;
    fs::remove_file(home.path("own/.credentials.json")).unwrap();
    let gone = home.found().await;

    assert_eq!(own, "sk-ant-oat01-own");
    assert!(gone.is_err());
}

#[tokio::test]
async fn a_directory_that_is_set_to_nothing_is_not_set() {
    let home = Home::new().with("CLAUDE_CONFIG_DIR", "");
    home.write(".claude/.credentials.json", login("sk-ant-oat01-home", LATER));

    assert_eq!(home.token().await, "sk-ant-oat01-home");
}

#[tokio::test]
async fn a_source_for_one_directory_looks_at_no_variable() {
    let home = Home::new().with("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-variable");
    home.write("work/.credentials.json", login("sk-ant-oat01-work", LATER));

    let source = ClaudeCode::in_dir_on_machine("~/work".into(), &home.environment(), None);

    assert_eq!(credential_of(&source).await.unwrap().secret.expose(), "sk-ant-oat01-work");
}

#[tokio::test]
async fn nowhere_to_look_is_told() {
    let source = ClaudeCode::on_machine(&Environment::from_vars([("A", "")]), None);

    let error = credential_of(&source).await.unwrap_err();

    assert!(error.to_string().contains("HOME"), "{error}");
}

#[tokio::test]
async fn another_provider_is_not_given_the_token() {
    let home = Home::new().with("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-variable");

    let error = home.source().credential(&"openai/main".parse().unwrap()).await.unwrap_err();

    assert!(matches!(error, CredentialError::NotLoggedIn { .. }), "{error:?}");
    assert!(error.to_string().contains("openai/main"), "{error}");
}
