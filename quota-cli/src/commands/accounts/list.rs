//! `quota accounts list`: lists all accounts in order, with their state in the store. It makes no provider calls.
//! `text` and `json` render the list.

use quota::accounts::Decision;

use super::text::AccountRow;
use super::{json, text};
use crate::account_picker::AccountPicker;
use crate::cli::{GlobalOptions, RequestArgs, Unknown};
use crate::config::Config;
use crate::exit::{CliError, Exit};
use crate::format::LocalTime;
use crate::scope;
use crate::term::{self, Screen};
use crate::{context, store};

/// Prints the list.
pub(super) fn run(global: &GlobalOptions) -> Result<Exit, CliError> {
    let store = store::open(global.store.as_deref())?;
    let named = global.config.as_deref();
    scope::run(async |scope| {
        let Some(config) = context::configuration(named).await? else {
            if global.json {
                term::print(&json::render(
                    named,
                    &Config { accounts: Vec::new(), ..Config::default_account() },
                    &[],
                    &LocalTime::now(),
                ))?;
            }
            return Ok(Exit::NoAccount);
        };
        let request = RequestArgs { unknown: Some(Unknown::Allow), ..RequestArgs::default() };
        // The list is printed even if the store cannot be read.
        let picker = match AccountPicker::open(scope, &config, &store, None, &request).await {
            Ok(picker) => Some(picker),
            Err(error) => {
                term::eprint(&format!("quota: {error}\n"));
                None
            }
        };
        let decision = picker.as_ref().map(AccountPicker::explain_cached);
        let local = LocalTime {
            now: decision.as_ref().map_or_else(|| LocalTime::now().now, Decision::now),
            ..LocalTime::now()
        };
        let accounts = config.accounts.iter().enumerate();
        let listed: Vec<_> = accounts
            .map(|(at, settings)| AccountRow {
                settings,
                evaluated: decision.as_ref().and_then(|decision| decision.accounts().get(at)),
            })
            .collect();
        let output = if global.json {
            json::render(named, &config, &listed, &local)
        } else {
            let screen = Screen::stdout();
            screen.show(&text::lines(&listed, &local, screen.width))
        };
        term::print(&output)?;
        if let Some(picker) = &picker {
            picker.warn_if_read_only().await;
        }
        for id in &config.unusable {
            term::eprint(&format!("quota: ignored {id}: accounts.json has no login for it\n"));
        }
        Ok(Exit::Success)
    })
}
