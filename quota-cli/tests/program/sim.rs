//! `quota sim`: a provider for other programs, until a signal ends it.

use std::io::{BufRead, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

use super::program::{Machine, argument};

/// A simulator in a process of its own; killed if the test fails before it has ended.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(unix)]
fn ends_cleanly_on(signal: &str) {
    let machine = Machine::new();
    let mut command = machine.command(&["sim"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut running = Running(child);
    let mut stdout = BufReader::new(running.0.stdout.take().unwrap());
    let mut first = String::new();
    stdout.read_line(&mut first).unwrap();

    let sent = Command::new("kill").args([signal, &running.0.id().to_string()]).status().unwrap();
    let code = running.0.wait().unwrap().code();

    let mut told = String::new();
    running.0.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(sent.success());
    assert_eq!((code, told.lines().last()), (Some(0), Some("Served 0 requests.")), "{signal}");
}

#[cfg(unix)]
#[test]
fn it_ends_cleanly_on_ctrl_c() {
    ends_cleanly_on("-INT");
}

#[cfg(unix)]
#[test]
fn it_ends_cleanly_on_sigterm() {
    ends_cleanly_on("-TERM");
}

#[test]
fn what_it_writes_is_a_configuration_that_uses_it() {
    let machine = Machine::new().set("QUOTA_SIM_ONLY", "sim-token-only");
    let script = "[[accounts]]\nname = \"only\"\n[[accounts.windows]]\nid = \"five_hour\"\nused = 17\n";
    let script = machine.write("script.toml", script);
    let mut command = machine.command(&["sim", "--script", argument(&script)]);
    let mut running = Running(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let stdout = BufReader::new(running.0.stdout.take().unwrap());
    // It goes on writing nothing, so the end of its output is the last line that a configuration of one account has.
    let mut lines: Vec<String> = Vec::new();
    for line in stdout.lines() {
        lines.push(line.unwrap());
        if lines.last().is_some_and(|line| line.starts_with("token_env")) {
            break;
        }
    }
    let config = machine.write("config.toml", lines.join("\n"));

    let ended = machine.run(&["status", "--config", argument(&config)]);

    assert!(lines[0].contains("http://127.0.0.1:"), "{}", lines[0]);
    assert_eq!(ended.code, Some(0), "{} {}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("17 %"), "{}", ended.stdout);
}

#[test]
fn a_broken_script_is_one_line_with_its_place_and_ends_with_78() {
    let machine = Machine::new();
    let script = machine.write("script.toml", "[[accounts]]\nnaem = \"main\"\n");

    let ended = machine.run(&["sim", "--script", argument(&script)]);

    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.lines().count()), (Some(78), "", 1));
    assert!(ended.stderr.contains("script.toml: line 2, column 1: "), "{}", ended.stderr);
}

#[test]
fn a_script_that_is_not_there_ends_with_66() {
    assert_eq!(Machine::new().run(&["sim", "--script", "nowhere.toml"]).code, Some(66));
}

#[test]
fn a_port_that_is_taken_ends_with_69() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();

    let ended = Machine::new().run(&["sim", "--port", &port]);

    assert_eq!((ended.code, ended.stdout.as_str()), (Some(69), ""));
    assert!(ended.stderr.contains("--port"), "{}", ended.stderr);
}
