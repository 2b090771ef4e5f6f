//! Routes, reports and reservations of other programs, and who gets a credential.

use std::sync::Arc;

use quota::MemoryStore;
use quota::accounts::FallbackAccountManager;
use quota_server::{AccessTokens, Listener, Server};
use quota_sim::{Account, Window};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use super::support::{Gate, Response, Running, Setup, router_of};

const JSON: &str = "Content-Type: application/json\r\n";

fn setup() -> Setup {
    let account = |name: &str, used| Account::new(name).windows([Window::five_hour().used(used)]);
    Setup::new([account("main", 40.0), account("work", 10.0)]).router()
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
}

async fn post(gateway: &Running, path: &str, body: &Value) -> Response {
    gateway.send(&request("POST", path, JSON, &body.to_string())).await
}

async fn delete(gateway: &Running, path: &str) -> Response {
    gateway.send(&request("DELETE", path, "", "")).await
}

/// The share of the five-hour window of this account that requests in flight have reserved.
async fn reserve(gateway: &Running, percent: f64) -> Response {
    let body = json!({ "estimate": { "window": "five_hour", "percent": percent } });
    post(gateway, "/v1/reservations", &body).await
}

#[tokio::test]
async fn a_route_names_the_account_and_no_credential() {
    let gateway = setup().start().await;

    let response = post(&gateway, "/v1/route", &json!({ "model": "claude-opus-4", "session": "s" })).await;

    let route = response.json();
    assert_eq!((response.status(), &route["account"]), (200, &json!("anthropic/main")), "{response:?}");
    assert_eq!((route.get("credential"), &route["expires_in_seconds"]), (None, &json!(600)));
    assert!(!response.0.contains("sim-token"));
}

#[tokio::test]
async fn a_reported_rejection_moves_the_next_route() {
    let gateway = setup().start().await;
    let route = post(&gateway, "/v1/route", &json!({})).await.json()["route"].clone();

    let rejected = json!({ "route": route, "status": 429, "headers": { "retry-after": "60" } });
    let advice = post(&gateway, "/v1/report", &rejected).await.json();
    let repeated = post(&gateway, "/v1/report", &rejected).await.json();

    assert_eq!((&advice["failure"], &advice["next"]), (&json!("throttled"), &json!("other_account")));
    assert_eq!(advice, repeated);
    let next = post(&gateway, "/v1/route", &json!({})).await.json();
    assert_eq!(next["account"], "anthropic/work");
    let explained = gateway.get("/v1/explain", "").await.json();
    assert_eq!((&explained["version"], &explained["account"]), (&json!(2), &json!("anthropic/work")));
    assert_eq!(explained["accounts"][0]["reason"], "throttled");
}

/// A router for the next configuration, which has read the state before.
async fn next_router(gateway: &Running) -> FallbackAccountManager {
    let accounts = gateway.router.as_ref().unwrap().accounts().cloned();
    let router = router_of(accounts, &gateway.manager, Arc::new(MemoryStore::new()));
    router.load().await.unwrap();
    router
}

#[tokio::test]
async fn a_rejection_during_a_reload_counts_after_it() {
    let gateway = setup().start().await;
    let route = post(&gateway, "/v1/route", &json!({})).await.json()["route"].clone();

    let next = next_router(&gateway).await;
    let rejected = json!({ "route": route, "status": 429, "headers": { "retry-after": "60" } });
    post(&gateway, "/v1/report", &rejected).await;
    gateway.gateway.replace_router(Some(next));

    assert_eq!(post(&gateway, "/v1/route", &json!({})).await.json()["account"], "anthropic/work");
}

#[tokio::test]
async fn a_report_that_ends_after_a_reload_counts() {
    let gate = Gate::open();
    let gateway = setup().gate(&gate).start().await;
    let route = post(&gateway, "/v1/route", &json!({})).await.json()["route"].clone();

    gate.set_open(false);
    let rejected = json!({ "route": route, "status": 401 });
    let reload = async {
        gate.is_reached().await;
        gateway.gateway.replace_router(Some(next_router(&gateway).await));
        gate.set_open(true);
    };
    tokio::join!(post(&gateway, "/v1/report", &rejected), reload);

    assert_eq!(post(&gateway, "/v1/route", &json!({})).await.json()["account"], "anthropic/work");
}

#[tokio::test]
async fn without_an_available_account_the_wait_is_stated() {
    let gateway = setup().start().await;
    for _ in 0..2 {
        let route = post(&gateway, "/v1/route", &json!({})).await.json()["route"].clone();
        let rejected = json!({ "route": route, "status": 429, "headers": { "retry-after": "60" } });
        post(&gateway, "/v1/report", &rejected).await;
    }

    let refused = post(&gateway, "/v1/route", &json!({})).await;

    assert_eq!((refused.status(), refused.header("content-type")), (503, Some("application/problem+json")));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
}

#[tokio::test]
async fn a_reservation_counts_until_it_is_deleted() {
    let gateway = setup().start().await;

    // 60 % of main are left, and 90 % of work.
    let first = reserve(&gateway, 50.0).await;
    assert_eq!((first.status(), &first.json()["account"]), (201, &json!("anthropic/main")), "{first:?}");
    let location = first.header("location").unwrap().to_owned();
    assert_eq!(location, format!("/v1/reservations/{}", first.json()["route"].as_str().unwrap()));
    assert_eq!(reserve(&gateway, 50.0).await.json()["account"], "anthropic/work");

    assert_eq!(delete(&gateway, &location).await.status(), 204);
    assert_eq!(delete(&gateway, &location).await.status(), 204);

    assert_eq!(reserve(&gateway, 50.0).await.json()["account"], "anthropic/main");
}

#[tokio::test]
async fn malformed_bodies_are_problems_that_repeat_nothing() {
    let gateway = setup().start().await;
    let long = json!({ "session": "n33dle".repeat(100) }).to_string();
    let large = json!({ "model": "x".repeat(70_000) }).to_string();
    let huge = json!({ "model": "x".repeat(2 * 1024 * 1024) }).to_string();

    for (path, headers, body, status) in [
        ("/v1/route", JSON, "{", 422),
        ("/v1/route", JSON, "[]", 422),
        ("/v1/route", JSON, r#"{"n33dle":1}"#, 422),
        ("/v1/route", JSON, r#"{"model":7}"#, 422),
        ("/v1/route", JSON, r#"{"estimate":{"window":"five_hour","percent":101}}"#, 422),
        ("/v1/route", JSON, r#"{"estimate":{"window":"five_hour","percent":-1}}"#, 422),
        ("/v1/route", JSON, r#"{"estimate":{"window":"","percent":1}}"#, 422),
        ("/v1/route", JSON, long.as_str(), 422),
        ("/v1/route", "", "{}", 415),
        ("/v1/route", JSON, large.as_str(), 413),
        ("/v1/route", JSON, huge.as_str(), 413),
        ("/v1/reservations", JSON, "{}", 422),
        ("/v1/report", JSON, r#"{"route":"n33dle","status":200}"#, 404),
        ("/v1/report", JSON, r#"{"status":200}"#, 422),
    ] {
        let response = gateway.send(&request("POST", path, headers, body)).await;

        // The gateway may reset the connection before the client has sent the large body.
        if response.0.is_empty() && status == 413 {
            continue;
        }
        assert_eq!(
            (response.status(), &response.json()["status"]),
            (status, &json!(status)),
            "{path} {body:.80}"
        );
        assert!(!response.0.contains("n33dle"), "{response:?}");
    }
    let route = post(&gateway, "/v1/route", &json!({})).await.json()["route"].clone();
    for (outcome, status) in [("response", Value::Null), ("response", json!(7)), ("cancelled", json!(200))] {
        let body = json!({ "route": route, "outcome": outcome, "status": status });
        assert_eq!(post(&gateway, "/v1/report", &body).await.status(), 422, "{body}");
    }
    for path in ["/v1/reservations/n33dle", "/v1/reservations/%ff"] {
        assert_eq!(delete(&gateway, path).await.status(), 404);
    }
    assert_eq!(gateway.get("/v1/explain?n33dle=1", "").await.status(), 400);
}

#[tokio::test]
async fn routing_needs_the_role_route() {
    let tokens = "read 0123456789abcdef\nroute fedcba9876543210";
    let tokens = AccessTokens::parse(tokens).unwrap();
    let gateway = setup().configure(|builder, _| builder.tokens(tokens)).start().await;
    let status = async |method, path, token: &str| {
        let headers = format!("{JSON}Authorization: Bearer {token}\r\n");
        gateway.send(&request(method, path, &headers, "{}")).await.status()
    };

    for (method, path) in [
        ("POST", "/v1/route"),
        ("POST", "/v1/report"),
        ("POST", "/v1/reservations"),
        ("DELETE", "/v1/reservations/x"),
    ] {
        assert_eq!(status(method, path, "sim-token-main").await, 401, "{path}");
        assert_eq!(status(method, path, "0123456789abcdef").await, 403, "{path}");
    }
    assert_eq!(status("POST", "/v1/route", "fedcba9876543210").await, 200);
    assert_eq!(status("GET", "/v1/explain", "0123456789abcdef").await, 200);
}

#[tokio::test]
async fn without_a_router_nothing_is_chosen() {
    let gateway = Setup::new([Account::new("main")]).start().await;

    assert_eq!(post(&gateway, "/v1/route", &json!({})).await.status(), 501);
    assert_eq!(gateway.get("/v1/explain", "").await.status(), 501);
}

/// A route over a Unix socket, and the same over TCP.
async fn routes(hand_out: bool) -> [Response; 2] {
    let gateway = setup().configure(move |builder, _| builder.hand_out_credentials(hand_out)).start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = Listener::bind(&format!("unix:{}", path.display()).parse().unwrap()).await.unwrap();
    let mut server = JoinSet::new();
    server.spawn(Server::new(gateway.gateway.clone(), vec![listener]).run(std::future::pending()));
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(request("POST", "/v1/route", JSON, "{}").as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    [Response(text), post(&gateway, "/v1/route", &json!({})).await]
}

#[tokio::test]
async fn a_credential_is_handed_out_only_over_a_unix_socket() {
    let [unix, tcp] = routes(true).await;

    assert_eq!(unix.json()["credential"]["token"], "sim-token-main", "{unix:?}");
    assert_eq!(unix.header("cache-control"), Some("no-store"));
    assert!(tcp.status() == 200 && !tcp.0.contains("sim-token"), "{tcp:?}");
}

#[tokio::test]
async fn without_the_setting_no_credential_is_handed_out() {
    for response in routes(false).await {
        assert!(response.status() == 200 && !response.0.contains("sim-token"), "{response:?}");
    }
}
