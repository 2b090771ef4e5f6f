//! A home directory on a file system without file locks: the kernel rejects each lock.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use quota::{Clock, Percent, UsageReport, WindowId, WindowReading};
use quota_sim::{Account, Script, Window};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

use super::support::{Ended, Machine, Provider, argument};

/// The variable with the error of each lock.
const ERROR: &str = "QUOTA_TEST_LOCK_ERROR";
/// The variable with the arguments of the program; without it, the test below does nothing.
const ARGUMENTS: &str = "QUOTA_TEST_WITHOUT_LOCKS";

/// Not a test by itself: the process that `run` starts. It installs the filter and becomes the program.
#[test]
fn become_the_program_without_locks() {
    let Ok(arguments) = std::env::var(ARGUMENTS) else { return };
    let is = |command: i32| {
        let command = u64::try_from(command).unwrap();
        let condition = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, command);
        SeccompRule::new(vec![condition.unwrap()]).unwrap()
    };
    let lock_commands =
        [libc::F_SETLK, libc::F_SETLKW, libc::F_OFD_SETLK, libc::F_OFD_SETLKW].map(is).to_vec();
    let rules = BTreeMap::from([(libc::SYS_flock, Vec::new()), (libc::SYS_fcntl, lock_commands)]);
    let no_locks = SeccompAction::Errno(std::env::var(ERROR).unwrap().parse().unwrap());
    let here = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, no_locks, here).unwrap();
    // The filter of this thread stays in force after `exec`.
    let filter: BpfProgram = filter.try_into().unwrap();
    apply_filter(&filter).unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_quota"));
    let error = program.args(arguments.split('\n')).env_remove(ARGUMENTS).env_remove(ERROR).exec();
    panic!("{error}");
}

fn run(machine: &Machine, arguments: &[&str]) -> Ended {
    ended(start(machine, libc::ENOLCK, arguments))
}

fn start(machine: &Machine, error: i32, arguments: &[&str]) -> Child {
    let like = machine.command(&[]);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "no_file_locks::become_the_program_without_locks"]).env_clear();
    command.envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env(ARGUMENTS, arguments.join("\n")).current_dir(like.get_current_dir().unwrap());
    command.env(ERROR, error.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn ended(child: Child) -> Ended {
    let mut ended = Ended::of(child.wait_with_output().unwrap());
    // The test framework has printed its first lines.
    ended.stdout = ended.stdout.split_once("running 1 test\n").unwrap().1.to_owned();
    ended
}

#[test]
fn doctor_says_that_the_file_system_has_no_locks() {
    let machine = Machine::new();

    let ended = run(&machine, &["doctor"]);

    assert!(ended.stdout.contains("does not support file locks"), "{}", ended.stdout);
    assert!(!ended.stdout.contains("another process"), "{}", ended.stdout);
}

#[test]
fn an_existing_store_without_locks_is_named() {
    let machine = Machine::new();
    machine.log_in("sim-token-main");
    let reading = WindowReading::new(WindowId::five_hour(), Percent::from_percent(42.0).unwrap());
    machine.seed([(UsageReport::polled([reading]), Clock::system().now())]);

    for command in [&["status", "--offline"][..], &["statusline"]] {
        let ended = run(&machine, command);

        assert!(ended.stderr.contains("does not support file locks"), "{command:?}: {}", ended.stderr);
    }
}

/// No folder has locks here, so nothing can remember a call: only an explicit refresh makes one. A process that took the error for a lock
/// of another process would wait for it and say so.
#[test]
fn processes_at_once_without_locks_neither_call_nor_wait() {
    for (error, has_store) in [(libc::ENOLCK, false), (libc::ENOLCK, true), (libc::EOPNOTSUPP, true)] {
        let main = Account::new("main").windows([Window::five_hour().used(42.0)]);
        let provider = Provider::play(Script::new([main]));
        let (machine, config) = provider.configure(Machine::new());
        if has_store {
            machine.seed([]);
            assert_eq!(machine.run(&["status", "--offline", "--config", argument(&config)]).stderr, "");
        }
        for command in [&["status"][..], &["guard"], &["pick"], &["statusline"]] {
            let arguments = [command, &["--config", argument(&config)]].concat();
            let started: Vec<_> = (0..16).map(|_| start(&machine, error, &arguments)).collect();

            for ended in started.into_iter().map(ended) {
                let said = &ended.stderr;
                assert!(
                    said.contains("does not support file locks"),
                    "{error} {has_store} {command:?}: {ended:?}"
                );
                assert!(!said.contains("another process"), "{error} {command:?}: {ended:?}");
            }
        }
        assert_eq!(provider.simulator.ledger().calls(), 0, "{error} {has_store}");

        let refreshed =
            ended(start(&machine, error, &["status", "--refresh", "--config", argument(&config)]));
        assert!(refreshed.stdout.contains("42 %"), "{error} {has_store}: {refreshed:?}");
        assert_eq!(provider.simulator.ledger().calls(), 1, "{error} {has_store}");
    }
}

#[test]
fn accounts_are_added_without_file_locks() {
    let machine = Machine::new();

    for name in ["one", "two"] {
        let variable = format!("QUOTA_{name}");
        let ended = run(&machine, &["accounts", "add", name, "--token-env", &variable]);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }

    let folder = machine.path(".config/quota");
    let config = std::fs::read_to_string(folder.join("config.toml")).unwrap();
    assert!(config.contains("anthropic/one") && config.contains("anthropic/two"), "{config}");
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1, "no lock file remains");
}
