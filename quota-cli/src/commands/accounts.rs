//! `quota accounts`: which accounts there are, in which order, and which are switched off.
//! The commands change the list of accounts; how it is written into the configuration is in `config`.

mod add;
mod change;
mod clear_hold;
mod forget;
mod import;
mod json;
mod list;
mod listed;
mod set;
mod text;

use std::path::Path;

use crate::cli::{AccountsArgs, AccountsCommand, GlobalOptions};
use crate::config::{self, Change, Config};
use crate::exit::{CliError, Exit};
use crate::sanitize::sanitize;
use crate::scope;
use crate::term;

/// Does what is asked for; without more, it lists them.
///
/// # Errors
///
/// [`CliError`] if the configuration cannot be used or changed, or an account is named that there is not.
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

/// Changes the accounts of the configuration, and prints what was done, a line for each thing.
fn change(
    named: Option<&Path>,
    change: impl FnMut(&Config) -> Result<Change<Vec<String>>, CliError>,
) -> Result<Exit, CliError> {
    scope::run(async |scope| {
        scope.listen()?;
        done(&config::update(named, change).await?)
    })
}

/// Tells what was done, a line for each thing.
fn done(lines: &[String]) -> Result<Exit, CliError> {
    let told: String = lines.iter().map(|line| format!("{}\n", sanitize(line))).collect();
    term::print(&told).map(|()| Exit::Success)
}
