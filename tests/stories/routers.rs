//! Eight real processes that share one Redis route requests over accounts of which nothing is known.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use quota_sim::{Simulator, Window};
use redis_harness::Server;

use crate::world::*;

const PROCESSES: usize = 8;
const REQUESTS: usize = 100;
const NAMES: [&str; 3] = ["main", "b", "c"];

/// A process that routes. One that is forgotten is ended.
struct Router {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Router {
    fn start(server: &Server, simulator: &Simulator) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_router"))
            .args([server.url(), simulator.url().to_string(), REQUESTS.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cargo has built it");
        let lines = BufReader::new(child.stdout.take().expect("it was piped"));
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("it speaks");
        line.trim_end().to_owned()
    }

    fn tell(&mut self) {
        self.child.stdin.as_mut().expect("it was piped").write_all(b"go\n").expect("it listens");
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
    }
}

/// Starts them all, has them route at once, and counts the requests that were told that nobody has room.
fn route_everywhere(server: &Server, simulator: &Simulator) -> usize {
    let mut routers: Vec<_> = (0..PROCESSES).map(|_| Router::start(server, simulator)).collect();
    routers.iter_mut().for_each(|router| assert_eq!(router.line(), "ready"));
    routers.iter_mut().for_each(Router::tell);
    routers.iter_mut().map(|router| router.line().parse::<usize>().expect("it says a number")).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_processes_that_route_over_unknown_accounts_are_one_call_per_account() {
    let server = Server::start();
    // All are spent, so every one of them is asked about before the answer is that nobody has room.
    let spent = |name| {
        let hours = Duration::from_secs(4 * 3600);
        let account = account(name).windows([Window::five_hour().used(100.0).resets_in(hours)]);
        account.latency(Duration::from_millis(50))
    };
    let simulator = provider(NAMES.map(spent)).await;

    let refused = tokio::task::block_in_place(|| route_everywhere(&server, &simulator));

    let ledger = simulator.stop().await;
    assert_eq!(refused, PROCESSES * REQUESTS);
    assert_eq!(NAMES.map(|name| ledger.account(name).unwrap().calls), [1, 1, 1]);
}
