//! What a reader sees: fresh or stale, how old, how certain, and in what order readings replace each other.

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
async fn nothing_is_known_of_an_account_that_was_never_read() {
    let world = world();

    let answer = world.quota.account(&id("main")).peek();

    assert_eq!(answer.used(&WindowId::five_hour()), Used::Unknown);
    assert!(matches!(
        answer.freshness(),
        Freshness::Stale { since: None, reason: StaleReason::NeverRead, .. }
    ));
}

#[tokio::test(start_paused = true)]
async fn a_fresh_reading_is_given_at_the_first_poll() {
    let world = world();
    let main = world.quota.account(&id("main"));
    drop(main.get().await);

    let mut get = pin!(main.get());
    let polled = get.as_mut().poll(&mut Context::from_waker(Waker::noop()));

    assert!(matches!(polled, Poll::Ready(Ok(_))));
}

#[tokio::test(start_paused = true)]
async fn a_reading_is_stale_at_the_very_moment_it_is_due() {
    let world = world();
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    world.clock.sleep(MINUTE * 5 - Duration::from_millis(1)).await;
    let before = main.is_stale();

    world.clock.sleep(Duration::from_millis(1)).await;

    assert_eq!((before, main.is_stale()), (false, true));
}

#[tokio::test(start_paused = true)]
async fn a_reading_another_process_made_four_minutes_ago_is_enough() {
    let world = world();
    drop(world.quota.account(&id("main")).get().await);
    world.clock.sleep(MINUTE * 4).await;
    let elsewhere = another_process(&world.store, &world.clock, &world.provider, Policy::default());

    let answer = elsewhere.account(&id("main")).get().await.unwrap();

    assert_eq!((world.provider.calls(), answer.age().unwrap()), (1, MINUTE * 4));
}

#[tokio::test(start_paused = true)]
async fn headers_for_one_window_do_not_make_the_others_young() {
    let world = world();
    world.provider.answer(UsageReport::polled([
        WindowReading::new(WindowId::five_hour(), percent(10.0)),
        seven_days(20.0),
    ]));
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    world.clock.sleep(MINUTE * 4).await;
    main.observe(&headers(12.0)).unwrap();

    world.clock.sleep(MINUTE).await;

    assert!(main.is_stale());
    assert!(is_exact(&main.peek()), "the five hours are young");
}

fn opus(used: f64) -> WindowReading {
    let id = WindowId::seven_day().for_model("Opus").unwrap();
    WindowReading::new(id, percent(used)).scope(Scope::model("Opus"))
}

#[tokio::test(start_paused = true)]
async fn an_old_model_window_makes_the_account_stale_for_that_model_only() {
    let world = world();
    let five_hours = WindowReading::new(WindowId::five_hour(), percent(10.0));
    world.provider.answer(UsageReport::polled([five_hours, opus(20.0)]));
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    world.clock.sleep(MINUTE * 4).await;
    main.observe(&headers(12.0)).unwrap();

    world.clock.sleep(MINUTE * 4).await;

    assert!(main.is_stale_for(Some("claude-opus-4-5")));
    assert!(!main.is_stale() && !main.is_stale_for(Some("claude-sonnet-4-5")));
    let stale_for = |answer: AccountUsage| answer.is_stale_for(Some("claude-opus-4-5"));
    let other = main.get_for(Some("claude-sonnet-4-5")).await.unwrap();
    assert_eq!((stale_for(other), world.provider.calls()), (true, 1));
    let opus = main.get_for(Some("claude-opus-4-5")).await.unwrap();
    assert_eq!((stale_for(opus), world.provider.calls()), (false, 2));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_for_a_model_is_not_satisfied_by_one_without_a_call() {
    let world = world();
    let five_hours = WindowReading::new(WindowId::five_hour(), percent(10.0));
    world.provider.answer(UsageReport::polled([five_hours, opus(20.0)]));
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    world.clock.sleep(MINUTE * 4).await;
    main.observe(&headers(12.0)).unwrap();
    world.clock.sleep(MINUTE * 4).await;

    let (any, opus) = tokio::join!(main.get_with_max_age(MINUTE * 5), main.get_for(Some("claude-opus-4-5")));

    assert!(any.is_ok());
    assert_eq!((opus.unwrap().is_stale_for(Some("claude-opus-4-5")), world.provider.calls()), (false, 2));
}

#[tokio::test(start_paused = true)]
async fn headers_that_name_every_window_save_the_call() {
    let world = world();
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    world.clock.sleep(MINUTE * 4).await;
    main.observe(&headers(12.0)).unwrap();
    world.clock.sleep(MINUTE * 4).await;

    let answer = main.get().await.unwrap();

    assert_eq!((world.provider.calls(), five_hours(&answer)), (1, Some(12.0)));
}

#[tokio::test(start_paused = true)]
async fn an_observed_value_that_cannot_be_true_is_left_out_and_listed() {
    let world = world();
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    let mut events = world.quota.events();
    let overnight = WindowReading::new(WindowId::five_hour(), percent(97.0)).resets_at(noon() - MINUTE * 540);

    let rejected = main.observe(&UsageReport::from_statusline([overnight], noon())).unwrap();

    assert_eq!(rejected[0].window, WindowId::five_hour());
    assert_eq!(five_hours(&main.peek()), Some(40.0));
    assert!(matches!(events.next().await, Some(Event::Rejected { values, .. }) if values == rejected));
}

#[tokio::test(start_paused = true)]
async fn a_reset_of_a_fetcher_that_cannot_be_true_is_left_out_and_reported() {
    let world = world();
    let years_ahead = noon() + MINUTE * 60 * 24 * 401;
    let reading = WindowReading::new(WindowId::five_hour(), percent(50.0)).resets_at(years_ahead);
    world.provider.answer(UsageReport::polled([reading]));
    let main = world.quota.account(&id("main"));
    let mut events = world.quota.events();

    let answer = main.get().await.unwrap();

    assert_eq!(five_hours(&answer), Some(50.0));
    assert_eq!(answer.snapshot().windows()[0].resets_at(), None);
    assert!(matches!(events.next().await, Some(Event::Rejected { .. })));
}

#[tokio::test(start_paused = true)]
async fn polls_and_repeated_lines_of_an_idle_session_do_not_alternate() {
    let world = world();
    let reset = noon() + MINUTE * 120;
    let reading = |used| WindowReading::new(WindowId::five_hour(), percent(used)).resets_at(reset);
    let main = world.quota.account(&id("main"));
    let mut shown = Vec::new();
    world.provider.answer(UsageReport::polled([reading(42.0)]));
    drop(main.get().await);
    world.provider.answer(UsageReport::polled([reading(3.0)]));

    for _ in 0..3 {
        world.clock.sleep(MINUTE * 6).await;
        shown.push(five_hours(&main.get().await.unwrap()));
        let now = main.peek().now();
        main.observe(&UsageReport::from_statusline([reading(42.0)], now)).unwrap();
        shown.push(five_hours(&main.peek()));
    }

    assert_eq!(shown, [Some(3.0); 6]);
}

#[tokio::test(start_paused = true)]
async fn a_poll_is_as_old_as_its_start() {
    let world = world();
    let provider = world.provider.clone().taking(SECOND * 8);
    let main = world.quota.account(&id("main"));
    let poll = tokio::spawn({
        let main = main.clone();
        async move { drop(main.get().await) }
    });
    world.clock.sleep(SECOND * 4).await;
    main.observe(&headers(66.0)).unwrap();

    poll.await.unwrap();

    assert_eq!(provider.calls(), 1);
    assert_eq!(last_read(&main.peek()), Some(66.0));
}

#[tokio::test(start_paused = true)]
async fn a_delayed_observation_never_moves_a_window_back() {
    // B35b
    let world = world();
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    world.clock.sleep(SECOND * 20).await;
    main.observe(&headers(50.0)).unwrap();

    main.observe(&headers(45.0).observed_at(noon() + SECOND * 10)).unwrap();

    assert_eq!(last_read(&main.peek()), Some(50.0));
}

#[tokio::test(start_paused = true)]
async fn an_observation_from_the_future_does_not_beat_true_ones() {
    let world = world();
    let main = world.quota.account(&id("main"));
    main.observe(&headers(99.0).observed_at(noon() + MINUTE * 60 * 24)).unwrap();
    world.clock.sleep(MINUTE).await;

    drop(main.refresh().await.unwrap());

    assert_eq!(last_read(&main.peek()), Some(40.0));
}

#[tokio::test(start_paused = true)]
async fn headers_create_no_scoped_window_and_touch_no_money() {
    let world = world();
    let main = world.quota.account(&id("main"));
    let model = WindowId::seven_day().for_model("Fable").unwrap();
    let scoped = WindowReading::new(model.clone(), percent(80.0)).scope(Scope::model("Fable"));
    world.provider.answer(polled(10.0).coverage(Coverage::complete()));
    drop(main.get().await);

    main.observe(&UsageReport::from_headers([scoped])).unwrap();

    assert!(main.peek().snapshot().window(&model).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_window_that_is_no_longer_reported_is_gone_also_for_others() {
    let world = world();
    let main = world.quota.account(&id("main"));
    let model = WindowId::seven_day().for_model("Fable").unwrap();
    let scoped = WindowReading::new(model.clone(), Percent::FULL).scope(Scope::model("Fable"));
    world.provider.then_answer(UsageReport::polled([seven_days(20.0), scoped]));
    drop(main.get().await);
    world.clock.sleep(MINUTE * 6).await;

    drop(main.get().await);

    let elsewhere = another_process(&world.store, &world.clock, &world.provider, Policy::default());
    assert!(main.peek().snapshot().window(&model).is_none());
    assert!(elsewhere.account(&id("main")).sync().await.snapshot().window(&model).is_none());
}

#[tokio::test(start_paused = true)]
async fn an_account_without_windows_has_an_age_and_a_due_time() {
    let world = world();
    let main = world.quota.account(&id("main"));
    world.provider.answer(UsageReport::polled([]).plan("enterprise".to_owned()));
    drop(main.get().await.unwrap());
    world.clock.sleep(MINUTE).await;
    let young = (main.is_stale(), main.peek().age());

    world.clock.sleep(MINUTE * 4).await;

    assert_eq!(young, (false, Some(MINUTE)));
    assert!(main.is_stale());
}

#[tokio::test(start_paused = true)]
async fn a_window_that_reset_is_unknown_and_asked_about_soon() {
    let world = world();
    let main = world.quota.account(&id("main"));
    let reset = noon() + MINUTE * 2;
    let five = WindowReading::new(WindowId::five_hour(), Percent::FULL).resets_at(reset);
    world.provider.then_answer(UsageReport::polled([five]));
    drop(main.get().await);

    world.clock.sleep(MINUTE * 2).await;
    let at_reset = (main.peek().used(&WindowId::five_hour()), main.is_stale());
    world.clock.sleep(SECOND * 15).await;

    assert_eq!(at_reset, (Used::Unknown, false), "a little grace, for the provider to notice");
    assert!(main.is_stale());
    assert_eq!(five_hours(&main.get().await.unwrap()), Some(40.0));
}

#[tokio::test(start_paused = true)]
async fn a_window_that_reset_says_when_it_is_due() {
    let world = world();
    let main = world.quota.account(&id("main"));
    let reset = noon() + MINUTE * 2;
    let five = WindowReading::new(WindowId::five_hour(), Percent::FULL).resets_at(reset);
    world.provider.then_answer(UsageReport::polled([five]));
    assert_eq!(main.peek().due_at(None), None, "nothing was read");
    drop(main.get().await);

    let due = main.peek().due_at(None);

    assert_eq!(due, Some(reset + SECOND * 15));
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_window_is_asked_about_every_interval() {
    let world = world();
    let main = world.quota.account(&id("main"));
    let five = WindowReading::new(WindowId::five_hour(), Percent::FULL).resets_at(noon() + MINUTE * 240);
    world.provider.answer(UsageReport::polled([five]));
    let _keep = main.keep_fresh();

    world.clock.sleep(MINUTE * 21).await;

    assert_eq!(world.provider.calls(), 5);
}

#[tokio::test(start_paused = true)]
async fn every_fifth_request_refreshes_whatever_route_the_others_took() {
    let world = world_with(Policy::default().every_n_requests(5));
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    let numbers: Vec<_> = (0..11).map(|_| main.count_request()).collect();

    let due: Vec<_> = numbers.into_iter().filter(|number| main.needs_refresh(*number)).collect();

    assert_eq!(due, [5, 10]);
    assert!(!main.needs_refresh(0));
}

#[tokio::test(start_paused = true)]
async fn a_stale_reading_is_there_without_waiting_while_a_refresh_goes_on() {
    let world = world();
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    world.clock.sleep(MINUTE * 6).await;
    world.provider.answer(polled(70.0));

    main.refresh_in_background();
    let at_once = last_read(&main.peek());
    settle().await;

    assert_eq!((at_once, last_read(&main.peek())), (Some(40.0), Some(70.0)));
}

#[tokio::test(start_paused = true)]
async fn a_custom_age_is_asked_for_only_when_it_is_exceeded() {
    let world = world();
    let main = world.quota.account(&id("main"));
    drop(main.get().await);
    world.clock.sleep(MINUTE).await;

    drop(main.get_with_max_age(MINUTE * 2).await);
    let lenient = world.provider.calls();
    drop(main.get_with_max_age(SECOND * 30).await);

    assert_eq!((lenient, world.provider.calls()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn many_writers_end_with_the_newest_reading_of_each_window() {
    let world = world();
    let fleet: Vec<_> = (0..6)
        .map(|_| another_process(&world.store, &world.clock, &world.provider, Policy::default()))
        .collect();
    world.clock.sleep(MINUTE).await;
    for (member, quota) in fleet.iter().enumerate() {
        let age = SECOND * (7 * (member as u32 + 3) % 11);
        let usage = headers(f64::from(age.as_secs() as u32)).observed_at(noon() + MINUTE - age);
        quota.account(&id("main")).observe(&usage).unwrap();
    }
    world.clock.sleep(SECOND * 10).await;

    let mut read = Vec::new();
    for quota in &fleet {
        read.push(last_read(&quota.account(&id("main")).sync().await));
    }

    let newest = (0..6_u32).map(|member| 7 * (member + 3) % 11).min().unwrap();
    assert!(read.iter().all(|read| *read == Some(f64::from(newest))), "{read:?}");
}

#[tokio::test(start_paused = true)]
async fn a_line_without_a_reset_counts_beside_headers_that_are_not_written_yet() {
    let world = world();
    let main = world.quota.account(&id("main"));
    let reset = world.clock.now() + MINUTE * 60;
    let window = |used| WindowReading::new(WindowId::five_hour(), percent(used));
    main.observe(&UsageReport::from_headers([window(40.0).resets_at(reset)])).unwrap();
    world.clock.sleep(SECOND).await;

    main.observe(&UsageReport::from_statusline([window(55.0)], world.clock.now())).unwrap();

    let used = |answer: &AccountUsage| answer.snapshot().window(&WindowId::five_hour()).map(Window::used);
    assert_eq!(used(&main.peek()), Some(percent(55.0)));
}

#[tokio::test]
async fn no_reading_is_called_fresh_past_its_max_age() {
    // By the real clocks: the one that is read for each peek lags behind the one that stamps readings.
    let clock = Clock::system();
    let max_age = Duration::from_millis(3);
    let quota = QuotaManager::builder(MemoryStore::new())
        .fetcher(FakeProvider::answering("example", 40.0))
        .policy(Policy::default().min_call_interval(Duration::ZERO).max_age(max_age))
        .build()
        .unwrap();
    let main = quota.account(&id("main"));
    for _ in 0..10 {
        let answer = main.refresh().await.unwrap().usage;
        let stale_from = answer.snapshot().windows()[0].observed_at() + max_age;
        loop {
            let now = clock.now();
            if now > stale_from + Duration::from_millis(15) {
                break;
            }
            assert!(main.is_stale() || now < stale_from, "fresh at {now}, although stale from {stale_from}");
        }
    }
}
