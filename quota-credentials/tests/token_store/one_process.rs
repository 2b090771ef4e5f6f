//! One process: when it renews, which callers wait, and what they get during a renewal.

use std::sync::atomic::Ordering;
use std::time::Duration;

use quota_core::model::CredentialFingerprint;
use quota_core::{CredentialError, CredentialSource, Secret};
use quota_credentials::{NewLogin, PutResult};
use tokio::task::JoinSet;

use super::{Env, HOUR, id, token};

#[tokio::test(start_paused = true)]
async fn a_token_that_does_not_expire_soon_is_not_renewed() {
    let env = Env::new();
    let logins = env.process();
    env.log_in(&logins, "main", 8 * 3600).await;

    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-0");

    logins.close().await;
    assert_eq!(env.provider.request_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_expires_soon_is_renewed_in_the_background() {
    let env = Env::new();
    let logins = env.process();
    env.provider.set_latency(Duration::from_secs(5));
    env.log_in(&logins, "main", 8 * 3600).await;
    env.clock.sleep(8 * HOUR - Duration::from_secs(60)).await;

    let before = env.clock.now();
    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-0");
    assert_eq!(env.clock.now(), before, "the caller does not wait");

    logins.close().await;
    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-1");
    assert_eq!(env.provider.request_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_callers_share_one_renewal() {
    let env = Env::new();
    let logins = env.process();
    env.provider.set_latency(Duration::from_secs(2));
    env.log_in(&logins, "main", 0).await;

    let mut tasks = JoinSet::new();
    for _ in 0..100 {
        let logins = logins.clone();
        tasks.spawn(async move { token(&logins, "main").await.unwrap() });
    }
    let tokens = tasks.join_all().await;

    assert!(tokens.iter().all(|token| token == "access-main-1"));
    assert_eq!((env.provider.request_count(), env.provider.reuses.load(Ordering::SeqCst)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_caller_does_not_stop_the_renewal() {
    let env = Env::new();
    let logins = env.process();
    env.provider.set_latency(Duration::from_secs(2));
    env.log_in(&logins, "main", 0).await;

    let dropped = env.clock.bounded(Duration::from_secs(1), token(&logins, "main")).await;
    assert!(dropped.is_none());

    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-1");
    assert_eq!(env.provider.request_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_waits_for_a_renewal_only_a_few_seconds() {
    let env = Env::new();
    let logins = env.process();
    env.provider.set_latency(Duration::from_secs(25));
    env.log_in(&logins, "main", 0).await;

    let error = token(&logins, "main").await.unwrap_err();
    assert!(matches!(error, CredentialError::TemporarilyUnavailable { .. }), "{error:?}");

    logins.close().await;
    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-1", "the renewal continued");
}

#[tokio::test(start_paused = true)]
async fn a_second_rejection_in_a_row_needs_a_new_login() {
    let env = Env::new();
    let logins = env.process();
    env.log_in(&logins, "main", 8 * 3600).await;
    let reject = async |token: Option<CredentialFingerprint>| logins.renew(&id("main"), token).await;
    let first = logins.credential(&id("main")).await.unwrap();

    let second = reject(first.login.fingerprint).await.unwrap();
    let again = reject(first.login.fingerprint).await.unwrap();
    let error = reject(second.login.fingerprint).await.unwrap_err();

    assert_ne!(first.login.fingerprint, second.login.fingerprint);
    assert_eq!(again.login.fingerprint, second.login.fingerprint, "a late caller gets the stored one");
    assert!(error.to_string().ends_with("log in again with `example login`"), "{error}");
    assert_eq!(env.provider.request_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_refresher_no_login_is_renewed_or_written() {
    let env = Env::new();
    let with_refresher = env.process();
    env.log_in(&with_refresher, "main", 60).await;
    let before = std::fs::read(with_refresher.path()).unwrap();
    let logins =
        quota_credentials::TokenStore::builder(with_refresher.path()).clock(env.clock.clone()).build();

    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-0");
    env.clock.sleep(HOUR).await;
    let error = token(&logins, "main").await.unwrap_err();
    logins.renew(&id("main"), None).await.unwrap_err();

    assert_eq!(error.to_string(), "the login of example/main has expired; log in again");
    assert_eq!(std::fs::read(with_refresher.path()).unwrap(), before);
    assert_eq!(env.provider.request_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_a_file_no_account_is_logged_in() {
    let env = Env::new();

    let error = token(&env.process(), "main").await.unwrap_err();

    assert!(matches!(error, CredentialError::NotLoggedIn { .. }), "{error:?}");
    assert!(error.to_string().ends_with("logins.json; run `example login`"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_removed_login_is_not_found() {
    let env = Env::new();
    let logins = env.process();
    env.log_in(&logins, "main", 3600).await;
    assert_eq!(logins.accounts().await.unwrap(), [id("main")]);

    assert!(logins.remove(&id("main")).await.unwrap());
    assert!(!logins.remove(&id("main")).await.unwrap());

    assert!(token(&logins, "main").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_older_copy_does_not_replace_a_renewed_login() {
    let env = Env::new();
    let logins = env.process();
    env.log_in(&logins, "main", 0).await;
    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-1");

    let copy = NewLogin::new(Secret::new("access-main-0")).refresh_token(Secret::new("refresh-main-0"));
    assert_eq!(logins.put(&id("main"), copy).await.unwrap(), PutResult::AlreadyStored);

    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-1");
}
