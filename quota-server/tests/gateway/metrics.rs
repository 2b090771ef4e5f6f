//! The metrics of a gateway: each is declared, each value is a number, and none has a token.

use std::collections::BTreeMap;

use quota_sim::{Account, Answer, Window};

use super::support::{Running, Setup};

async fn metrics(gateway: &Running) -> String {
    let response = gateway.get("/metrics", "").await;
    assert_eq!(
        response.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    response.body().to_owned()
}

#[tokio::test]
async fn usage_calls_and_requests_are_metrics() {
    let main = Account::new("main").windows([Window::five_hour().used(62.0)]);
    let gateway = Setup::new([main]).start().await;
    gateway.get_with("/api/oauth/usage", "sim-token-main").await;
    gateway.get_with("/api/oauth/usage", "sim-token-wrong").await;
    gateway.get("/made/up/n33dle", "").await;

    let text = metrics(&gateway).await;

    for line in [
        r#"quota_window_used_ratio{account="anthropic/main",window="five_hour"} 0.62"#,
        r#"quota_account_fresh{account="anthropic/main"} 1.0"#,
        r#"quota_budget_calls{account="anthropic/main"} 1.0"#,
        r#"quota_provider_calls_total{provider="anthropic",outcome="success"} 1"#,
        r#"quota_http_requests_total{route="/api/oauth/usage",status="200"} 1"#,
        r#"quota_http_requests_total{route="/api/oauth/usage",status="401"} 1"#,
        r#"quota_http_requests_total{route="other",status="404"} 1"#,
        "quota_store_available 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(text.contains("quota_build_info{version="));
    assert!(!text.contains("n33dle") && !text.contains("sim-token"));
}

#[tokio::test]
async fn a_hold_is_a_metric_with_its_reason() {
    let main = Account::new("main").windows([Window::five_hour().used(62.0)]);
    let gateway = Setup::new([main]).read_before(40.0, 600, 3600, Answer::ThrottleUntilEnd).start().await;
    gateway.get("/account/anthropic/main/api/oauth/usage", "").await;

    let text = metrics(&gateway).await;

    assert!(
        text.contains(r#"quota_hold_seconds{account="anthropic/main",reason="rate limited"} "#),
        "{text}"
    );
    assert!(text.contains(r#"quota_provider_calls_total{provider="anthropic",outcome="throttled"} 1"#));
}

#[tokio::test]
async fn the_text_is_openmetrics() {
    let main = Account::new("main").windows([Window::five_hour().used(62.0)]);
    let gateway = Setup::new([main]).start().await;
    gateway.get("/account/anthropic/main/api/oauth/usage", "").await;

    let text = metrics(&gateway).await;

    assert!(text.ends_with("# EOF\n"));
    let mut kinds = BTreeMap::new();
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').unwrap();
            assert!(kinds.insert(name, kind).is_none(), "{name} is declared twice");
        } else if !line.starts_with("# ") {
            let name = line.split(['{', ' ']).next().unwrap();
            let base = name.strip_suffix("_total").or(name.strip_suffix("_info")).unwrap_or(name);
            let kind = *kinds.get(base).unwrap_or_else(|| panic!("{line} is not declared"));
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            let value = line.rsplit_once(' ').unwrap().1;
            assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
        }
    }
    assert!(kinds.len() > 8, "{kinds:?}");
}
