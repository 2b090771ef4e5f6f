//! Reads of an account that cannot be refreshed now: they return what is known, read no credential, and end with their cause.

use std::time::Duration;

use crate::store_outage::env_with_toggle_store;
use crate::support::*;
use futures_util::FutureExt;
use quota_core::manager::StaleReason;
use quota_core::model::{CredentialFingerprint, LoginId, LoginInfo};
use quota_core::policy::{Budget, CooldownPolicy, CooldownScope, StoreOutagePolicy};
use quota_core::testing::FakeProvider;
use quota_core::{Account, CredentialError, FetchError, Freshness, Policy, QuotaError, QuotaManager};

/// A policy in which a 429 affects only its own account.
fn plain() -> Policy {
    Policy::default().cooldown(CooldownPolicy::new(MINUTE, CooldownScope::Account))
}

fn fingerprint(hash: u64) -> LoginInfo {
    LoginInfo::unknown().fingerprint(CredentialFingerprint::from_hash(hash))
}

fn throttled() -> FetchError {
    FetchError::throttled(Some(MINUTE * 60))
}

fn is_stale(account: &Account, reason: StaleReason) -> bool {
    matches!(account.peek().freshness(), Freshness::Stale { reason: why, .. } if why == reason)
}

/// An account with stale readings whose refresh failed with this error.
async fn refused_by(env: &Env, error: FetchError) -> Account {
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    env.clock.sleep(MINUTE * 6).await;
    env.provider.then_fail(error);
    drop(main.get().await);
    main
}

/// The number of credential reads of `count` reads, each with the next one.
async fn reads_of(env: &Env, account: &Account, count: usize) -> usize {
    let before = env.provider.credential_reads();
    for _ in 0..count {
        drop(account.get().await);
    }
    run_ready_tasks().await;
    env.provider.credential_reads() - before
}

#[tokio::test(start_paused = true)]
async fn reads_of_a_held_account_read_no_credential() {
    let env = env_with(plain());
    let main = refused_by(&env, throttled()).await;

    assert_eq!(reads_of(&env, &main, 10_000).await, 0);
    assert!(is_stale(&main, StaleReason::OnHold));
}

#[tokio::test(start_paused = true)]
async fn the_credential_is_checked_once_an_interval() {
    let env = env_with(plain());
    let main = refused_by(&env, throttled()).await;
    let mut reads = Vec::new();
    for _ in 0..3 {
        env.clock.sleep(SECOND).await;
        reads.push(reads_of(&env, &main, 10_000).await);
    }

    assert_eq!(reads, [1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_read_of_a_held_account_does_not_wait_for_the_check() {
    let env = env_with(plain());
    let main = refused_by(&env, throttled()).await;
    env.clock.sleep(SECOND).await;
    env.provider.then_hang_credential();
    let before = env.clock.now();

    let usage = main.get().await.unwrap();

    assert_eq!((last_read(&usage), env.clock.now()), (Some(40.0), before));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_hold_ends_the_refusal() {
    let env = env_with(plain());
    let main = refused_by(&env, throttled()).await;
    let next = main.peek().next_attempt_at().unwrap();
    assert_eq!(Some(next), main.peek().hold().map(|hold| hold.until));
    env.clock.sleep_until(next, MINUTE * 120).await;

    let usage = main.get().await.unwrap();

    assert_eq!((usage.is_stale(), usage.next_attempt_at()), (false, None));
}

#[tokio::test(start_paused = true)]
async fn a_hold_cleared_by_another_process_ends_the_refusal() {
    let env = env_with(plain());
    let main = refused_by(&env, throttled()).await;
    let other_process = another_process(&env.store, &env.clock, &env.provider, plain());
    other_process.account(&id("main")).clear_hold().await.unwrap();
    run_ready_tasks().await;

    let usage = main.get().await.unwrap();

    assert!(!usage.is_stale());
}

#[tokio::test(start_paused = true)]
async fn a_longer_hold_of_another_process_is_the_reason_given() {
    let env = env_with(plain());
    let main = refused_by(&env, FetchError::throttled(Some(MINUTE * 2))).await;
    env.clock.sleep(SECOND).await;
    drop(main.get().await);
    run_ready_tasks().await;
    let until = env.clock.now() + MINUTE * 30;
    let hold =
        quota_core::record::Hold::new(env.clock.now(), until, quota_core::record::HoldReason::RateLimited);
    let other_process = another_process(&env.store, &env.clock, &env.provider, plain());
    let seed = quota_core::record::Seed::new(quota_core::Snapshot::default()).hold(hold);
    other_process.account(&id("main")).seed(&seed).unwrap();
    env.clock.sleep(SECOND * 5).await;

    let usage = main.get().await.unwrap();

    assert!(
        matches!(usage.error(), Some(QuotaError::OnHold { hold, .. }) if hold.until == until),
        "{:?}",
        usage.error()
    );
}

#[tokio::test(start_paused = true)]
async fn a_rejected_credential_is_refused_without_a_read_of_it() {
    let env = env_with(plain());
    let main = refused_by(&env, FetchError::Unauthorized).await;

    assert_eq!(reads_of(&env, &main, 10_000).await, 0);
    assert!(is_stale(&main, StaleReason::Failing));
}

#[tokio::test(start_paused = true)]
async fn a_new_source_ends_the_refusal_at_once() {
    let env = env_with(plain());
    let main = refused_by(&env, FetchError::Unauthorized).await;
    let other = FakeProvider::answering("example", 1.0);
    other.set_login(&id("main"), Ok(fingerprint(2)));
    main.set_credentials(other);

    let usage = main.get().await.unwrap();

    assert!(!usage.is_stale());
}

#[tokio::test(start_paused = true)]
async fn a_new_credential_read_for_a_request_ends_the_refusal_at_once() {
    let env = env_with(plain());
    let main = refused_by(&env, FetchError::Unauthorized).await;
    env.provider.set_login(&id("main"), Ok(fingerprint(2)));
    drop(main.credential(SECOND).await.unwrap());

    let usage = main.get().await.unwrap();

    assert!(!usage.is_stale());
}

#[tokio::test(start_paused = true)]
async fn a_set_login_ends_the_refusal_at_once() {
    let env = env_with(plain());
    let main = env.quota.account(&id("main"));
    main.set_login(LoginId::new("a"));
    env.provider.then_fail(throttled());
    drop(main.get().await);
    main.set_login(LoginId::new("b"));

    let usage = main.get().await.unwrap();

    assert!(!usage.is_stale());
}

#[tokio::test(start_paused = true)]
async fn an_explicit_refresh_calls_despite_a_refused_read() {
    let env = env_with(plain());
    let main = refused_by(&env, FetchError::Unauthorized).await;

    let refreshed = main.refresh().await.unwrap();

    assert!(refreshed.fetched);
}

#[tokio::test(start_paused = true)]
async fn without_readings_the_error_names_the_hold_and_reads_nothing() {
    let env = env_with(plain());
    let main = env.quota.account(&id("main"));
    env.provider.then_fail(throttled());
    drop(main.get().await);

    let error = main.get().await.unwrap_err();

    assert!(matches!(error, QuotaError::OnHold { .. }), "{error}");
    assert_eq!(reads_of(&env, &main, 10_000).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_missing_login_is_checked_once_an_interval() {
    let env = env_with(plain());
    let main = env.quota.account(&id("main"));
    env.provider.set_login(&id("main"), Err(CredentialError::not_logged_in("no file")));
    let first = reads_of(&env, &main, 1_000).await;
    env.clock.sleep(SECOND).await;

    let second = reads_of(&env, &main, 1_000).await;

    assert_eq!((first, second), (1, 1));
    let error = main.get().await.unwrap_err();
    assert!(matches!(error, QuotaError::Fetch { error: FetchError::NotLoggedIn { .. }, .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_budget_refuses_reads_with_its_reason() {
    let env = env_with(plain().budget(Budget::new(1, 0)));
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    env.clock.sleep(MINUTE * 6).await;
    drop(main.get().await);

    let reads = reads_of(&env, &main, 10_000).await;

    let usage = main.peek();
    assert_eq!((reads, env.provider.calls()), (0, 1));
    assert!(matches!(usage.error(), Some(QuotaError::OnHold { .. })), "{:?}", usage.error());
    assert_eq!(usage.next_attempt_at(), Some(noon() + MINUTE * 60));
}

#[tokio::test(start_paused = true)]
async fn the_reserve_refuses_background_callers_only() {
    let env = env_with(plain().budget(Budget::new(2, 1)));
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    env.clock.sleep(MINUTE * 6).await;
    main.refresh_in_background();
    run_ready_tasks().await;
    let before = env.provider.credential_reads();
    main.refresh_in_background();
    run_ready_tasks().await;
    assert_eq!((env.provider.credential_reads() - before, env.provider.calls()), (0, 1));

    let usage = main.get().await.unwrap();

    assert!(!usage.is_stale());
}

#[tokio::test(start_paused = true)]
async fn a_cooldown_of_the_provider_refuses_reads_of_other_accounts() {
    let env = env();
    let (main, other) = (env.quota.account(&id("main")), env.quota.account(&id("other")));
    drop(other.get().await);
    drop(main.get().await);
    env.clock.sleep(MINUTE * 6).await;
    env.provider.then_fail(FetchError::throttled(None));
    drop(main.get().await);
    drop(other.get().await);

    let reads = reads_of(&env, &other, 10_000).await;

    assert_eq!(reads, 0);
    assert!(is_stale(&other, StaleReason::OnHold));
    env.clock.sleep(MINUTE * 2).await;
    assert!(!other.get().await.unwrap().is_stale());
}

#[tokio::test(start_paused = true)]
async fn a_cooldown_in_a_notice_refuses_reads() {
    let env = env();
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    let other_process = QuotaManager::builder(std::sync::Arc::clone(&env.store))
        .provider(env.provider.clone(), env.provider.clone())
        .clock(env.clock.clone())
        .build()
        .unwrap();
    env.clock.sleep(MINUTE * 5 - SECOND * 5).await;
    drop(main.get().await);
    env.provider.then_fail(FetchError::throttled(None));
    drop(other_process.account(&id("other")).get().await);
    env.clock.sleep(SECOND * 10).await;

    drop(main.get().await);
    let second = main.get().now_or_never();

    assert!(second.is_some_and(|usage| usage.is_ok()), "the second read waits");
    assert!(is_stale(&main, StaleReason::OnHold));
}

#[tokio::test(start_paused = true)]
async fn a_manager_without_a_fetcher_returns_the_stale_readings() {
    let env = env_with(plain());
    let main = refused_by(&env, throttled()).await;
    let reader =
        QuotaManager::builder(std::sync::Arc::clone(&env.store)).clock(env.clock.clone()).build().unwrap();
    let read_only = reader.account(main.id());
    drop(read_only.get().await);

    let usage = read_only.get().await.unwrap();

    assert_eq!(last_read(&usage), Some(40.0));
    assert!(usage.next_attempt_at().is_some());
}

#[tokio::test(start_paused = true)]
async fn without_the_store_a_fail_closed_read_reads_no_credential() {
    let policy = plain().on_store_unavailable(StoreOutagePolicy::FailClosed);
    let (env, store) = env_with_toggle_store(false, policy);
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    env.clock.sleep(MINUTE * 6).await;
    store.hooks.set(true);
    drop(main.get().await);

    assert_eq!(reads_of(&env, &main, 10_000).await, 0);

    store.hooks.set(false);
    env.clock.sleep(Duration::from_secs(5)).await;
    assert!(!main.get().await.unwrap().is_stale());
}
