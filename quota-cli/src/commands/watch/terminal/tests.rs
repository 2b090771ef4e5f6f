use std::process::Command;

use super::*;

#[expect(dead_code, reason = "no test here presses keys")]
#[path = "../../../../tests/program/pty.rs"]
mod pty;

/// Set for the process that must panic.
const PANIC_VARIABLE: &str = "QUOTA_TEST_PANICS";

/// Runs in its own process on its own terminal.
#[test]
fn panicking_process() {
    let Some(thread) = std::env::var_os(PANIC_VARIABLE) else { return };
    let mut terminal = Terminal::enter().expect("there is a terminal");
    terminal.draw(|frame| frame.render_widget("entered", frame.area())).expect("drawing works");
    if thread == "main" {
        panic!("expected panic");
    }
    let other = std::thread::spawn(|| panic!("expected panic"));
    other.join().expect_err("the thread panics");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(panicked());
}

#[test]
fn a_panic_restores_the_terminal_before_its_message() {
    for thread in ["main", "other"] {
        let mut pty = pty::Pty::new(80, 24);
        let mut command = Command::new(std::env::current_exe().unwrap());
        let test = "commands::watch::terminal::tests::panicking_process";
        command.args(["--exact", test, "--nocapture"]).env(PANIC_VARIABLE, thread);

        let mut child = pty.start(command);
        pty.until("entered");
        let before = pty.until("expected panic");
        child.wait().unwrap();

        assert!(before.contains("\u{1b}[?1049l") && before.contains("\u{1b}[?25h"), "{thread}: {before:?}");
        assert!(pty.is_in_cooked_mode(), "{thread}");
        assert!(!pty.rest().contains("\u{1b}[?1049h"), "{thread}");
    }
}
