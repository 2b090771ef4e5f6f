//! Which of several copies is used, and the list of all copies.

use super::*;

#[tokio::test]
async fn the_copy_that_expires_later_is_used() {
    for (first, second, winner) in [(LATER, EARLIER, "first"), (EARLIER, LATER, "second")] {
        let home = Home::new();
        home.write(".claude/.credentials.json", login("sk-ant-oat01-first", first));
        home.write(".config/claude/.credentials.json", login("sk-ant-oat01-second", second));

        assert_eq!(home.token().await, format!("sk-ant-oat01-{winner}"));
    }
}

#[tokio::test]
async fn the_first_of_two_copies_with_equal_expiry_is_used() {
    let home = Home::new();
    home.write(".claude/.credentials.json", login("sk-ant-oat01-first", LATER));
    home.write(".config/claude/.credentials.json", login("sk-ant-oat01-second", LATER));

    assert_eq!(home.token().await, "sk-ant-oat01-first");
}

#[tokio::test]
async fn a_copy_with_an_expiry_is_used_before_one_without() {
    let home = Home::new();
    home.write(".claude/.credentials.json", login("sk-ant-oat01-first", Value::Null));
    home.write(".config/claude/.credentials.json", login("sk-ant-oat01-second", EARLIER));

    assert_eq!(home.token().await, "sk-ant-oat01-second");
}

#[tokio::test]
async fn a_copy_without_a_token_is_not_used() {
    let home = Home::new();
    home.write(".claude/.credentials.json", login("", LATER));
    home.write(".config/claude/.credentials.json", login("sk-ant-oat01-second", EARLIER));

    assert_eq!(home.token().await, "sk-ant-oat01-second");
}

#[tokio::test]
async fn an_unreadable_location_does_not_hide_a_copy() {
    let home = Home::new();
    home.write(".claude/.credentials.json/a", "");
    home.write(".config/claude/.credentials.json", login("sk-ant-oat01-second", EARLIER));

    assert_eq!(home.token().await, "sk-ant-oat01-second");
}

#[tokio::test]
async fn an_expired_login_is_found_with_its_expiry() {
    let home = Home::new();
    home.write(".claude/.credentials.json", login("sk-ant-oat01-old", 1_000_000_000_000_i64));

    let credential = home.credential().await.unwrap();

    assert_eq!(credential.expires_at.unwrap().as_second(), 1_000_000_000);
}

#[tokio::test]
async fn all_locations_are_listed_in_order_with_the_active_one() {
    let home = Home::new();
    home.write(".claude.json", state("account-a", "org-a"));
    home.write(".claude/.credentials.json", login("", 0));
    home.write(".config/claude/.credentials.json", login("sk-ant-oat01-second", LATER));

    let copies = home.source().discover().await;

    let list: Vec<_> =
        copies.iter().map(|copy| (copy.location.clone(), copy.result.is_ok(), copy.is_active)).collect();
    let file = |below| CredentialLocation::File(home.path(below));
    assert_eq!(
        list,
        [
            (file(".claude/.credentials.json"), false, false),
            (file(".config/claude/.credentials.json"), true, true)
        ]
    );
    assert!(copies[1].result.as_ref().unwrap().login.login_id.is_some());
}

#[tokio::test]
async fn a_token_in_the_variable_is_listed_first_and_active() {
    let home = Home::new().with("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-variable");
    home.write(".claude/.credentials.json", login("sk-ant-oat01-home", LATER));

    let copies = home.source().discover().await;

    assert_eq!(copies[0].location, CredentialLocation::Variable("CLAUDE_CODE_OAUTH_TOKEN"));
    assert_eq!(copies.iter().map(|copy| copy.is_active).collect::<Vec<_>>(), [true, false, false]);
    assert!(copies[1].result.is_ok());
}
