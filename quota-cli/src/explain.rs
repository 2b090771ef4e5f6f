//! `quota explain`: which account is to be used now, with every account, its readings, and the rule that took or refused it.
//! It is the decision of `quota pick`, and leaves no trace of a request.

mod json;
mod text;

use crate::cli::{ExplainArgs, GlobalOptions};
use crate::config::Config;
use crate::exit::{CliError, Exit};
use crate::format::LocalTime;
use crate::journal;
use crate::router::{self, Refusal, Router, Seen};
use crate::scope;
use crate::store;
use crate::term::{self, Screen};

/// Shows the decision.
///
/// # Errors
///
/// [`CliError`] if the configuration or the store cannot be used, or the answer cannot be written.
pub(crate) fn run(options: &ExplainArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    let store = store::open(global.store.as_deref())?;
    let config = Config::load(global.config.as_deref())?;
    scope::run(async |scope| {
        let router = Router::open(scope, &config, &store, Some("quota explain"), &options.request).await?;
        let seen = Seen::of(&router.decide().await, &router);
        router.warn_of_unnamed_model();
        let has_news = router.close(router::FAREWELL).await;
        let local = LocalTime { now: seen.now, ..LocalTime::now() };
        let shown = if global.json {
            json::render(&seen, &options.request, &local)
        } else {
            text::render(&seen, &local, Screen::stdout())
        };
        term::print(&shown)?;
        if has_news {
            journal::tell(&config, store.store.as_ref()).await;
        }
        Ok(if seen.chosen().is_some() { Exit::Success } else { Refusal::of(seen).exit })
    })
}
