//! `quota explain`: shows which account to use now and why, with the readings of every account.
//! It makes the same decision as `quota pick`, without storing it.

mod text;

use crate::account_picker::{self, AccountPicker, exit_of};
use crate::cli::{ExplainArgs, GlobalOptions};
use crate::config::Config;
use crate::context;
use crate::exit::{CliError, Exit};
use crate::format::LocalTime;
use crate::journal;
use crate::scope;
use crate::store;
use crate::term::{self, Screen};
use crate::view::decision_json;

/// Prints the decision.
///
/// # Errors
///
/// [`CliError`] if the configuration or the store cannot be used, or the output cannot be written.
pub(crate) fn run(options: &ExplainArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    let store = store::open(global.store.as_deref())?;
    let config = Config::load(global.config.as_deref())?;
    scope::run(async |scope| {
        context::offer_other_logins(&config, global.json).await?;
        let picker =
            AccountPicker::open(scope, &config, &store, Some("quota explain"), &options.request).await?;
        let decision = picker.decide().await;
        picker.warn_of_unnamed_model();
        let has_changed = picker.close(account_picker::SHUTDOWN_TIMEOUT).await;
        let local = LocalTime { now: decision.now(), ..LocalTime::now() };
        let output = if global.json {
            decision_json::explain(&decision, options.request.model.as_deref())
        } else {
            let screen = Screen::stdout();
            screen.show(&text::lines(&decision, &config.accounts, &local, screen.width))
        };
        term::print(&output)?;
        if exit_of(&decision) == Exit::Unavailable {
            context::print_unused_logins(&config).await;
        }
        if has_changed {
            journal::update_and_print(&config, store.store.as_ref()).await;
        }
        Ok(exit_of(&decision))
    })
}
