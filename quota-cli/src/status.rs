//! `quota status`: asks about every account, or those that are named, and shows what is known of it.
//! What is shown of an answer is in `model`, how it looks in `text` and `json`.

mod ask;
pub(crate) mod bar;
pub(crate) mod discover;
pub(crate) mod json;
mod live;
pub(crate) mod model;
pub(crate) mod reason;
pub(crate) mod text;

use std::path::Path;

use self::ask::Wish;
use self::live::Live;
use crate::args::StatusArgs;
use crate::config::{self, Config};
use crate::exit::{Exit, Failure};
use crate::gateway::{self, Store};
use crate::journal;
use crate::runtime;
use crate::scope::{self, CommandScope};
use crate::term::{self, Screen};
use crate::words::Here;

/// Shows every account that is meant.
///
/// # Errors
///
/// [`Failure`] if the configuration cannot be used, or the answer cannot be written. An account that fails is no failure:
/// it is shown as one.
pub(crate) fn run(options: &StatusArgs, store: Option<&str>) -> Result<Exit, Failure> {
    let store = gateway::store(store)?;
    if !store.is_shared && store.is_for_want_of_a_home {
        term::tell(
            "quota: neither XDG_STATE_HOME nor HOME is set, so nothing is shared with other processes\n",
        );
    }
    scope::run(async |scope| {
        let shown = shown(scope, options, &store);
        runtime::with_ahead(store.open_ahead(), shown).await
    })
}

async fn shown(scope: &CommandScope, options: &StatusArgs, store: &Store) -> Result<Exit, Failure> {
    let Some(mut config) = configuration(options.config.as_deref()).await? else {
        if options.json {
            term::answer(&json::render(&[], &Here::now()))?;
        }
        return Ok(Exit::NoAccount);
    };
    config.only(&options.accounts)?;
    store.check().await?;
    let screen = Screen::stdout();
    let mut live = (!options.json && screen.live).then(|| Live::on(screen));
    let accounts = ask::about(scope, &config, store, wish(options), live.as_mut()).await?;
    let here = Here::now();
    let shown =
        if options.json { json::render(&accounts, &here) } else { text::render(&accounts, &here, screen) };
    let shown = live.map_or_else(|| shown.clone(), |live| live.over(&shown));
    term::answer(&shown)?;
    // After the answer, so that hooks do not delay it.
    journal::tell(&config, store.store.as_ref()).await;
    if accounts.iter().all(|account| account.switched_off) {
        return Err(config::all_disabled(accounts.iter().map(|account| &account.id)));
    }
    let gaps = accounts.iter().any(|account| account.failure.is_some());
    Ok(if gaps { Exit::Gaps } else { Exit::Done })
}

fn wish(options: &StatusArgs) -> Wish {
    match options.max_age {
        _ if options.offline => Wish::Known,
        _ if options.refresh => Wish::Now,
        Some(age) => Wish::Within(age),
        None => Wish::Fresh,
    }
}

/// The configuration as it is now, perhaps without any account. Nothing is printed.
///
/// # Errors
///
/// [`Failure`] if it cannot be used.
pub(crate) async fn configuration_or_empty(named: Option<&Path>) -> Result<Config, Failure> {
    let mut config = Config::maybe_empty(named)?;
    if config.is_implied() && discover::claude_code().await.is_err() {
        config.accounts.clear();
    }
    Ok(config)
}

/// The configuration that is named or lies where it should, or else the login that can be found; `None`, and the reader
/// is told, if there is neither.
pub(crate) async fn configuration(named: Option<&Path>) -> Result<Option<Config>, Failure> {
    let config = Config::named_or_usual(named)?;
    if !config.is_implied() {
        return Ok(Some(config));
    }
    match discover::claude_code().await {
        Ok(()) => Ok(Some(config)),
        Err(looked_for) => {
            term::tell(&discover::nothing_found(&looked_for, config::usual_path().as_deref()));
            Ok(None)
        }
    }
}
