//! Logins that change, and files that are read while Claude Code writes them.

use super::*;

#[tokio::test]
async fn each_call_reads_the_login_again() {
    let home = Home::new();
    let source = home.source();
    home.write(".claude/.credentials.json", login("sk-ant-oat01-old", EARLIER));
    let old = credential_of(&source).await.unwrap();

    home.write(".claude/.credentials.json", login("sk-ant-oat01-new", LATER));
    let new = credential_of(&source).await.unwrap();

    assert_eq!(new.secret.expose(), "sk-ant-oat01-new");
    assert_ne!(new.login.fingerprint, old.login.fingerprint);
}

#[tokio::test(start_paused = true)]
async fn an_incomplete_login_is_read_again() {
    let whole = login("sk-ant-oat01-new", LATER);
    for written in ["", &whole[..20]] {
        let home = Home::new();
        home.write(".claude/.credentials.json", written);

        let finish = async {
            Clock::system().sleep(RETRY_DELAY / 2).await;
            home.write(".claude/.credentials.json", &whole);
        };
        let (credential, ()) = tokio::join!(home.credential(), finish);

        assert_eq!(credential.unwrap().secret.expose(), "sk-ant-oat01-new", "{written:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_incomplete_state_file_is_read_again() {
    let whole = state("account-a", "org-a");
    for written in ["", &whole[..20]] {
        let home = Home::new();
        home.write(".claude/.credentials.json", login("sk-ant-oat01-new", LATER));
        home.write(".claude.json", written);

        let finish = async {
            Clock::system().sleep(RETRY_DELAY / 2).await;
            home.write(".claude.json", &whole);
        };
        let (login_id, ()) = tokio::join!(home.login_id(), finish);

        assert!(login_id.is_some(), "{written:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_stays_malformed_is_an_error() {
    for damage in
        [&b"{\"claudeAiOauth\": {\"accessToken\": \"sk-ant-oat01-"[..], b"\xff\xfe\0", b"sk-ant-oat01-abc"]
    {
        let home = Home::new();
        home.write(".claude/.credentials.json", damage);

        let error = home.credential().await.unwrap_err();

        let path = home.path(".claude/.credentials.json");
        assert!(matches!(error, CredentialError::Unreadable { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            format!("could not parse {}: it is not JSON; run `claude` and log in again", path.display())
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_stays_empty_is_not_logged_in() {
    let home = Home::new();
    home.write(".claude/.credentials.json", "");

    let error = home.credential().await.unwrap_err();

    assert!(matches!(error, CredentialError::NotLoggedIn { .. }), "{error:?}");
    assert!(error.to_string().contains(".credentials.json is empty"), "{error}");
}
