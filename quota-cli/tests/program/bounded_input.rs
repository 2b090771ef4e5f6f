//! Input files and pipes: the program limits how much it reads and how long it waits.

use std::fs::File;
use std::io::Write as _;
use std::process::{Command, Stdio};

use quota_sim::{Account, Script, Window};

use super::support::{Ended, Machine, Provider, argument};

/// A machine with one account and cached usage, and the arguments of a statusline that shows it.
fn with_cached_usage() -> (Provider, Machine, Vec<String>) {
    let windows = [Window::five_hour().used(42.0), Window::seven_day().used(17.0)];
    let provider = Provider::play(Script::new([Account::new("main").windows(windows)]));
    let (machine, config) = provider.configure(Machine::new());
    assert_eq!(machine.run(&["status", "--config", argument(&config)]).code, Some(0));
    let line = ["statusline", "--format", "{model}{five_hour.used}", "--config", argument(&config)];
    // The session belongs to no account, so the line must name one.
    let line = line.into_iter().chain(["--account", "main"]);
    (provider, machine, line.map(str::to_owned).collect())
}

/// The command with a memory limit, so that a failing test with endless input does not exhaust the memory.
fn confined(machine: &Machine, arguments: &[String]) -> Command {
    let program = machine.command(&[]);
    let variables = program.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let mut confined = Command::new("/bin/sh");
    confined.args(["-c", "ulimit -v 1000000; exec \"$0\" \"$@\""]).arg(program.get_program()).args(arguments);
    confined.env_clear().envs(variables).current_dir(machine.path("")).stdin(Stdio::null());
    confined
}

#[test]
fn a_session_is_used_as_soon_as_it_is_complete() {
    let (_provider, machine, line) = with_cached_usage();
    let arguments: Vec<_> = line.iter().map(String::as_str).collect();
    let mut child = machine.command(&arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut open = child.stdin.take().unwrap();
    open.write_all(b"{\"model\":{\"display_name\":\"Opus \"}}\n").unwrap();

    let ended = Ended::of(child.wait_with_output().unwrap());

    assert_eq!(ended.stdout, "Opus 42%\n");
    drop(open);
}

#[test]
fn endless_input_is_not_a_session() {
    let (_provider, machine, line) = with_cached_usage();

    let zeros = confined(&machine, &line).stdin(File::open("/dev/zero").unwrap()).output().unwrap();

    assert_eq!(Ended::of(zeros).stdout, "42%\n");
}

#[test]
fn an_unterminated_session_is_ignored() {
    let (_provider, machine, line) = with_cached_usage();
    let mut child = confined(&machine, &line).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut open = child.stdin.take().unwrap();
    // The writes fail once the program has ended.
    while open.write_all(b"{\"a\":{\"a\":{\"a\":[").is_ok() {}

    assert_eq!(Ended::of(child.wait_with_output().unwrap()).stdout, "42%\n");
}

#[test]
fn an_endless_time_zone_file_is_ignored() {
    let (_provider, machine, mut line) = with_cached_usage();
    line[2] = "{five_hour.used} {five_hour.resets_at}".to_owned();
    let shown = |zone: &str| Ended::of(confined(&machine, &line).env("TZ", zone).output().unwrap()).stdout;

    assert_eq!(shown("/dev/zero"), shown("UTC"));
    assert!(shown("UTC").starts_with("42% "), "{}", shown("UTC"));
}

#[test]
fn an_endless_response_is_a_one_line_error() {
    let machine = Machine::new();
    let arguments = ["parse", "anthropic", "/dev/zero"].map(str::to_owned);

    let ended = Ended::of(confined(&machine, &arguments).output().unwrap());

    assert_eq!(ended.code, Some(65));
    assert_eq!(ended.stderr, "quota: could not read /dev/zero: it is larger than 64 MiB\n");
}

#[test]
fn an_endless_configuration_is_a_one_line_error() {
    let machine = Machine::new();
    let arguments = ["status", "--config", "/dev/zero"].map(str::to_owned);

    let ended = Ended::of(confined(&machine, &arguments).output().unwrap());

    assert_eq!((ended.code, ended.stderr.lines().count()), (Some(65), 1), "{}", ended.stderr);
}

#[test]
fn a_configuration_is_read_from_a_pipe() {
    let (_provider, machine, line) = with_cached_usage();
    let config = std::fs::read(&line[4]).unwrap();
    let arguments = ["status", "--offline", "--config", "/dev/fd/0"];
    let mut child = machine.command(&arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&config).unwrap();

    let ended = Ended::of(child.wait_with_output().unwrap());

    assert!(ended.stdout.contains("42 %"), "{}", ended.stdout);
}
