//! `quota completions`: prints a completion script for a shell.

use std::io::Write as _;

use clap::{Command, CommandFactory as _};

use crate::cli::{Arguments, CompletionsArgs};
use crate::exit::{CliError, Exit};
use crate::term;

/// Prints the completion script.
///
/// # Errors
///
/// [`CliError`] if the script cannot be written.
pub(crate) fn run(options: &CompletionsArgs) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut visible(&Arguments::command()), "quota", &mut script);
    let _ = script.flush();
    term::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Success)
}

/// Removes the hidden commands, because `clap_complete` would offer them.
fn visible(program: &Command) -> Command {
    let commands = program.get_subcommands().filter(|command| !command.is_hide_set());
    let about = program.get_about().cloned().unwrap_or_default();
    let visible = Command::new("quota").about(about).version(env!("CARGO_PKG_VERSION"));
    visible.args(program.get_arguments()).subcommands(commands)
}
