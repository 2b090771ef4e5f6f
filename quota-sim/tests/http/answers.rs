//! Each kind of answer, as a client receives it.

use quota_sim::{Account, Answer, ExtraUsage, Phase, Window};
use serde_json::json;

use super::client::{get, login, usage};
use super::{SECOND, answering, with};

const USAGE: &str = "/api/oauth/usage";

#[tokio::test(start_paused = true)]
async fn a_call_gets_windows_and_limits() {
    let account = Account::new("main").windows([
        Window::five_hour().used(11.0).resets_in(SECOND * 60),
        Window::seven_day().used(9.25),
        Window::model("Fable").used(95.0),
    ]);
    let simulator = with(account).await;

    let response = usage(&simulator, "main").await;

    let body = response.json();
    assert_eq!(response.status, 200);
    assert_eq!(
        body["five_hour"],
        json!({ "utilization": 11.0, "resets_at": "2026-09-21T14:14:20.000000+00:00" })
    );
    assert_eq!(body["seven_day"]["utilization"], 9.25);
    let kinds: Vec<_> =
        (0..3).map(|at| (&body["limits"][at]["kind"], &body["limits"][at]["percent"])).collect();
    assert_eq!(
        kinds,
        [
            (&json!("session"), &json!(11)),
            (&json!("weekly_all"), &json!(9)),
            (&json!("weekly_scoped"), &json!(95))
        ]
    );
    assert_eq!(body["limits"][2]["scope"]["model"]["display_name"], "Fable");
}

#[tokio::test(start_paused = true)]
async fn every_response_has_organization_and_request_id() {
    let simulator = with(Account::new("main").with_organization("org-7")).await;

    let first = usage(&simulator, "main").await;
    let second = usage(&simulator, "main").await;

    assert_eq!(first.header("anthropic-organization-id"), Some("org-7"));
    assert!(first.header("request-id").is_some());
    assert_ne!(first.header("request-id"), second.header("request-id"));
}

#[tokio::test(start_paused = true)]
async fn every_response_has_the_simulators_date() {
    let simulator = with(Account::new("main")).await;

    assert_eq!(usage(&simulator, "main").await.header("date"), Some("Mon, 21 Sep 2026 14:13:20 GMT"));
}

#[tokio::test(start_paused = true)]
async fn a_window_that_has_not_started_has_no_reset() {
    let simulator = with(Account::new("main")).await;

    let body = usage(&simulator, "main").await.json();

    assert_eq!(body["five_hour"], json!({ "utilization": 0.0, "resets_at": null }));
}

#[tokio::test(start_paused = true)]
async fn extra_usage_is_reported_if_the_script_has_some() {
    let simulator = with(Account::new("main").extra_usage(ExtraUsage::new(2050, 4000))).await;

    let body = usage(&simulator, "main").await.json();

    assert_eq!(body["extra_usage"]["used_credits"], 2050);
}

#[tokio::test(start_paused = true)]
async fn a_call_without_the_beta_header_is_rejected() {
    let simulator = with(Account::new("main")).await;

    let response = get(&simulator, USAGE, "authorization: Bearer sim-token-main\r\n").await;

    assert_eq!(response.status, 400);
    assert_eq!(response.json()["error"]["type"], "invalid_request_error");
}

#[tokio::test(start_paused = true)]
async fn the_beta_header_may_be_one_of_several() {
    let simulator = with(Account::new("main")).await;
    let headers = "authorization: bearer sim-token-main\r\nanthropic-beta: a, oauth-2025-04-20\r\nanthropic-beta: b\r\n";

    assert_eq!(get(&simulator, USAGE, headers).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_token_is_unauthorized() {
    let simulator = with(Account::new("main")).await;

    for headers in [login("sim-token-other"), "authorization: Basic sim-token-main\r\n".into(), String::new()]
    {
        let response = get(&simulator, USAGE, &headers).await;

        assert_eq!(
            (response.status, &response.json()["error"]["type"]),
            (401, &json!("authentication_error"))
        );
        assert_eq!(response.header("anthropic-organization-id"), None);
    }
}

#[tokio::test(start_paused = true)]
async fn errors_have_their_status_and_their_kind() {
    for (answer, status, kind) in [
        (Answer::ThrottleZero, 429, "rate_limit_error"),
        (Answer::ThrottleNoHeader, 429, "rate_limit_error"),
        (Answer::Unauthorized, 401, "authentication_error"),
        (Answer::Forbidden, 403, "permission_error"),
        (Answer::Scope, 403, "permission_error"),
        (Answer::Unavailable, 503, "api_error"),
        (Answer::Overloaded, 529, "overloaded_error"),
    ] {
        let simulator = answering(answer).await;

        let response = usage(&simulator, "main").await;

        assert_eq!(
            (response.status, &response.json()["error"]["type"]),
            (status, &json!(kind)),
            "{answer:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_throttles_send_a_zero_or_no_header() {
    for (answer, expected) in [(Answer::ThrottleZero, Some("0")), (Answer::ThrottleNoHeader, None)] {
        let simulator = answering(answer).await;

        assert_eq!(usage(&simulator, "main").await.header("retry-after"), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_two_kinds_of_forbidden_have_different_messages() {
    for (answer, why) in
        [(Answer::Forbidden, "not allowed for this organization"), (Answer::Scope, "user:profile")]
    {
        let simulator = answering(answer).await;

        assert!(usage(&simulator, "main").await.text().contains(why));
    }
}

#[tokio::test(start_paused = true)]
async fn an_html_page_has_status_200() {
    let response = usage(&answering(Answer::Html).await, "main").await;

    assert_eq!((response.status, response.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(response.text().starts_with("<!DOCTYPE html>"));
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_is_an_empty_object() {
    let response = usage(&answering(Answer::Empty).await, "main").await;

    assert_eq!((response.status, response.text()), (200, "{}"));
}

#[tokio::test(start_paused = true)]
async fn garbage_is_truncated_json() {
    let response = usage(&answering(Answer::Garbage).await, "main").await;

    let error = serde_json::from_slice::<serde_json::Value>(&response.body).unwrap_err();
    assert_eq!(response.status, 200);
    assert!(error.is_eof(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_huge_answer_is_valid_json() {
    let response = usage(&answering(Answer::Huge).await, "main").await;

    assert!(response.body.len() > 2 * 1024 * 1024);
    assert_eq!(response.json()["five_hour"]["utilization"], 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_profile_names_the_owner() {
    let simulator = with(Account::new("main").plan("claude_team")).await;

    let response = get(&simulator, "/api/oauth/profile", &login("sim-token-main")).await;

    assert_eq!(response.json()["organization"]["organization_type"], "claude_team");
}

#[tokio::test(start_paused = true)]
async fn an_expired_login_gets_no_profile() {
    let simulator = with(Account::new("main").answers([Phase::new(Answer::Unauthorized)])).await;

    assert_eq!(get(&simulator, "/api/oauth/profile", &login("sim-token-main")).await.status, 401);
    assert_eq!(get(&simulator, "/api/oauth/profile", "").await.status, 401);
}

#[tokio::test(start_paused = true)]
async fn the_front_page_describes_the_endpoints() {
    let response = get(&with(Account::new("main")).await, "/", "").await;

    assert!(response.text().starts_with("A simulated provider."));
    assert!(response.text().contains("  main\n"));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_path_is_not_found() {
    assert_eq!(get(&with(Account::new("main")).await, "/v2", "").await.status, 404);
}
