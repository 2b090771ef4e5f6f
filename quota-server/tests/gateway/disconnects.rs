//! Clients that disconnect before the response: what they have sent counts.

use quota::accounts::Request;
use quota_sim::{Account, Window};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::support::{Gate, Running, Setup};

fn setup(gate: &Gate) -> Setup {
    let account = |name: &str, used| Account::new(name).windows([Window::five_hour().used(used)]);
    Setup::new([account("main", 40.0), account("work", 10.0)]).router().gate(gate)
}

fn request(path: &str, body: &Value) -> String {
    let body = body.to_string();
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

async fn begin(gateway: &Running, path: &str, body: &Value) -> TcpStream {
    let mut stream = gateway.connect().await;
    stream.write_all(request(path, body).as_bytes()).await.unwrap();
    stream
}

/// Disconnects, and waits until the gateway has closed its side too. Returns what it sent.
async fn leave(mut stream: TcpStream) -> String {
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn post(gateway: &Running, path: &str, body: &Value) -> Value {
    let request = request(path, body).replace("Host", "Connection: close\r\nHost");
    gateway.send(&request).await.json()
}

/// Why the router does not use the main account, or why it does.
fn reason_of_main(gateway: &Running) -> String {
    gateway.router.as_ref().unwrap().explain(&Request::new()).accounts()[0].reason.as_str().to_owned()
}

#[tokio::test]
async fn a_report_counts_if_its_client_leaves_during_it() {
    let gate = Gate::open();
    let mut gateway = setup(&gate).start().await;
    let route = post(&gateway, "/v1/route", &json!({})).await["route"].take();

    // The router reads the credential again, because the provider rejected the last one.
    gate.set_open(false);
    let stream = begin(&gateway, "/v1/report", &json!({ "route": route, "status": 401 })).await;
    gate.is_reached().await;
    assert_eq!(leave(stream).await, "");
    gate.set_open(true);

    assert!(gateway.stop().await);
    assert_eq!(reason_of_main(&gateway), "login_rejected");
}

#[tokio::test]
async fn an_observation_counts_if_its_client_does_not_wait() {
    let mut gateway = setup(&Gate::open()).start().await;
    let headers = json!({
        "anthropic-ratelimit-unified-5h-utilization": "0.77",
        "anthropic-ratelimit-unified-5h-reset": (quota::Clock::system().now().as_second() + 600).to_string(),
        "anthropic-ratelimit-unified-5h-status": "allowed",
    });
    let body = json!({ "account": "anthropic/main", "status": 200, "headers": headers });

    let stream = begin(&gateway, "/v1/observe", &body).await;
    leave(stream).await;

    assert!(gateway.stop().await);
    let used = gateway.main().peek().snapshot().windows()[0].used();
    assert_eq!(used.as_f64(), 77.0);
}

#[tokio::test]
async fn the_end_waits_for_a_report_without_a_client() {
    let gate = Gate::open();
    let mut gateway =
        setup(&gate).limits(|limits| limits.shutdown_timeout = std::time::Duration::ZERO).start().await;
    let route = post(&gateway, "/v1/route", &json!({})).await["route"].take();
    gate.set_open(false);
    let stream = begin(&gateway, "/v1/report", &json!({ "route": route, "status": 401 })).await;
    gate.is_reached().await;
    leave(stream).await;

    // Not for longer than the limit.
    assert!(!gateway.stop().await);
}

#[tokio::test]
async fn a_client_that_leaves_during_its_reservation_reserves_nothing() {
    let gate = Gate::open();
    let gateway = setup(&gate).start().await;
    let body = json!({ "estimate": { "window": "five_hour", "percent": 50 } });

    gate.set_open(false);
    let stream = begin(&gateway, "/v1/reservations", &body).await;
    gate.is_reached().await;
    leave(stream).await;
    gate.set_open(true);

    // 60 % of main are left.
    assert_eq!(post(&gateway, "/v1/reservations", &body).await["account"], "anthropic/main");
}
