//! The use of windows over time: the samples, and the pace.

use std::sync::Arc;

use quota::MemoryStore;
use quota_journal::Rules;
use quota_server::AccessTokens;
use quota_sim::{Account, Window};
use serde_json::{Value, json};

use super::support::{Running, Setup, main};

/// A gateway whose journal has one sample of the five-hour window.
async fn recorded(setup: impl FnOnce(Setup) -> Setup) -> Running {
    let store: Arc<MemoryStore> = Arc::default();
    let account =
        Account::new("main").windows([Window::five_hour().used(62.0), Window::seven_day().used(41.0)]);
    let gateway = setup(Setup::new([account]).store(&store)).start().await;
    let _ = gateway.main().get().await.unwrap();
    quota_journal::update(&*store, &main(), &Rules::default()).await.unwrap();
    gateway
}

fn windows(body: &Value) -> &Vec<Value> {
    body["accounts"][0]["windows"].as_array().unwrap()
}

#[tokio::test]
async fn the_samples_of_each_window_are_listed() {
    let gateway = recorded(|setup| setup).await;

    let body = gateway.get("/v1/history", "").await.json();

    assert_eq!((&body["version"], &body["accounts"][0]["account"]), (&json!(1), &json!("anthropic/main")));
    assert_eq!(windows(&body).len(), 2);
    let only = gateway.get("/v1/history?account=anthropic/main&window=five_hour&hours=1", "").await.json();
    let samples = windows(&only)[0]["samples"].as_array().unwrap();
    assert_eq!((windows(&only).len(), samples.len(), &samples[0]["used_percent"]), (1, 1, &json!(62.0)));
    assert!(samples[0]["resets_at"].is_string());
}

#[tokio::test]
async fn the_pace_has_the_fields_of_the_command() {
    let gateway = recorded(|setup| setup).await;

    let body = gateway.get("/v1/pace", "").await.json();

    assert_eq!(body["version"], 2);
    let window = &windows(&body)[0];
    assert_eq!((&window["id"], &window["used_percent"]), (&json!("five_hour"), &json!(62.0)), "{body}");
    assert_eq!((&window["certainty"], &window["evidence"]["samples"]), (&json!("exact"), &json!(1)));
    let only = gateway.get("/v1/pace?window=seven_day", "").await.json();
    assert_eq!((windows(&only).len(), &windows(&only)[0]["id"]), (1, &json!("seven_day")));
}

#[tokio::test]
async fn an_unknown_account_or_parameter_is_a_problem() {
    let gateway = recorded(|setup| setup).await;

    for (path, status) in [
        ("/v1/history?account=anthropic/n33dle", 404),
        ("/v1/pace?account=n33dle", 404),
        ("/v1/history?hours=0", 400),
        ("/v1/history?hours=841", 400),
        ("/v1/history?hours=n33dle", 400),
        ("/v1/history?n33dle=1", 400),
        ("/v1/pace?hours=1", 400),
    ] {
        let response = gateway.get(path, "").await;

        assert_eq!((response.status(), &response.json()["status"]), (status, &json!(status)), "{path}");
        assert!(!response.0.contains("n33dle"));
    }
}

#[tokio::test]
async fn history_and_pace_need_a_token() {
    let tokens = AccessTokens::parse("read 0123456789abcdef").unwrap();
    let gateway = recorded(|setup| setup.configure(|builder, _| builder.tokens(tokens))).await;

    for path in ["/v1/history", "/v1/pace"] {
        assert_eq!(gateway.get(path, "").await.status(), 401);
        assert_eq!(gateway.get_with(path, "0123456789abcdef").await.status(), 200);
    }
}
