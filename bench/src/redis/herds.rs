//! Many processes on one cold account make one call. Each process that is killed during its call costs one more.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis_harness::Server;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::measure::median;
use crate::row::Row;

/// The duration of a call.
const CALL: Duration = Duration::from_millis(50);
/// The lease of the members. They may need a little more time.
const LEASE_MS: f64 = 3_000.0;

pub(super) async fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (processes, tasks) in [(8, 1_000), (32, 1_000), (100, 100)] {
        let herd = Herd::run(processes, tasks, 0).await;
        let name = format!("redis.herd.{processes}");
        rows.push(Row::absolute(
            &name,
            (herd.calls, "calls"),
            "1 call, all served",
            herd.calls == 1.0 && herd.all_served,
        ));
        let name = format!("redis.herd.{processes}.p50");
        let most = CALL.as_secs_f64() * 1e3 + 30.0;
        let is_bound = processes == 8;
        let target = if is_bound { "≤ the call + 30 ms" } else { "reported" };
        rows.push(Row::absolute(&name, (herd.middle, "ms"), target, !is_bound || herd.middle <= most));
        rows.push(Row::absolute(
            &format!("redis.herd.{processes}.last"),
            (herd.last, "ms"),
            "reported",
            true,
        ));
    }
    for killed in [1, 2] {
        let herd = Herd::run(8, 100, killed).await;
        let name = format!("redis.herd_killed.{killed}");
        let calls = (killed + 1) as f64;
        let target = if killed == 1 { "2 calls, the rest served" } else { "3 calls, the rest served" };
        rows.push(Row::absolute(
            &name,
            (herd.calls, "calls"),
            target,
            herd.calls == calls && herd.all_served,
        ));
        let name = format!("redis.herd_killed.{killed}.last");
        let within = herd.last <= (LEASE_MS + 1_000.0) * killed as f64;
        rows.push(Row::absolute(&name, (herd.last, "ms"), "a lease of 3 s for each killed, + 1 s", within));
    }
    rows
}

/// The result of a herd.
struct Herd {
    calls: f64,
    all_served: bool,
    middle: f64,
    last: f64,
}

impl Herd {
    async fn run(processes: usize, tasks: usize, killed: usize) -> Self {
        let server = Server::start();
        let provider = Provider::start(killed).await;
        let mut members = Vec::with_capacity(processes);
        for _ in 0..processes {
            members.push(Member::start(&server, provider.port, tasks));
        }
        for member in &mut members {
            assert_eq!(member.line().await.as_deref(), Some("ready"), "a member of the herd starts");
        }
        for member in &mut members {
            member.start_round().await;
        }
        let (calls, mut callers) = (provider.calls, provider.callers);
        for _ in 0..killed {
            let caller = callers.recv().await.expect("a process calls");
            let member = members.iter_mut().find(|member| member.child.id() == Some(caller));
            member
                .expect("the caller is a member")
                .child
                .start_kill()
                .expect("a process can kill its own child");
        }
        let mut answers = Vec::new();
        for member in &mut members {
            answers.extend(member.line().await);
        }
        let figures =
            |answer: &String| answer.split(' ').map(|word| word.parse().ok()).collect::<Option<Vec<f64>>>();
        let answers: Vec<Vec<f64>> = answers.iter().filter_map(figures).collect();
        let served: f64 = answers.iter().map(|answer| answer[0]).sum();
        Self {
            calls: calls.load(Ordering::Relaxed) as f64,
            all_served: served == ((processes - killed) * tasks) as f64,
            middle: median(answers.iter().map(|answer| answer[1]).collect()),
            last: answers.iter().map(|answer| answer[2]).fold(0.0, f64::max),
        }
    }
}

/// A slow provider that counts its calls and never responds to the first `killed` callers.
pub(super) struct Provider {
    pub(super) port: u16,
    calls: Arc<AtomicUsize>,
    callers: UnboundedReceiver<u32>,
}

impl Provider {
    pub(super) async fn start(killed: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("the socket is bound").port();
        let calls = Arc::new(AtomicUsize::new(0));
        let (sender, callers) = unbounded_channel();
        let count = Arc::clone(&calls);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let is_left = count.fetch_add(1, Ordering::Relaxed) < killed;
                tokio::spawn(answer(stream, is_left, sender.clone()));
            }
        });
        Self { port, calls, callers }
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

async fn answer(mut stream: TcpStream, is_left: bool, callers: UnboundedSender<u32>) -> std::io::Result<()> {
    let caller = stream.read_u32().await?;
    if is_left {
        // The parent process now kills this caller.
        let _ = callers.send(caller);
        stream.read_u8().await?;
    }
    tokio::time::sleep(CALL).await;
    stream.write_u8(42).await
}

/// A process of the herd.
pub(super) struct Member {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Member {
    fn start(server: &Server, port: u16, tasks: usize) -> Self {
        Self::start_with(&server.url(), port, tasks, None)
    }

    /// Starts a process with this max age, if there is one.
    pub(super) fn start_with(url: &str, port: u16, tasks: usize, freshness: Option<Duration>) -> Self {
        let program = std::env::current_exe().expect("this program has a path").with_file_name("herd-member");
        let mut child = Command::new(program)
            .args([url.to_owned(), port.to_string(), tasks.to_string()])
            .args(freshness.map(|max_age| max_age.as_millis().to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("scripts/bench builds it");
        let lines = BufReader::new(child.stdout.take().expect("the stream is piped")).lines();
        Self { child, lines }
    }

    pub(super) async fn line(&mut self) -> Option<String> {
        self.lines.next_line().await.ok().flatten()
    }

    pub(super) async fn start_round(&mut self) {
        let stdin = self.child.stdin.as_mut().expect("the stream is piped");
        stdin.write_all(b"go\n").await.expect("the member reads its input");
    }
}
