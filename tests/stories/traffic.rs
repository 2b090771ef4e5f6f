//! Ordinary traffic tells what is used, without a call to the usage endpoint.

use quota::anthropic::parse_headers;
use quota::{UsedAt, WindowId};
use quota_sim::Simulator;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::*;

/// Sends a request that costs so much, and gives back the headers of the answer.
async fn spend(simulator: &Simulator, cost: f64) -> Vec<(String, String)> {
    let url = simulator.url();
    let mut stream = TcpStream::connect((url.host_str().unwrap(), url.port().unwrap())).await.unwrap();
    let body = format!(r#"{{"cost":{cost}}}"#);
    let request = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer sim-token-main\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, _) = answer.split_once("\r\n\r\n").unwrap();
    let headers = head.lines().filter_map(|line| line.split_once(": "));
    headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[tokio::test]
async fn headers_of_ordinary_answers_are_seen_at_once_and_cost_no_call() {
    let simulator = provider([account("main")]).await;
    let quota = lone_process(&simulator, tokens(["main"]), policy());
    let main = quota.account(&id("main"));
    drop(main.get().await.unwrap());

    let headers = spend(&simulator, 12.5).await;
    let parsed =
        parse_headers(Some(200), headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    main.observe(&parsed.usage).unwrap();

    assert_eq!(main.peek().used(&WindowId::five_hour()), UsedAt::Exact(percent(42.5)));
    assert_eq!(simulator.stop().await.account("main").unwrap().calls, 1);
}
