//! Text is wrapped to the width of a terminal. Without a terminal it is not wrapped, so that programs can search it.

use quota_sim::{Account, Change, Script, Window};

use super::pty::Pty;
use super::support::{Machine, Provider, argument};

/// A machine with threshold events in its journal, and its configuration.
fn machine_with_events() -> (Provider, Machine, String) {
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

/// The output of a command on a terminal of this width.
fn shown(machine: &Machine, columns: u16, arguments: &[&str]) -> String {
    let mut pty = Pty::new(columns, 24);
    let mut command = machine.command(arguments);
    command.env("NO_COLOR", "1");
    pty.start(command).wait().unwrap();
    pty.rest().replace("\r\n", "\n").replace("-- end of output --", "")
}

/// The text without line breaks, indents and spaces.
fn without_whitespace(text: &str) -> String {
    text.split_whitespace().collect()
}

#[test]
fn events_wrap_at_the_terminals_width() {
    let (_provider, machine, config) = machine_with_events();

    let unwrapped = machine.run(&["events", "--config", &config]).stdout;

    for columns in [30, 50, 80] {
        let shown = shown(&machine, columns, &["events", "--config", &config]);

        let widest = shown.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= columns.into(), "{widest} of {columns}:\n{shown}");
        assert_eq!(
            without_whitespace(&shown),
            without_whitespace(&unwrapped),
            "the wrapped text is complete"
        );
    }
}

#[test]
fn without_events_one_line_is_printed() {
    let provider = Provider::play(Script::new([Account::new("main")]));
    let (machine, config) = provider.configure(Machine::new());

    let shown = shown(&machine, 50, &["events", "--config", argument(&config)]);

    assert_eq!(shown, "no events yet\n");
}

#[test]
fn findings_wrap_at_the_terminals_width() {
    let (_provider, machine, config) = machine_with_events();
    let machine = machine.set("QUOTA_SIM_MAIN", "");
    let doctor = ["--store", "memory:", "doctor", "--config", &config];

    let unwrapped = machine.run(&doctor).stdout;

    assert!(unwrapped.contains("FAIL  ") && unwrapped.contains("→"), "{unwrapped}");
    for columns in [30, 50, 80] {
        let shown = shown(&machine, columns, &doctor);

        let widest = shown.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= columns.into(), "{widest} of {columns}:\n{shown}");
        let words = |text: &str| without_whitespace(text).replace(char::is_numeric, "");
        assert_eq!(words(&shown), words(&unwrapped), "the wrapped text is complete");
    }
}

#[test]
fn without_a_terminal_lines_are_not_wrapped() {
    let (_provider, machine, config) = machine_with_events();

    let events = machine.run(&["events", "--config", &config]).stdout;
    let machine = machine.set("QUOTA_SIM_MAIN", "");
    let problems = machine.run(&["--store", "memory:", "doctor", "--config", &config]).stdout;

    assert!(events.lines().all(|line| line.contains("  anthropic/main  ")), "{events}");
    assert!(problems.lines().any(|line| line.chars().count() > 80), "{problems}");
}
