//! Runs a command with a note on its standard input. No shell: the words are passed as they are.

use std::path::Path;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::Note;
use crate::input;

/// Runs it to its end. If the future is dropped, the command is killed.
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
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that reads nothing is no failure.
        let _ = stdin.write_all(format!("{}\n", note.json()).as_bytes()).await;
    }
    let status = child.wait().await.map_err(failed)?;
    if status.success() { Ok(()) } else { Err(format!("ended with {status}")) }
}
