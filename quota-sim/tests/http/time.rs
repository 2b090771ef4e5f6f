//! Behavior over time.

use std::time::Duration;

use quota_sim::{Account, Answer, BudgetAnswer, Change, Phase, Script, Window};
use tokio::time::advance;

use super::client::{receive, send_usage, usage};
use super::{HOUR, SECOND, start, with};

#[tokio::test(start_paused = true)]
async fn a_window_fills_and_resets() {
    let window = Window::five_hour().used(10.0).growth_per_hour(12.0).resets_in(HOUR * 2);
    let simulator = with(Account::new("main").windows([window])).await;

    advance(HOUR).await;
    let filled = usage(&simulator, "main").await.json();
    advance(HOUR * 2).await;
    let rolled_over = usage(&simulator, "main").await.json();

    assert_eq!(filled["five_hour"]["utilization"], 22.0);
    assert_eq!(filled["five_hour"]["resets_at"], "2026-09-21T16:13:20.000000+00:00");
    assert_eq!(rolled_over["five_hour"]["utilization"], 12.0);
    assert_eq!(rolled_over["five_hour"]["resets_at"], "2026-09-21T21:13:20.000000+00:00");
}

#[tokio::test(start_paused = true)]
async fn at_a_higher_speed_a_reset_is_reported_in_real_time() {
    let account = Account::new("main").windows([Window::five_hour().growth_per_hour(6.0)]);
    let simulator = start(Script::new([account]).speed(60.0)).await;

    advance(SECOND * 120).await;
    let body = usage(&simulator, "main").await.json();

    assert_eq!(body["five_hour"]["utilization"], 12.0);
    assert_eq!(body["five_hour"]["resets_at"], "2026-09-21T14:18:20.000000+00:00");
}

#[tokio::test(start_paused = true)]
async fn a_countdown_has_a_fixed_deadline() {
    let phase = Phase::new(Answer::ThrottleUntilEnd).until(SECOND * 90);
    let simulator = with(Account::new("main").answers([phase])).await;

    let mut retry_after = vec![];
    for _ in 0..3 {
        retry_after.push(usage(&simulator, "main").await.header("retry-after").map(str::to_owned));
        advance(Duration::from_millis(29_500)).await;
    }
    advance(Duration::from_millis(1500)).await;
    let after = usage(&simulator, "main").await;

    assert_eq!(retry_after, [Some("90".to_owned()), Some("61".to_owned()), Some("31".to_owned())]);
    assert_eq!(after.status, 200);
}

#[tokio::test(start_paused = true)]
async fn at_a_higher_speed_a_countdown_is_in_real_time() {
    let phase = Phase::new(Answer::ThrottleUntilEnd).until(HOUR);
    let simulator = start(Script::new([Account::new("main").answers([phase])]).speed(60.0)).await;

    assert_eq!(usage(&simulator, "main").await.header("retry-after"), Some("60"));
}

#[tokio::test(start_paused = true)]
async fn the_budget_counts_the_trailing_hour() {
    let simulator = with(Account::new("main").budget(2)).await;

    let mut statuses = vec![];
    for _ in 0..3 {
        statuses.push(usage(&simulator, "main").await.status);
        advance(SECOND * 600).await;
    }
    advance(HOUR).await;
    statuses.push(usage(&simulator, "main").await.status);

    assert_eq!(statuses, [200, 200, 429, 200]);
}

#[tokio::test(start_paused = true)]
async fn a_used_up_budget_sends_its_configured_answer() {
    for (kind, expected) in [(BudgetAnswer::Zero, "0"), (BudgetAnswer::Deadline, "3600")] {
        let simulator = with(Account::new("main").budget(0).budget_answer(kind)).await;

        let response = usage(&simulator, "main").await;

        assert_eq!((response.status, response.header("retry-after")), (429, Some(expected)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_takes_the_accounts_latency_in_real_time() {
    let account = Account::new("main").latency(SECOND * 3);
    let simulator = start(Script::new([account]).speed(60.0)).await;

    usage(&simulator, "main").await;
    usage(&simulator, "main").await;

    let arrivals = simulator.ledger().arrivals();
    // Compare whole seconds, because tokio's timers may be a millisecond late.
    assert_eq!(arrivals[1].duration_since(arrivals[0]).as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_response_reports_the_use_when_the_call_arrived() {
    let simulator = with(Account::new("main").latency(SECOND * 3)).await;

    let stream = send_usage(&simulator, "main").await;
    simulator.until(|ledger| ledger.calls() == 1).await;
    simulator.set("main", Change::used(Window::five_hour(), 50.0)).unwrap();
    let body = receive(stream).await.json();

    assert_eq!(body["five_hour"]["utilization"], 0.0);
}
