//! `quota completions`: prints the completions of a shell.

use std::io::Write as _;

use clap::CommandFactory as _;

use crate::cli::{Arguments, CompletionsArgs};
use crate::exit::{CliError, Exit};
use crate::term;

/// Prints them.
///
/// # Errors
///
/// [`CliError`] if they cannot be written.
pub(crate) fn run(options: &CompletionsArgs) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Arguments::command(), "quota", &mut script);
    let _ = script.flush();
    term::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Success)
}
