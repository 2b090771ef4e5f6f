//! Lines for people are broken where the terminal ends, and left whole for programs that search them.

use quota_sim::{Account, Change, Script, Window};

use super::program::{Machine, Provider, argument};
use super::pty::Pty;

/// A machine on which a threshold was passed, and what its commands are told to read.
fn risen() -> (Provider, Machine, String) {
    let used = |percent| Window::five_hour().used(percent);
    let provider = Provider::play(Script::new([Account::new("main").windows([used(40.0)])]));
    let (machine, config) = provider.configure(Machine::new());
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replacen("[policy]\n", "[policy]\nfreshness = \"2ms\"\n", 1)).unwrap();
    let config = argument(&config).to_owned();
    assert_eq!(machine.run(&["status", "--config", &config]).code, Some(0));
    provider.simulator.set("main", Change::used(Window::five_hour(), 80.0)).unwrap();
    assert_eq!(machine.run(&["status", "--config", &config]).code, Some(0));
    (provider, machine, config)
}

/// What a terminal of so many columns shows of it.
fn shown(machine: &Machine, columns: u16, arguments: &[&str]) -> String {
    let mut pty = Pty::new(columns, 24);
    let mut command = machine.command(arguments);
    command.env("NO_COLOR", "1");
    pty.start(command).wait().unwrap();
    pty.rest().replace("\r\n", "\n").replace("-- that was all --", "")
}

/// The text without its line breaks and indents.
fn joined(text: &str) -> String {
    text.split_whitespace().collect()
}

#[test]
fn events_wrap_at_the_terminals_width() {
    let (_provider, machine, config) = risen();

    let whole = machine.run(&["events", "--config", &config]).stdout;

    for columns in [30, 50, 80] {
        let shown = shown(&machine, columns, &["events", "--config", &config]);

        let widest = shown.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= columns.into(), "{widest} of {columns}:\n{shown}");
        assert_eq!(joined(&shown), joined(&whole), "nothing is left out");
    }
}

#[test]
fn without_events_one_line_says_so() {
    let provider = Provider::play(Script::new([Account::new("main")]));
    let (machine, config) = provider.configure(Machine::new());

    let shown = shown(&machine, 50, &["events", "--config", argument(&config)]);

    assert_eq!(shown, "no events yet\n");
}

#[test]
fn findings_wrap_at_the_terminals_width() {
    let (_provider, machine, config) = risen();
    let machine = machine.set("QUOTA_SIM_MAIN", "");
    let ask = ["--store", "memory:", "doctor", "--config", &config];

    let whole = machine.run(&ask).stdout;

    assert!(whole.contains("FAIL  ") && whole.contains("→"), "{whole}");
    for columns in [30, 50, 80] {
        let shown = shown(&machine, columns, &ask);

        let widest = shown.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= columns.into(), "{widest} of {columns}:\n{shown}");
        let words = |text: &str| joined(text).replace(char::is_numeric, "");
        assert_eq!(words(&shown), words(&whole), "nothing is left out");
    }
}

#[test]
fn without_a_terminal_lines_are_not_wrapped() {
    let (_provider, machine, config) = risen();

    let happened = machine.run(&["events", "--config", &config]).stdout;
    let machine = machine.set("QUOTA_SIM_MAIN", "");
    let found = machine.run(&["--store", "memory:", "doctor", "--config", &config]).stdout;

    assert!(happened.lines().all(|line| line.contains("  anthropic/main  ")), "{happened}");
    assert!(found.lines().any(|line| line.chars().count() > 80), "{found}");
}
