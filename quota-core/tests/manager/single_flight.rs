//! Concurrent refreshes become one call, also if a caller leaves, panics or hangs.

use std::time::Duration;

use crate::support::*;
use quota_core::model::{LoginId, RequestId};
use quota_core::record::{LeaseDecision, LeaseRequest, MaxStaleness, Record};
use quota_core::store::StoreKey;
use quota_core::testing::FakeProvider;
use quota_core::{FetchError, Policy, QuotaError};
use tokio::task::JoinSet;

const TAKES: Duration = Duration::from_millis(50);

#[tokio::test(start_paused = true)]
async fn a_hundred_readers_make_one_call_and_get_one_answer() {
    let world = world();
    let provider = world.provider.clone().taking(TAKES);
    let main = world.quota.account(&id("main"));
    let mut readers = JoinSet::new();
    for _ in 0..100 {
        let main = main.clone();
        readers.spawn(async move { five_hours(&main.get().await.unwrap()) });
    }

    let answers = readers.join_all().await;

    assert_eq!(provider.calls(), 1);
    assert!(answers.iter().all(|answer| *answer == Some(40.0)));
}

#[tokio::test(start_paused = true)]
async fn a_hundred_refreshes_make_one_call() {
    let world = world();
    let provider = world.provider.clone().taking(TAKES);
    let main = world.quota.account(&id("main"));
    let mut callers = JoinSet::new();
    for _ in 0..100 {
        let main = main.clone();
        callers.spawn(async move { main.refresh().await.unwrap().fetched });
    }

    let fetched = callers.join_all().await;

    assert_eq!(provider.calls(), 1);
    assert!(fetched.into_iter().all(|fetched| fetched));
}

#[tokio::test(start_paused = true)]
async fn two_processes_make_one_call() {
    let world = world();
    let provider = world.provider.clone().taking(TAKES);
    let other = another_process(&world.store, &world.clock, &provider, Default::default());
    let (here, there) = (world.quota.account(&id("main")), other.account(&id("main")));

    let (one, two) = tokio::join!(here.get(), there.get());

    assert_eq!(provider.calls(), 1);
    assert_eq!(five_hours(&one.unwrap()), five_hours(&two.unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_reader_strands_no_other() {
    let world = world();
    let provider = world.provider.clone().taking(TAKES);
    let main = world.quota.account(&id("main"));
    let first = tokio::spawn({
        let main = main.clone();
        async move { main.get().await.is_ok() }
    });
    settle().await;
    let second = main.get();
    first.abort();

    let answer = second.await.unwrap();

    assert_eq!((provider.calls(), five_hours(&answer)), (1, Some(40.0)));
}

#[tokio::test(start_paused = true)]
async fn a_fetcher_that_breaks_fails_its_callers_and_the_next_call_is_made() {
    let world = world();
    world.provider.then_panic();
    let main = world.quota.account(&id("main"));

    let (one, two) = tokio::join!(main.get(), main.get());
    let next = main.get().await;

    assert!(matches!(one.unwrap_err(), QuotaError::Panicked { .. }));
    assert!(matches!(two.unwrap_err(), QuotaError::Panicked { .. }));
    assert!(next.is_ok());
    assert_eq!(world.provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_fetcher_that_hangs_is_given_up_and_others_go_on() {
    let world = world();
    world.provider.then_hang();
    let (hangs, other) = (world.quota.account(&id("hangs")), world.quota.account(&id("other")));
    let started = world.clock.now();

    let error = hangs.get().await.unwrap_err();
    let waited = world.clock.now().duration_since(started).as_secs();
    let after = other.get().await;

    assert!(matches!(error, QuotaError::Fetch { error: FetchError::TimedOut, .. }), "{error}");
    assert_eq!(waited, 10);
    assert!(hangs.peek().hold().is_some_and(|hold| hold.reason == quota_core::record::HoldReason::Failing));
    assert!(after.is_ok());
}

#[tokio::test(start_paused = true)]
async fn another_login_makes_its_own_call_and_never_sees_the_first_ones_numbers() {
    let world = world();
    let provider = world.provider.clone().taking(TAKES);
    provider.then_answer(polled(11.0));
    provider.then_answer(polled(22.0));
    let main = world.quota.account(&id("main"));
    main.set_login(LoginId::new("a"));
    let for_a = tokio::spawn({
        let main = main.clone();
        async move { last_read(&main.get().await.unwrap()) }
    });
    settle().await;

    main.set_login(LoginId::new("b"));
    let for_b = main.get().await.unwrap();

    assert_eq!(last_read(&for_b), Some(22.0));
    assert_eq!(for_a.await.unwrap(), Some(11.0), "who asked by a login gets that login's numbers");
    assert_eq!(provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_of_the_old_login_is_not_stored() {
    let world = world_with(hurried());
    let provider = world.provider.clone().taking(TAKES);
    provider.then_answer(polled(11.0));
    provider.then_answer(polled(22.0));
    let main = world.quota.account(&id("main"));
    main.set_login(LoginId::new("a"));
    let for_a = tokio::spawn({
        let main = main.clone();
        async move { drop(main.get().await) }
    });
    settle().await;
    main.set_login(LoginId::new("b"));
    let for_b = tokio::spawn({
        let main = main.clone();
        async move { drop(main.get().await) }
    });
    world.clock.sleep(TAKES / 2).await;
    let third = main.get().await.unwrap();
    for_a.await.unwrap();
    for_b.await.unwrap();

    assert_eq!(last_read(&third), Some(22.0), "a third caller joins the second login's call");
    assert_eq!(last_read(&main.peek()), Some(22.0));
    assert_eq!(provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn logins_that_alternate_still_share_their_calls() {
    let world = world_with(hurried());
    let provider = world.provider.clone().taking(TAKES);
    let main = world.quota.account(&id("main"));
    main.set_login(LoginId::new("b"));
    let for_b = tokio::spawn({
        let main = main.clone();
        async move { drop(main.get().await) }
    });
    settle().await;

    main.set_login(LoginId::new("a"));
    let (one, two, three) = tokio::join!(main.get(), main.get(), main.get());
    for_b.await.unwrap();

    assert!(one.is_ok() && two.is_ok() && three.is_ok());
    assert_eq!(provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_background_refresh_of_another_login_is_not_skipped() {
    let world = world();
    let provider = world.provider.clone().taking(TAKES);
    let main = world.quota.account(&id("main"));
    main.set_login(LoginId::new("a"));
    let for_a = tokio::spawn({
        let main = main.clone();
        async move { drop(main.refresh().await) }
    });
    settle().await;

    main.set_login(LoginId::new("b"));
    main.refresh_in_background();
    for_a.await.unwrap();
    world.clock.sleep(SECOND * 2).await;

    assert_eq!(provider.calls(), 2);
    assert_eq!(main.peek().login_id(), Some(&LoginId::new("b")));
}

#[tokio::test(start_paused = true)]
async fn a_forced_refresh_is_not_content_with_what_a_reader_found_fresh() {
    let world = world();
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    world.clock.sleep(SECOND * 2).await;

    let (_, refreshed) = tokio::join!(main.get_with_max_age(MINUTE), main.refresh());

    assert!(refreshed.unwrap().fetched);
    assert_eq!(world.provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn accounts_of_one_provider_are_asked_one_by_one_and_a_gap_apart() {
    let world = world();
    let provider = world.provider.clone().taking(TAKES);
    let started = world.clock.now();
    let mut callers = JoinSet::new();
    for account in 0..5 {
        let account = world.quota.account(&id(&format!("a{account}")));
        callers.spawn(async move { drop(account.get().await) });
    }

    callers.join_all().await;

    assert_eq!(provider.most_at_once(), 1);
    assert_eq!(provider.calls(), 5);
    assert!(world.clock.now().duration_since(started).as_secs() >= 4, "five starts are four gaps");
}

#[tokio::test(start_paused = true)]
async fn an_interactive_caller_is_not_queued_behind_the_background() {
    let world = world();
    let _provider = world.provider.clone().taking(TAKES);
    let accounts: Vec<_> = (0..20).map(|account| world.quota.account(&id(&format!("a{account}")))).collect();
    for account in &accounts {
        account.refresh_in_background();
    }
    settle().await;
    let started = world.clock.now();

    drop(accounts[19].get().await.unwrap());

    let waited = world.clock.now().duration_since(started).as_secs();
    assert!(waited <= 2, "one call and one gap, not nineteen: {waited} s");
}

#[tokio::test(start_paused = true)]
async fn forced_refreshes_of_two_processes_are_one_call() {
    let world = world();
    let provider = world.provider.clone().taking(SECOND);
    let other = another_process(&world.store, &world.clock, &provider, Default::default());
    let (here, there) = (world.quota.account(&id("main")), other.account(&id("main")));

    let (one, two) = tokio::join!(here.refresh(), there.refresh());

    assert!(one.is_ok() && two.is_ok());
    assert_eq!(provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_reader_who_wants_younger_numbers_is_not_content_with_anothers() {
    let world = world();
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    world.clock.sleep(MINUTE * 4).await;

    let (_, young) = tokio::join!(main.get_with_max_age(MINUTE * 5), main.get_with_max_age(MINUTE));

    assert!(young.unwrap().age().unwrap() < MINUTE);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_another_process_delays_no_other_account() {
    let world = world();
    let slow = FakeProvider::answering("example", 60.0).taking(SECOND * 9);
    let elsewhere = another_process(&world.store, &world.clock, &slow, Policy::default());
    let (main, neighbour) = (world.quota.account(&id("main")), world.quota.account(&id("neighbour")));
    drop(main.sync().await);
    elsewhere.account(&id("main")).refresh_in_background();
    main.refresh_in_background();
    settle().await;
    let before = world.clock.now();

    drop(neighbour.get().await);

    assert!(world.clock.now() < before + SECOND * 2, "{} after {before}", world.clock.now());
}

#[tokio::test(start_paused = true)]
async fn a_waiter_gives_each_holder_its_full_time() {
    // One that dies after another must not use up the patience of those who wait.
    let world = world();
    let (key, policy) = (StoreKey::account(&id("main")), Policy::default());
    let hold_lease = async || {
        let reading = world.store.read(&key).await.unwrap();
        let document = reading.document.as_ref();
        let mut record =
            document.map_or_else(Record::default, |document| Record::decode(&document.body).unwrap());
        if let Some(lease) = record.lease().cloned() {
            record.release(&lease);
        }
        let ask = LeaseRequest::new(RequestId::random(), MaxStaleness::StartedAfter(reading.now));
        assert!(matches!(record.begin(reading.now, &ask, &policy), LeaseDecision::Granted(_)));
        drop(
            world
                .store
                .compare_and_swap(&key, reading.version(), record.encode(), policy.record_ttl)
                .await
                .unwrap(),
        );
    };
    hold_lease().await;
    let main = world.quota.account(&id("main"));
    let waits = tokio::spawn(async move { main.refresh().await.unwrap().fetched });
    for _ in 0..2 {
        world.clock.sleep(policy.lease_ttl() - SECOND).await;
        hold_lease().await;
    }

    let fetched = waits.await.unwrap();

    assert!(fetched);
    assert_eq!(world.provider.calls(), 1);
}
