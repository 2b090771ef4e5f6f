//! The process that tells what was found out for a command: keeps the journals and runs hooks, and is waited for by nobody.
//! Once the command runs nothing of this program is left to do so, and before it everybody would wait for the hooks.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::store::{OpenedStore, URL_VARIABLE};

/// Starts one. If it cannot be started, the next who looks finds the same.
pub(super) fn start(store: &OpenedStore, config: Option<&Path>) {
    // In a store of this process alone nobody else finds anything.
    if !store.is_shared {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut command = orphaned(Command::new(program));
    // It asks nobody, and keeps the journals after its answer, as every status does.
    command.args(["status", "--offline"]);
    if let Some(path) = config {
        command.arg("--config").arg(path);
    }
    // In the environment, for there may be a password in it, and arguments are seen by everybody.
    command.env(URL_VARIABLE, store.url.expose());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    begin(command);
}

/// By way of a shell that ends at once: a child of this process would be one of the command that takes its place, which knows
/// nothing of it. Ctrl-C is the command's as well.
#[cfg(unix)]
fn orphaned(command: Command) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "\"$0\" \"$@\" &"]).arg(command.get_program());
    std::os::unix::process::CommandExt::process_group(&mut shell, 0);
    shell
}

#[cfg(unix)]
fn begin(mut shell: Command) {
    drop(shell.status());
}

#[cfg(not(unix))]
fn orphaned(command: Command) -> Command {
    command
}

#[cfg(not(unix))]
fn begin(mut command: Command) {
    drop(command.spawn());
}
