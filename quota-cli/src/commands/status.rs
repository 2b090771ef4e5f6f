//! `quota status`: asks about every account, or those that are named, and shows what is known of it.
//! What is shown of an answer is in `model`, how it looks in `text` and `json`.

mod ask;
mod live;

use self::ask::Wish;
use self::live::Live;
use crate::cli::{GlobalOptions, StatusArgs};
use crate::config;
use crate::context;
use crate::exit::{CliError, Exit};
use crate::format::LocalTime;
use crate::journal;
use crate::runtime;
use crate::scope::{self, CommandScope};
use crate::store::{self, OpenedStore};
use crate::term::{self, Screen};
use crate::view::{account_json, account_text};

/// Shows every account that is meant.
///
/// # Errors
///
/// [`CliError`] if the configuration cannot be used, or the answer cannot be written. An account that fails is no failure:
/// it is shown as one.
pub(crate) fn run(options: &StatusArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    let store = store::open(global.store.as_deref())?;
    if !store.is_shared && store.no_home {
        term::eprint(
            "quota: neither XDG_STATE_HOME nor HOME is set, so nothing is shared with other processes\n",
        );
    }
    scope::run(async |scope| {
        let shown = shown(scope, options, global, &store);
        runtime::warm_up(store.warm_up(), shown).await
    })
}

async fn shown(
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
    store.check().await?;
    let screen = Screen::stdout();
    let mut live = (!global.json && screen.is_tty).then(|| Live::on(screen));
    let accounts = ask::about(scope, &config, store, wish(options), live.as_mut()).await?;
    let local = LocalTime::now();
    let shown = if global.json {
        account_json::render(&accounts, &local)
    } else {
        account_text::render(&accounts, &local, screen)
    };
    let shown = live.map_or_else(|| shown.clone(), |live| live.over(&shown));
    term::print(&shown)?;
    // After the answer, so that hooks do not delay it.
    journal::tell(&config, store.store.as_ref()).await;
    if accounts.iter().all(|account| account.switched_off) {
        return Err(config::all_disabled(accounts.iter().map(|account| &account.id)));
    }
    let gaps = accounts.iter().any(|account| account.failure.is_some());
    Ok(if gaps { Exit::Incomplete } else { Exit::Success })
}

fn wish(options: &StatusArgs) -> Wish {
    match options.max_age {
        _ if options.offline => Wish::Known,
        _ if options.refresh => Wish::Now,
        Some(age) => Wish::Within(age),
        None => Wish::Fresh,
    }
}
