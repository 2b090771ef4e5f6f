//! Eight real processes that share a store route requests at once.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use quota_sim::{Simulator, Window};
use redis_harness::Server;

use crate::fixture::*;

const PROCESSES: usize = 8;
const NAMES: [&str; 3] = ["main", "b", "c"];

/// A process that routes. Dropping it kills the process.
struct Router {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Router {
    fn start(store: &str, simulator: &Simulator, requests: usize, share: u32) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_router"))
            .args([store, simulator.url().as_ref(), &requests.to_string(), &share.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cargo has built it");
        let lines = BufReader::new(child.stdout.take().expect("the stream is piped"));
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("the process prints a line");
        line.trim_end().to_owned()
    }

    fn start_round(&mut self) {
        self.child
            .stdin
            .as_mut()
            .expect("the stream is piped")
            .write_all(b"go\n")
            .expect("the process reads its input");
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
    }
}

/// Starts all processes and makes them route at once. Counts the requests that were rejected because no account was available, and
/// the requests that each account got.
fn route_everywhere(store: &str, simulator: &Simulator, requests: usize, share: u32) -> [usize; 4] {
    let mut routers: Vec<_> =
        (0..PROCESSES).map(|_| Router::start(store, simulator, requests, share)).collect();
    routers.iter_mut().for_each(|router| assert_eq!(router.line(), "ready"));
    routers.iter_mut().for_each(Router::start_round);
    let mut sum = [0; 4];
    for router in &mut routers {
        let line = router.line();
        let counts = line.split(' ').map(|count| count.parse::<usize>().expect("the line has numbers"));
        sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    sum
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_processes_on_cold_accounts_make_one_call_per_account() {
    let server = Server::start();
    // All accounts are exhausted, so each of them is refreshed before a request is rejected.
    let exhausted = |name| {
        let hours = Duration::from_secs(4 * 3600);
        let account = account(name).windows([Window::five_hour().used(100.0).resets_in(hours)]);
        account.latency(Duration::from_millis(50))
    };
    let simulator = provider(NAMES.map(exhausted)).await;

    let counts = tokio::task::block_in_place(|| route_everywhere(&server.url(), &simulator, 100, 0));

    let ledger = simulator.stop().await;
    assert_eq!(counts, [PROCESSES * 100, 0, 0, 0]);
    assert_eq!(NAMES.map(|name| ledger.account(name).unwrap().calls), [1, 1, 1]);
}

/// Main has 7 % left, `b` 20 % and `c` 30 %. Each of eighty requests has an estimate of 2 %.
async fn check_that_a_burst_fits(store: &str) {
    let used = |name: &'static str, used| account(name).windows([Window::five_hour().used(used)]);
    let simulator = provider([used("main", 93.0), used("b", 80.0), used("c", 70.0)]).await;

    let counts = tokio::task::block_in_place(|| route_everywhere(store, &simulator, 10, 2));

    simulator.stop().await;
    assert_eq!(counts, [52, 3, 10, 15]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_processes_does_not_overrun_accounts_on_redis() {
    let server = Server::start();

    check_that_a_burst_fits(&format!("{}?connect_ms=60000&response_ms=60000", server.url())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_processes_does_not_overrun_accounts_on_sqlite() {
    let dir = tempfile::tempdir().unwrap();

    check_that_a_burst_fits(&format!("sqlite://{}/quota.db?busy_ms=60000", dir.path().display())).await;
}
