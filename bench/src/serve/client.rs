//! A client that writes requests as text, so that it costs little beside the server.

use std::net::SocketAddr;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection that stays open.
pub(super) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// A response.
pub(super) struct Answer {
    pub(super) etag: String,
    pub(super) body: Bytes,
}

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("an open socket");
        Self { stream, buffer: Vec::with_capacity(8192) }
    }

    pub(super) async fn get(&mut self, path: &str, headers: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")).await;
        self.read().await
    }

    pub(super) async fn post(&mut self, path: &str, body: &str) -> Answer {
        let length = body.len();
        let headers = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
        self.send(&format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{body}")).await;
        self.read().await
    }

    async fn send(&mut self, request: &str) {
        self.stream.write_all(request.as_bytes()).await.expect("an open connection");
    }

    async fn read(&mut self) -> Answer {
        self.buffer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.buffer).await.expect("an open connection");
            assert!(read > 0, "the server closed the connection");
            let end = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            let Some(end) = end.map(|at| at + 4) else { continue };
            let head = std::str::from_utf8(&self.buffer[..end]).expect("headers are text");
            assert!(head.starts_with("HTTP/1.1 200") || head.starts_with("HTTP/1.1 304"), "{head}");
            let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
            let length = header("content-length: ").map_or(0, |length| length.parse().expect("a number"));
            if self.buffer.len() >= end + length {
                let etag = header("etag: ").unwrap_or_default().to_owned();
                return Answer { etag, body: Bytes::copy_from_slice(&self.buffer[end..end + length]) };
            }
        }
    }
}

/// A client that follows the events.
pub(super) struct Follower {
    client: Client,
    /// The text that may be the beginning of the next line.
    rest: usize,
}

impl Follower {
    /// Connects, and waits for the first event.
    pub(super) async fn connect(address: SocketAddr) -> Self {
        let mut client = Client::connect(address).await;
        client.send("GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        client.buffer.clear();
        let mut follower = Self { client, rest: 0 };
        follower.until("event: ready").await;
        follower
    }

    /// Waits for the next line that contains this text.
    pub(super) async fn until(&mut self, text: &str) {
        loop {
            let bytes = &self.client.buffer[self.rest..];
            if let Some(at) = bytes.windows(text.len()).position(|window| window == text.as_bytes()) {
                self.rest += at + text.len();
                return;
            }
            // The text may end with the next bytes.
            let keep = bytes.len().min(text.len());
            let done = self.client.buffer.len() - keep;
            self.client.buffer.drain(..done);
            self.rest = 0;
            let read = self.client.stream.read_buf(&mut self.client.buffer).await;
            assert!(read.expect("an open connection") > 0, "the server closed the stream");
        }
    }
}
