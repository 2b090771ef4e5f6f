//! However a command ends, it leaves no lease behind: the next command does not wait.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use quota::AccountId;
use quota::record::Record;
use quota::store::StoreKey;
use quota_sim::{Account, Answer, Change, Phase, Script, Window};
use redis_harness::Server;
use rustix::process::{Pid, Signal, kill_process};

use super::program::{Ended, Machine, Provider, argument};

/// A provider that does not answer until the test lets it.
struct World {
    provider: Provider,
    machine: Machine,
    config: String,
    store: String,
    _server: Option<Server>,
}

const COMMANDS: [&[&str]; 7] = [
    &["status"],
    &["status", "--refresh"],
    &["guard"],
    &["pick"],
    &["explain"],
    &["run", "--", "/bin/true"],
    &["refresh-detached", "--account", "anthropic/main", "--claim", "0"],
];

impl World {
    fn on_sqlite() -> Self {
        let machine = Machine::new();
        let store = format!("sqlite://{}", machine.path("quota.db").display());
        Self::new(machine, store, None)
    }

    fn on_redis() -> Self {
        let server = Server::start();
        Self::new(Machine::new(), server.url(), Some(server))
    }

    fn new(machine: Machine, store: String, server: Option<Server>) -> Self {
        let account = Account::new("main").windows([Window::five_hour().used(42.0)]);
        let account = account.answers([Phase::new(Answer::Hang)]);
        let provider = Provider::play(Script::new([account]));
        let (machine, config) = provider.configure(machine);
        let config = argument(&config).to_owned();
        Self { provider, machine: machine.set("QUOTA_STORE", &store), config, store, _server: server }
    }

    fn start(&self, command: &[&str]) -> Child {
        let (name, rest) = command.split_first().unwrap();
        let arguments = [&[*name, "--config", &*self.config], rest].concat();
        let mut command = self.machine.command(&arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Starts a command, and waits until its call has reached the provider.
    fn start_a_call(&self, command: &[&str]) -> Child {
        let calls = self.provider.simulator.ledger().calls();
        let mut child = self.start(command);
        self.wait_for_call(&mut child, calls);
        child
    }

    fn wait_for_call(&self, child: &mut Child, calls_before: u64) {
        while self.provider.simulator.ledger().calls() == calls_before {
            assert!(child.try_wait().unwrap().is_none(), "it has ended without a call");
            std::thread::yield_now();
        }
    }

    fn has_lease(&self) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let account: AccountId = "anthropic/main".parse().unwrap();
        let found = runtime.block_on(async {
            quota::open_store(&self.store).unwrap().read(&StoreKey::account(&account)).await.unwrap()
        });
        let record = found.document.map(|document| Record::decode(&document.body).unwrap());
        record.expect("the call has written one").lease().is_some()
    }

    /// What the next command says once the provider answers.
    fn next_status(&self) -> Ended {
        self.provider.simulator.set("main", Change::answer(Answer::Ok)).unwrap();
        self.machine.run(&["status", "--config", &self.config])
    }

    fn assert_nothing_is_left(&self, command: &[&str]) {
        assert!(!self.has_lease(), "{command:?}");
    }
}

fn end_with(mut child: Child, signal: Signal) -> Option<i32> {
    kill_process(Pid::from_child(&child), signal).unwrap();
    child.wait().unwrap().code()
}

#[test]
fn every_command_gives_its_lease_back_on_an_interrupt() {
    let world = World::on_sqlite();

    for command in COMMANDS {
        let child = world.start_a_call(command);
        assert!(world.has_lease(), "{command:?}");

        assert_eq!(end_with(child, Signal::INT), Some(130), "{command:?}");
        world.assert_nothing_is_left(command);
    }
}

#[test]
fn every_signal_that_ends_a_command_gives_its_lease_back_on_either_store() {
    for world in [World::on_sqlite(), World::on_redis()] {
        let signals = [(Signal::HUP, 129), (Signal::INT, 130), (Signal::QUIT, 131), (Signal::TERM, 143)];
        for (signal, code) in signals {
            let child = world.start_a_call(&["status"]);

            assert_eq!(end_with(child, signal), Some(code), "{signal:?}");
            world.assert_nothing_is_left(&["status"]);
        }
        let next = world.next_status();
        assert_eq!((next.code, next.stderr.as_str()), (Some(0), ""));
        assert!(next.stdout.contains("42 %"), "{}", next.stdout);
    }
}

#[test]
fn a_command_that_gives_up_gives_its_lease_back() {
    let world = World::on_sqlite();

    let ended = world.start_a_call(&["guard", "--wait", "--timeout", "2500ms"]).wait_with_output().unwrap();

    assert_eq!(ended.status.code(), Some(69));
    world.assert_nothing_is_left(&["guard"]);
}

#[test]
fn a_command_without_time_for_a_call_makes_none() {
    let world = World::on_sqlite();

    let ended = world.start(&["guard", "--wait", "--timeout", "1500ms"]).wait_with_output().unwrap();

    assert_eq!(ended.status.code(), Some(69));
    assert_eq!(world.provider.simulator.ledger().calls(), 0);
}

#[test]
fn a_command_that_waits_for_another_says_for_what_and_until_when() {
    let world = World::on_sqlite();
    let first = world.start_a_call(&["status"]);

    for command in [&["status"][..], &["guard"], &["pick"]] {
        let mut waits = world.start(command);
        let mut line = String::new();
        BufReader::new(waits.stderr.take().unwrap()).read_line(&mut line).unwrap();

        let told = "quota: anthropic/main: another process is refreshing, waiting until ";
        assert!(line.starts_with(told), "{command:?}: {line}");
        assert_eq!(end_with(waits, Signal::TERM), Some(143), "{command:?}");
    }

    assert!(world.has_lease(), "it is the first one's, which still waits for the provider");
    end_with(first, Signal::KILL);
}

#[test]
fn a_signal_that_the_process_was_started_to_ignore_ends_nothing() {
    let world = World::on_sqlite();
    let status = world.machine.command(&["status", "--config", &world.config]);
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(status.get_program()).args(status.get_args());
    shell.env_clear().envs(status.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child = shell.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    world.wait_for_call(&mut child, 0);

    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();

    world.provider.simulator.set("main", Change::answer(Answer::Ok)).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
