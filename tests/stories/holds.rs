//! Both kinds of 429: no call is made during the hold, and calls resume after it.

use std::time::Duration;

use quota::QuotaError;
use quota::record::{HoldReason, LastFailureKind};
use quota_sim::{Answer, Change};
use tokio::task::JoinSet;

use crate::fixture::*;

/// Runs many concurrent readers in a loop, until a refresh succeeds.
async fn crowd_until_refreshed(quota: &quota::QuotaManager, used: f64) {
    let main = quota.account(&id("main"));
    let mut watch = main.watch();
    let _keep = main.keep_fresh();
    loop {
        let mut readers = JoinSet::new();
        for _ in 0..20 {
            let main = main.clone();
            readers.spawn(async move { drop(main.get().await) });
        }
        readers.join_all().await;
        if five_hours(&main.peek()) == Some(used) {
            return;
        }
        drop(watch.next().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_resume_after_a_429_without_a_deadline_but_not_too_soon() {
    let simulator = fast_provider([account("main")]).await;
    let quota = single_process(&simulator, tokens(["main"]), fast_policy());
    drop(quota.account(&id("main")).get().await.unwrap());
    simulator.set("main", Change::used(quota_sim::Window::five_hour(), 77.0)).unwrap();
    // Ten simulated minutes take one second.
    simulator.set("main", Change::answer_for(Answer::ThrottleZero, Duration::from_secs(600))).unwrap();

    within_deadline("the account to be refreshed again", crowd_until_refreshed(&quota, 77.0)).await;

    let ledger = simulator.stop().await;
    let main = ledger.account("main").unwrap();
    assert_eq!((main.calls_during_hold, main.max_concurrent), (0, 1));
    assert!(main.answered(429) >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_is_made_before_the_deadline_of_a_429() {
    let simulator = fast_provider([account("main")]).await;
    let quota = single_process(&simulator, tokens(["main"]), fast_policy());
    drop(quota.account(&id("main")).get().await.unwrap());
    simulator.set("main", Change::used(quota_sim::Window::five_hour(), 77.0)).unwrap();
    // Ten simulated minutes take one second.
    simulator.set("main", Change::answer_for(Answer::ThrottleUntilEnd, Duration::from_secs(600))).unwrap();

    within_deadline("the account to be refreshed again", crowd_until_refreshed(&quota, 77.0)).await;

    let ledger = simulator.stop().await;
    let main = ledger.account("main").unwrap();
    assert_eq!((main.calls_during_hold, main.answered(429)), (0, 1));
}

#[tokio::test]
async fn an_account_on_hold_shows_old_readings_and_the_holds_end() {
    let simulator = provider([account("main")]).await;
    let quota = single_process(&simulator, tokens(["main"]), policy());
    let main = quota.account(&id("main"));
    drop(main.get().await.unwrap());
    simulator.set("main", Change::answer_for(Answer::ThrottleUntilEnd, Duration::from_secs(3000))).unwrap();

    let first = main.refresh().await.unwrap();
    let second = main.refresh().await.unwrap();

    assert!(matches!(first.error, Some(QuotaError::Fetch { .. })));
    let Some(QuotaError::OnHold { hold, .. }) = second.error else { panic!("held, not {:?}", second.error) };
    assert_eq!(hold.reason, HoldReason::RateLimited);
    assert!((2990..=3000).contains(&hold.retry_after.unwrap().as_secs()), "{:?}", hold.retry_after);
    assert_eq!(five_hours(&second.usage), Some(30.0));
    assert_eq!(simulator.stop().await.calls(), 2);
}

#[tokio::test]
async fn a_429_to_one_account_starts_a_cooldown_in_every_process() {
    let simulator = provider([account("main"), account("spare")]).await;
    let store = memory();
    let logins = || tokens(["main", "spare"]);
    let (here, there) =
        (process(&simulator, &store, logins(), policy()), process(&simulator, &store, logins(), policy()));
    simulator.set("main", Change::answer(Answer::ThrottleZero)).unwrap();
    drop(here.account(&id("main")).get().await);

    let error = there.account(&id("spare")).get().await.unwrap_err();

    assert!(
        matches!(error, QuotaError::OnHold { hold, .. } if hold.reason == HoldReason::ProviderRateLimited)
    );
    assert_eq!(simulator.stop().await.account("spare").unwrap().calls, 0);
}

#[tokio::test]
async fn a_forbidding_organization_puts_no_other_account_on_hold() {
    let simulator = provider([account("main"), account("spare")]).await;
    simulator.set("main", Change::answer(Answer::Forbidden)).unwrap();
    let quota = single_process(&simulator, tokens(["main", "spare"]), policy());
    let (main, spare) = (quota.account(&id("main")), quota.account(&id("spare")));

    let refused = main.get().await.unwrap_err();
    let served = spare.get().await;

    assert!(refused.report().contains("policy"), "{}", refused.report());
    assert_eq!(
        (main.peek().hold(), main.peek().last_failure().unwrap().kind),
        (None, LastFailureKind::Forbidden)
    );
    assert!(served.is_ok());
}
