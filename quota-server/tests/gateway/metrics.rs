//! The metrics of a gateway: each is declared, each value is a number, and none has a token.

use std::collections::BTreeMap;

use std::io::Write as _;
use std::process::{Command, Stdio};

use quota_sim::{Account, Answer, Window};

use super::support::{Running, Setup};

async fn metrics(gateway: &Running) -> String {
    let response = gateway.get("/metrics", "Accept: application/openmetrics-text;version=1.0.0\r\n").await;
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
        r#"quota_provider_calls_total{provider="anthropic",outcome="throttled"} 0"#,
        r#"quota_http_requests_total{route="/api/oauth/usage",status="200"} 1"#,
        r#"quota_http_requests_total{route="/api/oauth/usage",status="401"} 1"#,
        r#"quota_http_requests_total{route="other",status="404"} 1"#,
        "quota_store_available 1",
        r#"quota_store_outages_total 0"#,
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
    assert!(text.contains(r#"quota_cooldown_seconds{provider="anthropic"} "#), "{text}");
    assert!(text.contains(r#"quota_provider_calls_total{provider="anthropic",outcome="throttled"} 1"#));
}

/// The names of all metrics in the text format, from their declarations.
fn names(text: &str) -> Vec<&str> {
    let declared = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    declared.map(|declared| declared.split(' ').next().unwrap()).collect()
}

/// A gateway with a sample of each metric.
async fn with_all_metrics() -> Running {
    let main = Account::new("main").windows([Window::five_hour().used(62.0)]);
    let gateway = Setup::new([main]).read_before(40.0, 600, 3600, Answer::ThrottleUntilEnd).start().await;
    gateway.get("/account/anthropic/main/api/oauth/usage", "").await;
    gateway
}

#[tokio::test]
async fn promtool_accepts_the_text_format() {
    let gateway = with_all_metrics().await;

    let response = gateway.get("/metrics", "Accept: */*\r\n").await;

    assert_eq!(response.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = promtool.spawn().expect("promtool is in Debian's package prometheus");
    promtool.stdin.take().unwrap().write_all(response.body().as_bytes()).unwrap();
    let checked = promtool.wait_with_output().unwrap();
    assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}\n{}", response.body());
}

/// A renamed metric would leave an empty panel, and an alert that never fires.
#[tokio::test]
async fn the_dashboard_and_the_rules_use_existing_metrics() {
    let gateway = with_all_metrics().await;
    let text = gateway.get("/metrics", "").await;
    let names = names(text.body());
    let deploy = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus");
    let mut used = 0;

    for file in ["alerts.yml", "../grafana/quota.json"] {
        let written = std::fs::read_to_string(deploy.join(file)).unwrap();
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for word in written.split(|c| !is_of_name(c)).filter(|word| word.starts_with("quota_")) {
            assert!(names.contains(&word), "{file} uses {word}, which is none of {names:?}");
            used += 1;
        }
    }

    assert!(used > 10, "{used}");
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
