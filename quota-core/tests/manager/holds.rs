//! A 429 starts a cooldown for all accounts, and no other failure does.

use std::sync::Arc;

use crate::support::*;
use quota_core::manager::StaleReason;
use quota_core::model::{CredentialFingerprint, LoginInfo};
use quota_core::policy::{Backoff, Budget, CooldownPolicy, CooldownScope};
use quota_core::record::{HoldReason, LastFailureKind};
use quota_core::{CredentialError, FetchError, Freshness, Policy, QuotaError};
use tokio::task::JoinSet;

/// No jitter, and no other account is affected.
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
async fn fifty_readers_of_a_held_account_make_no_call_and_get_what_is_known() {
    let world = world_with(plain());
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    world.clock.sleep(MINUTE * 6).await;
    world.provider.then_fail(throttled());
    drop(main.get().await);
    world.clock.sleep(SECOND).await;
    let mut readers = JoinSet::new();
    for _ in 0..50 {
        let main = main.clone();
        readers.spawn(async move {
            let answer = main.get().await.unwrap();
            (last_read(&answer), answer.age().unwrap().as_secs(), answer.freshness())
        });
    }

    let answers = readers.join_all().await;

    assert_eq!(world.provider.calls(), 2);
    for (used, age, state) in answers {
        assert_eq!((used, age), (Some(40.0), 361));
        assert!(matches!(state, Freshness::Stale { reason: StaleReason::OnHold, .. }), "{state:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_held_account_without_readings_is_an_error_that_says_until_when() {
    let world = world_with(plain());
    let main = world.quota.account(&id("main"));
    world.provider.then_fail(throttled());
    drop(main.get().await);

    let error = main.get().await.unwrap_err();

    let QuotaError::OnHold { hold, .. } = error else { panic!("{error}") };
    assert_eq!(hold.until.duration_since(world.clock.now()).as_secs(), 60);
    assert_eq!(world.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn delays_double_and_one_success_begins_anew() {
    let world = world_with(plain().budget(Budget::new(1000, 0)));
    let main = world.quota.account(&id("main"));
    let mut delays = Vec::new();
    for _ in 0..6 {
        world.provider.then_fail(throttled());
        drop(main.refresh().await);
        let hold = main.peek().hold().unwrap();
        delays.push(hold.until.duration_since(hold.since).as_secs());
        world.clock.sleep_until(hold.until, MINUTE * 60).await;
    }
    drop(main.refresh().await);
    world.clock.sleep(SECOND).await;
    world.provider.then_fail(throttled());
    drop(main.refresh().await);

    let hold = main.peek().hold().unwrap();

    assert_eq!(delays, [60, 120, 240, 480, 900, 900]);
    assert_eq!(hold.until.duration_since(hold.since).as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn retry_after_beyond_the_cap_is_kept_and_told() {
    let world = world_with(plain());
    let main = world.quota.account(&id("main"));
    world.provider.then_fail(FetchError::throttled(Some(SECOND * 2974)));
    drop(main.refresh().await);
    world.clock.sleep(SECOND * 2973).await;
    drop(main.refresh().await);

    let hold = main.peek().hold().unwrap();

    assert_eq!(hold.retry_after, Some(SECOND * 2974));
    assert_eq!(world.provider.calls(), 1);
    world.clock.sleep(SECOND * 2).await;
    drop(main.refresh().await);
    assert_eq!(world.provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn retry_after_zero_is_no_permission() {
    let world = world_with(plain());
    let main = world.quota.account(&id("main"));
    for _ in 0..10 {
        world.provider.then_fail(FetchError::throttled(Some(std::time::Duration::ZERO)));
    }

    for _ in 0..60 {
        drop(main.refresh().await);
        world.clock.sleep(SECOND).await;
    }

    assert_eq!(world.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_account_does_not_hold_its_neighbour_where_the_scope_is_the_account() {
    let world = world_with(plain());
    let (one, other) = (world.quota.account(&id("one")), world.quota.account(&id("other")));
    world.provider.then_fail(throttled());
    drop(one.get().await);

    drop(other.get().await.unwrap());

    assert_eq!(other.peek().hold(), None);
    assert_eq!(world.provider.calls_about(&id("other")), 1);
}

#[tokio::test(start_paused = true)]
async fn a_429_keeps_the_whole_provider_quiet_for_a_minute() {
    let world = world();
    let (one, other) = (world.quota.account(&id("one")), world.quota.account(&id("other")));
    world.provider.then_fail(throttled());
    drop(one.get().await);

    let error = other.get().await.unwrap_err();
    world.clock.sleep(MINUTE).await;
    let after = other.get().await;

    let QuotaError::OnHold { hold, .. } = error else { panic!("{error}") };
    assert_eq!(hold.reason, HoldReason::ProviderRateLimited);
    assert!(after.is_ok());
    assert_eq!(world.provider.calls_about(&id("other")), 1);
}

#[tokio::test(start_paused = true)]
async fn a_429_keeps_other_processes_quiet_too() {
    let world = world();
    let elsewhere = another_process(&world.store, &world.clock, &world.provider, Policy::default());
    let (one, other) = (world.quota.account(&id("one")), elsewhere.account(&id("other")));
    drop(other.sync().await);
    settle().await;
    world.provider.then_fail(throttled());
    drop(one.get().await);
    settle().await;

    let error = other.get().await.unwrap_err();

    assert!(matches!(error, QuotaError::OnHold { .. }), "{error}");
    assert_eq!(world.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_loaded_is_known_to_be_held_by_a_neighbour_of_another_process() {
    let world = world();
    let elsewhere = another_process(&world.store, &world.clock, &world.provider, Policy::default());
    world.provider.then_fail(throttled());
    drop(world.quota.account(&id("one")).get().await);
    settle().await;

    let answer = elsewhere.account(&id("other")).sync().await;

    assert_eq!(answer.hold().map(|hold| hold.reason), Some(HoldReason::ProviderRateLimited));
}

#[tokio::test(start_paused = true)]
async fn a_refused_login_arms_no_hold_and_is_not_tried_again_at_once() {
    let world = world_with(plain());
    let main = world.quota.account(&id("main"));
    for _ in 0..5 {
        world.provider.then_fail(FetchError::Unauthorized);
    }
    drop(main.get().await);

    for _ in 0..5 {
        drop(main.get().await);
        world.clock.sleep(SECOND * 5).await;
    }

    let answer = main.peek();
    assert_eq!(answer.hold(), None);
    assert_eq!(answer.last_failure().unwrap().kind, LastFailureKind::Unauthorized);
    assert_eq!(world.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_login_is_renewed_once_and_tried_once_more() {
    let world = world_with(plain());
    let main = world.quota.account(&id("main"));
    world.provider.then_fail(FetchError::Unauthorized);
    world.provider.then_renew();

    let answer = main.get().await.unwrap();

    assert_eq!(five_hours(&answer), Some(40.0));
    assert_eq!(world.provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_login_that_is_refused_again_after_renewal_is_given_up() {
    let world = world_with(plain());
    let main = world.quota.account(&id("main"));
    for _ in 0..5 {
        world.provider.then_fail(FetchError::Unauthorized);
        world.provider.then_renew();
    }

    let error = main.get().await.unwrap_err();

    assert!(matches!(error, QuotaError::Fetch { error: FetchError::Unauthorized, .. }), "{error}");
    assert_eq!(world.provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_new_credential_is_tried_at_once() {
    let world = world_with(plain());
    let main = world.quota.account(&id("main"));
    world
        .provider
        .set_login(&id("main"), Ok(LoginInfo::unknown().fingerprint(CredentialFingerprint::from_hash(1))));
    world.provider.then_fail(FetchError::Unauthorized);
    drop(main.get().await);
    world
        .provider
        .set_login(&id("main"), Ok(LoginInfo::unknown().fingerprint(CredentialFingerprint::from_hash(2))));

    let answer = main.get().await;

    assert!(answer.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_forbids_arms_no_hold_and_the_next_account_is_asked_at_once() {
    let world = world_with(hurried());
    let (one, other) = (world.quota.account(&id("one")), world.quota.account(&id("other")));
    world.provider.then_fail(FetchError::forbidden("the organization does not allow it"));
    drop(one.get().await);

    let answer = other.get().await;

    assert!(answer.is_ok());
    assert_eq!(one.peek().hold(), None);
    assert_eq!(one.peek().last_failure().unwrap().kind, LastFailureKind::Forbidden);
}

#[tokio::test(start_paused = true)]
async fn another_processs_lease_is_no_failure_of_the_provider() {
    let world = world_with(plain());
    let provider = world.provider.clone().taking(SECOND * 5);
    let elsewhere = another_process(&world.store, &world.clock, &provider, plain());
    let (here, there) = (world.quota.account(&id("main")), elsewhere.account(&id("main")));
    let holder = tokio::spawn(async move { drop(there.get().await) });
    settle().await;

    let answer = here.get().await.unwrap();
    holder.await.unwrap();

    assert_eq!(five_hours(&answer), Some(40.0));
    assert_eq!(provider.calls(), 1);
    assert!(here.peek().last_failure().is_none() && here.peek().hold().is_none());
}

#[tokio::test(start_paused = true)]
async fn headers_leave_a_hold_alone() {
    let world = world_with(plain());
    let main = world.quota.account(&id("main"));
    world.provider.then_fail(throttled());
    drop(main.get().await);
    let before = main.peek().hold();

    main.observe(&headers(77.0)).unwrap();

    assert_eq!(main.peek().hold(), before);
    assert_eq!(last_read(&main.peek()), Some(77.0));
}

#[tokio::test(start_paused = true)]
async fn a_forced_refresh_that_fails_says_so_beside_what_is_known() {
    let world = world_with(plain());
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    world.clock.sleep(SECOND * 10).await;
    world.provider.then_fail(FetchError::malformed("expected JSON, got text/html"));

    let refreshed = main.refresh().await.unwrap();

    assert!(!refreshed.fetched);
    assert!(matches!(refreshed.error, Some(QuotaError::Fetch { .. })));
    assert_eq!((last_read(&refreshed.usage), refreshed.usage.age().unwrap()), (Some(40.0), SECOND * 10));
}

#[tokio::test(start_paused = true)]
async fn a_success_clears_the_last_failure_for_all_processes() {
    let world = world_with(plain());
    let main = world.quota.account(&id("main"));
    world.provider.then_fail(FetchError::unavailable("503"));
    drop(main.get().await);
    world.clock.sleep(MINUTE).await;

    drop(main.refresh().await);

    let elsewhere = another_process(&world.store, &world.clock, &world.provider, plain());
    assert!(elsewhere.account(&id("main")).sync().await.last_failure().is_none());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_says_nothing_replaces_nothing() {
    let world = world_with(plain());
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    world.clock.sleep(MINUTE * 6).await;
    world.provider.then_answer(quota_core::UsageReport::polled([]));

    let refreshed = main.refresh().await.unwrap();

    let Some(QuotaError::Fetch { error, .. }) = refreshed.error else { panic!("an error is due") };
    assert!(matches!(error, FetchError::Malformed { .. }), "{error}");
    assert_eq!(last_read(&refreshed.usage), Some(40.0));
}

#[tokio::test(start_paused = true)]
async fn a_fleet_comes_back_from_a_hold_with_one_call() {
    let world = world_with(plain());
    let fleet: Vec<_> =
        (0..50).map(|_| another_process(&world.store, &world.clock, &world.provider, plain())).collect();
    let accounts: Vec<_> = fleet.iter().map(|quota| quota.account(&id("main"))).collect();
    world.provider.then_fail(throttled());
    drop(accounts[0].get().await);
    world.clock.sleep(SECOND * 61).await;
    let provider = world.provider.clone().taking(SECOND);

    let mut readers = JoinSet::new();
    for account in accounts {
        readers.spawn(async move { five_hours(&account.get().await.unwrap()) });
    }
    let answers = readers.join_all().await;

    assert!(answers.iter().all(|answer| *answer == Some(40.0)));
    assert_eq!(provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_background_leaves_the_reserve_to_those_who_wait() {
    let policy = plain().budget(Budget::new(4, 2)).min_call_interval(SECOND);
    let world = world_with(policy.max_age(SECOND * 2));
    let main = world.quota.account(&id("main"));
    for _ in 0..10 {
        main.refresh_in_background();
        world.clock.sleep(SECOND * 3).await;
    }
    let by_background = world.provider.calls();
    for _ in 0..10 {
        drop(main.refresh().await);
        world.clock.sleep(SECOND * 3).await;
    }

    assert_eq!(by_background, 2);
    assert_eq!(world.provider.calls(), 4);
    assert_eq!(main.peek().hold(), None, "the budget is no hold of the provider's");
}

#[tokio::test(start_paused = true)]
async fn a_budget_is_shared_by_all_processes_and_refills_after_an_hour() {
    let policy = plain().budget(Budget::new(3, 0)).max_age(SECOND * 2);
    let world = world_with(policy.clone());
    let elsewhere = another_process(&world.store, &world.clock, &world.provider, policy);
    let (here, there) = (world.quota.account(&id("main")), elsewhere.account(&id("main")));
    for _ in 0..5 {
        drop(here.refresh().await);
        world.clock.sleep(SECOND * 2).await;
        drop(there.refresh().await);
        world.clock.sleep(SECOND * 2).await;
    }
    assert_eq!(world.provider.calls(), 3);

    world.clock.sleep(MINUTE * 60).await;
    drop(here.refresh().await);

    assert_eq!(world.provider.calls(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_login_that_cannot_be_told_withholds_the_numbers_and_keeps_the_hold() {
    let world = world_with(plain());
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    world.clock.sleep(MINUTE * 6).await;
    world.provider.then_fail(throttled());
    drop(main.get().await);
    world.provider.set_login(&id("main"), Err(CredentialError::not_logged_in("not logged in")));

    let error = main.get().await.unwrap_err();

    assert!(matches!(error, QuotaError::Fetch { error: FetchError::NotLoggedIn { .. }, .. }), "{error}");
    assert!(main.peek().snapshot().is_empty());
    assert!(main.peek().hold().is_some());
    assert_eq!(world.provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_call_is_counted_for_the_process_that_made_it() {
    let world = world();
    let named = quota_core::QuotaManager::builder(Arc::clone(&world.store))
        .provider(world.provider.clone(), world.provider.clone())
        .clock(world.clock.clone())
        .name("router@a")
        .build()
        .unwrap();

    drop(named.account(&id("main")).get().await);

    let document =
        world.store.read(&quota_core::store::StoreKey::account(&id("main"))).await.unwrap().document.unwrap();
    let record = quota_core::record::Record::decode(&document.body).unwrap();
    assert_eq!(&*record.calls()[0].by, "router@a");
}
