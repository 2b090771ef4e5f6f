//! The gateway over HTTP, each request compared with a bare handler that returns the same bytes.

mod process;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use bytes::Bytes;
use quota_core::{AccountId, MemoryStore, QuotaManager, Secret};
use quota_credentials::StaticCredential;
use quota_http::{Fetcher, anthropic};
use quota_server::{Gateway, LastResponses, Listener, ServedAccount, Server};
use quota_sim::{Script, Simulator};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::measure::median;
use crate::row::Row;

const CONNECTIONS: usize = 64;
/// The requests of each connection in one run.
const REQUESTS: usize = 500;
const RUNS: usize = 5;
const PATH: &str = "/api/oauth/usage";

pub(crate) fn rows() -> Vec<Row> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(measured())
}

async fn measured() -> Vec<Row> {
    let (gateway, _simulator, _manager) = gateway().await;
    let presented = "Authorization: Bearer sim-token-main\r\n";
    let first = Client::connect(gateway).await.get(PATH, presented).await;
    let bare = bare(first.body.clone()).await;
    let conditional = format!("{presented}If-None-Match: {}\r\n", first.etag);
    let kinds: [(SocketAddr, &str); 3] = [(gateway, presented), (bare, presented), (gateway, &conditional)];
    let mut rates = [const { Vec::new() }; 3];
    let mut latencies = [const { Vec::new() }; 3];
    for round in 0..=RUNS {
        for (at, (address, headers)) in kinds.iter().enumerate() {
            let (rate, p99) = load(*address, headers).await;
            // The first round is a warm-up.
            if round > 0 {
                rates[at].push(rate);
                latencies[at].push(p99);
            }
        }
    }
    let [usage, bare, not_modified] = rates.map(median);
    let [usage_p99, bare_p99, not_modified_p99] = latencies.map(median);
    let (peer, unit) = ("bare axum handler", "requests/s");
    let mut rows = vec![
        Row::at_least("serve.usage", (usage, unit), (peer, bare), 0.8),
        Row::reported("serve.usage.p99", (usage_p99, "µs"), (peer, bare_p99)),
        Row::at_least("serve.304", (not_modified, unit), ("serve.usage", usage), 1.0),
        Row::reported("serve.304.p99", (not_modified_p99, "µs"), ("serve.usage", usage_p99)),
    ];
    rows.extend(process::rows().await);
    rows
}

/// A gateway with one account, whose readings stay fresh during the measurement.
async fn gateway() -> (SocketAddr, Simulator, QuotaManager) {
    let simulator = Simulator::builder(Script::default()).start().await.expect("a simulator");
    let responses = LastResponses::default();
    let fetcher = Fetcher::builder(&anthropic::PROVIDER).base_url(simulator.url());
    let fetcher = fetcher.on_response(responses.recorder()).build().expect("valid settings");
    let source = StaticCredential::new(Secret::new("sim-token-main"));
    let manager =
        QuotaManager::builder(MemoryStore::new()).provider(fetcher, source).build().expect("a manager");
    let main: AccountId = "anthropic/main".parse().expect("a name");
    let gateway = Gateway::builder(&manager, [ServedAccount::new(main)]).last_responses(responses).build();
    gateway.prepare().await;
    let listener = Listener::bind(&"127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
    let address = listener.display("http")["http://".len()..].parse().expect("an address");
    let server = Server::new(gateway, vec![listener]).run(std::future::pending());
    tokio::spawn(server);
    (address, simulator, manager)
}

/// A handler that returns these bytes.
async fn bare(body: Bytes) -> SocketAddr {
    let app = Router::new().route(PATH, get(move || async { ([(CONTENT_TYPE, "application/json")], body) }));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async { axum::serve(listener, app).await });
    address
}

/// The requests per second of all connections, and the 99th percentile of the latency in microseconds.
async fn load(address: SocketAddr, headers: &str) -> (f64, f64) {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(Client::connect(address).await);
    }
    let started_at = Instant::now();
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let headers = headers.to_owned();
            tokio::spawn(async move {
                let mut latencies = Vec::with_capacity(REQUESTS);
                for _ in 0..REQUESTS {
                    let sent_at = Instant::now();
                    client.get(PATH, &headers).await;
                    latencies.push(sent_at.elapsed());
                }
                latencies
            })
        })
        .collect();
    let mut latencies: Vec<Duration> = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("a client does not panic"));
    }
    let rate = latencies.len() as f64 / started_at.elapsed().as_secs_f64();
    latencies.sort();
    (rate, latencies[latencies.len() * 99 / 100].as_secs_f64() * 1e6)
}

/// A connection that stays open.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

struct Answer {
    etag: String,
    body: Bytes,
}

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("an open socket");
        Self { stream, buffer: Vec::with_capacity(8192) }
    }

    async fn get(&mut self, path: &str, headers: &str) -> Answer {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        self.stream.write_all(request.as_bytes()).await.expect("an open connection");
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
