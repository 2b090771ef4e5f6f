//! Clearing a hold: in all processes, with and without the store.

use std::sync::Arc;

use bytes::Bytes;

use crate::store_outage::env_with_toggle_store;
use crate::support::*;
use quota_core::model::{CredentialFingerprint, LoginInfo};
use quota_core::policy::{CooldownPolicy, CooldownScope, StoreOutagePolicy};
use quota_core::record::{Hold, Seed};
use quota_core::store::StoreKey;
use quota_core::{FetchError, Policy, QuotaError, QuotaStore, Snapshot};

/// A policy in which a 429 affects only its own account.
fn plain() -> Policy {
    Policy::default().cooldown(CooldownPolicy::new(MINUTE, CooldownScope::Account))
}

fn throttled() -> FetchError {
    FetchError::throttled(Some(MINUTE * 60))
}

/// Whether a refresh calls the provider.
async fn calls(env: &Env, account: &quota_core::Account) -> bool {
    let before = env.provider.calls();
    drop(account.refresh().await);
    env.provider.calls() > before
}

#[tokio::test(start_paused = true)]
async fn the_first_refresh_after_a_clear_calls() {
    let env = env_with(plain());
    let main = env.quota.account(&id("main"));
    env.provider.then_fail(throttled());
    drop(main.refresh().await);
    let hold = main.peek().hold();
    assert!(!calls(&env, &main).await);

    let cleared = main.clear_hold().await.unwrap();

    assert!(cleared.is_some() && cleared == hold, "{cleared:?}");
    assert_eq!(main.peek().hold(), None);
    assert!(calls(&env, &main).await);
}

#[tokio::test(start_paused = true)]
async fn a_cleared_hold_ends_in_all_processes_and_is_not_restored() {
    let env = env_with(plain());
    let other_process = another_process(&env.store, &env.clock, &env.provider, plain());
    let (local, remote) = (env.quota.account(&id("main")), other_process.account(&id("main")));
    env.provider.then_fail(throttled());
    drop(remote.refresh().await);
    let hold = remote.peek().hold().unwrap();

    assert!(local.clear_hold().await.unwrap().is_some());
    env.clock.sleep(SECOND).await;

    assert_eq!(remote.peek().hold(), None);
    remote.seed(&Seed::new(Snapshot::default()).hold(hold)).unwrap();
    env.clock.sleep(SECOND * 5).await;
    assert_eq!((remote.peek().hold(), local.sync().await.hold()), (None, None));
}

#[tokio::test(start_paused = true)]
async fn a_standalone_process_does_not_restore_a_cleared_hold() {
    let (env, store) = env_with_toggle_store(false, plain());
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    store.hooks.set(true);
    env.clock.sleep(MINUTE * 6).await;
    env.provider.then_fail(throttled());
    drop(main.get().await);
    assert!(main.peek().hold().is_some() && main.peek().store_unavailable_since().is_some());
    let shared: Arc<dyn QuotaStore> = store.inner.clone();
    let other_process = another_process(&shared, &env.clock, &env.provider, plain());

    assert_eq!(other_process.account(&id("main")).clear_hold().await.unwrap(), None);
    store.hooks.set(false);
    env.clock.sleep(SECOND * 5).await;

    assert_eq!((main.sync().await.hold(), main.peek().store_unavailable_since()), (None, None));
}

#[tokio::test(start_paused = true)]
async fn a_clear_during_an_outage_is_local_at_once_and_shared_later() {
    let (env, store) = env_with_toggle_store(false, plain());
    let main = env.quota.account(&id("main"));
    env.provider.then_fail(throttled());
    drop(main.refresh().await);
    store.hooks.set(true);

    let error = main.clear_hold().await.unwrap_err();

    assert!(matches!(error, QuotaError::Store { .. }), "{error}");
    assert_eq!(main.peek().hold(), None);
    store.hooks.set(false);
    env.clock.sleep(SECOND * 5).await;
    let other_process = another_process(&env.store, &env.clock, &env.provider, plain());
    assert_eq!(other_process.account(&id("main")).sync().await.hold(), None);
}

#[tokio::test(start_paused = true)]
async fn fail_closed_clears_nothing_during_an_outage() {
    let (env, store) =
        env_with_toggle_store(false, plain().on_store_unavailable(StoreOutagePolicy::FailClosed));
    let main = env.quota.account(&id("main"));
    env.provider.then_fail(throttled());
    drop(main.refresh().await);
    store.hooks.set(true);

    assert!(matches!(main.clear_hold().await, Err(QuotaError::Store { .. })));
    assert!(main.peek().hold().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_clear_keeps_the_providers_cooldown() {
    let env = env();
    let main = env.quota.account(&id("main"));
    env.provider.then_fail(throttled());
    drop(main.refresh().await);

    assert!(main.clear_hold().await.unwrap().is_some());

    let reason = |hold: Hold| hold.reason;
    assert_eq!(main.peek().hold().map(reason), Some(quota_core::record::HoldReason::ProviderRateLimited));
    assert!(!calls(&env, &main).await);
}

#[tokio::test(start_paused = true)]
async fn keep_fresh_calls_soon_after_a_clear() {
    let env = env_with(plain());
    let main = env.quota.account(&id("main"));
    let _guard = main.keep_fresh();
    run_ready_tasks().await;
    env.clock.sleep(MINUTE * 6).await;
    env.provider.then_fail(throttled());
    env.clock.sleep(MINUTE * 6).await;
    assert!(main.peek().hold().is_some());
    let before = env.provider.calls();

    assert!(main.clear_hold().await.unwrap().is_some());
    env.clock.sleep(MINUTE).await;

    assert_eq!(env.provider.calls(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn keep_fresh_detects_a_replaced_credential_during_a_hold() {
    let env = env_with(plain());
    let main = env.quota.account(&id("main"));
    env.provider
        .set_login(&id("main"), Ok(LoginInfo::unknown().fingerprint(CredentialFingerprint::from_hash(1))));
    env.provider.then_fail(FetchError::throttled(Some(MINUTE * 60 * 20)));
    let _guard = main.keep_fresh();
    run_ready_tasks().await;
    assert!(main.peek().hold().is_some());
    env.clock.sleep(MINUTE * 20).await;
    assert_eq!(env.provider.calls(), 1);

    env.provider
        .set_login(&id("main"), Ok(LoginInfo::unknown().fingerprint(CredentialFingerprint::from_hash(2))));
    env.clock.sleep(MINUTE * 6).await;

    assert!(env.provider.calls() > 1);
    assert_eq!(main.peek().hold(), None);
}

/// Stores `body` as the record of `main`.
async fn write_record(env: &Env, body: &'static str) {
    let key = StoreKey::account(&id("main"));
    let _ = env
        .store
        .compare_and_swap(&key, None, Bytes::from_static(body.as_bytes()), MINUTE * 600)
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_clear_replaces_a_damaged_record_and_the_next_reading_is_shared() {
    let env = env_with(plain());
    write_record(&env, "{\"format\":1,\"sna").await;
    let main = env.quota.account(&id("main"));
    assert!(main.sync().await.is_record_damaged());

    assert_eq!(main.clear_hold().await.unwrap(), None);

    assert!(!main.peek().is_record_damaged() && main.peek().store_unavailable_since().is_none());
    assert!(calls(&env, &main).await);
    let other_process = another_process(&env.store, &env.clock, &env.provider, plain());
    assert_eq!(five_hours(&other_process.account(&id("main")).sync().await), Some(40.0));
}

#[tokio::test(start_paused = true)]
async fn a_replaced_record_gets_the_readings_of_a_standalone_process() {
    let env = env_with(plain());
    write_record(&env, "not a record").await;
    let other_process = another_process(&env.store, &env.clock, &env.provider, plain());
    let (local, remote) = (env.quota.account(&id("main")), other_process.account(&id("main")));
    assert_eq!(five_hours(&remote.get().await.unwrap()), Some(40.0));

    assert_eq!(local.clear_hold().await.unwrap(), None);
    drop(remote.sync().await);

    assert_eq!(five_hours(&local.sync().await), Some(40.0));
}

#[tokio::test(start_paused = true)]
async fn a_clear_keeps_the_record_of_a_newer_program() {
    let newer = "{\"format\":999,\"snapshot\":{\"windows\":\"otherwise\"}}";
    let env = env_with(plain());
    write_record(&env, newer).await;

    let cleared = env.quota.account(&id("main")).clear_hold().await;

    assert!(matches!(cleared, Err(QuotaError::UnsupportedFormat { .. })), "{cleared:?}");
    let read = env.store.read(&StoreKey::account(&id("main"))).await.unwrap();
    assert_eq!(read.document.unwrap().body, newer);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_record_affects_no_other_account() {
    let env = env_with(plain());
    write_record(&env, "not a record").await;
    drop(env.quota.account(&id("main")).get().await);

    let spare = env.quota.account(&id("spare")).get().await.unwrap();

    assert!(spare.store_unavailable_since().is_none());
}

#[tokio::test(start_paused = true)]
async fn an_outage_hides_that_the_record_was_damaged() {
    let (env, store) = env_with_toggle_store(false, plain());
    write_record(&env, "not a record").await;
    let main = env.quota.account(&id("main"));
    assert!(main.sync().await.is_record_damaged());

    store.hooks.set(true);
    let away = main.sync().await;

    assert!(away.store_unavailable_since().is_some() && !away.is_record_damaged());
}
