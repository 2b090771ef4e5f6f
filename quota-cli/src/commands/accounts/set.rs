//! `quota accounts set`: changes the limits of an account.

use quota::Percent;
use quota::accounts::Limits;

use super::{change, limits_warning, text};
use crate::cli::{GlobalOptions, LimitSetting, SetArgs};
use crate::config::Change;
use crate::exit::{CliError, Exit};
use crate::term;

/// Sets the given limits, and leaves the others unchanged.
pub(super) fn run(options: &SetArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    let mut warning = None;
    let exit = change(global.config.as_deref(), |config| {
        config.check_not_empty()?;
        let id = config.account(&options.name)?.id.clone();
        let mut accounts = config.accounts.clone();
        let mut lines = Vec::new();
        for account in accounts.iter_mut().filter(|account| account.id == id) {
            for (label, limit, limits) in [
                ("minimum", options.min_remaining, &mut account.limits.min_remaining),
                ("killswitch", options.killswitch, &mut account.limits.killswitch),
            ] {
                let Some(limit) = limit else { continue };
                *limits = with_every(limits.as_ref(), limit);
                let now = limits.as_ref().map_or_else(|| "inherited from [routing]".to_owned(), text::limits);
                lines.push(format!("{id} {label}: {now}"));
            }
            warning = limits_warning(account);
        }
        Ok(Change::to(config, accounts, lines))
    })?;
    if let Some(warning) = warning {
        term::eprint(&format!("quota: {warning}\n"));
    }
    Ok(exit)
}

/// Replaces the limit for all windows that do not have their own limit.
fn with_every(now: Option<&Limits>, LimitSetting(percent): LimitSetting) -> Option<Limits> {
    let every = Limits::of(percent.and_then(Percent::from_percent)?);
    let windows = now.into_iter().flat_map(Limits::windows);
    Some(windows.fold(every, |limits, (window, left)| limits.window(window.clone(), left)))
}
