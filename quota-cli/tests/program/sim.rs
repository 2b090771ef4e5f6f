//! `quota sim`: a simulated provider that runs until a signal ends it.

use std::io::{BufRead, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

use super::support::{Machine, argument};

/// A simulator process. It is killed if the test fails before the process ends.
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

    let mut output = String::new();
    running.0.stderr.take().unwrap().read_to_string(&mut output).unwrap();
    assert!(sent.success());
    assert_eq!((code, output.lines().last()), (Some(0), Some("Served 0 requests.")), "{signal}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_simulator_cleanly() {
    ends_cleanly_on("-INT");
}

#[cfg(unix)]
#[test]
fn sigterm_ends_the_simulator_cleanly() {
    ends_cleanly_on("-TERM");
}

#[test]
fn the_printed_configuration_uses_the_simulator() {
    let machine = Machine::new().set("QUOTA_SIM_ONLY", "sim-token-only");
    let script = "[[accounts]]\nname = \"only\"\n[[accounts.windows]]\nid = \"five_hour\"\nused = 17\n";
    let script = machine.write("script.toml", script);
    let mut command = machine.command(&["sim", "--script", argument(&script)]);
    let mut running = Running(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let stdout = BufReader::new(running.0.stdout.take().unwrap());
    // The simulator keeps its output open, so the test reads up to the last line of a configuration with one account.
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
fn an_invalid_script_is_one_line_with_its_position_and_78() {
    let machine = Machine::new();
    let script = machine.write("script.toml", "[[accounts]]\nnaem = \"main\"\n");

    let ended = machine.run(&["sim", "--script", argument(&script)]);

    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.lines().count()), (Some(78), "", 1));
    assert!(ended.stderr.contains("script.toml: line 2, column 1: "), "{}", ended.stderr);
}

#[test]
fn a_missing_script_ends_with_66() {
    assert_eq!(Machine::new().run(&["sim", "--script", "nowhere.toml"]).code, Some(66));
}

#[test]
fn a_port_in_use_ends_with_69() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();

    let ended = Machine::new().run(&["sim", "--port", &port]);

    assert_eq!((ended.code, ended.stdout.as_str()), (Some(69), ""));
    assert!(ended.stderr.contains("--port"), "{}", ended.stderr);
}
