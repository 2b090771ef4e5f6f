//! A server that sends scripted bytes and records the requests. The only HTTP that it parses is the end of a request.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use url::Url;

/// How the server replies to a request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Sends this text and closes the connection.
    Send(String),
    /// Sends this text and nothing more. The test clock is paused, so every timeout expires at once.
    Stall(String),
    /// Sends this text, then spaces without end.
    Flood(String),
    /// Closes the connection without a reply.
    HangUp,
}

impl Reply {
    /// A response with this status and JSON body.
    pub(crate) fn json(status: u16, headers: &str, body: &str) -> Self {
        Self::Send(format!("{}{headers}\r\n{body}", head(status, body.len())))
    }
}

/// The head of a response, without the final empty line.
pub(crate) fn head(status: u16, length: usize) -> String {
    format!(
        "HTTP/1.1 {status} Status\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n"
    )
}

/// The server. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    bodies: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Starts a server that always sends the same reply.
    pub(crate) async fn start(reply: Reply) -> Self {
        Self::start_with(reply.clone(), reply).await
    }

    /// Starts a server that replies to the first request, and to all others.
    pub(crate) async fn start_with(first: Reply, others: Reply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::<Mutex<Vec<_>>>::default();
        let bodies = Arc::<Mutex<Vec<_>>>::default();
        let requests_and_bodies = (Arc::clone(&requests), Arc::clone(&bodies));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            let mut replies = std::iter::once(first).chain(std::iter::repeat(others));
            while let Ok((stream, _)) = listener.accept().await {
                let reply = replies.next().expect("the last reply repeats");
                connections.spawn(serve(stream, reply, requests_and_bodies.clone()));
            }
        });
        Self { address, requests, bodies, _tasks: tasks }
    }

    pub(crate) fn url(&self) -> Url {
        self.url_with("http", "")
    }

    pub(crate) fn url_with(&self, scheme: &str, path: &str) -> Url {
        format!("{scheme}://{}{path}", self.address).parse().unwrap()
    }

    /// The heads of the received requests, in lower case.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// The bodies of the received requests.
    pub(crate) fn bodies(&self) -> Vec<String> {
        self.bodies.lock().unwrap().clone()
    }
}

type Requests = (Arc<Mutex<Vec<String>>>, Arc<Mutex<Vec<String>>>);

async fn serve(mut stream: TcpStream, reply: Reply, (requests, bodies): Requests) {
    let mut request = Vec::new();
    if !matches!(reply, Reply::HangUp) {
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
    }
    let head = String::from_utf8(request).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.unwrap();
    requests.lock().unwrap().push(head);
    bodies.lock().unwrap().push(String::from_utf8(body).unwrap());
    match reply {
        Reply::HangUp => {}
        Reply::Send(text) => stream.write_all(text.as_bytes()).await.unwrap(),
        Reply::Stall(text) => {
            stream.write_all(text.as_bytes()).await.unwrap();
            tokio::time::pause();
            std::future::pending::<()>().await;
        }
        Reply::Flood(text) => {
            stream.write_all(text.as_bytes()).await.unwrap();
            while stream.write_all(&[b' '; 64 * 1024]).await.is_ok() {}
        }
    }
}
