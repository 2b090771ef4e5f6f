//! One process: when it renews, who waits for that, and what it gives meanwhile.

use std::sync::atomic::Ordering;
use std::time::Duration;

use quota_core::CredentialFingerprint;
use quota_core::{CredentialError, CredentialSource, Secret};
use quota_credentials::{NewLogin, PutResult};
use tokio::task::JoinSet;

use super::{HOUR, World, id, token};

#[tokio::test(start_paused = true)]
async fn a_token_that_is_good_for_long_is_given_and_nobody_is_asked() {
    let world = World::new();
    let logins = world.process();
    world.log_in(&logins, "main", 8 * 3600).await;

    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-0");

    logins.close().await;
    assert_eq!(world.provider.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_ends_soon_is_given_at_once_and_renewed_behind_the_back() {
    let world = World::new();
    let logins = world.process();
    world.provider.set_takes(Duration::from_secs(5));
    world.log_in(&logins, "main", 8 * 3600).await;
    world.clock.sleep(8 * HOUR - Duration::from_secs(60)).await;

    let before = world.clock.now();
    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-0");
    assert_eq!(world.clock.now(), before, "nobody waits for it");

    logins.close().await;
    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-1");
    assert_eq!(world.provider.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_who_need_a_token_that_has_ended_wait_for_one_exchange() {
    let world = World::new();
    let logins = world.process();
    world.provider.set_takes(Duration::from_secs(2));
    world.log_in(&logins, "main", 0).await;

    let mut tasks = JoinSet::new();
    for _ in 0..100 {
        let logins = logins.clone();
        tasks.spawn(async move { token(&logins, "main").await.unwrap() });
    }
    let tokens = tasks.join_all().await;

    assert!(tokens.iter().all(|token| token == "access-main-1"));
    assert_eq!((world.provider.asked(), world.provider.reuses.load(Ordering::SeqCst)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn whoever_gives_up_waiting_takes_nothing_from_the_login() {
    let world = World::new();
    let logins = world.process();
    world.provider.set_takes(Duration::from_secs(2));
    world.log_in(&logins, "main", 0).await;

    let impatient = world.clock.bounded(Duration::from_secs(1), token(&logins, "main")).await;
    assert!(impatient.is_none());

    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-1");
    assert_eq!(world.provider.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_is_not_kept_for_longer_than_a_few_seconds() {
    let world = World::new();
    let logins = world.process();
    world.provider.set_takes(Duration::from_secs(25));
    world.log_in(&logins, "main", 0).await;

    let error = token(&logins, "main").await.unwrap_err();
    assert!(matches!(error, CredentialError::TemporarilyUnavailable { .. }), "{error:?}");

    logins.close().await;
    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-1", "it came all the same");
}

// B18
#[tokio::test(start_paused = true)]
async fn a_refused_token_is_renewed_once_and_a_second_refusal_needs_a_new_login() {
    let world = World::new();
    let logins = world.process();
    world.log_in(&logins, "main", 8 * 3600).await;
    let refused = async |mark: Option<CredentialFingerprint>| logins.renew(&id("main"), mark).await;
    let first = logins.credential(&id("main")).await.unwrap();

    let second = refused(first.login.mark).await.unwrap();
    let again = refused(first.login.mark).await.unwrap();
    let error = refused(second.login.mark).await.unwrap_err();

    assert_ne!(first.login.mark, second.login.mark);
    assert_eq!(again.login.mark, second.login.mark, "who comes late gets the one that is there");
    assert!(error.to_string().ends_with("log in again with `example login`"), "{error}");
    assert_eq!(world.provider.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_refresher_nothing_is_renewed_or_written() {
    let world = World::new();
    let with = world.process();
    world.log_in(&with, "main", 60).await;
    let before = std::fs::read(with.path()).unwrap();
    let logins = quota_credentials::TokenStore::builder(with.path()).clock(world.clock.clone()).build();

    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-0");
    world.clock.sleep(HOUR).await;
    let error = token(&logins, "main").await.unwrap_err();
    logins.renew(&id("main"), None).await.unwrap_err();

    assert_eq!(error.to_string(), "the login of example/main has run out: log in again");
    assert_eq!(std::fs::read(with.path()).unwrap(), before);
    assert_eq!(world.provider.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_logged_in_where_there_is_no_file() {
    let world = World::new();

    let error = token(&world.process(), "main").await.unwrap_err();

    assert!(matches!(error, CredentialError::NotLoggedIn { .. }), "{error:?}");
    assert!(error.to_string().ends_with("logins.json: run `example login`"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_login_is_forgotten_when_it_is_removed() {
    let world = World::new();
    let logins = world.process();
    world.log_in(&logins, "main", 3600).await;
    assert_eq!(logins.accounts().await.unwrap(), [id("main")]);

    assert!(logins.remove(&id("main")).await.unwrap());
    assert!(!logins.remove(&id("main")).await.unwrap());

    assert!(token(&logins, "main").await.is_err());
}

// B38 B42
#[tokio::test(start_paused = true)]
async fn an_older_copy_of_a_login_does_not_take_the_place_of_a_newer_one() {
    let world = World::new();
    let logins = world.process();
    world.log_in(&logins, "main", 0).await;
    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-1");

    let copy = NewLogin::new(Secret::new("access-main-0")).refresh_token(Secret::new("refresh-main-0"));
    assert_eq!(logins.put(&id("main"), copy).await.unwrap(), PutResult::AlreadyStored);

    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-1");
}
