//! Processes that are killed, or stand still, while they ask: what is left behind harms no other process.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use quota_sim::{Account, Answer, Change, Ledger, Script, Simulator, Window};
use quota_tests::history::Written;
use redis_harness::{Monitor, Server};
use rustix::process::{Pid, Signal, kill_process};

use crate::world::*;

/// What a process of this number has said.
type Said = (usize, String);

/// Processes on one server, and what they say.
struct Refreshers {
    store: String,
    provider: String,
    mode: Option<&'static str>,
    children: Vec<Child>,
    dead: HashSet<usize>,
    tell: Sender<Said>,
    said: Receiver<Said>,
}

impl Refreshers {
    fn start(server: &Server, simulator: &Simulator, mode: Option<&'static str>, count: usize) -> Self {
        let (tell, said) = channel();
        let (store, provider) = (server.url(), simulator.url().to_string());
        let (children, dead) = (Vec::new(), HashSet::new());
        let mut all = Self { store, provider, mode, children, dead, tell, said };
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
        let lines = BufReader::new(child.stdout.take().expect("it was piped")).lines();
        let (number, tell) = (self.children.len(), self.tell.clone());
        // It ends with the process.
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| tell.send((number, line))));
        self.children.push(child);
    }

    /// The living who says so next, of all that is said from now on or was not listened to yet.
    async fn next_that(&mut self, says: &str) -> usize {
        let mut found = None;
        until(&format!("a process that says {says}"), || {
            // A killed process may have said more than was listened to.
            let mut living = self.said.try_iter().filter(|(number, _)| !self.dead.contains(number));
            found = living.find(|(_, line)| line == says).map(|(number, _)| number);
            found.is_some()
        })
        .await;
        found.expect("it was found")
    }

    /// Forgets what was said.
    fn forget(&mut self) {
        self.said.try_iter().for_each(drop);
    }

    /// `kill -9`.
    fn kill(&mut self, number: usize) {
        self.children[number].kill().expect("our own child can be killed");
        self.children[number].wait().expect("it has ended");
        self.dead.insert(number);
    }

    fn signal(&self, number: usize, signal: Signal) {
        let id = i32::try_from(self.children[number].id()).ok().and_then(Pid::from_raw);
        kill_process(id.expect("a process has an id"), signal).expect("our own child can be signalled");
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

fn under_way(ledger: &Ledger) -> u64 {
    ledger.account("main").map_or(0, |main| main.in_flight)
}

/// Kills who asks, as often as told, each time while the provider has not answered yet; then it answers.
async fn kill_those_who_ask(refreshers: &mut Refreshers, simulator: &Simulator, kills: usize) {
    for kill in 1..=kills {
        let asking = refreshers.next_that("asks").await;
        until("the call has arrived", || under_way(&simulator.ledger()) == 1).await;
        if kill == kills {
            // The next caller gets an answer; the one that asks now has none before it is killed.
            refreshers.signal(asking, Signal::STOP);
            answers(simulator, Answer::Ok);
        }
        refreshers.kill(asking);
        until("the call has ended", || under_way(&simulator.ledger()) == 0).await;
    }
}

async fn costs_one_call_for_each_kill_and_one_more(kills: usize) {
    let server = Server::start();
    let monitor = Monitor::of(&server);
    let simulator = simulator().await;
    answers(&simulator, Answer::Hang);
    let mut refreshers = Refreshers::start(&server, &simulator, Some("once"), 4);

    kill_those_who_ask(&mut refreshers, &simulator, kills).await;
    for _ in kills..4 {
        refreshers.next_that("served").await;
    }

    assert_eq!(simulator.stop().await.calls(), kills as u64 + 1);
    assert_good_history(&monitor, &server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_that_is_killed_while_it_asks_costs_one_call_more() {
    costs_one_call_for_each_kill_and_one_more(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_that_are_killed_while_they_ask_cost_two_calls_more() {
    costs_one_call_for_each_kill_and_one_more(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn six_kills_and_six_late_answers_keep_the_promises_about_leases() {
    const KILLS: usize = 6;
    let server = Server::start();
    let monitor = Monitor::of(&server);
    let simulator = simulator().await;
    let mut refreshers = Refreshers::start(&server, &simulator, None, 3);

    for _ in 0..KILLS {
        answers(&simulator, Answer::Hang);
        refreshers.forget();
        until("a call hangs", || under_way(&simulator.ledger()) == 1).await;
        let killed = refreshers.next_that("asks").await;
        refreshers.kill(killed);
        refreshers.add();
        let late = refreshers.next_that("asks").await;
        refreshers.signal(late, Signal::STOP);
        answers(&simulator, Answer::Ok);
        // Its lease runs out, another has it and an answer; then it wakes, with an answer of its own for an older lease.
        refreshers.forget();
        refreshers.next_that("served").await;
        refreshers.signal(late, Signal::CONT);
    }

    let written: Vec<_> = monitor.heard(&server).iter().filter_map(|call| Written::by_call(call)).collect();
    let leases: HashSet<_> =
        written.iter().filter_map(|written| Some(written.record.lease()?.fence)).collect();
    assert!(leases.len() >= 3 * KILLS, "every round takes three leases at least: {}", leases.len());
    assert_good_history(&monitor, &server);
}
