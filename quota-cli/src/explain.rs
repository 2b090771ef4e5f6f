//! `quota explain`: which account is to be used now, with every account, its readings, and the rule that took or refused it.
//! It is the decision of `quota pick`, and leaves no trace of a request.

mod json;
mod text;

use crate::cli::{ExplainArgs, GlobalOptions};
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::format::LocalTime;
use crate::gateway;
use crate::journal;
use crate::router::{self, Refusal, Router, Seen};
use crate::scope;
use crate::term::{self, Screen};

/// Shows the decision.
///
/// # Errors
///
/// [`Failure`] if the configuration or the store cannot be used, or the answer cannot be written.
pub(crate) fn run(options: &ExplainArgs, global: &GlobalOptions) -> Result<Exit, Failure> {
    let store = gateway::store(global.store.as_deref())?;
    let config = Config::named_or_usual(global.config.as_deref())?;
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
        Ok(if seen.chosen().is_some() { Exit::Done } else { Refusal::of(seen).exit })
    })
}
