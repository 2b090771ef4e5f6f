//! Readings belong to a login, and a new login never shows those of the previous one.

use crate::support::*;
use quota_core::manager::ObserveError;
use quota_core::model::{CredentialFingerprint, LoginId, LoginInfo, OwnerId};
use quota_core::record::{Hold, HoldReason, Seed};
use quota_core::{CredentialError, FetchError, Snapshot};

fn login(name: &str) -> LoginInfo {
    LoginInfo::new(LoginId::new(name))
}

#[tokio::test(start_paused = true)]
async fn a_rotated_token_of_the_same_login_keeps_the_readings() {
    let env = env();
    env.provider.set_login(&id("main"), Ok(login("a").fingerprint(CredentialFingerprint::from_hash(1))));
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    env.provider.set_login(&id("main"), Ok(login("a").fingerprint(CredentialFingerprint::from_hash(2))));

    let usage = main.get().await.unwrap();

    assert_eq!((env.provider.calls(), five_hours(&usage)), (1, Some(40.0)));
}

#[tokio::test(start_paused = true)]
async fn a_rotated_token_of_the_same_login_keeps_the_hold() {
    let env = env();
    env.provider.set_login(&id("main"), Ok(login("a").fingerprint(CredentialFingerprint::from_hash(1))));
    let main = env.quota.account(&id("main"));
    env.provider.then_fail(FetchError::throttled(None));
    drop(main.get().await);
    env.provider.set_login(&id("main"), Ok(login("a").fingerprint(CredentialFingerprint::from_hash(2))));

    drop(main.get().await);

    assert_eq!(env.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_rotated_token_emits_no_login_changed_event() {
    let env = env();
    env.provider.set_login(&id("main"), Ok(login("a").fingerprint(CredentialFingerprint::from_hash(1))));
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    let mut events = env.quota.events();

    for rotation in 2..5 {
        env.provider
            .set_login(&id("main"), Ok(login("a").fingerprint(CredentialFingerprint::from_hash(rotation))));
        env.clock.sleep(MINUTE * 6).await;
        drop(main.get().await);
        let event = events.next().await;
        assert!(matches!(event, Some(quota_core::Event::Refreshed { .. })), "{event:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hold_of_the_old_login_does_not_apply_to_a_new_one() {
    let env = env_with(quota_core::Policy::default().cooldown(quota_core::policy::CooldownPolicy::new(
        MINUTE,
        quota_core::policy::CooldownScope::Account,
    )));
    env.provider.set_login(&id("main"), Ok(login("a")));
    let main = env.quota.account(&id("main"));
    env.provider.then_fail(FetchError::throttled(Some(MINUTE * 60)));
    drop(main.get().await);
    env.provider.set_login(&id("main"), Ok(login("b")));

    check_credential(&env, &main).await;

    let usage = main.get().await.unwrap();
    assert_eq!((five_hours(&usage), usage.hold()), (Some(40.0), None));
}

#[tokio::test(start_paused = true)]
async fn a_new_login_never_shows_the_old_readings() {
    let env = env();
    let main = env.quota.account(&id("main"));
    main.set_login(LoginId::new("a"));
    drop(main.get().await);

    main.set_login(LoginId::new("b"));

    assert!(main.peek().snapshot().is_empty());
    assert!(main.is_stale());
}

#[tokio::test(start_paused = true)]
async fn a_new_login_hides_the_old_readings_even_during_a_hold() {
    let env = env();
    env.provider.set_login(&id("main"), Ok(login("a")));
    let (main, other) = (env.quota.account(&id("main")), env.quota.account(&id("other")));
    drop(main.get().await);
    env.clock.sleep(SECOND * 2).await;
    env.provider.then_fail(FetchError::throttled(None));
    drop(other.get().await);
    let mut events = env.quota.events();
    env.provider.set_login(&id("main"), Ok(login("b")));

    let refreshed = main.refresh().await;

    assert!(matches!(refreshed, Err(quota_core::QuotaError::OnHold { .. })), "{refreshed:?}");
    assert!(main.peek().snapshot().is_empty());
    assert!(matches!(events.next().await, Some(quota_core::Event::LoginChanged { .. })));
}

#[tokio::test(start_paused = true)]
async fn headers_of_the_old_login_are_rejected() {
    let env = env();
    let main = env.quota.account(&id("main"));
    main.set_login(LoginId::new("b"));
    drop(main.get().await);

    let result = main.observe(&headers(99.0).login_id(LoginId::new("a")));

    assert!(matches!(result, Err(ObserveError::AnotherLogin { account, .. }) if account == id("main")));
    assert_eq!(last_read(&main.peek()), Some(40.0));
}

#[tokio::test(start_paused = true)]
async fn a_seed_of_another_login_is_rejected() {
    let env = env();
    let main = env.quota.account(&id("main"));
    main.set_login(LoginId::new("b"));
    let seed = Seed::new(Snapshot::of(&polled(90.0), noon())).login_id(LoginId::new("a"));

    let result = main.seed(&seed);

    assert!(matches!(result, Err(ObserveError::AnotherLogin { account, .. }) if account == id("main")));
    assert!(main.peek().snapshot().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_seed_without_a_login_is_adopted_with_its_hold() {
    let env = env();
    let main = env.quota.account(&id("main"));
    let hold = Hold::new(noon(), noon() + MINUTE * 10, HoldReason::RateLimited);
    main.seed(&Seed::new(Snapshot::of(&polled(90.0), noon() - MINUTE * 8)).hold(hold)).unwrap();
    env.provider.set_login(&id("main"), Ok(login("a")));

    let usage = main.get().await.unwrap();

    assert_eq!((last_read(&usage), env.provider.calls()), (Some(90.0), 0));
    assert!(usage.hold().is_some());
}

#[tokio::test(start_paused = true)]
async fn an_expired_hold_in_a_seed_is_ignored() {
    let env = env();
    let main = env.quota.account(&id("main"));
    let hold = Hold::new(noon() - MINUTE * 2, noon() - MINUTE, HoldReason::RateLimited);
    main.seed(&Seed::new(Snapshot::default()).hold(hold)).unwrap();

    drop(main.get().await.unwrap());

    assert_eq!(env.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fresh_seed_saves_the_call_after_a_restart() {
    let env = env();
    let main = env.quota.account(&id("main"));
    main.seed(&Seed::new(Snapshot::of(&polled(55.0), noon() - MINUTE))).unwrap();

    let usage = main.get().await.unwrap();

    assert_eq!((env.provider.calls(), five_hours(&usage)), (0, Some(55.0)));
    assert_eq!(usage.age().unwrap(), MINUTE);
}

#[tokio::test(start_paused = true)]
async fn a_changed_owner_under_the_same_token_clears_the_readings() {
    let env = env();
    let main = env.quota.account(&id("main"));
    env.provider.then_answer(polled(80.0).owner_id(OwnerId::new("org-1")));
    drop(main.get().await);
    env.clock.sleep(MINUTE * 6).await;
    main.observe(&headers(81.0)).unwrap();
    let mut events = env.quota.events();
    env.provider.then_answer(polled(5.0).owner_id(OwnerId::new("org-2")));

    let usage = main.refresh().await.unwrap().usage;

    assert_eq!(last_read(&usage), Some(5.0), "the old owner's readings are cleared, even fresh ones");
    assert!(matches!(events.next().await, Some(quota_core::Event::LoginChanged { .. })));
}

#[tokio::test(start_paused = true)]
async fn an_observation_of_an_unknown_account_is_rejected() {
    let env = env();
    drop(env.quota.account(&id("main")));

    let result = env.quota.observe(&id("unknown"), &headers(50.0));

    assert!(matches!(result, Err(ObserveError::UnknownAccount { account, .. }) if account == id("unknown")));
    assert!(env.quota.account(&id("main")).peek().snapshot().is_empty());
}

#[tokio::test(start_paused = true)]
async fn readings_of_a_call_during_a_token_rotation_keep_their_login() {
    let env = env();
    let provider = env.provider.clone().with_delay(SECOND);
    provider.set_login(&id("main"), Ok(login("a").fingerprint(CredentialFingerprint::from_hash(1))));
    provider.then_answer(polled(33.0).login_id(LoginId::new("a")));
    let main = env.quota.account(&id("main"));
    let call = tokio::spawn({
        let main = main.clone();
        async move { drop(main.get().await) }
    });
    run_ready_tasks().await;
    provider.set_login(&id("main"), Ok(login("a").fingerprint(CredentialFingerprint::from_hash(2))));
    call.await.unwrap();

    let usage = main.get().await.unwrap();

    assert_eq!((last_read(&usage), usage.login_id()), (Some(33.0), Some(&LoginId::new("a"))));
    assert_eq!(provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn pending_headers_of_the_old_login_are_not_shown_for_the_new_one() {
    let env = env();
    let main = env.quota.account(&id("main"));
    main.set_login(LoginId::new("a"));
    drop(main.get().await);
    main.observe(&headers(99.0)).unwrap();

    main.set_login(LoginId::new("b"));
    env.clock.sleep(SECOND * 5).await;

    assert!(main.peek().snapshot().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_queued_refresh_of_the_old_login_neither_calls_nor_clears() {
    let env = env();
    let (busy, main) = (env.quota.account(&id("busy")), env.quota.account(&id("main")));
    let _provider = env.provider.clone().with_delay(SECOND * 3);
    busy.refresh_in_background();
    run_ready_tasks().await;
    main.set_login(LoginId::new("a"));
    main.refresh_in_background();
    run_ready_tasks().await;
    main.set_login(LoginId::new("b"));
    drop(main.get().await.unwrap());
    env.clock.sleep(MINUTE).await;

    let usage = main.peek();

    assert_eq!((last_read(&usage), usage.login_id()), (Some(40.0), Some(&LoginId::new("b"))));
    assert_eq!(env.provider.calls_for(&id("main")), 1);
}

#[tokio::test(start_paused = true)]
async fn a_credential_timeout_hides_the_readings() {
    let env = env();
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    env.clock.sleep(MINUTE * 6).await;
    env.provider.set_login(&id("main"), Err(CredentialError::timed_out("too slow")));

    drop(main.get().await);

    assert!(main.peek().snapshot().is_empty());
}

#[tokio::test(start_paused = true)]
async fn set_login_emits_a_login_changed_event() {
    let env = env();
    let main = env.quota.account(&id("main"));
    main.set_login(LoginId::new("a"));
    drop(main.get().await);
    let mut events = env.quota.events();

    main.set_login(LoginId::new("b"));

    assert!(matches!(events.next().await, Some(quota_core::Event::LoginChanged { .. })));
}

#[tokio::test(start_paused = true)]
async fn readings_without_a_login_belong_to_no_login_that_is_set_later() {
    let env = env();
    drop(env.quota.account(&id("main")).get().await);
    let other_process = another_process(&env.store, &env.clock, &env.provider, quota_core::Policy::default());
    let main = other_process.account(&id("main"));
    let without_login = last_read(&main.sync().await);

    main.set_login(LoginId::new("a"));

    assert_eq!((without_login, last_read(&main.sync().await)), (Some(40.0), None));
}

#[tokio::test(start_paused = true)]
async fn a_queued_refresh_does_not_undo_set_login() {
    let env = env();
    let main = env.quota.account(&id("main"));
    env.provider.set_login(&id("main"), Ok(LoginInfo::new(LoginId::new("a"))));
    // This call starts the gap, so the next refresh is queued.
    drop(env.quota.account(&id("other")).get().await);
    main.refresh_in_background();
    run_ready_tasks().await;

    main.set_login(LoginId::new("b"));
    env.clock.sleep(SECOND * 5).await;

    assert_eq!(env.provider.calls_for(&id("main")), 0);
    assert_ne!(main.peek().login_id(), Some(&LoginId::new("a")));
}
