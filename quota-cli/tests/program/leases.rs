//! However a command ends, it releases its lease, so that the next command does not wait.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use quota::AccountId;
use quota::record::Record;
use quota::store::StoreKey;
use quota_sim::{Account, Answer, Change, Phase, Script, Window};
use redis_harness::Server;
use rustix::process::{Pid, Signal, kill_process};

use super::support::{Ended, Machine, Provider, argument};

/// A provider that hangs until the test changes its answer.
struct Env {
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

impl Env {
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
            assert!(child.try_wait().unwrap().is_none(), "the command ended without a call");
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
        record.expect("the call stored a record").lease().is_some()
    }

    /// The result of the next command, once the provider answers.
    fn next_status(&self) -> Ended {
        self.provider.simulator.set("main", Change::answer(Answer::Ok)).unwrap();
        self.machine.run(&["status", "--config", &self.config])
    }

    fn assert_no_lease(&self, command: &[&str]) {
        assert!(!self.has_lease(), "{command:?}");
    }
}

fn end_with(mut child: Child, signal: Signal) -> Option<i32> {
    kill_process(Pid::from_child(&child), signal).unwrap();
    child.wait().unwrap().code()
}

#[test]
fn every_command_releases_its_lease_on_sigint() {
    let env = Env::on_sqlite();

    for command in COMMANDS {
        let child = env.start_a_call(command);
        assert!(env.has_lease(), "{command:?}");

        assert_eq!(end_with(child, Signal::INT), Some(130), "{command:?}");
        env.assert_no_lease(command);
    }
}

#[test]
fn every_signal_releases_the_lease_on_either_store() {
    for env in [Env::on_sqlite(), Env::on_redis()] {
        let signals = [(Signal::HUP, 129), (Signal::INT, 130), (Signal::QUIT, 131), (Signal::TERM, 143)];
        for (signal, code) in signals {
            let child = env.start_a_call(&["status"]);

            assert_eq!(end_with(child, signal), Some(code), "{signal:?}");
            env.assert_no_lease(&["status"]);
        }
        let next = env.next_status();
        assert_eq!((next.code, next.stderr.as_str()), (Some(0), ""));
        assert!(next.stdout.contains("42 %"), "{}", next.stdout);
    }
}

#[test]
fn a_timed_out_command_releases_its_lease() {
    let env = Env::on_sqlite();

    let ended = env.start_a_call(&["guard", "--wait", "--timeout", "2500ms"]).wait_with_output().unwrap();

    assert_eq!(ended.status.code(), Some(69));
    env.assert_no_lease(&["guard"]);
}

#[test]
fn a_command_without_time_for_a_call_makes_none() {
    let env = Env::on_sqlite();

    let ended = env.start(&["guard", "--wait", "--timeout", "1500ms"]).wait_with_output().unwrap();

    assert_eq!(ended.status.code(), Some(69));
    assert_eq!(env.provider.simulator.ledger().calls(), 0);
}

#[test]
fn a_wait_for_another_process_is_printed_with_its_end() {
    let env = Env::on_sqlite();
    let first = env.start_a_call(&["status"]);

    for command in [&["status"][..], &["guard"], &["pick"]] {
        let mut waiting = env.start(command);
        let mut line = String::new();
        BufReader::new(waiting.stderr.take().unwrap()).read_line(&mut line).unwrap();

        let notice = "quota: anthropic/main: another process is refreshing, waiting until ";
        assert!(line.starts_with(notice), "{command:?}: {line}");
        assert_eq!(end_with(waiting, Signal::TERM), Some(143), "{command:?}");
    }

    assert!(env.has_lease(), "the first command still has its lease");
    end_with(first, Signal::KILL);
}

#[test]
fn a_signal_ignored_at_start_does_not_end_the_command() {
    let env = Env::on_sqlite();
    let status = env.machine.command(&["status", "--config", &env.config]);
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(status.get_program()).args(status.get_args());
    shell.env_clear().envs(status.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child = shell.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    env.wait_for_call(&mut child, 0);

    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();

    env.provider.simulator.set("main", Change::answer(Answer::Ok)).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
