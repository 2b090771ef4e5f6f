//! Runs a command with a note on its standard input. No shell: the words are passed as they are.
//! What it has started ends with it, if it has to be ended.

use std::path::Path;
use std::process::Stdio;

#[cfg(unix)]
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt;
#[cfg(unix)]
use tokio::process::Child;
use tokio::process::Command;

use super::Note;
use crate::input;

/// Runs it to its end. If the future is dropped, the command is killed, and whatever it has started.
///
/// # Errors
///
/// What it did, in words that follow its name. Nothing that it wrote is repeated.
pub(super) async fn command(program: &Path, arguments: &[String], note: &Note<'_>) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(arguments).envs(note.variables());
    // What it writes would garble the answer of whoever found the happening.
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let failed = |error: std::io::Error| format!("could not be run: {}", input::why(&error));
    // A group of its own, so that all of it can be ended; Ctrl-C for us is not for it.
    #[cfg(unix)]
    command.process_group(0);
    let mut child = command.spawn().map_err(failed)?;
    #[cfg(unix)]
    let group = Group::led_by(&child);
    if let Some(mut stdin) = child.stdin.take() {
        // A command that reads nothing is no failure.
        let _ = stdin.write_all(format!("{}\n", note.json()).as_bytes()).await;
    }
    let status = child.wait().await.map_err(failed)?;
    // What it has left behind on purpose stays.
    #[cfg(unix)]
    group.spare();
    if status.success() { Ok(()) } else { Err(format!("ended with {status}")) }
}

/// All processes of a command, ended when this is dropped.
#[cfg(unix)]
struct Group(Option<Pid>);

#[cfg(unix)]
impl Group {
    fn led_by(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    fn spare(mut self) {
        self.0 = None;
    }
}

#[cfg(unix)]
impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // If all have ended meanwhile there is nobody to end.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}
