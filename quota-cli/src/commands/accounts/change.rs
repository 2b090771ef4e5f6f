//! `quota accounts remove`, `disable`, `enable` and `order`: change existing accounts.

use quota::AccountId;

use super::{change, confirm, forget};
use crate::cli::{AccountNames, GlobalOptions};
use crate::config::{self, Change, Config, Origin};
use crate::exit::{CliError, Exit};
use crate::hint;
use crate::scope;
use crate::term;

/// Removes accounts, and their data in the store.
pub(super) fn remove(options: &AccountNames, global: &GlobalOptions) -> Result<Exit, CliError> {
    scope::run(async |scope| {
        scope.listen()?;
        let removed = config::update(global.config.as_deref(), |config| {
            let ids = named(config, &options.names)?;
            if let Some(account) = config.accounts.iter().find(|account| account.origin == Origin::Default) {
                let id = &account.id;
                let disable = hint::command_without_store(&format!("accounts disable {id}"));
                let why = format!(
                    "{id} is Claude Code's login, which is used without configuration; to stop using it: {disable}"
                );
                return Err(CliError::new(Exit::Usage, why));
            }
            let left = config.accounts.iter().filter(|account| !ids.contains(&account.id)).cloned();
            Ok(Change::to(config, left.collect(), (config.clone(), ids)))
        });
        let (config, ids) = removed.await?;
        let mut lines: Vec<_> = ids.iter().map(|id| format!("removed {id}")).collect();
        if ids.len() == config.accounts.len() {
            lines.push(format!(
                "no account is left; add one with: {}, or delete {} to use Claude Code's login",
                hint::command_without_store("accounts add"),
                config.display_path()
            ));
        }
        let exit = confirm(&lines)?;
        let failures = forget::all(&config, global, &ids).await;
        for failure in &failures {
            term::eprint(&format!("quota: {failure}\n"));
        }
        Ok(if failures.is_empty() { exit } else { Exit::Incomplete })
    })
}

/// Disables or enables accounts.
pub(super) fn switch(
    options: &AccountNames,
    global: &GlobalOptions,
    disabled: bool,
) -> Result<Exit, CliError> {
    change(global.config.as_deref(), |config| {
        let ids = named(config, &options.names)?;
        let word = if disabled { "disabled" } else { "enabled" };
        let mut lines: Vec<_> = ids.iter().map(|id| format!("{word} {id}")).collect();
        let mut accounts = config.accounts.clone();
        for account in accounts.iter_mut().filter(|account| ids.contains(&account.id)) {
            account.disabled = disabled;
        }
        if disabled && accounts.iter().all(|account| account.disabled) {
            lines.push("no account is enabled".to_owned());
        }
        Ok(Change::to(config, accounts, lines))
    })
}

/// Moves accounts to the front, in this order.
pub(super) fn order(options: &AccountNames, global: &GlobalOptions) -> Result<Exit, CliError> {
    change(global.config.as_deref(), |config| {
        let ids = named(config, &options.names)?;
        let mut accounts = config.accounts.clone();
        accounts.sort_by_key(|account| ids.iter().position(|id| *id == account.id).unwrap_or(ids.len()));
        let lines = accounts.iter().enumerate().map(|(at, account)| format!("{} {}", at + 1, account.id));
        let lines = lines.collect();
        Ok(Change::to(config, accounts, lines))
    })
}

/// The accounts with these names, without duplicates, in the given order.
fn named(config: &Config, names: &[String]) -> Result<Vec<AccountId>, CliError> {
    config.check_not_empty()?;
    let mut ids: Vec<AccountId> = Vec::new();
    for name in names {
        let id = &config.account(name)?.id;
        if !ids.contains(id) {
            ids.push(id.clone());
        }
    }
    Ok(ids)
}
