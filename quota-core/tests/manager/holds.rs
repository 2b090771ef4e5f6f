//! A 429 starts a cooldown for all accounts, and no other failure does.

use std::sync::Arc;

use crate::forced_refresh::slow_store;
use crate::support::*;
use quota_core::manager::StaleReason;
use quota_core::model::{CredentialFingerprint, LoginInfo};
use quota_core::policy::{Backoff, Budget, CooldownPolicy, CooldownScope};
use quota_core::record::{HoldReason, LastFailureKind};
use quota_core::{CredentialError, FetchError, Freshness, Policy, QuotaError};
use tokio::task::JoinSet;

/// A policy without jitter, in which a 429 affects only its own account.
fn plain() -> Policy {
    let backoff = Backoff::doubling(MINUTE, MINUTE * 15).jitter(0.0);
    Policy::default()
        .rate_limit_backoff(backoff)
        .cooldown(CooldownPolicy::new(MINUTE, CooldownScope::Account))
}

fn throttled() -> FetchError {
    FetchError::throttled(None)
}

#[tokio::test(start_paused = true)]
async fn fifty_readers_of_an_account_on_hold_get_the_cached_readings() {
    let env = env_with(plain());
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    env.clock.sleep(MINUTE * 6).await;
    env.provider.then_fail(throttled());
    drop(main.get().await);
    env.clock.sleep(SECOND).await;
    let mut readers = JoinSet::new();
    for _ in 0..50 {
        let main = main.clone();
        readers.spawn(async move {
            let usage = main.get().await.unwrap();
            (last_read(&usage), usage.age().unwrap().as_secs(), usage.freshness())
        });
    }

    let results = readers.join_all().await;

    assert_eq!(env.provider.calls(), 2);
    for (used, age, state) in results {
        assert_eq!((used, age), (Some(40.0), 361));
        assert!(matches!(state, Freshness::Stale { reason: StaleReason::OnHold, .. }), "{state:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_account_on_hold_without_readings_is_an_error_with_its_end() {
    let env = env_with(plain());
    let main = env.quota.account(&id("main"));
    env.provider.then_fail(throttled());
    drop(main.get().await);

    let error = main.get().await.unwrap_err();

    let QuotaError::OnHold { hold, .. } = error else { panic!("{error}") };
    assert_eq!(hold.until.duration_since(env.clock.now()).as_secs(), 60);
    assert_eq!(env.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn delays_double_and_one_success_resets_them() {
    let env = env_with(plain().budget(Budget::new(1000, 0)));
    let main = env.quota.account(&id("main"));
    let mut delays = Vec::new();
    for _ in 0..6 {
        env.provider.then_fail(throttled());
        drop(main.refresh().await);
        let hold = main.peek().hold().unwrap();
        delays.push(hold.until.duration_since(hold.since).as_secs());
        env.clock.sleep_until(hold.until, MINUTE * 60).await;
    }
    drop(main.refresh().await);
    env.clock.sleep(SECOND).await;
    env.provider.then_fail(throttled());
    drop(main.refresh().await);

    let hold = main.peek().hold().unwrap();

    assert_eq!(delays, [60, 120, 240, 480, 900, 900]);
    assert_eq!(hold.until.duration_since(hold.since).as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_beyond_the_backoff_cap_is_obeyed() {
    let env = env_with(plain());
    let main = env.quota.account(&id("main"));
    env.provider.then_fail(FetchError::throttled(Some(SECOND * 2974)));
    drop(main.refresh().await);
    env.clock.sleep(SECOND * 2973).await;
    drop(main.refresh().await);

    let hold = main.peek().hold().unwrap();

    assert_eq!(hold.retry_after, Some(SECOND * 2974));
    assert_eq!(env.provider.calls(), 1);
    env.clock.sleep(SECOND * 2).await;
    drop(main.refresh().await);
    assert_eq!(env.provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_of_zero_still_arms_the_backoff() {
    let env = env_with(plain());
    let main = env.quota.account(&id("main"));
    for _ in 0..10 {
        env.provider.then_fail(FetchError::throttled(Some(std::time::Duration::ZERO)));
    }

    for _ in 0..60 {
        drop(main.refresh().await);
        env.clock.sleep(SECOND).await;
    }

    assert_eq!(env.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn with_account_scope_a_429_does_not_hold_other_accounts() {
    let env = env_with(plain());
    let (one, other) = (env.quota.account(&id("one")), env.quota.account(&id("other")));
    env.provider.then_fail(throttled());
    drop(one.get().await);

    drop(other.get().await.unwrap());

    assert_eq!(other.peek().hold(), None);
    assert_eq!(env.provider.calls_for(&id("other")), 1);
}

#[tokio::test(start_paused = true)]
async fn a_429_starts_a_one_minute_cooldown_of_the_provider() {
    let env = env();
    let (one, other) = (env.quota.account(&id("one")), env.quota.account(&id("other")));
    env.provider.then_fail(throttled());
    drop(one.get().await);

    let error = other.get().await.unwrap_err();
    env.clock.sleep(MINUTE).await;
    let after = other.get().await;

    let QuotaError::OnHold { hold, .. } = error else { panic!("{error}") };
    assert_eq!(hold.reason, HoldReason::ProviderRateLimited);
    assert!(after.is_ok());
    assert_eq!(env.provider.calls_for(&id("other")), 1);
}

#[tokio::test(start_paused = true)]
async fn a_queued_refresh_obeys_the_cooldown_of_the_call_before_it() {
    let env = env();
    drop(env.provider.clone().with_delay(SECOND * 2));
    let store = slow_store(&env, SECOND / 100, SECOND / 100);
    let quota = another_process(&store, &env.clock, &env.provider, Policy::default());
    let (one, other) = (quota.account(&id("one")), quota.account(&id("other")));
    env.provider.then_fail(throttled());

    let results = tokio::join!(one.get(), other.get());

    assert!(matches!(results.1, Err(QuotaError::OnHold { .. })), "{results:?}");
    assert_eq!(env.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_cooldown_after_a_429_applies_to_other_processes() {
    let env = env();
    let other_process = another_process(&env.store, &env.clock, &env.provider, Policy::default());
    let (one, other) = (env.quota.account(&id("one")), other_process.account(&id("other")));
    drop(other.sync().await);
    run_ready_tasks().await;
    env.provider.then_fail(throttled());
    drop(one.get().await);
    run_ready_tasks().await;

    let error = other.get().await.unwrap_err();

    assert!(matches!(error, QuotaError::OnHold { .. }), "{error}");
    assert_eq!(env.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn sync_reads_the_cooldown_of_another_process() {
    let env = env();
    let other_process = another_process(&env.store, &env.clock, &env.provider, Policy::default());
    env.provider.then_fail(throttled());
    drop(env.quota.account(&id("one")).get().await);
    run_ready_tasks().await;

    let usage = other_process.account(&id("other")).sync().await;

    assert_eq!(usage.hold().map(|hold| hold.reason), Some(HoldReason::ProviderRateLimited));
}

#[tokio::test(start_paused = true)]
async fn a_rejected_login_arms_no_hold_and_is_not_retried_at_once() {
    let env = env_with(plain());
    let main = env.quota.account(&id("main"));
    for _ in 0..5 {
        env.provider.then_fail(FetchError::Unauthorized);
    }
    drop(main.get().await);

    for _ in 0..5 {
        drop(main.get().await);
        env.clock.sleep(SECOND * 5).await;
    }

    let usage = main.peek();
    assert_eq!(usage.hold(), None);
    assert_eq!(usage.last_failure().unwrap().kind, LastFailureKind::Unauthorized);
    assert_eq!(env.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_login_is_renewed_and_retried_once() {
    let env = env_with(plain());
    let main = env.quota.account(&id("main"));
    env.provider.then_fail(FetchError::Unauthorized);
    env.provider.then_renew();

    let usage = main.get().await.unwrap();

    assert_eq!(five_hours(&usage), Some(40.0));
    assert_eq!(env.provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_login_rejected_after_renewal_is_not_renewed_again() {
    let env = env_with(plain());
    let main = env.quota.account(&id("main"));
    for _ in 0..5 {
        env.provider.then_fail(FetchError::Unauthorized);
        env.provider.then_renew();
    }

    let error = main.get().await.unwrap_err();

    assert!(matches!(error, QuotaError::Fetch { error: FetchError::Unauthorized, .. }), "{error}");
    assert_eq!(env.provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_new_credential_is_called_after_the_next_check() {
    let env = env_with(plain());
    let main = env.quota.account(&id("main"));
    env.provider
        .set_login(&id("main"), Ok(LoginInfo::unknown().fingerprint(CredentialFingerprint::from_hash(1))));
    env.provider.then_fail(FetchError::Unauthorized);
    drop(main.get().await);
    env.provider
        .set_login(&id("main"), Ok(LoginInfo::unknown().fingerprint(CredentialFingerprint::from_hash(2))));

    check_credential(&env, &main).await;

    assert!(main.get().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_forbidden_error_arms_no_hold_and_delays_no_other_account() {
    let env = env_with(no_rate_limit());
    let (one, other) = (env.quota.account(&id("one")), env.quota.account(&id("other")));
    env.provider.then_fail(FetchError::forbidden("the organization does not allow it"));
    drop(one.get().await);

    let usage = other.get().await;

    assert!(usage.is_ok());
    assert_eq!(one.peek().hold(), None);
    assert_eq!(one.peek().last_failure().unwrap().kind, LastFailureKind::Forbidden);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_the_lease_of_another_process_is_no_failure() {
    let env = env_with(plain());
    let provider = env.provider.clone().with_delay(SECOND * 5);
    let other_process = another_process(&env.store, &env.clock, &provider, plain());
    let (local, remote) = (env.quota.account(&id("main")), other_process.account(&id("main")));
    let holder = tokio::spawn(async move { drop(remote.get().await) });
    run_ready_tasks().await;

    let usage = local.get().await.unwrap();
    holder.await.unwrap();

    assert_eq!(five_hours(&usage), Some(40.0));
    assert_eq!(provider.calls(), 1);
    assert!(local.peek().last_failure().is_none() && local.peek().hold().is_none());
}

#[tokio::test(start_paused = true)]
async fn headers_do_not_change_a_hold() {
    let env = env_with(plain());
    let main = env.quota.account(&id("main"));
    env.provider.then_fail(throttled());
    drop(main.get().await);
    let before = main.peek().hold();

    main.observe(&headers(77.0)).unwrap();

    assert_eq!(main.peek().hold(), before);
    assert_eq!(last_read(&main.peek()), Some(77.0));
}

#[tokio::test(start_paused = true)]
async fn a_failed_forced_refresh_returns_its_error_and_cached_readings() {
    let env = env_with(plain());
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    env.clock.sleep(SECOND * 10).await;
    env.provider.then_fail(FetchError::malformed("expected JSON, got text/html"));

    let refreshed = main.refresh().await.unwrap();

    assert!(!refreshed.fetched);
    assert!(matches!(refreshed.error, Some(QuotaError::Fetch { .. })));
    assert_eq!((last_read(&refreshed.usage), refreshed.usage.age().unwrap()), (Some(40.0), SECOND * 10));
}

#[tokio::test(start_paused = true)]
async fn a_success_clears_the_last_failure_for_all_processes() {
    let env = env_with(plain());
    let main = env.quota.account(&id("main"));
    env.provider.then_fail(FetchError::unavailable("503"));
    drop(main.get().await);
    env.clock.sleep(MINUTE).await;

    drop(main.refresh().await);

    let other_process = another_process(&env.store, &env.clock, &env.provider, plain());
    assert!(other_process.account(&id("main")).sync().await.last_failure().is_none());
}

#[tokio::test(start_paused = true)]
async fn an_empty_report_is_an_error_and_keeps_the_readings() {
    let env = env_with(plain());
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    env.clock.sleep(MINUTE * 6).await;
    env.provider.then_answer(quota_core::UsageReport::polled([]));

    let refreshed = main.refresh().await.unwrap();

    let Some(QuotaError::Fetch { error, .. }) = refreshed.error else { panic!("no fetch error") };
    assert!(matches!(error, FetchError::Malformed { .. }), "{error}");
    assert_eq!(last_read(&refreshed.usage), Some(40.0));
}

#[tokio::test(start_paused = true)]
async fn fifty_processes_make_one_call_after_a_hold() {
    let env = env_with(plain());
    let fleet: Vec<_> =
        (0..50).map(|_| another_process(&env.store, &env.clock, &env.provider, plain())).collect();
    let accounts: Vec<_> = fleet.iter().map(|quota| quota.account(&id("main"))).collect();
    env.provider.then_fail(throttled());
    drop(accounts[0].get().await);
    env.clock.sleep(SECOND * 61).await;
    let provider = env.provider.clone().with_delay(SECOND);

    let mut readers = JoinSet::new();
    for account in accounts {
        readers.spawn(async move { five_hours(&account.get().await.unwrap()) });
    }
    let results = readers.join_all().await;

    assert!(results.iter().all(|usage| *usage == Some(40.0)));
    assert_eq!(provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn background_refreshes_leave_the_reserve_to_interactive_callers() {
    let policy = plain().budget(Budget::new(4, 2)).min_call_interval(SECOND);
    let env = env_with(policy.max_age(SECOND * 2));
    let main = env.quota.account(&id("main"));
    for _ in 0..10 {
        main.refresh_in_background();
        env.clock.sleep(SECOND * 3).await;
    }
    let by_background = env.provider.calls();
    for _ in 0..10 {
        drop(main.refresh().await);
        env.clock.sleep(SECOND * 3).await;
    }

    assert_eq!(by_background, 2);
    assert_eq!(env.provider.calls(), 4);
    assert_eq!(main.peek().hold(), None, "an exhausted budget arms no hold");
}

#[tokio::test(start_paused = true)]
async fn a_budget_is_shared_by_all_processes_and_refills_after_an_hour() {
    let policy = plain().budget(Budget::new(3, 0)).max_age(SECOND * 2);
    let env = env_with(policy.clone());
    let other_process = another_process(&env.store, &env.clock, &env.provider, policy);
    let (local, remote) = (env.quota.account(&id("main")), other_process.account(&id("main")));
    for _ in 0..5 {
        drop(local.refresh().await);
        env.clock.sleep(SECOND * 2).await;
        drop(remote.refresh().await);
        env.clock.sleep(SECOND * 2).await;
    }
    assert_eq!(env.provider.calls(), 3);

    env.clock.sleep(MINUTE * 60).await;
    drop(local.refresh().await);

    assert_eq!(env.provider.calls(), 4);
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_credential_hides_readings_and_keeps_the_hold() {
    let env = env_with(plain());
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    env.clock.sleep(MINUTE * 6).await;
    env.provider.then_fail(throttled());
    drop(main.get().await);
    env.provider.set_login(&id("main"), Err(CredentialError::not_logged_in("not logged in")));

    check_credential(&env, &main).await;

    let error = main.get().await.unwrap_err();
    assert!(matches!(error, QuotaError::Fetch { error: FetchError::NotLoggedIn { .. }, .. }), "{error}");
    assert!(main.peek().snapshot().is_empty());
    assert!(main.peek().hold().is_some());
    assert_eq!(env.provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_recorded_call_has_the_name_of_its_process() {
    let env = env();
    let named = quota_core::QuotaManager::builder(Arc::clone(&env.store))
        .provider(env.provider.clone(), env.provider.clone())
        .clock(env.clock.clone())
        .name("router@a")
        .build()
        .unwrap();

    drop(named.account(&id("main")).get().await);

    let document =
        env.store.read(&quota_core::store::StoreKey::account(&id("main"))).await.unwrap().document.unwrap();
    let record = quota_core::record::Record::decode(&document.body).unwrap();
    assert_eq!(&*record.calls()[0].by, "router@a");
}
