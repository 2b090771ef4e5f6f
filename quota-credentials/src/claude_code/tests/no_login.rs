//! Locations without a login, and their errors.

use super::*;

#[tokio::test]
async fn without_a_login_the_error_names_all_locations() {
    let home = Home::new();

    let error = home.credential().await.unwrap_err();

    let (first, second) =
        (home.path(".claude/.credentials.json"), home.path(".config/claude/.credentials.json"));
    assert!(matches!(error, CredentialError::NotLoggedIn { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        format!(
            "{} does not exist, {} does not exist; run `claude` and log in",
            first.display(),
            second.display()
        )
    );
}

#[tokio::test]
async fn files_without_a_login_are_not_parse_errors() {
    for contents in [r#"{"mcpOAuth":{}}"#, r#"{"claudeAiOauth":{"accessToken":""}}"#, "[1]"] {
        let home = Home::new();
        home.write(".claude/.credentials.json", contents);

        let error = home.credential().await.unwrap_err();

        assert!(matches!(error, CredentialError::NotLoggedIn { .. }), "{contents} {error:?}");
    }
}

#[tokio::test]
async fn a_directory_in_place_of_the_file_is_an_error() {
    let home = Home::new();
    home.write(".claude/.credentials.json/a", "");

    let error = home.credential().await.unwrap_err();

    assert!(matches!(error, CredentialError::Unreadable { .. }), "{error:?}");
    assert!(error.to_string().contains(".claude/.credentials.json: it is a directory"), "{error}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_cannot_be_opened_is_an_error() {
    let home = Home::new();
    home.write(".claude/other", "");
    let path = home.path(".claude/.credentials.json");
    std::os::unix::fs::symlink(&path, &path).unwrap();

    let error = home.credential().await.unwrap_err();

    assert!(matches!(error, CredentialError::Unreadable { .. }), "{error:?}");
    assert_eq!(error.to_string(), format!("could not read {}; check the disk", path.display()));
}

#[tokio::test]
async fn a_file_of_one_mebibyte_is_read_and_a_larger_one_is_not() {
    let home = Home::new();
    let login = login("sk-ant-oat01-home", LATER);

    home.write(".claude/.credentials.json", padded(&login, 1 << 20));
    let whole = home.credential().await;
    home.write(".claude/.credentials.json", padded(&login, (1 << 20) + 1));
    let error = home.credential().await.unwrap_err();

    assert!(whole.is_ok());
    assert!(matches!(error, CredentialError::Unreadable { .. }), "{error:?}");
    assert!(error.to_string().contains("too large"), "{error}");
}

#[cfg(unix)]
#[tokio::test]
async fn the_permissions_of_another_programs_file_are_not_checked() {
    use std::os::unix::fs::PermissionsExt;

    let home = Home::new();
    home.write(".claude/.credentials.json", login("sk-ant-oat01-home", LATER));
    let path = home.path(".claude/.credentials.json");
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();

    assert!(home.credential().await.is_ok());
}

#[tokio::test]
async fn no_file_is_written() {
    let home = Home::new();
    home.write(".claude/.credentials.json", login("sk-ant-oat01-home", 1));
    home.write(".claude.json", state("account-a", "org-a"));
    let before = fs::read(home.path(".claude/.credentials.json")).unwrap();

    let source = home.source();
    let _ = (credential_of(&source).await, source.discover().await, source.cached_usage().await);

    let names = |below: &str| {
        let mut names: Vec<_> =
            fs::read_dir(home.path(below)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(fs::read(home.path(".claude/.credentials.json")).unwrap(), before);
    assert_eq!(
        (names(""), names(".claude")),
        (vec![".claude".into(), ".claude.json".into()], vec![".credentials.json".into()])
    );
}
