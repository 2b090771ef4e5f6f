//! `quota accounts remove`, `disable`, `enable` and `order`: changes of accounts that are there.
//! Adding others is in `add`.

use quota::AccountId;

use super::{change, done, file, forget, with};
use crate::args::NamedArgs;
use crate::config::{Config, Origin};
use crate::exit::{Exit, Failure};
use crate::term;

/// Removes accounts that were added, and what is stored of them.
pub(super) fn remove(options: &NamedArgs, store: Option<&str>) -> Result<Exit, Failure> {
    with(Config::named_or_usual(options.config.as_deref())?, async |config| {
        let ids = each_once(options.names.iter().map(|name| removable(&config, name)))?;
        let told: Vec<_> = ids.iter().map(|id| format!("{id} is removed")).collect();
        let removed = ids.clone();
        change(&config, move |accounts| {
            for id in &removed {
                accounts.remove(id);
            }
        })
        .await?;
        let exit = done(&told)?;
        let failures = forget::all(&config, store, &file()?, &ids).await;
        for failure in &failures {
            term::tell(&format!("quota: {failure}\n"));
        }
        Ok(if failures.is_empty() { exit } else { Exit::Gaps })
    })
}

/// The account of this name, if it was added by command.
fn removable(config: &Config, name: &str) -> Result<AccountId, Failure> {
    if let Some(id) = config.unusable.iter().find(|id| id.as_str() == name || id.name() == name) {
        return Ok(id.clone());
    }
    let account = config.account(name)?;
    let id = &account.id;
    let instead = format!("to take it out of use: quota accounts disable {id}");
    let why = match account.origin {
        Origin::Added => return Ok(id.clone()),
        Origin::Configured { line } => {
            format!(
                "{id} stands in {}, line {line}, and is to be removed there; {instead}",
                config.told_path()
            )
        }
        Origin::Implied => {
            format!("{id} is the login of Claude Code, which is there without being named; {instead}")
        }
    };
    Err(Failure::new(Exit::Usage, why))
}

/// Switches accounts off, or on.
pub(super) fn switch(options: &NamedArgs, off: bool) -> Result<Exit, Failure> {
    with(Config::named_or_usual(options.config.as_deref())?, async |config| {
        let ids = named(&config, &options.names)?;
        let word = if off { "off" } else { "on" };
        let mut told: Vec<_> = ids.iter().map(|id| format!("{id} is switched {word}")).collect();
        let left = config.accounts.iter().any(|account| !account.disabled && !ids.contains(&account.id));
        if off && !left {
            told.push("no account is left that is switched on".to_owned());
        }
        change(&config, move |accounts| {
            for id in &ids {
                if let Some(account) = accounts.account_mut(id) {
                    account.disabled = off;
                }
            }
        })
        .await?;
        done(&told)
    })
}

/// Puts accounts first, in the order they are named in.
pub(super) fn order(options: &NamedArgs) -> Result<Exit, Failure> {
    with(Config::named_or_usual(options.config.as_deref())?, async |config| {
        let ids = named(&config, &options.names)?;
        let others = config.accounts.iter().map(|account| &account.id).filter(|id| !ids.contains(id));
        let all: Vec<_> = ids.iter().chain(others).cloned().collect();
        change(&config, move |accounts| accounts.order(&ids)).await?;
        let told: Vec<_> = all.iter().enumerate().map(|(at, id)| format!("{} {id}", at + 1)).collect();
        done(&told)
    })
}

/// The accounts of these names, each once.
fn named(config: &Config, names: &[String]) -> Result<Vec<AccountId>, Failure> {
    each_once(names.iter().map(|name| config.account(name).map(|account| account.id.clone())))
}

/// The accounts in the order of their first mention.
fn each_once(named: impl Iterator<Item = Result<AccountId, Failure>>) -> Result<Vec<AccountId>, Failure> {
    let mut ids: Vec<AccountId> = Vec::new();
    for id in named {
        let id = id?;
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    Ok(ids)
}
