//! The gateway over HTTP, each request compared with a bare handler that returns the same bytes.

mod client;
mod events;
mod hold;
mod idle;
mod process;
mod storm;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use bytes::Bytes;
use quota_core::{AccountId, MemoryStore, Policy, QuotaManager, Secret};
use quota_credentials::{CredentialMap, StaticCredential};
use quota_http::{Fetcher, anthropic};
use quota_server::{Gateway, LastResponses, Listener, ServedAccount, Server};
use quota_sim::{Account, Script, Simulator, Window};
use tokio::net::TcpListener;

use self::client::Client;
use crate::measure::median;
use crate::row::Row;

const CONNECTIONS: usize = 64;
/// The requests of each connection in one run.
const REQUESTS: usize = 500;
const RUNS: usize = 5;
/// The accounts of the list.
const ACCOUNTS: usize = 20;
const USAGE: &str = "/api/oauth/usage";
const LIST: &str = "/v1/accounts";

pub(crate) fn rows() -> Vec<Row> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(measured())
}

async fn measured() -> Vec<Row> {
    let mut rows = answers().await;
    rows.extend(idle::rows().await);
    rows.extend(events::rows().await);
    rows.extend(hold::rows().await);
    rows.extend(storm::rows().await);
    rows
}

async fn answers() -> Vec<Row> {
    let one = InProcess::start(1).await;
    let many = InProcess::start(ACCOUNTS).await;
    let presented = "Authorization: Bearer sim-token-a0\r\n";
    let usage = Client::connect(one.address).await.get(USAGE, presented).await;
    let list = Client::connect(many.address).await.get(LIST, "").await;
    let bare = bare([(USAGE, usage.body), (LIST, list.body)]).await;
    let conditional = format!("{presented}If-None-Match: {}\r\n", usage.etag);
    let kinds: [(SocketAddr, &str, &str); 5] = [
        (one.address, USAGE, presented),
        (bare, USAGE, presented),
        (one.address, USAGE, &conditional),
        (many.address, LIST, ""),
        (bare, LIST, ""),
    ];
    let mut rates = [const { Vec::new() }; 5];
    let mut latencies = [const { Vec::new() }; 5];
    for round in 0..=RUNS {
        for (at, (address, path, headers)) in kinds.iter().enumerate() {
            let (rate, p99) = load(*address, path, headers).await;
            // The first round is a warm-up.
            if round > 0 {
                rates[at].push(rate);
                latencies[at].push(p99);
            }
        }
    }
    let [usage, bare, not_modified, list, bare_list] = rates.map(median);
    let [usage_p99, bare_p99, not_modified_p99, list_p99, bare_list_p99] = latencies.map(median);
    let (peer, unit) = ("bare axum handler", "requests/s");
    vec![
        Row::at_least("serve.usage", (usage, unit), (peer, bare), 0.8),
        Row::reported("serve.usage.p99", (usage_p99, "µs"), (peer, bare_p99)),
        Row::at_least("serve.304", (not_modified, unit), ("serve.usage", usage), 1.0),
        Row::reported("serve.304.p99", (not_modified_p99, "µs"), ("serve.usage", usage_p99)),
        Row::at_least("serve.api", (list, unit), (peer, bare_list), 0.7),
        Row::reported("serve.api.p99", (list_p99, "µs"), (peer, bare_list_p99)),
    ]
}

/// A gateway in this process, whose readings stay fresh during the measurement.
struct InProcess {
    address: SocketAddr,
    _simulator: Simulator,
    _manager: QuotaManager,
}

impl InProcess {
    async fn start(count: usize) -> Self {
        let accounts = (0..count).map(|number| {
            Account::new(format!("a{number}"))
                .windows([Window::five_hour().used(62.0), Window::seven_day().used(41.0)])
        });
        let simulator = Simulator::builder(Script::new(accounts)).start().await.expect("a simulator");
        let responses = LastResponses::default();
        let fetcher = Fetcher::builder(&anthropic::PROVIDER).base_url(simulator.url());
        let fetcher = fetcher.on_response(responses.recorder()).build().expect("valid settings");
        let id = |number| -> AccountId { format!("anthropic/a{number}").parse().expect("a name") };
        let sources = (0..count).fold(CredentialMap::new(), |sources, number| {
            let token = Secret::new(format!("sim-token-a{number}"));
            sources.with(id(number), StaticCredential::new(token))
        });
        // The provider accepts calls without a pause.
        let policy = Policy::default().min_call_interval(Duration::from_millis(1));
        let builder = QuotaManager::builder(MemoryStore::new()).policy(policy);
        let manager = builder.provider(fetcher, sources).build().expect("a manager");
        let served = (0..count).map(|number| ServedAccount::new(id(number)));
        let gateway = Gateway::builder(&manager, served).last_responses(responses).build();
        gateway.prepare().await;
        let listener = Listener::bind(&"127.0.0.1:0".parse().expect("an address")).await;
        let listener = listener.expect("a free port");
        let address = listener.display("http")["http://".len()..].parse().expect("an address");
        tokio::spawn(Server::new(gateway, vec![listener]).run(std::future::pending()));
        let mut client = Client::connect(address).await;
        for number in 0..count {
            client.get(&format!("/account/anthropic/a{number}{USAGE}"), "").await;
        }
        Self { address, _simulator: simulator, _manager: manager }
    }
}

/// A server that returns these bytes for each path.
async fn bare<const N: usize>(answers: [(&'static str, Bytes); N]) -> SocketAddr {
    let app = answers.into_iter().fold(Router::new(), |app, (path, body)| {
        app.route(path, get(move || async { ([(CONTENT_TYPE, "application/json")], body) }))
    });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async { axum::serve(listener, app).await });
    address
}

/// The requests per second of all connections, and the 99th percentile of the latency in microseconds.
async fn load(address: SocketAddr, path: &'static str, headers: &str) -> (f64, f64) {
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
                    client.get(path, &headers).await;
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
