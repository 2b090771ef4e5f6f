//! Concurrent refreshes become one call, even if a caller leaves, or the fetcher panics or hangs.

use std::time::Duration;

use crate::support::*;
use quota_core::model::{LoginId, RequestId};
use quota_core::record::{HoldReason, LeaseDecision, LeaseRequest, MaxStaleness, Record};
use quota_core::store::StoreKey;
use quota_core::testing::FakeProvider;
use quota_core::{FetchError, Policy, QuotaError};
use tokio::task::JoinSet;

const HOUR: Duration = Duration::from_secs(3_600);
const CALL_DURATION: Duration = Duration::from_millis(50);

#[tokio::test(start_paused = true)]
async fn a_hundred_readers_share_one_call_and_its_result() {
    let env = env();
    let provider = env.provider.clone().with_delay(CALL_DURATION);
    let main = env.quota.account(&id("main"));
    let mut readers = JoinSet::new();
    for _ in 0..100 {
        let main = main.clone();
        readers.spawn(async move { five_hours(&main.get().await.unwrap()) });
    }

    let results = readers.join_all().await;

    assert_eq!(provider.calls(), 1);
    assert!(results.iter().all(|usage| *usage == Some(40.0)));
}

#[tokio::test(start_paused = true)]
async fn a_hundred_refreshes_make_one_call() {
    let env = env();
    let provider = env.provider.clone().with_delay(CALL_DURATION);
    let main = env.quota.account(&id("main"));
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
    let env = env();
    let provider = env.provider.clone().with_delay(CALL_DURATION);
    let other = another_process(&env.store, &env.clock, &provider, Default::default());
    let (local, remote) = (env.quota.account(&id("main")), other.account(&id("main")));

    let (one, two) = tokio::join!(local.get(), remote.get());

    assert_eq!(provider.calls(), 1);
    assert_eq!(five_hours(&one.unwrap()), five_hours(&two.unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_reader_does_not_stop_the_shared_refresh() {
    let env = env();
    let provider = env.provider.clone().with_delay(CALL_DURATION);
    let main = env.quota.account(&id("main"));
    let first = tokio::spawn({
        let main = main.clone();
        async move { main.get().await.is_ok() }
    });
    run_ready_tasks().await;
    let second = main.get();
    first.abort();

    let usage = second.await.unwrap();

    assert_eq!((provider.calls(), five_hours(&usage)), (1, Some(40.0)));
}

#[tokio::test(start_paused = true)]
async fn a_panicking_fetcher_fails_its_callers_but_not_the_next_call() {
    let env = env();
    env.provider.then_panic();
    let main = env.quota.account(&id("main"));

    let (one, two) = tokio::join!(main.get(), main.get());
    let next = main.get().await;

    assert!(matches!(one.unwrap_err(), QuotaError::Panicked { .. }));
    assert!(matches!(two.unwrap_err(), QuotaError::Panicked { .. }));
    assert!(next.is_ok());
    assert_eq!(env.provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_fetcher_that_panics_again_arms_the_hold_of_a_malformed_response() {
    let env = env();
    env.provider.then_panic();
    env.provider.then_panic();
    let main = env.quota.account(&id("main"));

    let errors = [main.get().await, main.get().await, main.get().await].map(Result::unwrap_err);

    assert!(matches!(
        &errors,
        [QuotaError::Panicked { .. }, QuotaError::Panicked { .. }, QuotaError::OnHold { hold, .. }]
            if hold.reason == HoldReason::Failing
    ));
    assert_eq!(env.provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_account_is_called_again_after_the_hold_of_a_panic() {
    let env = env();
    env.provider.then_panic();
    env.provider.then_panic();
    let main = env.quota.account(&id("main"));
    drop((main.get().await, main.get().await));
    let hold = main.peek().hold().expect("the second panic armed a hold");
    env.clock.sleep_until(hold.until, HOUR).await;

    assert!(main.get().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_hanging_fetcher_times_out_and_other_accounts_continue() {
    let env = env();
    env.provider.then_hang();
    let (hangs, other) = (env.quota.account(&id("hangs")), env.quota.account(&id("other")));
    let started = env.clock.now();

    let error = hangs.get().await.unwrap_err();
    let waited = env.clock.now().duration_since(started).as_secs();
    let after = other.get().await;

    assert!(matches!(error, QuotaError::Fetch { error: FetchError::TimedOut, .. }), "{error}");
    assert_eq!(waited, 10);
    assert!(hangs.peek().hold().is_some_and(|hold| hold.reason == HoldReason::Failing));
    assert!(after.is_ok());
}

#[tokio::test(start_paused = true)]
async fn another_login_makes_its_own_call_and_gets_its_own_readings() {
    let env = env();
    let provider = env.provider.clone().with_delay(CALL_DURATION);
    provider.then_answer(polled(11.0));
    provider.then_answer(polled(22.0));
    let main = env.quota.account(&id("main"));
    main.set_login(LoginId::new("a"));
    let for_a = tokio::spawn({
        let main = main.clone();
        async move { last_read(&main.get().await.unwrap()) }
    });
    run_ready_tasks().await;

    main.set_login(LoginId::new("b"));
    let for_b = main.get().await.unwrap();

    assert_eq!(last_read(&for_b), Some(22.0));
    assert_eq!(for_a.await.unwrap(), Some(11.0), "a caller gets the readings of its login");
    assert_eq!(provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_late_report_of_the_old_login_is_not_stored() {
    let env = env_with(no_rate_limit());
    let provider = env.provider.clone().with_delay(CALL_DURATION);
    provider.then_answer(polled(11.0));
    provider.then_answer(polled(22.0));
    let main = env.quota.account(&id("main"));
    main.set_login(LoginId::new("a"));
    let for_a = tokio::spawn({
        let main = main.clone();
        async move { drop(main.get().await) }
    });
    run_ready_tasks().await;
    main.set_login(LoginId::new("b"));
    let for_b = tokio::spawn({
        let main = main.clone();
        async move { drop(main.get().await) }
    });
    env.clock.sleep(CALL_DURATION / 2).await;
    let third = main.get().await.unwrap();
    for_a.await.unwrap();
    for_b.await.unwrap();

    assert_eq!(last_read(&third), Some(22.0), "a third caller joins the second login's call");
    assert_eq!(last_read(&main.peek()), Some(22.0));
    assert_eq!(provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn callers_of_alternating_logins_still_share_calls() {
    let env = env_with(no_rate_limit());
    let provider = env.provider.clone().with_delay(CALL_DURATION);
    let main = env.quota.account(&id("main"));
    main.set_login(LoginId::new("b"));
    let for_b = tokio::spawn({
        let main = main.clone();
        async move { drop(main.get().await) }
    });
    run_ready_tasks().await;

    main.set_login(LoginId::new("a"));
    let (one, two, three) = tokio::join!(main.get(), main.get(), main.get());
    for_b.await.unwrap();

    assert!(one.is_ok() && two.is_ok() && three.is_ok());
    assert_eq!(provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_background_refresh_of_another_login_is_not_skipped() {
    let env = env();
    let provider = env.provider.clone().with_delay(CALL_DURATION);
    let main = env.quota.account(&id("main"));
    main.set_login(LoginId::new("a"));
    let for_a = tokio::spawn({
        let main = main.clone();
        async move { drop(main.refresh().await) }
    });
    run_ready_tasks().await;

    main.set_login(LoginId::new("b"));
    main.refresh_in_background();
    for_a.await.unwrap();
    env.clock.sleep(SECOND * 2).await;

    assert_eq!(provider.calls(), 2);
    assert_eq!(main.peek().login_id(), Some(&LoginId::new("b")));
}

#[tokio::test(start_paused = true)]
async fn a_forced_refresh_calls_although_it_joined_a_read_of_fresh_data() {
    let env = env();
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    env.clock.sleep(SECOND * 2).await;

    let (_, refreshed) = tokio::join!(main.get_with_max_age(MINUTE), main.refresh());

    assert!(refreshed.unwrap().fetched);
    assert_eq!(env.provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn accounts_of_one_provider_are_called_one_by_one_with_a_gap() {
    let env = env();
    let provider = env.provider.clone().with_delay(CALL_DURATION);
    let started = env.clock.now();
    let mut callers = JoinSet::new();
    for account in 0..5 {
        let account = env.quota.account(&id(&format!("a{account}")));
        callers.spawn(async move { drop(account.get().await) });
    }

    callers.join_all().await;

    assert_eq!(provider.max_in_flight(), 1);
    assert_eq!(provider.calls(), 5);
    assert!(env.clock.now().duration_since(started).as_secs() >= 4, "five starts have four gaps");
}

#[tokio::test(start_paused = true)]
async fn an_interactive_caller_does_not_queue_behind_background_refreshes() {
    let env = env();
    let _provider = env.provider.clone().with_delay(CALL_DURATION);
    let accounts: Vec<_> = (0..20).map(|account| env.quota.account(&id(&format!("a{account}")))).collect();
    for account in &accounts {
        account.refresh_in_background();
    }
    run_ready_tasks().await;
    let started = env.clock.now();

    drop(accounts[19].get().await.unwrap());

    let waited = env.clock.now().duration_since(started).as_secs();
    assert!(waited <= 2, "one call and one gap, not nineteen: {waited} s");
}

#[tokio::test(start_paused = true)]
async fn forced_refreshes_of_two_processes_share_one_call() {
    let env = env();
    let provider = env.provider.clone().with_delay(SECOND);
    let other = another_process(&env.store, &env.clock, &provider, Default::default());
    let (local, remote) = (env.quota.account(&id("main")), other.account(&id("main")));

    let (one, two) = tokio::join!(local.refresh(), remote.refresh());

    assert!(one.is_ok() && two.is_ok());
    assert_eq!(provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_strict_max_age_is_not_satisfied_by_a_shared_read_of_a_lax_one() {
    let env = env();
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    env.clock.sleep(MINUTE * 4).await;

    let (_, young) = tokio::join!(main.get_with_max_age(MINUTE * 5), main.get_with_max_age(MINUTE));

    assert!(young.unwrap().age().unwrap() < MINUTE);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_another_process_delays_no_other_account() {
    let env = env();
    let slow = FakeProvider::answering("example", 60.0).with_delay(SECOND * 9);
    let other_process = another_process(&env.store, &env.clock, &slow, Policy::default());
    let (main, other) = (env.quota.account(&id("main")), env.quota.account(&id("other")));
    drop(main.sync().await);
    other_process.account(&id("main")).refresh_in_background();
    main.refresh_in_background();
    run_ready_tasks().await;
    let before = env.clock.now();

    drop(other.get().await);

    assert!(env.clock.now() < before + SECOND * 2, "{} after {before}", env.clock.now());
}

#[tokio::test(start_paused = true)]
async fn a_waiter_waits_the_full_time_for_each_holder() {
    // Two crashed holders in a row must not use up the wait for the next one.
    let env = env();
    let (key, policy) = (StoreKey::account(&id("main")), Policy::default());
    let hold_lease = async || {
        let reading = env.store.read(&key).await.unwrap();
        let document = reading.document.as_ref();
        let mut record =
            document.map_or_else(Record::default, |document| Record::decode(&document.body).unwrap());
        if let Some(lease) = record.lease().cloned() {
            record.release(&lease);
        }
        let lease_request = LeaseRequest::new(RequestId::random(), MaxStaleness::NewCall);
        assert!(matches!(record.begin(reading.now, &lease_request, &policy), LeaseDecision::Granted(_)));
        drop(
            env.store
                .compare_and_swap(&key, reading.version(), record.encode(), policy.record_ttl)
                .await
                .unwrap(),
        );
    };
    hold_lease().await;
    let main = env.quota.account(&id("main"));
    let waiter = tokio::spawn(async move { main.refresh().await.unwrap().fetched });
    for _ in 0..2 {
        env.clock.sleep(policy.lease_ttl() - SECOND).await;
        hold_lease().await;
    }

    let fetched = waiter.await.unwrap();

    assert!(fetched);
    assert_eq!(env.provider.calls(), 1);
}
