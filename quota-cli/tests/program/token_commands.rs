//! Token commands: the environment that they inherit, and that none outlives the `quota` command.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use super::support::{Machine, argument};

/// Writes a configuration with these accounts and the lines of each.
fn configure(machine: &Machine, accounts: &[(&str, &str)]) -> String {
    let account = |(name, login): &(&str, &str)| {
        // No server listens on port 1, so a call fails at once.
        format!("[[accounts]]\nid = \"anthropic/{name}\"\nbase_url = \"http://127.0.0.1:1\"\n{login}\n")
    };
    let text: String = accounts.iter().map(account).collect();
    argument(&machine.write("config.toml", text)).to_owned()
}

fn pipe(machine: &Machine) -> std::path::PathBuf {
    let pipe = machine.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    pipe
}

fn shell(script: &str) -> String {
    format!("token_command = [\"/bin/sh\", \"-c\", {script:?}]")
}

/// A token command that never ends, with a child process that keeps the pipe open.
fn endless_token_command(pipe: &Path) -> String {
    shell(&format!("(echo started; exec sleep 3600) > '{}' & wait", pipe.display()))
}

#[test]
fn a_token_command_and_its_children_end_with_quota() {
    for command in [&["status"][..], &["guard"], &["pick"], &["run", "--", "/bin/true"], &["doctor"]] {
        for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
            let machine = Machine::new();
            let pipe = pipe(&machine);
            let config = configure(&machine, &[("main", &endless_token_command(&pipe))]);
            let (name, rest) = command.split_first().unwrap();
            let arguments = [&[*name, "--config", &*config], rest].concat();
            let mut started = machine.command(&arguments);
            let mut child = started.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let mut lines = BufReader::new(File::open(&pipe).unwrap()).lines();
            assert_eq!(lines.next().unwrap().unwrap(), "started");

            kill_process(Pid::from_child(&child), signal).unwrap();

            assert_eq!(child.wait().unwrap().code(), Some(code), "{command:?} {signal:?}");
            // The pipe closes when the last process that has it open ends.
            assert!(lines.next().is_none(), "{command:?} {signal:?}");
        }
    }
}

#[test]
fn a_token_command_inherits_no_token_of_another_account() {
    let secrets =
        ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "QUOTA_STORE", "WORK_TOKEN"];
    let machine = Machine::new().set("VAULT_ADDR", "kept");
    let machine = secrets.iter().fold(machine, |machine, name| machine.set(name, "memory:"));
    let environment = machine.path("environment");
    let program = shell(&format!("env > '{}'; echo made-up", environment.display()));
    let config = configure(&machine, &[("main", &program), ("work", "token_env = \"WORK_TOKEN\"")]);

    // The second command does not select the other account.
    for command in [&["guard"][..], &["status", "--account", "main"]] {
        let (name, rest) = command.split_first().unwrap();
        machine.run(&[&[*name, "--config", &*config], rest].concat());

        let environment = std::fs::read_to_string(&environment).unwrap();
        let names: Vec<_> = environment.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
        assert!(secrets.iter().all(|secret| !names.contains(secret)), "{command:?}: {names:?}");
        assert!(names.contains(&"VAULT_ADDR") && names.contains(&"HOME"), "{command:?}: {names:?}");
    }
}
