//! `quota accounts`: lists and changes the accounts of the configuration.
//! The subcommands change a list of accounts, and `config` writes it to the file.

mod add;
mod change;
mod clear_hold;
mod forget;
mod import;
mod json;
mod list;
mod login;
mod set;
mod text;

use std::path::Path;

use quota::Percent;
use quota::accounts::Limits;

use crate::cli::{AccountsArgs, AccountsCommand, GlobalOptions};
use crate::config::{self, AccountSettings, Change, Config};
use crate::exit::{CliError, Exit};
use crate::format;
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
        Some(AccountsCommand::Login(options)) => login::run(options, global),
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

/// A warning if the account's killswitch makes its minimum ineffective.
fn limits_warning(account: &AccountSettings) -> Option<String> {
    let both = [account.limits.min_remaining.as_ref()?, account.limits.killswitch.as_ref()?];
    let every = both.map(|limits| limits.default_limit().unwrap_or(Percent::ZERO));
    let named = both
        .into_iter()
        .flat_map(Limits::windows)
        .map(|(window, _)| (format!(" for {window}"), both.map(|limits| limits.min_remaining_of(window))));
    let mut all = std::iter::once((String::new(), every)).chain(named);
    let is_useless = |[minimum, killswitch]: [Percent; 2]| minimum > Percent::ZERO && minimum < killswitch;
    let (of_window, [minimum, killswitch]) = all.find(|(_, limits)| is_useless(*limits))?;
    Some(sanitize(&format!(
        "{}: the minimum of {}{of_window} has no effect, because the account is not used below its killswitch of {}",
        account.id,
        format::percent(minimum),
        format::percent(killswitch),
    )))
}

/// Prints one line per change.
fn confirm(lines: &[String]) -> Result<Exit, CliError> {
    let text: String = lines.iter().map(|line| format!("{}\n", sanitize(line))).collect();
    term::print(&text).map(|()| Exit::Success)
}
