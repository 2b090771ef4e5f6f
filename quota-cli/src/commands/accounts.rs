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

use crate::args::{AccountsCommand, ListArgs};
use crate::config::{self, Change, Config};
use crate::exit::{Exit, Failure};
use crate::harmless::harmless;
use crate::scope;
use crate::term;

/// Does what is asked for; without more, it lists them.
///
/// # Errors
///
/// [`Failure`] if the configuration cannot be used or changed, or an account is named that there is not.
pub(crate) fn run(command: Option<&AccountsCommand>, store: Option<&str>) -> Result<Exit, Failure> {
    match command {
        None => list::run(&ListArgs::default(), store),
        Some(AccountsCommand::List(options)) => list::run(options, store),
        Some(AccountsCommand::Add(options)) => add::run(options, store),
        Some(AccountsCommand::Set(options)) => set::run(options),
        Some(AccountsCommand::Remove(options)) => change::remove(options, store),
        Some(AccountsCommand::Disable(options)) => change::switch(options, true),
        Some(AccountsCommand::Enable(options)) => change::switch(options, false),
        Some(AccountsCommand::ClearHold(options)) => clear_hold::run(options, store),
        Some(AccountsCommand::Order(options)) => change::order(options),
        Some(AccountsCommand::Import(options)) => import::run(options),
    }
}

/// Changes the accounts of the configuration, and prints what was done, a line for each thing.
fn change(
    named: Option<&Path>,
    change: impl FnMut(&Config) -> Result<Change<Vec<String>>, Failure>,
) -> Result<Exit, Failure> {
    scope::run(async |scope| {
        scope.listen()?;
        done(&config::update(named, change).await?)
    })
}

/// Tells what was done, a line for each thing.
fn done(lines: &[String]) -> Result<Exit, Failure> {
    let told: String = lines.iter().map(|line| format!("{}\n", harmless(line))).collect();
    term::print(&told).map(|()| Exit::Done)
}
