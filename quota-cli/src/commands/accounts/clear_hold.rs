//! `quota accounts clear-hold`: clears the hold on an account for all processes that share the store.
//! `quota_core::record` decides what is cleared, and why it does not come back.

use quota::QuotaError;
use quota::record::Hold;

use crate::cli::{ClearHoldArgs, GlobalOptions};
use crate::config::Config;
use crate::exit::{CliError, Exit};
use crate::format::LocalTime;
use crate::{context, journal, scope, store, term};

/// Clears the hold, and prints what was cleared.
pub(super) fn run(options: &ClearHoldArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    let config = Config::load(global.config.as_deref())?;
    let id = config.account(&options.name)?.id.clone();
    let store = store::open(global.store.as_deref())?;
    scope::run(async |scope| {
        // A signal ends the command with its exit code.
        scope.listen()?;
        store.check().await?;
        let manager = context::open_read_only(&config, &store)?;
        let account = manager.account(&id);
        let was_damaged = account.sync().await.is_record_damaged();
        let lifted = account.clear_hold().await.map_err(|error| not_cleared(&error))?;
        let now_held = account.sync().await.hold();
        let cleared = match was_damaged {
            true => format!("replaced the damaged record of {id}\n"),
            false => describe(lifted.as_ref(), id.as_str(), &LocalTime::now()),
        };
        term::print(&cleared)?;
        if let Some(hold) = now_held {
            term::eprint(&format!("quota: {}\n", still_held(&hold, &LocalTime::now())));
        }
        journal::update_and_print(&config, store.store.as_ref()).await;
        Ok(Exit::Success)
    })
}

fn describe(lifted: Option<&Hold>, account: &str, local: &LocalTime) -> String {
    match lifted {
        Some(hold) => format!("cleared: {} until {}\n", hold.reason, local.time_of_day(hold.until)),
        None => format!("no hold on {account}\n"),
    }
}

/// What keeps the account from being refreshed after the clear.
fn still_held(hold: &Hold, local: &LocalTime) -> String {
    format!("still no refresh before {}: {}", local.time_of_day_with_seconds(hold.until), hold.reason)
}

fn not_cleared(error: &QuotaError) -> CliError {
    match error {
        QuotaError::Store { account, error, .. } => {
            let why = store::cause(error);
            CliError::new(Exit::Unavailable, format!("could not clear the hold on {account}: {why}"))
        }
        _ => CliError::new(Exit::Config, error.to_string()),
    }
}
