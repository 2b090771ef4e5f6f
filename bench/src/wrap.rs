//! curl under `quota wrap`, compared with curl without it: a long stream, and small requests. Both read from the same host with TLS.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use futures_util::stream;
use quota_sim::TlsFront;
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::measure::median;
use crate::row::Row;

const HOST: &str = "api.anthropic.com";
/// The stream: 100 MB in parts.
const PARTS: usize = 1600;
const PART: usize = 62_500;
const SMALL_REQUESTS: usize = 1000;
const RUNS: usize = 5;

pub(crate) fn rows() -> Vec<Row> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(measured())
}

async fn measured() -> Vec<Row> {
    let front = TlsFront::start([(HOST, server().await)], &["http/1.1"]).await.expect("a free port");
    let folder = tempfile::tempdir().expect("a folder");
    let authority = folder.path().join("authority.pem");
    std::fs::write(&authority, front.certificate()).expect("a writable folder");
    let claude = folder.path().join(".claude");
    std::fs::create_dir(&claude).expect("a writable folder");
    let login = r#"{"claudeAiOauth":{"accessToken":"sim-token-main","expiresAt":4102444800000}}"#;
    std::fs::write(claude.join(".credentials.json"), login).expect("a writable folder");

    let quota = quota();
    let setup = Setup { home: folder.path(), authority: &authority, proxy: front.proxy_url() };
    let ways: [&[&str]; 2] = [&["curl"], &[&quota, "wrap", "curl"]];
    let mut speeds = [const { Vec::new() }; 2];
    let mut latencies = [const { Vec::new() }; 2];
    for round in 0..=RUNS {
        for (at, way) in ways.iter().enumerate() {
            let speed = setup.curl(way, "%{speed_download}\n", "stream").await[0] / 1e6;
            let url = format!("small?[1-{SMALL_REQUESTS}]");
            let times = setup.curl(way, "%{time_total}\n", &url).await;
            assert_eq!(times.len(), SMALL_REQUESTS, "each request has a response");
            // The first round is a warm-up.
            if round > 0 {
                speeds[at].push(speed);
                latencies[at].push(times.iter().sum::<f64>() * 1e6 / times.len() as f64);
            }
        }
    }
    let [alone, wrapped] = speeds.map(median);
    let [alone_latency, wrapped_latency] = latencies.map(median);
    let added = wrapped_latency - alone_latency;
    vec![
        Row::at_least("wrap.relay", (wrapped, "MB/s"), ("curl without it", alone), 0.5),
        Row::at_most("wrap.relay.added", (added, "µs"), ("1 ms", 1000.0), 1.0),
        Row::reported("wrap.relay.request", (wrapped_latency, "µs"), ("curl without it", alone_latency)),
    ]
}

struct Setup<'a> {
    home: &'a Path,
    authority: &'a Path,
    proxy: String,
}

impl Setup<'_> {
    /// Runs curl, and returns the figures that it writes: one for each request.
    async fn curl(&self, way: &[&str], figure: &str, path: &str) -> Vec<f64> {
        let (program, arguments) = way.split_first().expect("a program");
        let mut command = Command::new(program);
        command.args(arguments).args(["-sS", "--http1.1", "-o", "/dev/null", "-w", figure]);
        command.arg(format!("https://{HOST}/{path}"));
        command.env("HOME", self.home).env("HTTPS_PROXY", &self.proxy).env("SSL_CERT_FILE", self.authority);
        command.env("CURL_CA_BUNDLE", self.authority).env_remove("https_proxy").env_remove("NO_PROXY");
        let output = command.output().await.expect("curl is installed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let figures: Vec<_> = text.lines().filter_map(|line| line.parse().ok()).collect();
        assert!(
            output.status.success() && !figures.is_empty(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        figures
    }
}

/// The program quota, which `scripts/bench` builds in the same folder as this one.
fn quota() -> String {
    let own = std::env::current_exe().expect("the path of this program");
    let quota: PathBuf = own.with_file_name("quota");
    quota.to_str().expect("a path of UTF-8").to_owned()
}

/// A server with a long stream and a small response.
async fn server() -> SocketAddr {
    let stream = get(async || {
        let part = Bytes::from(vec![b'x'; PART]);
        Body::from_stream(stream::iter((0..PARTS).map(move |_| Ok::<_, std::io::Error>(part.clone()))))
    });
    let app = Router::new().route("/stream", stream).route("/small", get(async || "small"));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async { axum::serve(listener, app).await });
    address
}
