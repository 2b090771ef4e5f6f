//! Runs a command with a note on its standard input. No shell: the words are passed as they are.
//! What it has started ends with it, if it has to be ended.

use std::path::Path;
use std::process::Stdio;

use quota_core::process::{ProcessGroup, remove_secrets};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::Note;
use super::failure::HookFailure;

/// Runs it to its end, without the variables named in `secrets`. If the future is dropped, the command is killed, and whatever
/// it has started.
///
/// # Errors
///
/// [`HookFailure::NotRun`] and [`HookFailure::Ended`]. Nothing that it wrote is repeated.
pub(super) async fn command(
    program: &Path,
    arguments: &[String],
    secrets: &[String],
    note: &Note<'_>,
) -> Result<(), HookFailure> {
    let mut command = Command::new(program);
    command.args(arguments);
    remove_secrets(&mut command, secrets);
    command.envs(note.variables());
    // Its output would garble the answer of the command that found the event.
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut group = ProcessGroup::spawn(command).map_err(HookFailure::NotRun)?;
    if let Some(mut stdin) = group.take_stdin() {
        // A command that reads nothing is no failure.
        let _ = stdin.write_all(format!("{}\n", note.json()).as_bytes()).await;
    }
    let status = group.wait().await.map_err(HookFailure::NotRun)?;
    // What it has left running on purpose stays.
    group.release();
    if status.success() { Ok(()) } else { Err(HookFailure::Ended(status)) }
}
