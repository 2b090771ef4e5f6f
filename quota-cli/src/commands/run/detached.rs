//! A detached process that updates the journals and runs hooks.
//! The command replaces this program, and it must not wait for the hooks.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::store::{OpenedStore, URL_VARIABLE};

/// Starts the process. If that fails, the next command finds the same events.
pub(super) fn start(store: &OpenedStore, config: Option<&Path>) {
    // Another process sees nothing of a store in memory.
    if !store.is_shared {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut command = run_detached(Command::new(program));
    // It makes no call. Every status updates the journals after its output.
    command.args(["status", "--offline"]);
    if let Some(path) = config {
        command.arg("--config").arg(path);
    }
    // The URL may hold a password, and other users can read arguments.
    command.env(URL_VARIABLE, store.url.expose());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    spawn(command);
}

/// Starts it from a shell that ends at once. Otherwise it would be a child of the command, which does not know of it. Ctrl-C
/// goes to the command alone.
#[cfg(unix)]
fn run_detached(command: Command) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "\"$0\" \"$@\" &"]).arg(command.get_program());
    std::os::unix::process::CommandExt::process_group(&mut shell, 0);
    shell
}

#[cfg(unix)]
fn spawn(mut shell: Command) {
    drop(shell.status());
}

#[cfg(not(unix))]
fn run_detached(command: Command) -> Command {
    command
}

#[cfg(not(unix))]
fn spawn(mut command: Command) {
    drop(command.spawn());
}
