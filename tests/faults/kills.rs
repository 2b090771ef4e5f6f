//! Processes that are killed or suspended during a call do not harm other processes.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use quota_sim::{Account, Answer, Change, Ledger, Script, Simulator, Window};
use quota_tests::history::Written;
use redis_harness::{Monitor, Server};
use rustix::process::{Pid, Signal, kill_process};

use crate::fixture::*;

/// A line that a process printed, with the number of the process.
type PrintedLine = (usize, String);

/// Processes on one server, and their output.
struct Refreshers {
    store: String,
    provider: String,
    mode: Option<&'static str>,
    children: Vec<Child>,
    dead: HashSet<usize>,
    sender: Sender<PrintedLine>,
    lines_read: Receiver<PrintedLine>,
}

impl Refreshers {
    fn start(server: &Server, simulator: &Simulator, mode: Option<&'static str>, count: usize) -> Self {
        let (sender, lines_read) = channel();
        let (store, provider) = (server.url(), simulator.url().to_string());
        let (children, dead) = (Vec::new(), HashSet::new());
        let mut all = Self { store, provider, mode, children, dead, sender, lines_read };
        for _ in 0..count {
            all.add();
        }
        all
    }

    fn add(&mut self) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_refresher"))
            .args([&self.store, &self.provider])
            .args(self.mode)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cargo has built it");
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let (number, sender) = (self.children.len(), self.sender.clone());
        // The thread ends with the process.
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send((number, line))));
        self.children.push(child);
    }

    /// Returns the number of the next running process that prints this line.
    async fn next_that_prints(&mut self, expected: &str) -> usize {
        let mut found = None;
        until(&format!("a process that prints {expected}"), || {
            // The queue may still contain lines of a killed process.
            let mut living = self.lines_read.try_iter().filter(|(number, _)| !self.dead.contains(number));
            found = living.find(|(_, line)| line == expected).map(|(number, _)| number);
            found.is_some()
        })
        .await;
        found.expect("a process was found")
    }

    /// Discards unread lines.
    fn discard_lines(&mut self) {
        self.lines_read.try_iter().for_each(drop);
    }

    /// Kills a process, as `kill -9` does.
    fn kill(&mut self, number: usize) {
        self.children[number].kill().expect("a process can kill its own child");
        self.children[number].wait().expect("the killed process ends");
        self.dead.insert(number);
    }

    fn signal(&self, number: usize, signal: Signal) {
        let id = i32::try_from(self.children[number].id()).ok().and_then(Pid::from_raw);
        kill_process(id.expect("a process has an id"), signal).expect("a process can signal its own child");
    }
}

impl Drop for Refreshers {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = (child.kill(), child.wait());
        }
    }
}

async fn simulator() -> Simulator {
    let main = Account::new("main").budget(None).windows([Window::five_hour().used(30.0)]);
    Simulator::builder(Script::new([main])).start().await.unwrap()
}

fn answers(simulator: &Simulator, answer: Answer) {
    simulator.set("main", Change::answer(answer)).unwrap();
}

fn in_flight(ledger: &Ledger) -> u64 {
    ledger.account("main").map_or(0, |main| main.in_flight)
}

/// Kills the calling process `kills` times, each time before the provider responds. Then the provider responds.
async fn kill_callers(refreshers: &mut Refreshers, simulator: &Simulator, kills: usize) {
    for kill in 1..=kills {
        let asking = refreshers.next_that_prints("calling").await;
        until("the call has arrived", || in_flight(&simulator.ledger()) == 1).await;
        if kill == kills {
            // The next caller gets a response. The current caller is killed before it gets one.
            refreshers.signal(asking, Signal::STOP);
            answers(simulator, Answer::Ok);
        }
        refreshers.kill(asking);
        until("the call has ended", || in_flight(&simulator.ledger()) == 0).await;
    }
}

async fn costs_one_call_for_each_kill_and_one_more(kills: usize) {
    let server = Server::start();
    let monitor = Monitor::start(&server);
    let simulator = simulator().await;
    answers(&simulator, Answer::Hang);
    let mut refreshers = Refreshers::start(&server, &simulator, Some("once"), 4);

    kill_callers(&mut refreshers, &simulator, kills).await;
    for _ in kills..4 {
        refreshers.next_that_prints("served").await;
    }

    assert_eq!(simulator.stop().await.calls(), kills as u64 + 1);
    assert_valid_history(&monitor, &server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_killed_during_its_call_costs_one_call_more() {
    costs_one_call_for_each_kill_and_one_more(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_killed_during_their_calls_cost_two_calls_more() {
    costs_one_call_for_each_kill_and_one_more(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn six_kills_and_six_late_responses_keep_the_lease_invariants() {
    const KILLS: usize = 6;
    let server = Server::start();
    let monitor = Monitor::start(&server);
    let simulator = simulator().await;
    let mut refreshers = Refreshers::start(&server, &simulator, None, 3);

    for _ in 0..KILLS {
        answers(&simulator, Answer::Hang);
        refreshers.discard_lines();
        until("a call hangs", || in_flight(&simulator.ledger()) == 1).await;
        let killed = refreshers.next_that_prints("calling").await;
        refreshers.kill(killed);
        refreshers.add();
        let late = refreshers.next_that_prints("calling").await;
        refreshers.signal(late, Signal::STOP);
        answers(&simulator, Answer::Ok);
        // The lease of the suspended process expires, and another process gets the lease and a response. Then the first process
        // resumes, with a response for an older lease.
        refreshers.discard_lines();
        refreshers.next_that_prints("served").await;
        refreshers.signal(late, Signal::CONT);
    }

    let written: Vec<_> =
        monitor.recorded(&server).iter().filter_map(|call| Written::by_call(call)).collect();
    let leases: HashSet<_> =
        written.iter().filter_map(|written| Some(written.record.lease()?.fence)).collect();
    assert!(leases.len() >= 3 * KILLS, "every round grants at least three leases: {}", leases.len());
    assert_valid_history(&monitor, &server);
}
