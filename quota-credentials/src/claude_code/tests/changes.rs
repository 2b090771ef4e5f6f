//! Logins that change, and files that are met while they are written.
//! What no waiting can turn into a login is tested in `misses`.

use super::*;

#[tokio::test]
async fn a_login_that_changes_between_two_reads_is_the_new_one() {
    let home = Home::new();
    let source = home.source();
    home.write(".claude/.credentials.json", login("sk-ant-oat01-old", EARLIER));
    let old = credential_of(&source).await.unwrap();

    home.write(".claude/.credentials.json", login("sk-ant-oat01-new", LATER));
    let new = credential_of(&source).await.unwrap();

    assert_eq!(new.secret.expose(), "sk-ant-oat01-new");
    assert_ne!(new.login.mark, old.login.mark);
}

#[tokio::test(start_paused = true)]
async fn a_login_that_is_being_written_is_waited_for() {
    let whole = login("sk-ant-oat01-new", LATER);
    for written in ["", &whole[..20]] {
        let home = Home::new();
        home.write(".claude/.credentials.json", written);

        let finish = async {
            Clock::system().sleep(A_MOMENT / 2).await;
            home.write(".claude/.credentials.json", &whole);
        };
        let (found, ()) = tokio::join!(home.found(), finish);

        assert_eq!(found.unwrap().secret.expose(), "sk-ant-oat01-new", "{written:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_stays_damaged_is_told_by_name() {
    for damage in
        [&b"{\"claudeAiOauth\": {\"accessToken\": \"sk-ant-oat01-"[..], b"\xff\xfe\0", b"sk-ant-oat01-abc"]
    {
        let home = Home::new();
        home.write(".claude/.credentials.json", damage);

        let error = home.found().await.unwrap_err();

        let path = home.path(".claude/.credentials.json");
        assert!(matches!(error, CredentialError::Unreadable { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            format!("{} is damaged; run `claude` and log in again", path.display())
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_stays_empty_is_no_login() {
    let home = Home::new();
    home.write(".claude/.credentials.json", "");

    let error = home.found().await.unwrap_err();

    assert!(matches!(error, CredentialError::NotLoggedIn { .. }), "{error:?}");
    assert!(error.to_string().contains(".credentials.json is empty"), "{error}");
}
