//! The end of the gateway: responses in flight are finished, and no further connection is accepted.

use std::time::Duration;

use quota_sim::{Account, Window};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::support::Setup;

const PATH: &str = "/account/anthropic/main/api/oauth/usage";

fn main() -> Account {
    Account::new("main").windows([Window::five_hour().used(62.0)])
}

fn request() -> String {
    format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

#[tokio::test]
async fn a_response_in_flight_is_finished() {
    // The first answer waits for the provider.
    let mut gateway = Setup::new([main().latency(Duration::from_millis(400))]).start().await;
    let mut stream = gateway.connect().await;
    stream.write_all(request().as_bytes()).await.unwrap();
    gateway.simulator.until(|ledger| ledger.calls() > 0).await;

    let all_ended = gateway.stop().await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();

    assert!(all_ended && answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
    assert!(TcpStream::connect(gateway.address).await.is_err());
}

#[tokio::test]
async fn idle_connections_do_not_delay_the_end() {
    let mut gateway = Setup::new([main()]).start().await;
    let mut stream = gateway.connect().await;
    stream.write_all(request().as_bytes()).await.unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.unwrap();

    assert!(gateway.stop().await);

    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
}

#[tokio::test]
async fn connections_in_the_queue_are_answered() {
    let mut gateway = Setup::new([main()]).start().await;
    let mut streams = Vec::new();
    for _ in 0..50 {
        let mut stream = gateway.connect().await;
        stream.write_all(request().as_bytes()).await.unwrap();
        streams.push(stream);
    }

    assert!(gateway.stop().await);

    for mut stream in streams {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_never_ends_its_request_does_not_delay_the_end_for_long() {
    let limits = |limits: &mut quota_server::Limits| limits.shutdown_timeout = Duration::from_millis(300);
    let mut gateway = Setup::new([main()]).limits(limits).start().await;
    let mut stream = gateway.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: local").await.unwrap();

    let _ = gateway.stop().await;

    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(!String::from_utf8_lossy(&rest).contains(" 200 "));
}

#[tokio::test]
async fn no_answer_is_lost_under_load() {
    let mut gateway = Setup::new([main()]).start().await;
    let address = gateway.address;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..16 {
        clients.spawn(async move {
            let mut answers = Vec::new();
            // A refused connection was never accepted, so its client knows that it got no answer.
            while let Ok(mut stream) = TcpStream::connect(address).await {
                let request = request().replace("Host", "Connection: close\r\nHost");
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut answer = String::new();
                let read = stream.read_to_string(&mut answer).await;
                answers.push((read.is_ok(), answer));
            }
            answers
        });
    }
    // The clients are busy once the provider was called.
    gateway.simulator.until(|ledger| ledger.calls() > 0).await;

    assert!(gateway.stop().await);

    let answers: Vec<_> = clients.join_all().await.into_iter().flatten().collect();
    assert!(answers.len() >= 16);
    for (is_complete, answer) in answers {
        assert!(is_complete && answer.starts_with("HTTP/1.1 200 ") && answer.ends_with('}'), "{answer}");
    }
}
