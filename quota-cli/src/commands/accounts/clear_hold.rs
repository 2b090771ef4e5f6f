//! `quota accounts clear-hold`: clears the hold on an account for all processes that share the store.
//! `quota_core::record` contains the rule.

use quota::QuotaError;
use quota::record::Hold;

use crate::cli::{ClearHoldArgs, GlobalOptions};
use crate::config::Config;
use crate::exit::{CliError, Exit};
use crate::format::LocalTime;
use crate::{context, journal, scope, store, store_probe, term};

/// Clears the hold, and prints what was cleared.
pub(super) fn run(options: &ClearHoldArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    let config = Config::load(global.config.as_deref())?;
    let id = config.account(&options.name)?.id.clone();
    let store = store::open(global.store.as_deref())?;
    scope::run(async |scope| {
        // A signal ends the command with its exit code.
        scope.listen()?;
        store.without_new_outage().await;
        store.check(&config).await?;
        let manager = context::open_read_only(&config, &store)?;
        let account = manager.account(&id);
        let was_damaged = account.sync().await.is_record_damaged();
        let cleared_hold = account.clear_hold().await.map_err(|error| not_cleared(&error))?;
        let now_held = account.sync().await.hold();
        let text = match was_damaged {
            true => format!("replaced the damaged record of {id}\n"),
            false => describe(cleared_hold.as_ref(), id.as_str(), &LocalTime::now()),
        };
        term::print(&text)?;
        if let Some(hold) = now_held {
            term::eprint(&format!("quota: {}\n", still_held(&hold, &LocalTime::now())));
        }
        if let Some(outage) = store.outage() {
            let warning = store_probe::outage_warning(&outage, &LocalTime::now());
            term::eprint(&format!("quota: {warning}; other hosts see the change after it\n"));
        }
        journal::update_and_print(&config, store.store.as_ref()).await;
        Ok(Exit::Success)
    })
}

fn describe(cleared_hold: Option<&Hold>, account: &str, local: &LocalTime) -> String {
    match cleared_hold {
        Some(hold) => format!("cleared: {} until {}\n", hold.reason, local.time_of_day(hold.until)),
        None => format!("{account} has no hold\n"),
    }
}

/// Names the hold that still prevents a refresh, such as the provider's cooldown.
fn still_held(hold: &Hold, local: &LocalTime) -> String {
    format!(
        "the next refresh is still not before {}: {}",
        local.time_of_day_with_seconds(hold.until),
        hold.reason
    )
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
