//! Calls that are cut off: by the end of the manager, and by the deadline of the program.

use std::sync::Arc;
use std::time::Duration;

use crate::support::*;
use quota_core::policy::Budget;
use quota_core::record::HoldReason;
use quota_core::{Event, FetchError, Policy, QuotaError, QuotaManager};

/// A manager of a program that ends that long from now.
fn short_lived(world: &World, deadline: Duration, policy: Policy) -> QuotaManager {
    QuotaManager::builder(Arc::clone(&world.store))
        .provider(world.provider.clone(), world.provider.clone())
        .clock(world.clock.clone())
        .policy(policy)
        .deadline(deadline)
        .build()
        .unwrap()
}

/// Cancels a call of `world` that the provider does not answer, and says whether all calls had ended by themselves.
async fn cancel_a_call(world: &World) -> bool {
    world.provider.then_hang();
    world.quota.account(&id("main")).refresh_in_background();
    settle().await;
    assert_eq!(world.provider.calls(), 1);
    world.quota.close_within(Duration::ZERO).await
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_a_cancelled_call_is_given_back() {
    let world = world();
    let all_ended = cancel_a_call(&world).await;
    let elsewhere = another_process(&world.store, &world.clock, &world.provider, Policy::default());
    let before = world.clock.now();

    let answer = elsewhere.account(&id("main")).get().await.unwrap();

    assert!(!all_ended);
    assert_eq!(five_hours(&answer), Some(40.0));
    assert_eq!(world.clock.now(), before, "it waited for the lease");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_counts_toward_the_budget() {
    let policy = Policy::default().budget(Budget::new(1, 0));
    let world = world_with(policy.clone());
    cancel_a_call(&world).await;
    let elsewhere = another_process(&world.store, &world.clock, &world.provider, policy);

    let error = elsewhere.account(&id("main")).get().await.unwrap_err();

    assert!(matches!(error, QuotaError::OnHold { hold, .. } if hold.reason == HoldReason::BudgetExhausted));
}

#[tokio::test(start_paused = true)]
async fn callers_of_a_cancelled_call_are_answered() {
    let world = world();
    world.provider.then_hang();
    let main = world.quota.account(&id("main"));
    let caller = tokio::spawn(async move { main.get().await.map(drop) });
    settle().await;

    world.quota.close_within(Duration::ZERO).await;

    assert!(matches!(caller.await.unwrap(), Err(QuotaError::Closed)));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_ends_within_the_grace_is_kept() {
    let world = world();
    let _provider = world.provider.clone().taking(SECOND * 3);
    let main = world.quota.account(&id("main"));
    main.refresh_in_background();
    settle().await;

    let all_ended = world.quota.close_within(SECOND * 4).await;

    assert!(all_ended);
    assert_eq!(last_read(&main.peek()), Some(40.0));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_the_deadline_cuts_off_has_timed_out() {
    let world = world();
    world.provider.then_hang();
    let quota = short_lived(&world, SECOND * 3, Policy::default());
    let before = world.clock.now();

    let error = quota.account(&id("main")).get().await.unwrap_err();

    assert!(matches!(error, QuotaError::Fetch { error: FetchError::TimedOut, .. }), "{error}");
    assert_eq!(before.duration_until(world.clock.now()).as_millis(), 3000);
}

#[tokio::test(start_paused = true)]
async fn the_next_run_after_a_call_that_the_deadline_cut_off_does_not_call() {
    let world = world();
    world.provider.then_hang();
    let first = short_lived(&world, SECOND * 3, Policy::default());
    drop(first.account(&id("main")).get().await);
    let second = short_lived(&world, SECOND * 3, Policy::default());

    let error = second.account(&id("main")).get().await.unwrap_err();

    assert!(matches!(error, QuotaError::OnHold { hold, .. } if hold.reason == HoldReason::Failing));
    assert_eq!(world.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_program_that_ends_at_its_deadline_records_the_timeout() {
    let world = world();
    world.provider.then_hang();
    let quota = short_lived(&world, SECOND * 3, Policy::default());
    let main = quota.account(&id("main"));
    assert!(world.clock.bounded(SECOND * 3, main.get()).await.is_none());

    quota.close_within(Duration::ZERO).await;

    let error = world.quota.account(&id("main")).get().await.unwrap_err();
    assert!(matches!(error, QuotaError::OnHold { hold, .. } if hold.reason == HoldReason::Failing));
}

#[tokio::test(start_paused = true)]
async fn a_hanging_call_that_ends_before_the_deadline_is_a_timeout() {
    let world = world();
    world.provider.then_hang();
    let quota = short_lived(&world, SECOND * 30, Policy::default());

    let error = quota.account(&id("main")).get().await.unwrap_err();

    assert!(matches!(error, QuotaError::Fetch { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn no_call_is_started_with_less_than_two_seconds_left() {
    let world = world();
    let quota = short_lived(&world, SECOND * 5, Policy::default());
    world.clock.sleep(Duration::from_millis(3001)).await;

    let error = quota.account(&id("main")).get().await.unwrap_err();

    assert!(matches!(error, QuotaError::DeadlineExceeded { .. }), "{error}");
    assert_eq!(world.provider.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_account_whose_turn_comes_too_late_is_not_refreshed() {
    let world = world();
    let policy = Policy::default().min_call_interval(SECOND * 4);
    let quota = short_lived(&world, SECOND * 5, policy);
    drop(quota.account(&id("main")).get().await);
    let before = world.clock.now();

    let error = quota.account(&id("other")).get().await.unwrap_err();

    assert!(matches!(error, QuotaError::DeadlineExceeded { .. }), "{error}");
    assert_eq!(world.provider.calls(), 1);
    assert_eq!(before.duration_until(world.clock.now()).as_millis(), 3000, "what is left, less a call");
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_another_process_is_announced_once() {
    let world = world();
    let _provider = world.provider.clone().taking(SECOND * 3);
    let elsewhere = another_process(&world.store, &world.clock, &world.provider, Policy::default());
    elsewhere.account(&id("main")).refresh_in_background();
    settle().await;
    let lease = Policy::default().lease_ttl();
    let ends_at = world.clock.now().checked_add(lease).unwrap();
    let mut events = world.quota.events();

    drop(world.quota.account(&id("main")).get().await);
    world.quota.close().await;

    let event = events.next().await;
    assert!(matches!(event, Some(Event::Waiting { until, .. }) if until == ends_at), "{event:?}");
    assert!(events.next().await.is_none());
    assert_eq!(world.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn another_process_is_waited_for_no_longer_than_until_the_deadline() {
    let world = world();
    world.provider.then_hang();
    world.quota.account(&id("main")).refresh_in_background();
    settle().await;
    let quota = short_lived(&world, SECOND * 5, Policy::default());
    let before = world.clock.now();

    let error = quota.account(&id("main")).get().await.unwrap_err();

    assert!(matches!(error, QuotaError::InProgress { .. }), "{error}");
    assert_eq!(before.duration_until(world.clock.now()).as_millis(), 5000);
}
