//! Calls that end early: because the manager closes, or because the program reaches its deadline.

use std::sync::Arc;
use std::time::Duration;

use crate::support::*;
use quota_core::policy::Budget;
use quota_core::record::HoldReason;
use quota_core::{Event, FetchError, Policy, QuotaError, QuotaManager};

/// The manager of a program that ends after `deadline`.
fn short_lived(env: &Env, deadline: Duration, policy: Policy) -> QuotaManager {
    QuotaManager::builder(Arc::clone(&env.store))
        .provider(env.provider.clone(), env.provider.clone())
        .clock(env.clock.clone())
        .policy(policy)
        .deadline(deadline)
        .build()
        .unwrap()
}

/// Starts a call that hangs, and closes the manager with no grace. Returns whether all calls had ended by themselves.
async fn cancel_a_call(env: &Env) -> bool {
    env.provider.then_hang();
    env.quota.account(&id("main")).refresh_in_background();
    run_ready_tasks().await;
    assert_eq!(env.provider.calls(), 1);
    env.quota.close_within(Duration::ZERO).await
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_releases_its_lease() {
    let env = env();
    let all_ended = cancel_a_call(&env).await;
    let other_process = another_process(&env.store, &env.clock, &env.provider, Policy::default());
    let before = env.clock.now();

    let usage = other_process.account(&id("main")).get().await.unwrap();

    assert!(!all_ended);
    assert_eq!(five_hours(&usage), Some(40.0));
    assert_eq!(env.clock.now(), before, "the caller waited for the lease");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_counts_toward_the_budget() {
    let policy = Policy::default().budget(Budget::new(1, 0));
    let env = env_with(policy.clone());
    cancel_a_call(&env).await;
    let other_process = another_process(&env.store, &env.clock, &env.provider, policy);

    let error = other_process.account(&id("main")).get().await.unwrap_err();

    assert!(matches!(error, QuotaError::OnHold { hold, .. } if hold.reason == HoldReason::BudgetExhausted));
}

#[tokio::test(start_paused = true)]
async fn callers_of_a_cancelled_call_get_an_error() {
    let env = env();
    env.provider.then_hang();
    let main = env.quota.account(&id("main"));
    let caller = tokio::spawn(async move { main.get().await.map(drop) });
    run_ready_tasks().await;

    env.quota.close_within(Duration::ZERO).await;

    assert!(matches!(caller.await.unwrap(), Err(QuotaError::Closed)));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_ends_within_the_grace_is_stored() {
    let env = env();
    let _provider = env.provider.clone().with_delay(SECOND * 3);
    let main = env.quota.account(&id("main"));
    main.refresh_in_background();
    run_ready_tasks().await;

    let all_ended = env.quota.close_within(SECOND * 4).await;

    assert!(all_ended);
    assert_eq!(last_read(&main.peek()), Some(40.0));
}

#[tokio::test(start_paused = true)]
async fn a_call_ended_by_the_deadline_is_a_timeout() {
    let env = env();
    env.provider.then_hang();
    let quota = short_lived(&env, SECOND * 3, Policy::default());
    let before = env.clock.now();

    let error = quota.account(&id("main")).get().await.unwrap_err();

    assert!(matches!(error, QuotaError::Fetch { error: FetchError::TimedOut, .. }), "{error}");
    assert_eq!(before.duration_until(env.clock.now()).as_millis(), 3000);
}

#[tokio::test(start_paused = true)]
async fn the_run_after_a_deadline_timeout_makes_no_call() {
    let env = env();
    env.provider.then_hang();
    let first = short_lived(&env, SECOND * 3, Policy::default());
    drop(first.account(&id("main")).get().await);
    let second = short_lived(&env, SECOND * 3, Policy::default());

    let error = second.account(&id("main")).get().await.unwrap_err();

    assert!(matches!(error, QuotaError::OnHold { hold, .. } if hold.reason == HoldReason::Failing));
    assert_eq!(env.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_program_that_ends_at_its_deadline_records_the_timeout() {
    let env = env();
    env.provider.then_hang();
    let quota = short_lived(&env, SECOND * 3, Policy::default());
    let main = quota.account(&id("main"));
    assert!(env.clock.bounded(SECOND * 3, main.get()).await.is_none());

    quota.close_within(Duration::ZERO).await;

    let error = env.quota.account(&id("main")).get().await.unwrap_err();
    assert!(matches!(error, QuotaError::OnHold { hold, .. } if hold.reason == HoldReason::Failing));
}

#[tokio::test(start_paused = true)]
async fn a_hanging_call_times_out_before_a_later_deadline() {
    let env = env();
    env.provider.then_hang();
    let quota = short_lived(&env, SECOND * 30, Policy::default());

    let error = quota.account(&id("main")).get().await.unwrap_err();

    assert!(matches!(error, QuotaError::Fetch { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn no_call_starts_with_less_than_two_seconds_left() {
    let env = env();
    let quota = short_lived(&env, SECOND * 5, Policy::default());
    env.clock.sleep(Duration::from_millis(3001)).await;

    let error = quota.account(&id("main")).get().await.unwrap_err();

    assert!(matches!(error, QuotaError::DeadlineExceeded { .. }), "{error}");
    assert_eq!(env.provider.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_account_queued_past_the_deadline_is_not_refreshed() {
    let env = env();
    let policy = Policy::default().min_call_interval(SECOND * 4);
    let quota = short_lived(&env, SECOND * 5, policy);
    drop(quota.account(&id("main")).get().await);
    let before = env.clock.now();

    let error = quota.account(&id("other")).get().await.unwrap_err();

    assert!(matches!(error, QuotaError::DeadlineExceeded { .. }), "{error}");
    assert_eq!(env.provider.calls(), 1);
    assert_eq!(
        before.duration_until(env.clock.now()).as_millis(),
        3000,
        "the time left, minus the time for a call"
    );
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_another_process_emits_one_event() {
    let env = env();
    let _provider = env.provider.clone().with_delay(SECOND * 3);
    let other_process = another_process(&env.store, &env.clock, &env.provider, Policy::default());
    other_process.account(&id("main")).refresh_in_background();
    run_ready_tasks().await;
    let lease = Policy::default().lease_ttl();
    let ends_at = env.clock.now().checked_add(lease).unwrap();
    let mut events = env.quota.events();

    drop(env.quota.account(&id("main")).get().await);
    env.quota.close().await;

    let event = events.next().await;
    assert!(matches!(event, Some(Event::Waiting { until, .. }) if until == ends_at), "{event:?}");
    assert!(events.next().await.is_none());
    assert_eq!(env.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_another_process_ends_at_the_deadline() {
    let env = env();
    env.provider.then_hang();
    env.quota.account(&id("main")).refresh_in_background();
    run_ready_tasks().await;
    let quota = short_lived(&env, SECOND * 5, Policy::default());
    let before = env.clock.now();

    let error = quota.account(&id("main")).get().await.unwrap_err();

    assert!(matches!(error, QuotaError::InProgress { .. }), "{error}");
    assert_eq!(before.duration_until(env.clock.now()).as_millis(), 5000);
}
