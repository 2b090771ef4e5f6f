//! Numbers belong to a login, and a new login gets none of the old one's.

use crate::support::*;
use quota_core::manager::ObserveError;
use quota_core::model::{CredentialFingerprint, LoginId, LoginInfo, OwnerId};
use quota_core::record::{Hold, HoldReason, Seed};
use quota_core::{CredentialError, FetchError, Snapshot};

fn login(name: &str) -> LoginInfo {
    LoginInfo::new(LoginId::new(name))
}

#[tokio::test(start_paused = true)]
async fn a_rotated_token_of_the_same_login_costs_no_call_and_keeps_what_is_known() {
    let world = world();
    world.provider.set_login(&id("main"), Ok(login("a").fingerprint(CredentialFingerprint::from_hash(1))));
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    world.provider.set_login(&id("main"), Ok(login("a").fingerprint(CredentialFingerprint::from_hash(2))));

    let answer = main.get().await.unwrap();

    assert_eq!((world.provider.calls(), five_hours(&answer)), (1, Some(40.0)));
}

#[tokio::test(start_paused = true)]
async fn a_rotated_token_of_the_same_login_keeps_the_hold() {
    let world = world();
    world.provider.set_login(&id("main"), Ok(login("a").fingerprint(CredentialFingerprint::from_hash(1))));
    let main = world.quota.account(&id("main"));
    world.provider.then_fail(FetchError::throttled(None));
    drop(main.get().await);
    world.provider.set_login(&id("main"), Ok(login("a").fingerprint(CredentialFingerprint::from_hash(2))));

    drop(main.get().await);

    assert_eq!(world.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_rotates_is_not_told_as_a_new_login() {
    let world = world();
    world.provider.set_login(&id("main"), Ok(login("a").fingerprint(CredentialFingerprint::from_hash(1))));
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    let mut events = world.quota.events();

    for rotation in 2..5 {
        world
            .provider
            .set_login(&id("main"), Ok(login("a").fingerprint(CredentialFingerprint::from_hash(rotation))));
        world.clock.sleep(MINUTE * 6).await;
        drop(main.get().await);
        let event = events.next().await;
        assert!(matches!(event, Some(quota_core::Event::Refreshed { .. })), "{event:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_login_is_not_held_by_what_the_old_one_left() {
    let world = world_with(quota_core::Policy::default().cooldown(quota_core::policy::CooldownPolicy::new(
        MINUTE,
        quota_core::policy::CooldownScope::Account,
    )));
    world.provider.set_login(&id("main"), Ok(login("a")));
    let main = world.quota.account(&id("main"));
    world.provider.then_fail(FetchError::throttled(Some(MINUTE * 60)));
    drop(main.get().await);
    world.provider.set_login(&id("main"), Ok(login("b")));

    let answer = main.get().await.unwrap();

    assert_eq!((five_hours(&answer), answer.hold()), (Some(40.0), None));
}

#[tokio::test(start_paused = true)]
async fn a_new_login_never_sees_the_old_ones_numbers() {
    let world = world();
    let main = world.quota.account(&id("main"));
    main.set_login(LoginId::new("a"));
    drop(main.get().await);

    main.set_login(LoginId::new("b"));

    assert!(main.peek().snapshot().is_empty());
    assert!(main.is_stale());
}

#[tokio::test(start_paused = true)]
async fn a_new_login_hides_the_old_readings_even_during_a_hold() {
    let world = world();
    world.provider.set_login(&id("main"), Ok(login("a")));
    let (main, other) = (world.quota.account(&id("main")), world.quota.account(&id("other")));
    drop(main.get().await);
    world.clock.sleep(SECOND * 2).await;
    world.provider.then_fail(FetchError::throttled(None));
    drop(other.get().await);
    let mut events = world.quota.events();
    world.provider.set_login(&id("main"), Ok(login("b")));

    let refreshed = main.refresh().await;

    assert!(matches!(refreshed, Err(quota_core::QuotaError::OnHold { .. })), "{refreshed:?}");
    assert!(main.peek().snapshot().is_empty());
    assert!(matches!(events.next().await, Some(quota_core::Event::LoginChanged { .. })));
}

#[tokio::test(start_paused = true)]
async fn headers_of_the_old_login_are_refused() {
    let world = world();
    let main = world.quota.account(&id("main"));
    main.set_login(LoginId::new("b"));
    drop(main.get().await);

    let refused = main.observe(&headers(99.0).login_id(LoginId::new("a")));

    assert!(matches!(refused, Err(ObserveError::AnotherLogin { account, .. }) if account == id("main")));
    assert_eq!(last_read(&main.peek()), Some(40.0));
}

#[tokio::test(start_paused = true)]
async fn what_another_login_persisted_is_not_seeded() {
    let world = world();
    let main = world.quota.account(&id("main"));
    main.set_login(LoginId::new("b"));
    let seed = Seed::new(Snapshot::of(&polled(90.0), noon())).login_id(LoginId::new("a"));

    let refused = main.seed(&seed);

    assert!(matches!(refused, Err(ObserveError::AnotherLogin { account, .. }) if account == id("main")));
    assert!(main.peek().snapshot().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_was_persisted_without_a_login_is_adopted_with_its_hold() {
    let world = world();
    let main = world.quota.account(&id("main"));
    let hold = Hold::new(noon(), noon() + MINUTE * 10, HoldReason::RateLimited);
    main.seed(&Seed::new(Snapshot::of(&polled(90.0), noon() - MINUTE * 8)).hold(hold)).unwrap();
    world.provider.set_login(&id("main"), Ok(login("a")));

    let answer = main.get().await.unwrap();

    assert_eq!((last_read(&answer), world.provider.calls()), (Some(90.0), 0));
    assert!(answer.hold().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_persisted_hold_that_is_over_is_ignored() {
    let world = world();
    let main = world.quota.account(&id("main"));
    let hold = Hold::new(noon() - MINUTE * 2, noon() - MINUTE, HoldReason::RateLimited);
    main.seed(&Seed::new(Snapshot::default()).hold(hold)).unwrap();

    drop(main.get().await.unwrap());

    assert_eq!(world.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fresh_seed_makes_a_restart_cost_nothing() {
    let world = world();
    let main = world.quota.account(&id("main"));
    main.seed(&Seed::new(Snapshot::of(&polled(55.0), noon() - MINUTE))).unwrap();

    let answer = main.get().await.unwrap();

    assert_eq!((world.provider.calls(), five_hours(&answer)), (0, Some(55.0)));
    assert_eq!(answer.age().unwrap(), MINUTE);
}

#[tokio::test(start_paused = true)]
async fn an_identity_the_provider_changed_under_one_token_is_noticed() {
    let world = world();
    let main = world.quota.account(&id("main"));
    world.provider.then_answer(polled(80.0).owner_id(OwnerId::new("org-1")));
    drop(main.get().await);
    world.clock.sleep(MINUTE * 6).await;
    main.observe(&headers(81.0)).unwrap();
    let mut events = world.quota.events();
    world.provider.then_answer(polled(5.0).owner_id(OwnerId::new("org-2")));

    let answer = main.refresh().await.unwrap().usage;

    assert_eq!(last_read(&answer), Some(5.0), "nothing of the old identity is left, however young");
    assert!(matches!(events.next().await, Some(quota_core::Event::LoginChanged { .. })));
}

#[tokio::test(start_paused = true)]
async fn an_observation_of_an_unknown_account_is_rejected() {
    let world = world();
    drop(world.quota.account(&id("main")));

    let refused = world.quota.observe(&id("stranger"), &headers(50.0));

    assert!(
        matches!(refused, Err(ObserveError::UnknownAccount { account, .. }) if account == id("stranger"))
    );
    assert!(world.quota.account(&id("main")).peek().snapshot().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_token_that_rotates_in_mid_call_leaves_the_numbers_with_their_login() {
    let world = world();
    let provider = world.provider.clone().taking(SECOND);
    provider.set_login(&id("main"), Ok(login("a").fingerprint(CredentialFingerprint::from_hash(1))));
    provider.then_answer(polled(33.0).login_id(LoginId::new("a")));
    let main = world.quota.account(&id("main"));
    let call = tokio::spawn({
        let main = main.clone();
        async move { drop(main.get().await) }
    });
    settle().await;
    provider.set_login(&id("main"), Ok(login("a").fingerprint(CredentialFingerprint::from_hash(2))));
    call.await.unwrap();

    let answer = main.get().await.unwrap();

    assert_eq!((last_read(&answer), answer.login_id()), (Some(33.0), Some(&LoginId::new("a"))));
    assert_eq!(provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn headers_seen_before_a_new_login_are_not_shown_as_the_new_ones() {
    let world = world();
    let main = world.quota.account(&id("main"));
    main.set_login(LoginId::new("a"));
    drop(main.get().await);
    main.observe(&headers(99.0)).unwrap();

    main.set_login(LoginId::new("b"));
    world.clock.sleep(SECOND * 5).await;

    assert!(main.peek().snapshot().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_refresh_of_the_old_login_that_is_still_in_line_asks_nothing_and_clears_nothing() {
    let world = world();
    let (busy, main) = (world.quota.account(&id("busy")), world.quota.account(&id("main")));
    let _provider = world.provider.clone().taking(SECOND * 3);
    busy.refresh_in_background();
    settle().await;
    main.set_login(LoginId::new("a"));
    main.refresh_in_background();
    settle().await;
    main.set_login(LoginId::new("b"));
    drop(main.get().await.unwrap());
    world.clock.sleep(MINUTE).await;

    let answer = main.peek();

    assert_eq!((last_read(&answer), answer.login_id()), (Some(40.0), Some(&LoginId::new("b"))));
    assert_eq!(world.provider.calls_about(&id("main")), 1);
}

#[tokio::test(start_paused = true)]
async fn a_login_that_cannot_be_told_in_time_withholds_the_numbers() {
    let world = world();
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    world.clock.sleep(MINUTE * 6).await;
    world.provider.set_login(&id("main"), Err(CredentialError::timed_out("too slow")));

    drop(main.get().await);

    assert!(main.peek().snapshot().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_login_that_is_set_is_an_event() {
    let world = world();
    let main = world.quota.account(&id("main"));
    main.set_login(LoginId::new("a"));
    drop(main.get().await);
    let mut events = world.quota.events();

    main.set_login(LoginId::new("b"));

    assert!(matches!(events.next().await, Some(quota_core::Event::LoginChanged { .. })));
}

#[tokio::test(start_paused = true)]
async fn numbers_without_a_login_belong_to_the_first_that_is_set_and_not_to_the_second() {
    let world = world();
    drop(world.quota.account(&id("main")).get().await);
    let elsewhere =
        another_process(&world.store, &world.clock, &world.provider, quota_core::Policy::default());
    let main = elsewhere.account(&id("main"));
    main.set_login(LoginId::new("a"));
    let adopted = last_read(&main.sync().await);

    main.set_login(LoginId::new("b"));

    assert_eq!((adopted, last_read(&main.peek())), (Some(40.0), None));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_waits_for_its_turn_does_not_take_the_account_back_from_a_login_that_is_set() {
    let world = world();
    let main = world.quota.account(&id("main"));
    world.provider.set_login(&id("main"), Ok(LoginInfo::new(LoginId::new("a"))));
    // Another task holds the lock.
    drop(world.quota.account(&id("neighbour")).get().await);
    main.refresh_in_background();
    settle().await;

    main.set_login(LoginId::new("b"));
    world.clock.sleep(SECOND * 5).await;

    assert_eq!(world.provider.calls_about(&id("main")), 0);
    assert_ne!(main.peek().login_id(), Some(&LoginId::new("a")));
}
