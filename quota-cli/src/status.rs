//! `quota status`: asks about every account and shows what is known of it.
//! What is shown of an answer is in `model`, how it looks in `text` and `json`.

mod ask;
pub(crate) mod bar;
mod discover;
pub(crate) mod json;
pub(crate) mod model;
pub(crate) mod text;

use std::path::Path;
use std::sync::Arc;

use crate::args::StatusArgs;
use crate::config::{self, Config};
use crate::exit::{Exit, Failure};
use crate::gateway;
use crate::journal;
use crate::runtime::{self, Threads};
use crate::term::{self, Screen};
use crate::words::Here;

/// Shows every account.
///
/// # Errors
///
/// [`Failure`] if the configuration cannot be used, or the answer cannot be written. An account that fails is no failure:
/// it is shown as one.
pub(crate) fn run(options: &StatusArgs, store: Option<&str>) -> Result<Exit, Failure> {
    let store = gateway::store(store)?;
    runtime::run(Threads::One, async {
        let Some(config) = configuration(options.config.as_deref()).await? else {
            if options.json {
                term::answer(&json::render(&[], &Here::now()))?;
            }
            return Ok(Exit::NoAccount);
        };
        let accounts = ask::about(&config, Arc::clone(&store)).await?;
        let here = Here::now();
        let shown = if options.json {
            json::render(&accounts, &here)
        } else {
            text::render(&accounts, &here, Screen::stdout())
        };
        term::answer(&shown)?;
        // After the answer: nobody waits for what hooks do.
        for trouble in journal::keep(&config, &store).await {
            term::tell(&format!("quota: {trouble}\n"));
        }
        let gaps = accounts.iter().any(|account| account.failure.is_some());
        Ok(if gaps { Exit::Gaps } else { Exit::Done })
    })
}

/// The configuration that is named or lies where it should, or else the login that can be found; `None`, and the reader
/// is told, if there is neither.
pub(crate) async fn configuration(named: Option<&Path>) -> Result<Option<Config>, Failure> {
    if let Some(path) = named {
        return Config::read(path).map(Some);
    }
    let usual = config::usual_path();
    // Whatever is there is read, even what only looks like a file: an unreadable configuration is not a missing one.
    if let Some(path) = usual.as_deref().filter(|path| path.symlink_metadata().is_ok()) {
        return Config::read(path).map(Some);
    }
    match discover::claude_code().await {
        Ok(()) => Ok(Some(Config::of_claude_code())),
        Err(looked_for) => {
            term::tell(&discover::nothing_found(&looked_for, usual.as_deref()));
            Ok(None)
        }
    }
}
