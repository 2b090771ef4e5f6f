//! `quota doctor`: looks at everything that has to be right, and says what to do where it is not.
//! What is looked at is in `place`, `logins` and `reach`. Nothing is mended here, and no usage is asked for.

mod json;
mod logins;
mod place;
mod reach;
mod text;

use quota::Clock;

use crate::args::DoctorArgs;
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::runtime;
use crate::term::{self, Screen};

/// What was looked at, and how it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    area: Area,
    /// Which one, such as a path or an account.
    subject: String,
    /// How it is, in words that follow the subject.
    told: String,
    /// What to do; `None` if all is well.
    advice: Option<String>,
}

/// What kind of thing was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum Area {
    Config,
    Store,
    Login,
    Clock,
    Provider,
}

impl Check {
    fn good(area: Area, subject: impl Into<String>, told: impl Into<String>) -> Self {
        Self { area, subject: subject.into(), told: told.into(), advice: None }
    }

    fn finding(
        area: Area,
        subject: impl Into<String>,
        told: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { advice: Some(advice.into()), ..Self::good(area, subject, told) }
    }
}

/// Looks at everything and tells what it found.
///
/// # Errors
///
/// [`Failure`] if the answer cannot be written. Whatever is wrong otherwise is a finding.
pub(crate) fn run(options: &DoctorArgs, store: Option<&str>) -> Result<Exit, Failure> {
    runtime::run(async {
        let clock = Clock::system();
        let (mut checks, config) = place::config(options.config.as_deref());
        checks.extend(place::store(store, &clock).await);
        // Of a configuration that is broken nobody knows which accounts it means.
        if let Some(config) = config {
            checks.extend(rest(&config, &clock).await);
        }
        let shown =
            if options.json { json::render(&checks) } else { text::render(&checks, Screen::stdout()) };
        term::answer(&shown)?;
        let is_all_good = checks.iter().all(|check| check.advice.is_none());
        Ok(if is_all_good { Exit::Done } else { Exit::Gaps })
    })
}

async fn rest(config: &Config, clock: &Clock) -> Vec<Check> {
    let mut checks = Vec::new();
    for account in &config.accounts {
        checks.extend(logins::of(account, config, clock).await);
    }
    checks.extend(reach::providers(config, clock).await);
    checks
}
