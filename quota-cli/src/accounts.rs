//! `quota accounts`: which accounts there are, in which order, and which are switched off.
//! They are kept in the accounts file; a configuration that somebody has written by hand is never changed. How the two are one
//! list is in `config`.

mod add;
mod change;
mod clear_hold;
mod forget;
mod import;
mod json;
mod list;
mod set;
mod text;

use quota::accounts::{AccountsConfig, AccountsFile};

use crate::args::{AccountsCommand, ListArgs};
use crate::config::{self, Config, Origin};
use crate::exit::{Exit, Failure};
use crate::scope;
use crate::term;

/// Does what is asked for; without more, it lists them.
///
/// # Errors
///
/// [`Failure`] if the configuration or the accounts file cannot be used, or an account is named that there is not.
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

/// The file that is changed.
fn file() -> Result<AccountsFile, Failure> {
    config::accounts_file().ok_or_else(|| {
        let why = "neither XDG_STATE_HOME nor HOME is set, so there is no place for the accounts file";
        Failure::new(Exit::Usage, why)
    })
}

/// Changes the accounts file, while no other program does.
///
/// Whatever is listed stands in it before, in its order: else what is changed would move past what is not.
async fn change<R: Send + 'static>(
    config: &Config,
    change: impl FnOnce(&mut AccountsConfig) -> R + Send + 'static,
) -> Result<R, Failure> {
    // One that was added stands there, unless it was removed since: then it must not come back without its login.
    let listed = config.accounts.iter().filter(|account| account.origin != Origin::Added);
    let listed: Vec<_> = listed.map(|account| account.id.clone()).collect();
    let file = file()?;
    let changed = file.update(move |accounts| {
        for id in listed {
            if accounts.account_mut(&id).is_none() {
                accounts.put(quota::accounts::AccountConfig::new(id));
            }
        }
        change(accounts)
    });
    changed.await.map_err(|error| config::unusable(&error))
}

/// What is done with a configuration.
fn with<T, W: Future<Output = Result<T, Failure>>>(
    config: Config,
    work: impl FnOnce(Config) -> W,
) -> Result<T, Failure> {
    scope::run(async |scope| {
        // A token command may run.
        scope.listen()?;
        work(config).await
    })
}

/// Tells what was done, a line for each thing.
fn done(lines: &[String]) -> Result<Exit, Failure> {
    let told: String = lines.iter().map(|line| format!("{}\n", term::harmless(line))).collect();
    term::answer(&told).map(|()| Exit::Done)
}
