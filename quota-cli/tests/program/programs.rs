//! Programs that are started for a login: what they inherit, and that none of them outlives the command.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use super::program::{Machine, argument};

/// A configuration whose accounts are these, each with the lines of its own.
fn configure(machine: &Machine, accounts: &[(&str, &str)]) -> String {
    let account = |(name, login): &(&str, &str)| {
        // Nothing listens there: a call fails at once.
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

/// A token program that starts another one, which holds the pipe open, and ends never.
fn endless(pipe: &Path) -> String {
    shell(&format!("(echo begun; exec sleep 3600) > '{}' & wait", pipe.display()))
}

#[test]
fn a_token_program_and_what_it_started_end_with_the_command() {
    for command in [&["status"][..], &["guard"], &["pick"], &["run", "--", "/bin/true"], &["doctor"]] {
        for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
            let machine = Machine::new();
            let pipe = pipe(&machine);
            let config = configure(&machine, &[("main", &endless(&pipe))]);
            let (name, rest) = command.split_first().unwrap();
            let arguments = [&[*name, "--config", &*config], rest].concat();
            let mut started = machine.command(&arguments);
            let mut child = started.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let mut lines = BufReader::new(File::open(&pipe).unwrap()).lines();
            assert_eq!(lines.next().unwrap().unwrap(), "begun");

            kill_process(Pid::from_child(&child), signal).unwrap();

            assert_eq!(child.wait().unwrap().code(), Some(code), "{command:?} {signal:?}");
            // A pipe ends with the last process that has it open for writing.
            assert!(lines.next().is_none(), "{command:?} {signal:?}");
        }
    }
}

#[test]
fn a_token_program_inherits_no_token_of_another_account() {
    let secrets =
        ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "QUOTA_STORE", "WORK_TOKEN"];
    let machine = Machine::new().set("VAULT_ADDR", "kept");
    let machine = secrets.iter().fold(machine, |machine, name| machine.set(name, "memory:"));
    let seen = machine.path("seen");
    let program = shell(&format!("env > '{}'; echo made-up", seen.display()));
    let config = configure(&machine, &[("main", &program), ("work", "token_env = \"WORK_TOKEN\"")]);

    // Also where the other account is left out.
    for command in [&["guard"][..], &["status", "--account", "main"]] {
        let (name, rest) = command.split_first().unwrap();
        machine.run(&[&[*name, "--config", &*config], rest].concat());

        let seen = std::fs::read_to_string(&seen).unwrap();
        let names: Vec<_> = seen.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
        assert!(secrets.iter().all(|secret| !names.contains(secret)), "{command:?}: {names:?}");
        assert!(names.contains(&"VAULT_ADDR") && names.contains(&"HOME"), "{command:?}: {names:?}");
    }
}
