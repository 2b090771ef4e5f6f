//! Lifting a hold: in all processes, with and without the store.

use std::sync::Arc;

use bytes::Bytes;

use crate::store_away::unpluggable;
use crate::support::*;
use quota_core::model::{CredentialFingerprint, LoginInfo};
use quota_core::policy::{CooldownPolicy, CooldownScope, StoreOutagePolicy};
use quota_core::record::{Hold, Seed};
use quota_core::store::StoreKey;
use quota_core::{FetchError, Policy, QuotaError, QuotaStore, Snapshot};

/// No other account is affected.
fn plain() -> Policy {
    Policy::default().cooldown(CooldownPolicy::new(MINUTE, CooldownScope::Account))
}

fn throttled() -> FetchError {
    FetchError::throttled(Some(MINUTE * 60))
}

/// Whether a refresh calls the provider.
async fn calls(world: &World, account: &quota_core::Account) -> bool {
    let before = world.provider.calls();
    drop(account.refresh().await);
    world.provider.calls() > before
}

#[tokio::test(start_paused = true)]
async fn a_cleared_hold_is_lifted_and_the_next_refresh_calls() {
    let world = world_with(plain());
    let main = world.quota.account(&id("main"));
    world.provider.then_fail(throttled());
    drop(main.refresh().await);
    let hold = main.peek().hold();
    assert!(!calls(&world, &main).await);

    let lifted = main.clear_hold().await.unwrap();

    assert!(lifted.is_some() && lifted == hold, "{lifted:?}");
    assert_eq!(main.peek().hold(), None);
    assert!(calls(&world, &main).await);
}

#[tokio::test(start_paused = true)]
async fn a_cleared_hold_is_lifted_in_the_other_processes_and_not_restored_by_them() {
    let world = world_with(plain());
    let elsewhere = another_process(&world.store, &world.clock, &world.provider, plain());
    let (here, there) = (world.quota.account(&id("main")), elsewhere.account(&id("main")));
    world.provider.then_fail(throttled());
    drop(there.refresh().await);
    let hold = there.peek().hold().unwrap();

    assert!(here.clear_hold().await.unwrap().is_some());
    world.clock.sleep(SECOND).await;

    assert_eq!(there.peek().hold(), None);
    there.seed(&Seed::new(Snapshot::default()).hold(hold)).unwrap();
    world.clock.sleep(SECOND * 5).await;
    assert_eq!((there.peek().hold(), here.sync().await.hold()), (None, None));
}

#[tokio::test(start_paused = true)]
async fn a_standalone_process_that_comes_back_does_not_restore_a_cleared_hold() {
    let (world, store) = unpluggable(false, plain());
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    store.unplug(true);
    world.clock.sleep(MINUTE * 6).await;
    world.provider.then_fail(throttled());
    drop(main.get().await);
    assert!(main.peek().hold().is_some() && main.peek().store_unavailable_since().is_some());
    let shared: Arc<dyn QuotaStore> = store.plugged_in();
    let elsewhere = another_process(&shared, &world.clock, &world.provider, plain());

    assert_eq!(elsewhere.account(&id("main")).clear_hold().await.unwrap(), None);
    store.unplug(false);
    world.clock.sleep(SECOND * 5).await;

    assert_eq!((main.sync().await.hold(), main.peek().store_unavailable_since()), (None, None));
}

#[tokio::test(start_paused = true)]
async fn without_the_store_a_hold_is_cleared_here_at_once_and_for_all_once_it_is_back() {
    let (world, store) = unpluggable(false, plain());
    let main = world.quota.account(&id("main"));
    world.provider.then_fail(throttled());
    drop(main.refresh().await);
    store.unplug(true);

    let error = main.clear_hold().await.unwrap_err();

    assert!(matches!(error, QuotaError::Store { .. }), "{error}");
    assert_eq!(main.peek().hold(), None);
    store.unplug(false);
    world.clock.sleep(SECOND * 5).await;
    let elsewhere = another_process(&world.store, &world.clock, &world.provider, plain());
    assert_eq!(elsewhere.account(&id("main")).sync().await.hold(), None);
}

#[tokio::test(start_paused = true)]
async fn without_the_store_a_process_that_refuses_to_go_on_clears_nothing() {
    let (world, store) = unpluggable(false, plain().on_store_unavailable(StoreOutagePolicy::FailClosed));
    let main = world.quota.account(&id("main"));
    world.provider.then_fail(throttled());
    drop(main.refresh().await);
    store.unplug(true);

    assert!(matches!(main.clear_hold().await, Err(QuotaError::Store { .. })));
    assert!(main.peek().hold().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_clear_leaves_the_providers_quiet_time() {
    let world = world();
    let main = world.quota.account(&id("main"));
    world.provider.then_fail(throttled());
    drop(main.refresh().await);

    assert!(main.clear_hold().await.unwrap().is_some());

    let reason = |hold: Hold| hold.reason;
    assert_eq!(main.peek().hold().map(reason), Some(quota_core::record::HoldReason::ProviderRateLimited));
    assert!(!calls(&world, &main).await);
}

#[tokio::test(start_paused = true)]
async fn an_account_that_is_kept_fresh_is_called_soon_after_a_clear() {
    let world = world_with(plain());
    let main = world.quota.account(&id("main"));
    let _keep = main.keep_fresh();
    settle().await;
    world.clock.sleep(MINUTE * 6).await;
    world.provider.then_fail(throttled());
    world.clock.sleep(MINUTE * 6).await;
    assert!(main.peek().hold().is_some());
    let before = world.provider.calls();

    assert!(main.clear_hold().await.unwrap().is_some());
    world.clock.sleep(MINUTE).await;

    assert_eq!(world.provider.calls(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn an_account_that_is_kept_fresh_notices_a_replaced_credential_during_a_hold() {
    let world = world_with(plain());
    let main = world.quota.account(&id("main"));
    world
        .provider
        .set_login(&id("main"), Ok(LoginInfo::unknown().fingerprint(CredentialFingerprint::from_hash(1))));
    world.provider.then_fail(FetchError::throttled(Some(MINUTE * 60 * 20)));
    let _keep = main.keep_fresh();
    settle().await;
    assert!(main.peek().hold().is_some());
    world.clock.sleep(MINUTE * 20).await;
    assert_eq!(world.provider.calls(), 1);

    world
        .provider
        .set_login(&id("main"), Ok(LoginInfo::unknown().fingerprint(CredentialFingerprint::from_hash(2))));
    world.clock.sleep(MINUTE * 6).await;

    assert!(world.provider.calls() > 1);
    assert_eq!(main.peek().hold(), None);
}

/// Stores this as the record of `main`.
async fn lay_record(world: &World, body: &'static str) {
    let key = StoreKey::account(&id("main"));
    let _ = world
        .store
        .compare_and_swap(&key, None, Bytes::from_static(body.as_bytes()), MINUTE * 600)
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_clear_replaces_a_damaged_record_and_the_next_reading_is_shared() {
    let world = world_with(plain());
    lay_record(&world, "{\"format\":1,\"sna").await;
    let main = world.quota.account(&id("main"));
    assert!(main.sync().await.is_record_damaged());

    assert_eq!(main.clear_hold().await.unwrap(), None);

    assert!(!main.peek().is_record_damaged() && main.peek().store_unavailable_since().is_none());
    assert!(calls(&world, &main).await);
    let elsewhere = another_process(&world.store, &world.clock, &world.provider, plain());
    assert_eq!(five_hours(&elsewhere.account(&id("main")).sync().await), Some(40.0));
}

#[tokio::test(start_paused = true)]
async fn a_replaced_record_gets_the_readings_of_a_process_that_went_on_alone() {
    let world = world_with(plain());
    lay_record(&world, "not a record").await;
    let elsewhere = another_process(&world.store, &world.clock, &world.provider, plain());
    let (here, there) = (world.quota.account(&id("main")), elsewhere.account(&id("main")));
    assert_eq!(five_hours(&there.get().await.unwrap()), Some(40.0));

    assert_eq!(here.clear_hold().await.unwrap(), None);
    drop(there.sync().await);

    assert_eq!(five_hours(&here.sync().await), Some(40.0));
}

#[tokio::test(start_paused = true)]
async fn a_clear_leaves_the_record_of_a_newer_program() {
    let newer = "{\"format\":999,\"snapshot\":{\"windows\":\"otherwise\"}}";
    let world = world_with(plain());
    lay_record(&world, newer).await;

    let cleared = world.quota.account(&id("main")).clear_hold().await;

    assert!(matches!(cleared, Err(QuotaError::UnsupportedFormat { .. })), "{cleared:?}");
    let found = world.store.read(&StoreKey::account(&id("main"))).await.unwrap();
    assert_eq!(found.document.unwrap().body, newer);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_record_keeps_no_other_account_from_sharing() {
    let world = world_with(plain());
    lay_record(&world, "not a record").await;
    drop(world.quota.account(&id("main")).get().await);

    let spare = world.quota.account(&id("spare")).get().await.unwrap();

    assert!(spare.store_unavailable_since().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_hides_that_the_record_was_damaged() {
    let (world, store) = unpluggable(false, plain());
    lay_record(&world, "not a record").await;
    let main = world.quota.account(&id("main"));
    assert!(main.sync().await.is_record_damaged());

    store.unplug(true);
    let away = main.sync().await;

    assert!(away.store_unavailable_since().is_some() && !away.is_record_damaged());
}
