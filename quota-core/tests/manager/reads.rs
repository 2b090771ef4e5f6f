//! What readers get: freshness, age, certainty, and the order in which readings replace each other.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::support::*;
use quota_core::manager::StaleReason;
use quota_core::model::{Coverage, Scope, Window};
use quota_core::testing::FakeProvider;
use quota_core::{
    AccountUsage, Clock, Event, Freshness, MemoryStore, Percent, Policy, QuotaManager, UsageReport, Used,
    WindowId, WindowReading,
};

fn seven_days(used: f64) -> WindowReading {
    WindowReading::new(WindowId::seven_day(), percent(used))
}

#[tokio::test(start_paused = true)]
async fn an_account_without_readings_has_unknown_usage() {
    let env = env();

    let usage = env.quota.account(&id("main")).peek();

    assert_eq!(usage.used(&WindowId::five_hour()), Used::Unknown);
    assert!(matches!(
        usage.freshness(),
        Freshness::Stale { since: None, reason: StaleReason::LoginNotCheckedYet, .. }
    ));
}

#[tokio::test(start_paused = true)]
async fn a_fresh_reading_is_ready_at_the_first_poll() {
    let env = env();
    let main = env.quota.account(&id("main"));
    drop(main.get().await);

    let mut get = pin!(main.get());
    let polled = get.as_mut().poll(&mut Context::from_waker(Waker::noop()));

    assert!(matches!(polled, Poll::Ready(Ok(_))));
}

#[tokio::test(start_paused = true)]
async fn a_reading_is_stale_from_its_due_time_on() {
    let env = env();
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    env.clock.sleep(MINUTE * 5 - Duration::from_millis(1)).await;
    let before = main.is_stale();

    env.clock.sleep(Duration::from_millis(1)).await;

    assert_eq!((before, main.is_stale()), (false, true));
}

#[tokio::test(start_paused = true)]
async fn a_four_minute_old_reading_of_another_process_is_fresh() {
    let env = env();
    drop(env.quota.account(&id("main")).get().await);
    env.clock.sleep(MINUTE * 4).await;
    let other_process = another_process(&env.store, &env.clock, &env.provider, Policy::default());

    let usage = other_process.account(&id("main")).get().await.unwrap();

    assert_eq!((env.provider.calls(), usage.age().unwrap()), (1, MINUTE * 4));
}

#[tokio::test(start_paused = true)]
async fn headers_for_one_window_do_not_refresh_the_others() {
    let env = env();
    env.provider.answer(UsageReport::polled([
        WindowReading::new(WindowId::five_hour(), percent(10.0)),
        seven_days(20.0),
    ]));
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    env.clock.sleep(MINUTE * 4).await;
    main.observe(&headers(12.0)).unwrap();

    env.clock.sleep(MINUTE).await;

    assert!(main.is_stale());
    assert!(is_exact(&main.peek()), "the 5-hour window is fresh");
}

fn opus(used: f64) -> WindowReading {
    let id = WindowId::seven_day().for_model("Opus").unwrap();
    WindowReading::new(id, percent(used)).scope(Scope::model("Opus"))
}

#[tokio::test(start_paused = true)]
async fn an_old_model_window_makes_the_account_stale_for_that_model_only() {
    let env = env();
    let five_hours = WindowReading::new(WindowId::five_hour(), percent(10.0));
    env.provider.answer(UsageReport::polled([five_hours, opus(20.0)]));
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    env.clock.sleep(MINUTE * 4).await;
    main.observe(&headers(12.0)).unwrap();

    env.clock.sleep(MINUTE * 4).await;

    assert!(main.is_stale_for(Some("claude-opus-4-5")));
    assert!(!main.is_stale() && !main.is_stale_for(Some("claude-sonnet-4-5")));
    let stale_for = |usage: AccountUsage| usage.is_stale_for(Some("claude-opus-4-5"));
    let other = main.get_for(Some("claude-sonnet-4-5")).await.unwrap();
    assert_eq!((stale_for(other), env.provider.calls()), (true, 1));
    let opus = main.get_for(Some("claude-opus-4-5")).await.unwrap();
    assert_eq!((stale_for(opus), env.provider.calls()), (false, 2));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_for_a_model_calls_if_the_shared_one_made_no_call() {
    let env = env();
    let five_hours = WindowReading::new(WindowId::five_hour(), percent(10.0));
    env.provider.answer(UsageReport::polled([five_hours, opus(20.0)]));
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    env.clock.sleep(MINUTE * 4).await;
    main.observe(&headers(12.0)).unwrap();
    env.clock.sleep(MINUTE * 4).await;

    let (any, opus) = tokio::join!(main.get_with_max_age(MINUTE * 5), main.get_for(Some("claude-opus-4-5")));

    assert!(any.is_ok());
    assert_eq!((opus.unwrap().is_stale_for(Some("claude-opus-4-5")), env.provider.calls()), (false, 2));
}

#[tokio::test(start_paused = true)]
async fn headers_for_every_window_save_the_call() {
    let env = env();
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    env.clock.sleep(MINUTE * 4).await;
    main.observe(&headers(12.0)).unwrap();
    env.clock.sleep(MINUTE * 4).await;

    let usage = main.get().await.unwrap();

    assert_eq!((env.provider.calls(), five_hours(&usage)), (1, Some(12.0)));
}

#[tokio::test(start_paused = true)]
async fn an_implausible_observed_value_is_rejected_and_reported() {
    let env = env();
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    let mut events = env.quota.events();
    let overnight = WindowReading::new(WindowId::five_hour(), percent(97.0)).resets_at(noon() - MINUTE * 540);

    let rejected = main.observe(&UsageReport::from_statusline([overnight], noon())).unwrap();

    assert_eq!(rejected[0].window, WindowId::five_hour());
    assert_eq!(five_hours(&main.peek()), Some(40.0));
    assert!(matches!(events.next().await, Some(Event::Rejected { values, .. }) if values == rejected));
}

#[tokio::test(start_paused = true)]
async fn an_implausible_fetched_reset_is_rejected_and_reported() {
    let env = env();
    let years_ahead = noon() + MINUTE * 60 * 24 * 401;
    let reading = WindowReading::new(WindowId::five_hour(), percent(50.0)).resets_at(years_ahead);
    env.provider.answer(UsageReport::polled([reading]));
    let main = env.quota.account(&id("main"));
    let mut events = env.quota.events();

    let usage = main.get().await.unwrap();

    assert_eq!(five_hours(&usage), Some(50.0));
    assert_eq!(usage.snapshot().windows()[0].resets_at(), None);
    assert!(matches!(events.next().await, Some(Event::Rejected { .. })));
}

#[tokio::test(start_paused = true)]
async fn repeated_status_lines_of_an_idle_session_do_not_override_polls() {
    let env = env();
    let reset = noon() + MINUTE * 120;
    let reading = |used| WindowReading::new(WindowId::five_hour(), percent(used)).resets_at(reset);
    let main = env.quota.account(&id("main"));
    let mut shown = Vec::new();
    env.provider.answer(UsageReport::polled([reading(42.0)]));
    drop(main.get().await);
    env.provider.answer(UsageReport::polled([reading(3.0)]));

    for _ in 0..3 {
        env.clock.sleep(MINUTE * 6).await;
        shown.push(five_hours(&main.get().await.unwrap()));
        let now = main.peek().now();
        main.observe(&UsageReport::from_statusline([reading(42.0)], now)).unwrap();
        shown.push(five_hours(&main.peek()));
    }

    assert_eq!(shown, [Some(3.0); 6]);
}

#[tokio::test(start_paused = true)]
async fn a_polled_reading_is_as_old_as_the_start_of_its_call() {
    let env = env();
    let provider = env.provider.clone().with_delay(SECOND * 8);
    let main = env.quota.account(&id("main"));
    let poll = tokio::spawn({
        let main = main.clone();
        async move { drop(main.get().await) }
    });
    env.clock.sleep(SECOND * 4).await;
    main.observe(&headers(66.0)).unwrap();

    poll.await.unwrap();

    assert_eq!(provider.calls(), 1);
    assert_eq!(last_read(&main.peek()), Some(66.0));
}

#[tokio::test(start_paused = true)]
async fn a_delayed_observation_does_not_replace_a_newer_one() {
    let env = env();
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    env.clock.sleep(SECOND * 20).await;
    main.observe(&headers(50.0)).unwrap();

    main.observe(&headers(45.0).observed_at(noon() + SECOND * 10)).unwrap();

    assert_eq!(last_read(&main.peek()), Some(50.0));
}

#[tokio::test(start_paused = true)]
async fn an_observation_from_the_future_does_not_replace_a_poll() {
    let env = env();
    let main = env.quota.account(&id("main"));
    main.observe(&headers(99.0).observed_at(noon() + MINUTE * 60 * 24)).unwrap();
    env.clock.sleep(MINUTE).await;

    drop(main.refresh().await.unwrap());

    assert_eq!(last_read(&main.peek()), Some(40.0));
}

#[tokio::test(start_paused = true)]
async fn headers_do_not_create_a_model_window() {
    let env = env();
    let main = env.quota.account(&id("main"));
    let model = WindowId::seven_day().for_model("Fable").unwrap();
    let scoped = WindowReading::new(model.clone(), percent(80.0)).scope(Scope::model("Fable"));
    env.provider.answer(polled(10.0).coverage(Coverage::complete()));
    drop(main.get().await);

    main.observe(&UsageReport::from_headers([scoped])).unwrap();

    assert!(main.peek().snapshot().window(&model).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_window_missing_from_a_poll_is_removed_for_all_processes() {
    let env = env();
    let main = env.quota.account(&id("main"));
    let model = WindowId::seven_day().for_model("Fable").unwrap();
    let scoped = WindowReading::new(model.clone(), Percent::FULL).scope(Scope::model("Fable"));
    env.provider.then_answer(UsageReport::polled([seven_days(20.0), scoped]));
    drop(main.get().await);
    env.clock.sleep(MINUTE * 6).await;

    drop(main.get().await);

    let other_process = another_process(&env.store, &env.clock, &env.provider, Policy::default());
    assert!(main.peek().snapshot().window(&model).is_none());
    assert!(other_process.account(&id("main")).sync().await.snapshot().window(&model).is_none());
}

#[tokio::test(start_paused = true)]
async fn an_account_without_windows_has_an_age_and_a_due_time() {
    let env = env();
    let main = env.quota.account(&id("main"));
    env.provider.answer(UsageReport::polled([]).plan("enterprise".to_owned()));
    drop(main.get().await.unwrap());
    env.clock.sleep(MINUTE).await;
    let young = (main.is_stale(), main.peek().age());

    env.clock.sleep(MINUTE * 4).await;

    assert_eq!(young, (false, Some(MINUTE)));
    assert!(main.is_stale());
}

#[tokio::test(start_paused = true)]
async fn a_window_after_its_reset_is_unknown_and_refreshed_soon() {
    let env = env();
    let main = env.quota.account(&id("main"));
    let reset = noon() + MINUTE * 2;
    let five = WindowReading::new(WindowId::five_hour(), Percent::FULL).resets_at(reset);
    env.provider.then_answer(UsageReport::polled([five]));
    drop(main.get().await);

    env.clock.sleep(MINUTE * 2).await;
    let at_reset = (main.peek().used(&WindowId::five_hour()), main.is_stale());
    env.clock.sleep(SECOND * 15).await;

    assert_eq!(at_reset, (Used::Unknown, false), "the grace period after the reset");
    assert!(main.is_stale());
    assert_eq!(five_hours(&main.get().await.unwrap()), Some(40.0));
}

#[tokio::test(start_paused = true)]
async fn a_window_is_due_shortly_after_its_reset() {
    let env = env();
    let main = env.quota.account(&id("main"));
    let reset = noon() + MINUTE * 2;
    let five = WindowReading::new(WindowId::five_hour(), Percent::FULL).resets_at(reset);
    env.provider.then_answer(UsageReport::polled([five]));
    assert_eq!(main.peek().due_at(None), None, "no readings yet");
    drop(main.get().await);

    let due = main.peek().due_at(None);

    assert_eq!(due, Some(reset + SECOND * 15));
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_window_is_refreshed_at_every_max_age() {
    let env = env();
    let main = env.quota.account(&id("main"));
    let five = WindowReading::new(WindowId::five_hour(), Percent::FULL).resets_at(noon() + MINUTE * 240);
    env.provider.answer(UsageReport::polled([five]));
    let _guard = main.keep_fresh();

    env.clock.sleep(MINUTE * 21).await;

    assert_eq!(env.provider.calls(), 5);
}

#[tokio::test(start_paused = true)]
async fn every_fifth_request_needs_a_refresh() {
    let env = env_with(Policy::default().every_n_requests(5));
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    let numbers: Vec<_> = (0..11).map(|_| main.count_request()).collect();

    let due: Vec<_> = numbers.into_iter().filter(|number| main.needs_refresh(*number)).collect();

    assert_eq!(due, [5, 10]);
    assert!(!main.needs_refresh(0));
}

#[tokio::test(start_paused = true)]
async fn peek_returns_the_stale_reading_during_a_refresh() {
    let env = env();
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    env.clock.sleep(MINUTE * 6).await;
    env.provider.answer(polled(70.0));

    main.refresh_in_background();
    let at_once = last_read(&main.peek());
    run_ready_tasks().await;

    assert_eq!((at_once, last_read(&main.peek())), (Some(40.0), Some(70.0)));
}

#[tokio::test(start_paused = true)]
async fn get_with_max_age_refreshes_only_older_readings() {
    let env = env();
    let main = env.quota.account(&id("main"));
    drop(main.get().await);
    env.clock.sleep(MINUTE).await;

    drop(main.get_with_max_age(MINUTE * 2).await);
    let lenient = env.provider.calls();
    drop(main.get_with_max_age(SECOND * 30).await);

    assert_eq!((lenient, env.provider.calls()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn concurrent_writers_converge_on_the_newest_reading() {
    let env = env();
    let fleet: Vec<_> =
        (0..6).map(|_| another_process(&env.store, &env.clock, &env.provider, Policy::default())).collect();
    env.clock.sleep(MINUTE).await;
    for (member, quota) in fleet.iter().enumerate() {
        let age = SECOND * (7 * (member as u32 + 3) % 11);
        let usage = headers(f64::from(age.as_secs() as u32)).observed_at(noon() + MINUTE - age);
        quota.account(&id("main")).observe(&usage).unwrap();
    }
    env.clock.sleep(SECOND * 10).await;

    let mut read = Vec::new();
    for quota in &fleet {
        read.push(last_read(&quota.account(&id("main")).sync().await));
    }

    let newest = (0..6_u32).map(|member| 7 * (member + 3) % 11).min().unwrap();
    assert!(read.iter().all(|read| *read == Some(f64::from(newest))), "{read:?}");
}

#[tokio::test(start_paused = true)]
async fn a_status_line_without_a_reset_merges_with_pending_headers() {
    let env = env();
    let main = env.quota.account(&id("main"));
    let reset = env.clock.now() + MINUTE * 60;
    let window = |used| WindowReading::new(WindowId::five_hour(), percent(used));
    main.observe(&UsageReport::from_headers([window(40.0).resets_at(reset)])).unwrap();
    env.clock.sleep(SECOND).await;

    main.observe(&UsageReport::from_statusline([window(55.0)], env.clock.now())).unwrap();

    let used = |usage: &AccountUsage| usage.snapshot().window(&WindowId::five_hour()).map(Window::used);
    assert_eq!(used(&main.peek()), Some(percent(55.0)));
}

#[tokio::test]
async fn no_reading_is_fresh_past_its_max_age() {
    // Uses the real clocks: the coarse clock of each peek lags behind the fine clock of the readings' timestamps.
    let clock = Clock::system();
    let max_age = Duration::from_millis(3);
    let quota = QuotaManager::builder(MemoryStore::new())
        .fetcher(FakeProvider::answering("example", 40.0))
        .policy(Policy::default().min_call_interval(Duration::ZERO).max_age(max_age))
        .build()
        .unwrap();
    let main = quota.account(&id("main"));
    for _ in 0..10 {
        let usage = main.refresh().await.unwrap().usage;
        let stale_from = usage.snapshot().windows()[0].observed_at() + max_age;
        loop {
            let now = clock.now();
            if now > stale_from + Duration::from_millis(15) {
                break;
            }
            assert!(main.is_stale() || now < stale_from, "fresh at {now}, although stale from {stale_from}");
        }
    }
}
