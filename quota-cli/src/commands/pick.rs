//! `quota pick`: prints the account to use now, for scripts.

use quota::accounts::Decision;

use crate::account_picker::{self, AccountPicker, exit_of};
use crate::cli::{GlobalOptions, PickArgs};
use crate::config::Config;
use crate::context;
use crate::exit::{CliError, Exit};
use crate::format::LocalTime;
use crate::journal;
use crate::scope;
use crate::store;
use crate::term;
use crate::view::{decision_json, decision_text};

/// Prints the account name, or why no account is available.
///
/// # Errors
///
/// [`CliError`] if the configuration or the store cannot be used, or the output cannot be written.
pub(crate) fn run(options: &PickArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    let store = store::open(global.store.as_deref())?;
    let config = Config::load(global.config.as_deref())?;
    scope::run(async |scope| {
        context::offer_other_logins(&config, global.json).await?;
        let picker =
            AccountPicker::open(scope, &config, &store, Some("quota pick"), &options.request).await?;
        let decision = picker.route().await.map_or_else(|decision| decision, |(_, decision)| decision);
        picker.warn_of_unnamed_model();
        let printed = print(&decision, &config, global.json);
        if exit_of(&decision) == Exit::Unavailable {
            context::print_unused_logins(&config).await;
        }
        // Save new readings even if the output could not be written.
        if picker.close(account_picker::SHUTDOWN_TIMEOUT).await {
            journal::update_and_print(&config, store.store.as_ref()).await;
        }
        printed.map(|()| exit_of(&decision))
    })
}

fn print(decision: &Decision, config: &Config, as_json: bool) -> Result<(), CliError> {
    if as_json {
        return term::print(&decision_json::pick(decision));
    }
    match decision.chosen() {
        Some(account) => term::print(&format!("{}\n", account.account)),
        None => {
            let local = LocalTime { now: decision.now(), ..LocalTime::now() };
            let line = decision_text::no_account(decision, &config.accounts, &local);
            term::eprint(&format!("quota: {line}\n"));
            Ok(())
        }
    }
}
