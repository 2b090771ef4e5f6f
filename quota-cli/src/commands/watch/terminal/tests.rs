use std::process::Command;

use super::*;

#[expect(dead_code, reason = "nobody presses keys here")]
#[path = "../../../../tests/program/pty.rs"]
mod pty;

/// Set for the process that is to panic.
const TO_PANIC: &str = "QUOTA_TEST_PANICS";

/// In a process of its own, on a terminal of its own.
#[test]
fn whoever_panics() {
    let Some(whose) = std::env::var_os(TO_PANIC) else { return };
    let mut terminal = Terminal::take().expect("there is one");
    terminal.draw(|frame| frame.render_widget("taken", frame.area())).expect("it can be drawn on");
    if whose == "mine" {
        panic!("as was asked for");
    }
    let other = std::thread::spawn(|| panic!("as was asked for"));
    other.join().expect_err("it panics");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("there is one");
    runtime.block_on(panicked());
}

#[test]
fn a_panic_anywhere_gives_the_terminal_back_before_it_is_told() {
    for whose in ["mine", "another's"] {
        let mut pty = pty::Pty::new(80, 24);
        let mut command = Command::new(std::env::current_exe().unwrap());
        let test = "commands::watch::terminal::tests::whoever_panics";
        command.args(["--exact", test, "--nocapture"]).env(TO_PANIC, whose);

        let mut child = pty.start(command);
        pty.until("taken");
        let before = pty.until("as was asked for");
        child.wait().unwrap();

        assert!(before.contains("\u{1b}[?1049l") && before.contains("\u{1b}[?25h"), "{whose}: {before:?}");
        assert!(pty.is_as_shells_want_it(), "{whose}");
        assert!(!pty.rest().contains("\u{1b}[?1049h"), "{whose}");
    }
}
