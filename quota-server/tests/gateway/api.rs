//! The gateway's own API: accounts, changes, refreshes, and responses of other programs.

use quota_server::AccessTokens;
use quota_sim::{Account, Answer, Window};
use serde_json::{Value, json};

use super::support::{Response, Running, Setup};

fn setup() -> Setup {
    let main = Account::new("main").windows([Window::five_hour().used(62.0), Window::seven_day().used(41.0)]);
    Setup::new([main, Account::new("work").provider("openai").windows([Window::five_hour().used(12.0)])])
}

async fn post(gateway: &Running, path: &str, headers: &str, body: &str) -> Response {
    let length = body.len();
    gateway
        .send(&format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        ))
        .await
}

async fn observe(gateway: &Running, body: Value) -> Response {
    post(gateway, "/v1/observe", "Content-Type: application/json\r\n", &body.to_string()).await
}

/// Waits until the accounts were refreshed.
async fn settled(gateway: &Running) {
    for path in ["/account/anthropic/main/api/oauth/usage", "/account/openai/work/backend-api/wham/usage"] {
        assert_eq!(gateway.get(path, "").await.status(), 200);
    }
}

#[tokio::test]
async fn all_accounts_are_listed_in_order() {
    let gateway = setup().start().await;
    settled(&gateway).await;

    let body = gateway.get("/v1/accounts", "").await.json();

    let accounts = body["accounts"].as_array().unwrap();
    let names: Vec<_> = accounts.iter().map(|account| account["account"].as_str().unwrap()).collect();
    assert_eq!(names, ["anthropic/main", "openai/work"]);
    assert_eq!(accounts[0]["state"], "fresh");
    let window = &accounts[0]["windows"][0];
    assert_eq!((&window["id"], &window["used_percent"]), (&json!("five_hour"), &json!(62.0)));
    assert_eq!((&window["certainty"], &window["source"]), (&json!("exact"), &json!("poll")));
    assert_eq!(accounts[0]["budget"]["calls"], 1);
}

#[tokio::test]
async fn one_account_is_found_by_either_name_of_its_provider() {
    let gateway = setup().start().await;
    settled(&gateway).await;

    for path in ["/v1/accounts/openai/work", "/v1/accounts/codex/work"] {
        assert_eq!(gateway.get(path, "").await.json()["account"], "openai/work");
    }
    for path in
        ["/v1/accounts/openai/main", "/v1/accounts/nothing/main", "/v1/accounts/anthropic/sk-ant-n33dle"]
    {
        let response = gateway.get(path, "").await;
        assert_eq!(
            (response.status(), response.header("content-type")),
            (404, Some("application/problem+json"))
        );
        assert!(!response.0.contains("n33dle"));
    }
}

#[tokio::test]
async fn a_refresh_obeys_the_rules() {
    let gateway = setup().start().await;
    settled(&gateway).await;

    let body = post(&gateway, "/v1/accounts/anthropic/main/refresh", "", "").await.json();

    assert_eq!((&body["fetched"], &body["error"]), (&json!(false), &Value::Null), "{body}");
    assert!(body["called_at"].is_string());
    assert_eq!(gateway.simulator.ledger().account("main").unwrap().answered(200), 1);
}

#[tokio::test]
async fn a_hold_is_shown_with_its_reason() {
    let main = Account::new("main").windows([Window::five_hour().used(62.0)]);
    let gateway = Setup::new([main]).read_before(40.0, 600, 3600, Answer::ThrottleUntilEnd).start().await;
    gateway.get("/account/anthropic/main/api/oauth/usage", "").await;

    let body = gateway.get("/v1/accounts/anthropic/main", "").await.json();

    assert_eq!((&body["state"], &body["stale_reason"]), (&json!("stale"), &json!("on_hold")), "{body}");
    assert_eq!(body["hold"]["reason"], "rate_limited");
    assert_eq!(body["last_failure"]["kind"], "throttled");
    assert!(body["next_attempt_at"].is_string());
    assert_eq!(body["windows"][0]["certainty"], "at_least");
}

#[tokio::test]
async fn the_headers_of_another_program_become_readings() {
    let gateway = setup().start().await;
    settled(&gateway).await;

    let headers = json!({ "anthropic-ratelimit-unified-5h-utilization": "0.91",
        "anthropic-ratelimit-unified-5h-status": "allowed_warning", "x-other": "n33dle" });
    let observed =
        observe(&gateway, json!({ "account": "anthropic/main", "status": 200, "headers": headers })).await;

    assert_eq!(observed.json()["windows"], json!(["five_hour"]), "{observed:?}");
    assert!(!observed.0.contains("n33dle"));
    let window = &gateway.get("/v1/accounts/anthropic/main", "").await.json()["windows"][0];
    assert_eq!((&window["used_percent"], &window["source"]), (&json!(91.0), &json!("headers")));
}

#[tokio::test]
async fn a_status_may_be_written_with_a_fraction_of_zero() {
    let gateway = setup().start().await;
    let headers = json!({ "anthropic-ratelimit-unified-5h-utilization": "0.91" });

    for (status, wanted) in [(json!(200.0), 200), (json!(200.5), 422), (json!(-1), 422), (json!(1e9), 422)] {
        let body = json!({ "account": "anthropic/main", "status": status, "headers": headers });
        assert_eq!(observe(&gateway, body).await.status(), wanted, "{status}");
    }
}

#[tokio::test]
async fn a_malformed_body_is_a_problem_that_repeats_nothing() {
    let gateway = setup().start().await;
    let kind = "Content-Type: application/json\r\n";

    for (headers, body, status) in [
        (kind, "{", 422),
        (kind, r#"{"account":"anthropic/main","status":200,"n33dle":1}"#, 422),
        (kind, r#"{"account":"anthropic/main","status":"n33dle"}"#, 422),
        (kind, r#"{"account":"anthropic/main","status":7}"#, 422),
        (kind, r#"{"account":"n33dle","status":200}"#, 404),
        ("", r#"{"account":"anthropic/main","status":200}"#, 415),
        ("Content-Type: text/plain\r\n", "n33dle", 415),
        (kind, "\u{0}\u{1}", 422),
    ] {
        let response = post(&gateway, "/v1/observe", headers, body).await;

        assert_eq!((response.status(), &response.json()["status"]), (status, &json!(status)), "{body}");
        assert!(!response.0.contains("n33dle"), "{response:?}");
    }
}

#[tokio::test]
async fn a_change_ends_the_wait_for_it() {
    let gateway = setup().start().await;
    settled(&gateway).await;
    let first = gateway.get("/v1/changes", "").await.json();
    assert_eq!(first["accounts"].as_array().unwrap().len(), 2);
    let mut next = first["next"].as_str().unwrap().to_owned();
    // Changes that the first refreshes caused may still arrive.
    loop {
        let body = gateway.get(&format!("/v1/changes?after={next}&wait=0"), "").await.json();
        next = body["next"].as_str().unwrap().to_owned();
        if body["accounts"] == json!([]) {
            break;
        }
    }

    let path = format!("/v1/changes?after={next}&wait=25");
    let (waited, _) = tokio::join!(gateway.get(&path, ""), async {
        let used = quota::Percent::from_percent(93.0).unwrap();
        let window = quota::WindowReading::new(quota::WindowId::five_hour(), used);
        gateway.main().observe(&quota::UsageReport::from_headers([window])).unwrap();
    });

    let body = waited.json();
    assert_eq!(body["accounts"].as_array().unwrap().len(), 1, "{body}");
    assert_eq!(body["accounts"][0]["windows"][0]["used_percent"], 93.0);
    assert_ne!(body["next"], next.as_str());
}

#[tokio::test]
async fn an_unknown_position_means_all_accounts() {
    let gateway = setup().start().await;

    for after in ["", "made-up", "0000-7", "99999999999999999999999"] {
        let body = gateway.get(&format!("/v1/changes?after={after}"), "").await.json();
        assert_eq!(body["accounts"].as_array().unwrap().len(), 2, "{after}");
    }
    for query in ["wait=26", "wait=x", "unknown=1"] {
        assert_eq!(gateway.get(&format!("/v1/changes?{query}"), "").await.status(), 400, "{query}");
    }
}

#[tokio::test]
async fn a_wait_ends_with_the_server() {
    let mut gateway = setup().start().await;
    settled(&gateway).await;
    let mut stream = gateway.connect().await;
    let next = gateway.get("/v1/changes", "").await.json()["next"].as_str().unwrap().to_owned();
    let request = format!("GET /v1/changes?after={next} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();

    assert!(gateway.stop().await);

    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn each_role_permits_its_own_requests() {
    let (read, route, operate) =
        ("read-token-0123456789", "route-token-0123456789", "operate-token-0123456789");
    let tokens = AccessTokens::parse(&format!("read {read}\nroute {route}\noperate {operate}\n")).unwrap();
    let gateway = setup().configure(|builder, _| builder.tokens(tokens)).start().await;
    let body = json!({ "account": "anthropic/main", "status": 200 }).to_string();

    for (token, statuses) in [
        ("", [401, 401, 401]),
        ("wrong-token-0123456789", [401, 401, 401]),
        ("sim-token-main", [401, 401, 401]),
        (read, [200, 403, 403]),
        (route, [200, 200, 403]),
        (operate, [200, 200, 200]),
    ] {
        let header = format!("Authorization: Bearer {token}\r\nContent-Type: application/json\r\n");
        let answers = [
            gateway.get("/v1/accounts", &header).await.status(),
            post(&gateway, "/v1/observe", &header, &body).await.status(),
            post(&gateway, "/v1/accounts/anthropic/main/refresh", &header, "").await.status(),
        ];
        assert_eq!(answers, statuses, "{token}");
    }
}

#[tokio::test]
async fn the_description_is_served() {
    let gateway = setup().start().await;

    let body = gateway.get("/openapi.json", "").await.json();

    assert!(body["paths"]["/v1/accounts"]["get"].is_object());
    assert_eq!(body, quota_server::openapi());
}

#[tokio::test]
async fn the_list_of_accounts_has_each_change_at_once() {
    let gateway = setup().start().await;
    settled(&gateway).await;
    let used = async || {
        gateway.get("/v1/accounts", "").await.json()["accounts"][0]["windows"][0]["used_percent"].as_f64()
    };
    assert_eq!(used().await, Some(62.0));

    for percent in [63, 64, 65] {
        let headers = json!({
            "anthropic-ratelimit-unified-5h-utilization": format!("0.{percent}"),
            "anthropic-ratelimit-unified-5h-reset": (quota::Clock::system().now().as_second() + 9000).to_string(),
        });
        let body = json!({ "account": "anthropic/main", "status": 200, "headers": headers });
        assert_eq!(observe(&gateway, body).await.status(), 200);

        assert_eq!(used().await, Some(f64::from(percent)));
    }
}
