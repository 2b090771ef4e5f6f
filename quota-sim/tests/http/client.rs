//! An HTTP client that sends one request per connection and reads the whole response.

use quota_sim::Simulator;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(one, _)| one == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a response has a head");
        let head = std::str::from_utf8(&bytes[..end]).expect("a head is text");
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let header =
            |line: &str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
        let status = status.expect("a head begins with a status");
        Self { status, headers: lines.filter_map(header).collect(), body: bytes[end + 4..].to_vec() }
    }
}

/// Sends a request, the last of its connection, and returns the connection.
pub(crate) async fn send(
    simulator: &Simulator,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> TcpStream {
    send_one(simulator, method, path, &format!("connection: close\r\n{headers}"), body).await
}

/// Sends a request that more requests may follow.
pub(crate) async fn send_one(
    simulator: &Simulator,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> TcpStream {
    let address = simulator.url().socket_addrs(|| None).expect("its URL has an address");
    let mut stream = TcpStream::connect(&*address).await.expect("the simulator listens");
    let length = body.len();
    let request =
        format!("{method} {path} HTTP/1.1\r\nhost: sim\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
    stream.write_all(request.as_bytes()).await.expect("the simulator reads");
    stream
}

/// Reads a whole response.
pub(crate) async fn receive(mut stream: TcpStream) -> Response {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("the simulator responds");
    Response::parse(&bytes)
}

/// The headers of a valid call to the usage endpoint.
pub(crate) fn login(token: &str) -> String {
    format!("authorization: Bearer {token}\r\nanthropic-beta: oauth-2025-04-20\r\nuser-agent: test/1\r\n")
}

pub(crate) async fn get(simulator: &Simulator, path: &str, headers: &str) -> Response {
    receive(send(simulator, "GET", path, headers, "").await).await
}

/// Calls the usage endpoint with the token of `account`.
pub(crate) async fn usage(simulator: &Simulator, account: &str) -> Response {
    receive(send_usage(simulator, account).await).await
}

/// Calls the usage endpoint without waiting for the response.
pub(crate) async fn send_usage(simulator: &Simulator, account: &str) -> TcpStream {
    send(simulator, "GET", "/api/oauth/usage", &login(&format!("sim-token-{account}")), "").await
}

/// Sends a message with the token of `main`.
pub(crate) async fn message(simulator: &Simulator, body: &str) -> Response {
    let headers = "authorization: Bearer sim-token-main\r\n";
    receive(send(simulator, "POST", "/v1/messages", headers, body).await).await
}
