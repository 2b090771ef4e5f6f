//! Hostile and broken clients. None of them may stop the gateway from answering others.

use std::time::Duration;

use quota_sim::{Account, Window};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::support::{Running, Setup};

const PATH: &str = "/account/anthropic/main/api/oauth/usage";

fn setup() -> Setup {
    Setup::new([Account::new("main").windows([Window::five_hour().used(62.0)])])
}

async fn assert_alive(gateway: &Running) {
    assert_eq!(gateway.get(PATH, "").await.status(), 200);
}

#[tokio::test]
async fn malformed_requests_are_rejected() {
    let gateway = setup().start().await;

    for text in [
        "\r\n\r\n\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "\u{0}\u{1}\u{2}\u{3}\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        "GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: made-up\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
        "GET / HTTP/1.1\r\nBad Header\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}",
    ] {
        let mut stream = gateway.connect().await;
        stream.write_all(text.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{text:?}: {answer}");
    }
    assert_alive(&gateway).await;
}

#[tokio::test]
async fn a_path_cannot_leave_its_folder() {
    let gateway = setup().start().await;

    for path in [
        "/../../etc/passwd",
        "/account/../../etc/passwd",
        "/account/anthropic/../main/api/oauth/usage",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/account/anthropic/main/..%2f..%2fetc%2fpasswd",
        "//etc/passwd",
        "/account/anthropic/main/api/oauth/usage/",
        "/api/oauth/usage%00",
    ] {
        let response = gateway.get(path, "").await;

        assert_eq!(response.status(), 404, "{path}");
        assert!(!response.body().contains("etc") && !response.body().contains("root:"), "{path}");
    }
}

#[tokio::test]
async fn other_methods_are_not_allowed() {
    let gateway = setup().start().await;

    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "MADEUP"] {
        let text = format!("{method} {PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let response = gateway.send(&text).await;

        assert_eq!(response.status(), 405, "{method}");
        assert!(response.header("access-control-allow-origin").is_none());
    }
}

#[tokio::test]
async fn too_many_or_too_large_headers_are_rejected() {
    let gateway = setup().start().await;

    let many = "x: y\r\n".repeat(100);
    let large = format!("x: {}\r\n", "y".repeat(64 * 1024));
    for headers in [many, large] {
        let status = gateway.get(PATH, &headers).await.status();

        // The connection may be reset before the client has read the answer.
        assert!([0, 431].contains(&status), "{status}");
    }
    assert_alive(&gateway).await;
}

#[tokio::test]
async fn a_body_of_a_gigabyte_is_rejected_at_once() {
    let gateway = setup().start().await;

    let text = format!("POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1073741824\r\n\r\n");
    let response = gateway.send(&text).await;

    assert_eq!((response.status(), response.header("content-type")), (413, Some("application/problem+json")));
}

#[tokio::test]
async fn an_endless_body_ends_the_connection() {
    let gateway = setup().start().await;
    let mut stream = gateway.connect().await;
    let head = format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();

    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let mut sent = 0;
    // The system's buffers hold a few megabytes.
    while sent < 1024 && stream.write_all(chunk.as_bytes()).await.is_ok() {
        sent += 1;
    }

    assert!(sent < 1024, "the gateway read {sent} chunks");
    assert_alive(&gateway).await;
}

#[tokio::test]
async fn slow_headers_end_the_connection() {
    let limits = |limits: &mut quota_server::Limits| limits.header_timeout = Duration::from_millis(50);
    let gateway = setup().limits(limits).start().await;
    let mut silent = gateway.connect().await;
    let mut slow = gateway.connect().await;
    slow.write_all(b"GET / HTTP/1.1\r\nHost: local").await.unwrap();

    for stream in [&mut silent, &mut slow] {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;

        assert!(!String::from_utf8_lossy(&answer).contains(" 200 "));
    }
    assert_alive(&gateway).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let limits = |limits: &mut quota_server::Limits| limits.header_timeout = Duration::from_millis(50);
    let gateway = setup().limits(limits).start().await;
    let mut stream = gateway.connect().await;
    let text = format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();

    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;

    assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_dropped() {
    let limits = |limits: &mut quota_server::Limits| limits.write_timeout = Duration::from_millis(100);
    let gateway = setup().limits(limits).start().await;
    let mut stream = gateway.connect().await;
    let text = format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n").repeat(100);

    // Requests without end, whose responses fill the buffers of the system.
    while stream.write_all(text.as_bytes()).await.is_ok() {}

    assert_alive(&gateway).await;
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_their_turn() {
    let limits = |limits: &mut quota_server::Limits| {
        limits.max_connections = 2;
        limits.header_timeout = Duration::from_millis(100);
    };
    let gateway = setup().limits(limits).start().await;

    let idle: Vec<_> = futures_util::future::join_all((0..8).map(|_| gateway.connect())).await;

    assert_alive(&gateway).await;
    drop(idle);
}

#[tokio::test]
async fn no_response_has_a_token() {
    let gateway = setup().start().await;
    let secrets = ["sim-token-main", "sk-ant-oat01-n33dle", "n33dle"];
    let paths = [
        "/",
        "/api/oauth/usage",
        PATH,
        "/account/anthropic/sk-ant-oat01-n33dle/api/oauth/usage",
        "/healthz",
        "/n33dle",
    ];

    for path in paths {
        for token in ["sim-token-main", "sk-ant-oat01-n33dle"] {
            let headers = format!("Authorization: Bearer {token}\r\nX-Api-Key: n33dle\r\nCookie: n33dle\r\n");
            let response = gateway.get(path, &headers).await;

            assert!(secrets.iter().all(|secret| !response.0.contains(secret)), "{path}: {response:?}");
        }
    }
}
