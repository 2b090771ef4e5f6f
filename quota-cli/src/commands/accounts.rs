//! `quota accounts`: lists and changes the accounts of the configuration.
//! The subcommands change a list of accounts, and `config` writes it to the file.

mod add;
mod change;
mod clear_hold;
mod forget;
mod import;
mod json;
mod list;
mod set;
mod text;

use std::path::Path;

use crate::cli::{AccountsArgs, AccountsCommand, GlobalOptions};
use crate::config::{self, Change, Config};
use crate::exit::{CliError, Exit};
use crate::sanitize::sanitize;
use crate::scope;
use crate::term;

/// Runs the subcommand, or lists the accounts.
///
/// # Errors
///
/// [`CliError`] if the configuration cannot be used or changed, or a named account does not exist.
pub(crate) fn run(options: &AccountsArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    match &options.command {
        None | Some(AccountsCommand::List) => list::run(global),
        Some(AccountsCommand::Add(options)) => add::run(options, global),
        Some(AccountsCommand::Set(options)) => set::run(options, global),
        Some(AccountsCommand::Remove(options)) => change::remove(options, global),
        Some(AccountsCommand::Disable(options)) => change::switch(options, global, true),
        Some(AccountsCommand::Enable(options)) => change::switch(options, global, false),
        Some(AccountsCommand::ClearHold(options)) => clear_hold::run(options, global),
        Some(AccountsCommand::Order(options)) => change::order(options, global),
        Some(AccountsCommand::Import(options)) => import::run(options, global),
    }
}

/// Changes the accounts of the configuration, and prints one line per change.
fn change(
    named: Option<&Path>,
    change: impl FnMut(&Config) -> Result<Change<Vec<String>>, CliError>,
) -> Result<Exit, CliError> {
    scope::run(async |scope| {
        scope.listen()?;
        confirm(&config::update(named, change).await?)
    })
}

/// Prints one line per change.
fn confirm(lines: &[String]) -> Result<Exit, CliError> {
    let text: String = lines.iter().map(|line| format!("{}\n", sanitize(line))).collect();
    term::print(&text).map(|()| Exit::Success)
}
