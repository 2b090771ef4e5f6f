//! `quota doctor`: checks everything that quota needs, and prints a hint for each problem.
//! It fixes nothing, and makes no usage calls.

mod config_and_store;
mod credentials;
mod json;
mod network;
mod refreshes;
mod same_login;
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

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    area: Area,
    /// The checked object, such as a path or an account.
    subject: String,
    level: Level,
    /// The result, printed after the subject.
    message: String,
    /// How to fix it; `None` if it is ok.
    hint: Option<String>,
    /// The failure or wait that the check reports.
    incident: Option<Incident>,
}

/// The area of a check.
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

/// How severe a result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    Ok,
    /// It works, or will work without user action.
    Warn,
    /// It does not work until the user acts.
    Fail,
}

/// A failure or a wait of an account or a provider, for the JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Incident {
    /// The kind of the failure, or the reason for the wait, as in the JSON of `quota status`.
    reason: String,
    at: Option<Timestamp>,
    until: Option<Timestamp>,
    /// The wait that the provider requested, if quota does not wait that long.
    requested: Option<std::time::Duration>,
}

impl Check {
    fn ok(area: Area, subject: impl Into<String>, message: impl Into<String>) -> Self {
        let (subject, message) = (subject.into(), message.into());
        Self { area, subject, level: Level::Ok, message, hint: None, incident: None }
    }

    /// A check that failed.
    fn problem(
        area: Area,
        subject: impl Into<String>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self { level: Level::Fail, hint: Some(hint.into()), ..Self::ok(area, subject, message) }
    }

    /// A check that passed but needs attention.
    fn warning(
        area: Area,
        subject: impl Into<String>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self { level: Level::Warn, hint: Some(hint.into()), ..Self::ok(area, subject, message) }
    }

    fn with_incident(mut self, incident: Incident) -> Self {
        self.incident = Some(incident);
        self
    }
}

/// Runs all checks and prints them.
///
/// # Errors
///
/// [`CliError`] if the output cannot be written. Every other error is reported as a check.
pub(crate) fn run(global: &GlobalOptions) -> Result<Exit, CliError> {
    scope::run(async |scope| {
        // A signal also ends running token commands.
        scope.listen()?;
        let clock = Clock::system();
        let (mut checks, config) = config_and_store::config(global.config.as_deref());
        let store = store::open_to_examine(global.store.as_deref());
        let mut of_store = config_and_store::store(store.as_ref(), &clock).await;
        // A private store is empty, and an unusable store cannot be read.
        let is_usable = of_store.iter().all(|check| check.level != Level::Fail);
        if let Ok(store) = &store {
            of_store.extend(config_and_store::outage(store).await);
        }
        let shared = store.ok().filter(|store| store.is_shared && is_usable);
        checks.extend(of_store);
        // An invalid configuration has no accounts.
        if let Some(config) = config {
            checks.extend(credentials::unused(&config).await);
            checks.extend(of_accounts(&config, shared.as_ref(), &clock).await);
        }
        checks.extend(failed_hooks().await);
        let screen = Screen::stdout();
        let output = match global.json {
            true => json::render(&checks),
            false => screen.show(&text::lines(&checks, screen.is_tty.then_some(screen.width))),
        };
        term::print(&output)?;
        let is_all_ok = checks.iter().all(|check| check.level == Level::Ok);
        Ok(if is_all_ok { Exit::Success } else { Exit::Incomplete })
    })
}

/// The hooks that failed since the last report.
async fn failed_hooks() -> Vec<Check> {
    let now = Clock::system().now();
    let check = |failure: HookFailureReport| {
        let hint = "fix the command or the URL in [[hooks]]; quota does not repeat the hook for this event";
        Check::warning(Area::Hook, "hooks", failure.describe(now), hint)
    };
    match hook_failures::take().await {
        Ok(failures) => failures.into_iter().map(check).collect(),
        Err(error) => vec![Check::warning(Area::Hook, "hooks", error.to_string(), "fix or delete the file")],
    }
}

async fn of_accounts(config: &Config, store: Option<&OpenedStore>, clock: &Clock) -> Vec<Check> {
    let (mut checks, mut logins) = (Vec::new(), Vec::new());
    for account in &config.accounts {
        let (of_login, login) = credentials::of(account, config, clock).await;
        checks.extend(of_login);
        logins.push((account, login.unwrap_or_default()));
    }
    checks.extend(same_login::of(&logins));
    let fingerprints: Vec<_> = logins.iter().map(|(_, login)| login.fingerprint).collect();
    if let Some(store) = store {
        checks.extend(refreshes::of(config, store, &fingerprints, clock).await);
    }
    checks.extend(network::providers(config, clock).await);
    checks
}
