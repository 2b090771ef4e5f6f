//! A server that plays an endpoint: it writes bytes as they are told, and remembers what it was asked.
//! It knows no HTTP beyond where a request ends.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use url::Url;

/// What the server does when it is asked.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Writes this and closes the connection.
    Say(String),
    /// Writes this, and then nothing more; time leaps to the end of every wait.
    Stall(String),
    /// Writes this, and then goes on and on.
    Flood(String),
    /// Closes the connection without a word.
    HangUp,
}

impl Reply {
    /// An answer of this status with a body of JSON.
    pub(crate) fn json(status: u16, headers: &str, body: &str) -> Self {
        Self::Say(format!("{}{headers}\r\n{body}", head(status, body.len())))
    }
}

/// The head of an answer, but for the line that ends it.
pub(crate) fn head(status: u16, length: usize) -> String {
    format!(
        "HTTP/1.1 {status} Status\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n"
    )
}

/// The server. It stops when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    bodies: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Starts a server that always does the same.
    pub(crate) async fn start(reply: Reply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<_>>>::default();
        let bodies = Arc::<Mutex<Vec<_>>>::default();
        let seen = (Arc::clone(&asked), Arc::clone(&bodies));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(answer(stream, reply.clone(), seen.clone()));
            }
        });
        Self { address, asked, bodies, _tasks: tasks }
    }

    pub(crate) fn url(&self) -> Url {
        self.url_with("http", "")
    }

    pub(crate) fn url_with(&self, scheme: &str, path: &str) -> Url {
        format!("{scheme}://{}{path}", self.address).parse().unwrap()
    }

    /// The heads of the requests that came, in lower case.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// The bodies of the requests that came, as they are.
    pub(crate) fn bodies(&self) -> Vec<String> {
        self.bodies.lock().unwrap().clone()
    }
}

type Seen = (Arc<Mutex<Vec<String>>>, Arc<Mutex<Vec<String>>>);

async fn answer(mut stream: TcpStream, reply: Reply, (asked, bodies): Seen) {
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
    asked.lock().unwrap().push(head);
    bodies.lock().unwrap().push(String::from_utf8(body).unwrap());
    match reply {
        Reply::HangUp => {}
        Reply::Say(text) => stream.write_all(text.as_bytes()).await.unwrap(),
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
