//! Files and pipes that the program is pointed at from outside: it reads no more than it needs, and waits for none without end.

use std::fs::File;
use std::io::Write as _;
use std::process::{Command, Stdio};

use quota_sim::{Account, Script, Window};

use super::program::{Ended, Machine, Provider, argument};

/// One account whose usage is stored, and the arguments that show it.
fn warm() -> (Provider, Machine, Vec<String>) {
    let windows = [Window::five_hour().used(42.0), Window::seven_day().used(17.0)];
    let provider = Provider::play(Script::new([Account::new("main").windows(windows)]));
    let (machine, config) = provider.configure(Machine::new());
    assert_eq!(machine.run(&["status", "--config", argument(&config)]).code, Some(0));
    let line = ["statusline", "--format", "{model}{five_hour.used}", "--config", argument(&config)];
    (provider, machine, line.map(str::to_owned).to_vec())
}

/// The same command with no more memory than it needs, so that a test of endless input harms nothing if it fails.
fn confined(machine: &Machine, arguments: &[String]) -> Command {
    let program = machine.command(&[]);
    let variables = program.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let mut confined = Command::new("/bin/sh");
    confined.args(["-c", "ulimit -v 1000000; exec \"$0\" \"$@\""]).arg(program.get_program()).args(arguments);
    confined.env_clear().envs(variables).current_dir(machine.path("")).stdin(Stdio::null());
    confined
}

#[test]
fn a_session_counts_once_it_is_complete() {
    let (_provider, machine, line) = warm();
    let arguments: Vec<_> = line.iter().map(String::as_str).collect();
    let mut child = machine.command(&arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut open = child.stdin.take().unwrap();
    open.write_all(b"{\"model\":{\"display_name\":\"Opus \"}}\n").unwrap();

    let ended = Ended::of(child.wait_with_output().unwrap());

    assert_eq!(ended.stdout, "Opus 42%\n");
    drop(open);
}

#[test]
fn endless_input_is_no_session() {
    let (_provider, machine, line) = warm();

    let zeros = confined(&machine, &line).stdin(File::open("/dev/zero").unwrap()).output().unwrap();

    assert_eq!(Ended::of(zeros).stdout, "42%\n");
}

#[test]
fn a_session_without_an_end_is_none() {
    let (_provider, machine, line) = warm();
    let mut child = confined(&machine, &line).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut open = child.stdin.take().unwrap();
    // Until the program has ended.
    while open.write_all(b"{\"a\":{\"a\":{\"a\":[").is_ok() {}

    assert_eq!(Ended::of(child.wait_with_output().unwrap()).stdout, "42%\n");
}

#[test]
fn a_time_zone_without_an_end_is_utc() {
    let (_provider, machine, mut line) = warm();
    line[2] = "{five_hour.used} {five_hour.resets_at}".to_owned();
    let shown = |zone: &str| Ended::of(confined(&machine, &line).env("TZ", zone).output().unwrap()).stdout;

    assert_eq!(shown("/dev/zero"), shown("UTC"));
    assert!(shown("UTC").starts_with("42% "), "{}", shown("UTC"));
}

#[test]
fn a_response_without_an_end_is_refused_in_one_line() {
    let machine = Machine::new();
    let arguments = ["parse", "anthropic", "/dev/zero"].map(str::to_owned);

    let ended = Ended::of(confined(&machine, &arguments).output().unwrap());

    assert_eq!(ended.code, Some(65));
    assert_eq!(ended.stderr, "quota: /dev/zero: larger than 64 MiB, so it is no valid input\n");
}

#[test]
fn a_configuration_without_an_end_is_refused_in_one_line() {
    let machine = Machine::new();
    let arguments = ["status", "--config", "/dev/zero"].map(str::to_owned);

    let ended = Ended::of(confined(&machine, &arguments).output().unwrap());

    assert_eq!((ended.code, ended.stderr.lines().count()), (Some(65), 1), "{}", ended.stderr);
}

#[test]
fn a_configuration_may_come_from_a_pipe() {
    let (_provider, machine, line) = warm();
    let config = std::fs::read(&line[4]).unwrap();
    let arguments = ["status", "--offline", "--config", "/dev/fd/0"];
    let mut child = machine.command(&arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&config).unwrap();

    let ended = Ended::of(child.wait_with_output().unwrap());

    assert!(ended.stdout.contains("42 %"), "{}", ended.stdout);
}
