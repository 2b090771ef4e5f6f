//! `quota doctor`: checks everything that quota needs, and says what to do where something is wrong.
//! The checks are in `place`, `logins`, `refreshes` and `reach`. Nothing is fixed here, and no provider is asked for usage.

mod json;
mod logins;
mod place;
mod reach;
mod refreshes;
mod text;

use jiff::Timestamp;
use quota::Clock;

use crate::cli::GlobalOptions;
use crate::config::Config;
use crate::exit::{CliError, Exit};
use crate::hook_failures::{self, HookFailureReport};
use crate::scope;
use crate::store::{self, OpenedStore};
use crate::term::{self, Screen};

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    area: Area,
    /// Which one, such as a path or an account.
    subject: String,
    level: Level,
    /// How it is, in words that follow the subject.
    told: String,
    /// What to do; `None` if it is ok.
    advice: Option<String>,
    /// What happened, if the check is about that.
    incident: Option<Incident>,
}

/// What kind of thing was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum Area {
    Config,
    Store,
    Login,
    Refresh,
    Hook,
    Clock,
    Provider,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    Ok,
    /// It works, or will by itself.
    Warn,
    /// It does not work until the user acts.
    Fail,
}

/// What happened to an account or a provider, for programs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Incident {
    /// The kind of the failure, or the reason of the wait, as in the JSON of `quota status`.
    reason: String,
    at: Option<Timestamp>,
    until: Option<Timestamp>,
    /// How long the provider asked to be left alone, where that was too long to be obeyed.
    requested: Option<std::time::Duration>,
}

impl Check {
    fn good(area: Area, subject: impl Into<String>, told: impl Into<String>) -> Self {
        let (subject, told) = (subject.into(), told.into());
        Self { area, subject, level: Level::Ok, told, advice: None, incident: None }
    }

    /// Something that does not work.
    fn failure(
        area: Area,
        subject: impl Into<String>,
        told: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { level: Level::Fail, advice: Some(advice.into()), ..Self::good(area, subject, told) }
    }

    /// Something that works, and should be looked at.
    fn warning(
        area: Area,
        subject: impl Into<String>,
        told: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { level: Level::Warn, advice: Some(advice.into()), ..Self::good(area, subject, told) }
    }

    fn about(mut self, incident: Incident) -> Self {
        self.incident = Some(incident);
        self
    }
}

/// Checks everything and shows what it found.
///
/// # Errors
///
/// [`CliError`] if the answer cannot be written. Whatever is wrong otherwise is a check that says so.
pub(crate) fn run(global: &GlobalOptions) -> Result<Exit, CliError> {
    scope::run(async |scope| {
        // Token commands may run.
        scope.listen()?;
        let clock = Clock::system();
        let (mut checks, config) = place::config(global.config.as_deref());
        let store = store::open_to_examine(global.store.as_deref());
        let of_store = place::store(store.as_ref(), &clock).await;
        // A private store knows nothing, and a broken one cannot be read.
        let is_usable = of_store.iter().all(|check| check.level != Level::Fail);
        let shared = store.ok().filter(|store| store.is_shared && is_usable);
        checks.extend(of_store);
        // A broken configuration says nothing about accounts.
        if let Some(config) = config {
            checks.extend(of_accounts(&config, shared.as_ref(), &clock).await);
        }
        checks.extend(failed_hooks().await);
        let shown = if global.json { json::render(&checks) } else { text::render(&checks, Screen::stdout()) };
        term::print(&shown)?;
        let is_all_ok = checks.iter().all(|check| check.level == Level::Ok);
        Ok(if is_all_ok { Exit::Success } else { Exit::Incomplete })
    })
}

/// The hooks that failed since the last report.
async fn failed_hooks() -> Vec<Check> {
    let now = Clock::system().now();
    let check = |failure: HookFailureReport| {
        let advice = "fix the command or the URL in [[hooks]]; the hook does not run again for this event";
        Check::warning(Area::Hook, "hooks", failure.describe(now), advice)
    };
    match hook_failures::take().await {
        Ok(failures) => failures.into_iter().map(check).collect(),
        Err(error) => vec![Check::warning(Area::Hook, "hooks", error.to_string(), "fix or delete the file")],
    }
}

async fn of_accounts(config: &Config, store: Option<&OpenedStore>, clock: &Clock) -> Vec<Check> {
    let (mut checks, mut marks) = (Vec::new(), Vec::new());
    for account in &config.accounts {
        let (of_login, fingerprint) = logins::of(account, config, clock).await;
        checks.extend(of_login);
        marks.push(fingerprint);
    }
    if let Some(store) = store {
        checks.extend(refreshes::of(config, store, &marks, clock).await);
    }
    checks.extend(reach::providers(config, clock).await);
    checks
}
