//! Runs a command with the payload on its standard input. There is no shell, so the arguments are passed unchanged.

use std::path::Path;
use std::process::Stdio;

use quota_core::process::{ProcessGroup, remove_secrets};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::error::HookFailure;

/// Runs the command until it ends, without the variables in `secrets`. Dropping the future kills the command and every process
/// that it started.
///
/// # Errors
///
/// [`HookFailure::NotStarted`] or [`HookFailure::ExitStatus`]. Neither repeats the output of the command.
pub(super) async fn run(
    program: &Path,
    arguments: &[String],
    secrets: &[String],
    payload: &str,
    variables: &[(String, String)],
) -> Result<(), HookFailure> {
    let mut command = Command::new(program);
    command.args(arguments);
    remove_secrets(&mut command, secrets);
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    // Discard the output. Otherwise it would mix with the output of the quota command.
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut group = ProcessGroup::spawn(command).map_err(HookFailure::NotStarted)?;
    if let Some(mut stdin) = group.take_stdin() {
        // A command may ignore its input, so a failed write is not an error.
        let _ = stdin.write_all(format!("{payload}\n").as_bytes()).await;
    }
    let status = group.wait().await.map_err(HookFailure::NotStarted)?;
    // Do not kill the background processes of a command that ended by itself.
    group.release();
    if status.success() { Ok(()) } else { Err(HookFailure::ExitStatus(status)) }
}
