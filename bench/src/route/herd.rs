//! Row `route.herd`: eight processes on one Redis server route requests over accounts without readings. Each process runs
//! `route-member`.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis_harness::Server;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdout, Command};

use crate::row::Row;

const PROCESSES: usize = 8;
const REQUESTS: usize = 100;
const ACCOUNTS: usize = 3;
/// The duration of a call to the provider.
const CALL: Duration = Duration::from_millis(50);

type Calls = Arc<[AtomicUsize; ACCOUNTS]>;

pub(super) fn row() -> Row {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let (calls, rejected) = runtime.expect("threads can be started").block_on(run());
    // All accounts are exhausted, so each of them is refreshed before a request is rejected.
    assert_eq!(rejected, PROCESSES * REQUESTS, "every request is rejected");
    let most = calls.iter().map(|calls| calls.load(Ordering::Relaxed)).max().unwrap_or_default();
    Row::absolute("route.herd", (most as f64, "calls per account"), "1", most == 1)
}

async fn run() -> (Calls, usize) {
    let server = Server::start();
    let (port, calls) = provider().await;
    let mut members: Vec<_> = (0..PROCESSES).map(|_| Member::start(&server, port)).collect();
    for member in &mut members {
        assert_eq!(member.line().await.as_deref(), Some("ready"), "a member of the herd starts");
    }
    for member in &mut members {
        member.start_round().await;
    }
    let mut rejected = 0;
    for member in &mut members {
        let results = member.line().await.and_then(|line| line.parse::<usize>().ok());
        rejected += results.expect("a member reports its results");
    }
    (calls, rejected)
}

/// A slow provider that counts its calls. Every account is exhausted.
async fn provider() -> (u16, Calls) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let port = listener.local_addr().expect("the socket is bound").port();
    let calls = Calls::default();
    let counts = Arc::clone(&calls);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, Arc::clone(&counts)));
        }
    });
    (port, calls)
}

async fn answer(mut stream: TcpStream, calls: Calls) -> std::io::Result<()> {
    let account = usize::from(stream.read_u8().await?);
    calls[account].fetch_add(1, Ordering::Relaxed);
    tokio::time::sleep(CALL).await;
    stream.write_u8(100).await
}

/// A process of the herd.
struct Member {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Member {
    fn start(server: &Server, port: u16) -> Self {
        let here = std::env::current_exe().expect("this program has a path");
        let mut child = Command::new(here.with_file_name("route-member"))
            .args([server.url(), port.to_string(), REQUESTS.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("scripts/bench builds it");
        let lines = BufReader::new(child.stdout.take().expect("the stream is piped")).lines();
        Self { child, lines }
    }

    async fn line(&mut self) -> Option<String> {
        self.lines.next_line().await.ok().flatten()
    }

    async fn start_round(&mut self) {
        let stdin = self.child.stdin.as_mut().expect("the stream is piped");
        stdin.write_all(b"go\n").await.expect("the member reads its input");
    }
}
