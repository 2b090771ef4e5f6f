//! `quota pick`: the account to use now, for scripts.
//! Which one that is, is decided in `quota::accounts`; see `router`.

pub(crate) mod json;

use crate::cli::{GlobalOptions, PickArgs};
use crate::config::Config;
use crate::exit::{CliError, Exit};
use crate::format::LocalTime;
use crate::journal;
use crate::router::{self, Refusal, Router, Seen};
use crate::scope;
use crate::store;
use crate::term;

/// Writes the name of the account, or says why there is none.
///
/// # Errors
///
/// [`CliError`] if the configuration or the store cannot be used, or the answer cannot be written.
pub(crate) fn run(options: &PickArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    let store = store::open(global.store.as_deref())?;
    let config = Config::load(global.config.as_deref())?;
    scope::run(async |scope| {
        let router = Router::open(scope, &config, &store, Some("quota pick"), &options.request).await?;
        let (exit, seen, refusal) = match router.route().await {
            Ok(route) => (Exit::Success, Seen::of_route(&route, &router), None),
            Err(refusal) => (refusal.exit, refusal.seen.clone(), Some(refusal)),
        };
        router.warn_of_unnamed_model();
        let told = tell(&seen, refusal.as_ref(), global.json);
        // What was learned is kept even where nobody reads the answer any more.
        if router.close(router::FAREWELL).await {
            journal::tell(&config, store.store.as_ref()).await;
        }
        told.map(|()| exit)
    })
}

fn tell(seen: &Seen, refusal: Option<&Refusal>, as_json: bool) -> Result<(), CliError> {
    if let Some(refusal) = refusal.filter(|_| !as_json) {
        let local = LocalTime { now: seen.now, ..LocalTime::now() };
        term::eprint(&format!("quota: {}\n", router::nobody(refusal, &local)));
        return Ok(());
    }
    if as_json {
        return term::print(&json::render(seen, refusal));
    }
    seen.chosen().map_or(Ok(()), |account| term::print(&format!("{}\n", account.id)))
}
