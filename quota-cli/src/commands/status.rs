//! `quota status`: refreshes stale accounts, and shows the usage of all.

mod live;

use self::live::Live;
use crate::account_query::{self, RefreshMode, ShowProgress};
use crate::cli::{GlobalOptions, StatusArgs};
use crate::config;
use crate::context;
use crate::exit::{CliError, Exit};
use crate::format::LocalTime;
use crate::journal;
use crate::runtime;
use crate::scope::{self, CommandScope};
use crate::store::{self, OpenedStore};
use crate::store_probe;
use crate::term::{self, Screen};
use crate::view::account::AccountView;
use crate::view::{account_json, account_text};

/// Shows the accounts.
///
/// # Errors
///
/// [`CliError`] if the configuration cannot be used, or the output cannot be written. An account that cannot be refreshed is shown
/// with its error.
pub(crate) fn run(options: &StatusArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    let store = store::open(global.store.as_deref())?;
    if !store.is_shared && store.no_home {
        term::eprint(&format!("quota: {}\n", store_probe::NO_HOME));
    }
    scope::run(async |scope| {
        let status = print_status(scope, options, global, &store);
        runtime::warm_up(store.warm_up(), status).await
    })
}

async fn print_status(
    scope: &CommandScope,
    options: &StatusArgs,
    global: &GlobalOptions,
    store: &OpenedStore,
) -> Result<Exit, CliError> {
    let Some(mut config) = context::configuration(global.config.as_deref()).await? else {
        if global.json {
            term::print(&account_json::render(&[], &LocalTime::now()))?;
        }
        return Ok(Exit::NoAccount);
    };
    config.retain(&options.accounts)?;
    store.check(&config).await?;
    let screen = Screen::stdout();
    let mut live = (!global.json && screen.is_tty).then(|| Live::on(screen));
    let mut show = live.as_mut().map(|live| |arrived: &[&AccountView]| live.show(arrived));
    let progress = show.as_mut().map(|show| show as ShowProgress<'_>);
    let accounts =
        account_query::query_all(scope, &config, store, "quota status", mode(options), progress).await?;
    let local = LocalTime::now();
    let output = if global.json {
        account_json::render(&accounts, &local)
    } else {
        screen.show(&account_text::lines(&accounts, &local, screen.width))
    };
    let output = live.map_or_else(|| output.clone(), |live| live.replace(&output));
    term::print(&output)?;
    // Run after the output, so that hooks do not delay it.
    journal::update_and_print(&config, store.store.as_ref()).await;
    if accounts.iter().all(|account| account.disabled) {
        return Err(config::all_disabled(accounts.iter().map(|account| &account.id)));
    }
    let has_gaps = accounts.iter().any(|account| account.failure.is_some());
    Ok(if has_gaps { Exit::Incomplete } else { Exit::Success })
}

fn mode(options: &StatusArgs) -> RefreshMode {
    match options.max_age {
        _ if options.offline => RefreshMode::Offline,
        _ if options.refresh => RefreshMode::Force,
        Some(age) => RefreshMode::MaxAge(age),
        None => RefreshMode::IfStale,
    }
}
