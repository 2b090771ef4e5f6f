//! Group `outage`: many commands at once while their Redis cannot be used. The provider counts the calls, and the times are
//! compared with those of the same commands with a healthy store.

use std::time::Instant;

use quota_sim::{Answer, Change};
use redis_harness::{Proxy, Server};

use super::fixture::Fixture;
use super::process::Process;
use crate::measure::median;
use crate::row::Row;

/// The processes of one herd. A second herd of this size follows.
const HERD: usize = 40;
const COMMANDS: [&str; 4] = ["status", "guard", "pick", "statusline"];
/// The first account of `Fixture`.
const ACCOUNT: &str = "account-0";
/// The additional milliseconds of a process of the first herd, which may wait for the timeout of the store.
const FIRST_MS: f64 = 300.0;
/// The same of the second herd, which finds the file.
const NEXT_MS: f64 = 20.0;
/// How often each pair of herds is run. The time of one herd depends on the order in which the system schedules its processes: with a
/// healthy store too it varies by a factor of three. So the medians are compared.
const ROUNDS: usize = 5;

#[derive(Debug, Clone, Copy)]
enum Fault {
    Refused,
    Frozen,
    ReadOnly,
    /// A proxy that forwards every command and drops every response.
    BadProxy,
}

const FAULTS: [Fault; 4] = [Fault::Refused, Fault::Frozen, Fault::ReadOnly, Fault::BadProxy];
/// A healthy store, with which the others are compared, and each fault.
const CASES: [Option<Fault>; 5] =
    [None, Some(Fault::Refused), Some(Fault::Frozen), Some(Fault::ReadOnly), Some(Fault::BadProxy)];

/// The figures of two herds.
struct Figures {
    /// The average milliseconds of a process.
    first: f64,
    next: f64,
    calls: u64,
    calls_during_hold: u64,
}

/// The worst figure of all faults.
#[derive(Default)]
struct Worst {
    value: f64,
    fault: String,
}

impl Worst {
    fn add(&mut self, value: f64, fault: Fault) {
        if self.fault.is_empty() || value > self.value {
            *self = Self { value, fault: format!("{fault:?}") };
        }
    }
}

pub(crate) fn rows() -> Vec<Row> {
    COMMANDS.into_iter().flat_map(of_command).collect()
}

fn of_command(command: &str) -> Vec<Row> {
    let [mut first, mut next, mut calls, mut held] = [(); 4].map(|()| Worst::default());
    for answer in [Answer::Ok, Answer::ThrottleNoHeader] {
        // All cases in each round, so that other load on the machine affects them equally.
        let rounds: Vec<[Figures; 5]> =
            (0..ROUNDS).map(|_| CASES.map(|fault| measure(command, fault, answer))).collect();
        let time = |case: usize, figure: fn(&Figures) -> f64| {
            median(rounds.iter().map(|round| figure(&round[case])).collect())
        };
        for (case, fault) in FAULTS.into_iter().enumerate() {
            let more = |figure: fn(&Figures) -> f64| time(case + 1, figure) - time(0, figure);
            first.add(more(|figures| figures.first), fault);
            next.add(more(|figures| figures.next), fault);
            for round in &rounds {
                calls.add(round[case + 1].calls as f64, fault);
                held.add(round[case + 1].calls_during_hold as f64, fault);
            }
        }
    }
    let row = |name: &str, worst: &Worst, unit: &'static str, target: &str, most: f64| {
        let target = format!("{target} (worst: {})", worst.fault);
        Row::absolute(&format!("outage.{command}.{name}"), (worst.value, unit), &target, worst.value <= most)
    };
    let more = |most: f64| format!("≤ {most} ms more than with a healthy store");
    vec![
        row("first", &first, "ms", &more(FIRST_MS), FIRST_MS),
        row("next", &next, "ms", &more(NEXT_MS), NEXT_MS),
        row("calls", &calls, "calls/interval", "≤ 1", 1.0),
        row("held", &held, "calls in a hold", "0", 0.0),
    ]
}

/// Runs two herds on a new machine with a new server.
fn measure(command: &str, fault: Option<Fault>, answer: Answer) -> Figures {
    let fixture = Fixture::cold(1, "");
    fixture.simulator.set(ACCOUNT, Change::answer(answer)).expect("the account exists");
    let mut server = Server::start();
    let proxy = Proxy::new(server.port());
    match fault {
        None => {}
        Some(Fault::Refused) => server.kill(),
        Some(Fault::Frozen) => server.suspend(),
        // The master does not exist, so the server rejects writes.
        Some(Fault::ReadOnly) => server.command(&["REPLICAOF", "127.0.0.1", "1"]),
        Some(Fault::BadProxy) => proxy.drop_responses(usize::MAX),
    }
    let url = if matches!(fault, Some(Fault::BadProxy)) { proxy.url() } else { server.url() };
    let process = fixture.process([command]).with("QUOTA_STORE", url).with("TMPDIR", fixture.home());
    let first = run_herd(&process);
    // A statusline does not wait for its refresher.
    fixture.until(|ledger| ledger.calls() > 0 && ledger.accounts.values().all(|one| one.in_flight == 0));
    let next = run_herd(&process);
    let ledger = fixture.simulator.ledger();
    Figures { first, next, calls: ledger.calls(), calls_during_hold: ledger.calls_during_hold() }
}

/// The average milliseconds of a process. Without data a command ends with another code than 0.
fn run_herd(process: &Process) -> f64 {
    let times: Vec<f64> = std::thread::scope(|scope| {
        let one = || {
            let start = Instant::now();
            process.start().wait().expect("the process can be awaited");
            start.elapsed().as_secs_f64() * 1e3
        };
        let herd: Vec<_> = (0..HERD).map(|_| scope.spawn(one)).collect();
        herd.into_iter().map(|one| one.join().expect("a process can be started")).collect()
    });
    times.iter().sum::<f64>() / times.len() as f64
}
