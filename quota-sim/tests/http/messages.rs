//! Messages: their cost, and the headers of their responses.

use quota_sim::{Account, Answer, Change, Phase, Window};
use serde_json::json;

use super::client::{get, message, usage};
use super::{SECOND, with};

#[tokio::test(start_paused = true)]
async fn a_message_adds_its_cost_and_starts_the_window() {
    let simulator = with(Account::new("main")).await;

    let response = message(&simulator, r#"{"cost": 1.5}"#).await;

    let body = usage(&simulator, "main").await.json();
    assert_eq!(response.status, 200);
    assert_eq!(
        body["five_hour"],
        json!({ "utilization": 1.5, "resets_at": "2026-09-21T19:13:20.000000+00:00" })
    );
}

#[tokio::test(start_paused = true)]
async fn headers_agree_with_the_usage_endpoint() {
    let simulator = with(Account::new("main").windows([Window::five_hour().used(62.0)])).await;

    let response = message(&simulator, r#"{"cost": 0.5}"#).await;

    assert_eq!(response.header("anthropic-ratelimit-unified-5h-utilization"), Some("0.625"));
    assert_eq!(response.header("anthropic-ratelimit-unified-5h-reset"), Some("1790018000"));
    assert_eq!(response.header("anthropic-organization-id"), Some("sim-org-main"));
}

#[tokio::test(start_paused = true)]
async fn a_full_window_rejects_until_its_reset() {
    let simulator = with(Account::new("main").windows([Window::five_hour().used(100.0)])).await;

    let response = message(&simulator, "").await;

    assert_eq!((response.status, response.header("retry-after")), (429, Some("18000")));
    assert_eq!(response.header("anthropic-ratelimit-unified-status"), Some("rejected"));
    assert_eq!(response.header("anthropic-ratelimit-unified-5h-status"), Some("rejected"));
}

#[tokio::test(start_paused = true)]
async fn a_window_can_be_filled_while_the_script_runs() {
    let simulator = with(Account::new("main")).await;

    simulator.set("main", Change::used(Window::seven_day(), 100.0)).unwrap();

    assert_eq!(message(&simulator, "").await.status, 429);
}

#[tokio::test(start_paused = true)]
async fn a_message_with_an_expired_login_is_rejected() {
    let simulator = with(Account::new("main")).await;

    simulator.set("main", Change::answer(Answer::Unauthorized)).unwrap();

    assert_eq!(message(&simulator, "").await.status, 401);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_usage_endpoint_does_not_stop_messages() {
    let simulator = with(Account::new("main")).await;

    simulator.set("main", Change::answer(Answer::ThrottleZero)).unwrap();

    assert_eq!(message(&simulator, "").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_message_has_no_window_headers() {
    let phase = Phase::new(Answer::ThrottleUntilEnd).until(SECOND * 30).on_messages();
    let simulator = with(Account::new("main").answers([phase])).await;

    let response = message(&simulator, "").await;
    message(&simulator, "").await;

    assert_eq!((response.status, response.header("retry-after")), (429, Some("30")));
    assert_eq!(response.header("anthropic-ratelimit-unified-status"), None);
    assert_eq!(simulator.ledger().account("main").unwrap().messages_during_hold, 1);
}

#[tokio::test(start_paused = true)]
async fn a_message_to_an_overloaded_provider_is_rejected() {
    let simulator = with(Account::new("main").answers([Phase::new(Answer::Overloaded).on_messages()])).await;

    assert_eq!(message(&simulator, "").await.status, 529);
    assert_eq!(usage(&simulator, "main").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_message_before_the_reset_of_a_full_window_is_futile() {
    let simulator = with(Account::new("main").windows([Window::five_hour().used(100.0)])).await;

    message(&simulator, "").await;
    message(&simulator, "").await;

    assert_eq!(simulator.ledger().account("main").unwrap().futile_messages, 1);
}

#[tokio::test(start_paused = true)]
async fn the_ledger_counts_messages_given_up_despite_capacity() {
    let simulator = with(Account::new("main").windows([Window::model("Fable").used(100.0)])).await;

    simulator.gave_up("claude-fable-5");
    simulator.gave_up("claude-other-5");

    assert_eq!((simulator.ledger().gave_up, simulator.ledger().gave_up_with_capacity), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn an_invalid_message_is_rejected_and_uses_nothing() {
    let simulator = with(Account::new("main").windows([Window::five_hour().used(3.0)])).await;

    let response = message(&simulator, r#"{"cost": -1}"#).await;

    assert_eq!(response.status, 400);
    assert_eq!(usage(&simulator, "main").await.json()["five_hour"]["utilization"], 3.0);
}

#[tokio::test(start_paused = true)]
async fn messages_are_counted_separately_from_calls() {
    let simulator = with(Account::new("main")).await;

    message(&simulator, "").await;
    message(&simulator, "[").await;
    get(&simulator, "/api/oauth/profile", "").await;

    let ledger = simulator.ledger();
    assert_eq!(ledger.account("main").unwrap().messages, [(200, 1), (400, 1)].into());
    assert_eq!(ledger.calls(), 0);
}
