//! A first login: it is obtained under the lease of its provider, and stored whatever happens to its caller.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quota_core::provider::{TokenError, TokenRefresher as _, Tokens};
use quota_core::{QuotaStore, Secret, store::MemoryStore};
use quota_credentials::{LogInError, TokenStore};
use tokio::task::JoinSet;

use super::{Env, HOUR, id, token};

fn tokens() -> Tokens {
    Tokens::new(Secret::new("access-new")).refresh_token(Secret::new("refresh-new")).expires_in(HOUR)
}

#[tokio::test(start_paused = true)]
async fn a_new_login_is_stored_and_used() {
    let env = Env::new();
    let logins = env.process();

    logins.log_in(&id("main"), async { Ok(tokens()) }).await.unwrap();

    assert_eq!(token(&logins, "main").await.unwrap(), "access-new");
    assert_eq!(token(&env.process(), "main").await.unwrap(), "access-new");
}

#[tokio::test(start_paused = true)]
async fn a_failed_exchange_stores_nothing() {
    let env = Env::new();
    let logins = env.process();
    env.log_in(&logins, "main", 3600).await;

    let error =
        logins.log_in(&id("main"), async { Err(TokenError::invalid_grant("used")) }).await.unwrap_err();

    assert!(matches!(error, LogInError::Exchange(TokenError::InvalidGrant { .. })), "{error:?}");
    assert_eq!(token(&logins, "main").await.unwrap(), "access-main-0");
}

#[tokio::test(start_paused = true)]
async fn a_login_ends_although_its_caller_is_gone() {
    let env = Env::new();
    let logins = env.process();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let clock = env.clock.clone();
    let slow = async move {
        let _ = sender.send(());
        clock.sleep(Duration::from_secs(5)).await;
        Ok(tokens())
    };

    let main = id("main");
    tokio::select! {
        _ = logins.log_in(&main, slow) => panic!("the caller leaves first"),
        _ = receiver => {}
    }
    logins.close().await;

    assert_eq!(token(&env.process(), "main").await.unwrap(), "access-new");
}

#[tokio::test(start_paused = true)]
async fn an_exchange_that_hangs_is_bounded() {
    let env = Env::new();

    let error = env.process().log_in(&id("main"), pending()).await.unwrap_err();

    assert!(matches!(error, LogInError::Exchange(TokenError::Transient { .. })), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_file_is_found_before_the_code_is_spent() {
    let env = Env::new();
    std::fs::write(env.dir.path().join("logins.json"), "{").unwrap();
    let exchange = async { panic!("the exchange must not start") };

    let error = env.process().log_in(&id("main"), exchange).await.unwrap_err();

    assert!(matches!(error, LogInError::File(_)), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_close_does_not_wait_for_a_lease_of_another_host() {
    let env = Env::new();
    let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::with_clock(env.clock.clone()));
    let hosts: [TokenStore; 2] =
        ["a.json", "b.json"].map(|file| env.process_on(file).store(store.clone()).build());
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let holder = hosts[0].clone();
    let mut holding = JoinSet::new();
    holding.spawn(async move {
        let exchange = async {
            let _ = sender.send(());
            pending().await
        };
        holder.log_in(&id("one"), exchange).await
    });
    receiver.await.unwrap();
    let waiter = hosts[1].clone();
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { waiter.log_in(&id("two"), async { Ok(tokens()) }).await });
    tokio::task::yield_now().await;
    let began = env.clock.now();

    hosts[1].close().await;

    assert!(env.clock.now().duration_since(began) < jiff::SignedDuration::from_secs(5));
    assert!(matches!(waiting.join_next().await.unwrap().unwrap(), Err(LogInError::Busy)));
}

#[tokio::test(start_paused = true)]
async fn a_login_and_a_renewal_of_its_sibling_on_another_host_exclude_each_other() {
    let env = Env::new();
    env.provider.set_latency(Duration::from_secs(2));
    let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::with_clock(env.clock.clone()));
    let hosts: [TokenStore; 2] =
        ["a.json", "b.json"].map(|file| env.process_on(file).store(store.clone()).build());
    env.log_in(&hosts[0], "one", 0).await;
    let (_, code) = env.provider.log_in("two");
    let provider = env.provider.clone();
    let exchange = async move { provider.refresh(&Secret::new(code)).await };

    let two = id("two");
    let (renewed, new) = tokio::join!(token(&hosts[0], "one"), hosts[1].log_in(&two, exchange));

    assert!(renewed.is_ok() && new.is_ok(), "{renewed:?} {new:?}");
    assert_eq!(env.provider.max_concurrent.load(Ordering::SeqCst), 1);
}
