//! `quota pace`: how fast windows are used, and what that comes to.
//! How a rate is estimated is in quota-journal, how it looks in `text`, `plot`, `svg` and `json`; nobody is asked.

mod chart;
mod json;
mod plot;
mod svg;
mod text;

use std::fs;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use quota::{AccountId, Percent};

use crate::cli::{GlobalOptions, PaceArgs};
use crate::exit::{CliError, Exit};
use crate::format::{LocalTime, between};
use crate::io_cause;
use crate::read_context::ReadContext;
use crate::sanitize::sanitize;
use crate::scope;
use crate::term::{self, Screen};
use quota_journal::pace::{Estimate, Period, Rate};
use quota_journal::{JournalUpdate, Sample};

/// What is shown of an account.
#[derive(Debug, Clone, PartialEq)]
struct AccountPace {
    account: AccountId,
    windows: Vec<WindowPace>,
}

/// What is shown of a window.
#[derive(Debug, Clone, PartialEq)]
struct WindowPace {
    id: String,
    /// What the last reading said; `None` if the window began anew since.
    used: Option<Percent>,
    /// Whether that reading is old, so that more may be used by now.
    is_old: bool,
    observed_at: Timestamp,
    resets_at: Option<Timestamp>,
    length: Option<Duration>,
    estimate: Estimate,
    /// The samples of the present period, oldest first.
    samples: Vec<Sample>,
}

/// Shows the pace of every window.
///
/// # Errors
///
/// [`CliError`] if configuration or store cannot be used, or the answer cannot be written.
pub(crate) fn run(options: &PaceArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    scope::run(async |scope| {
        // Hooks may run.
        scope.listen()?;
        let Some(shared) = ReadContext::open(&options.accounts, global).await? else {
            return Ok(Exit::NoAccount);
        };
        let mut local = LocalTime::now();
        let (mut all, mut looks) = (Vec::new(), Vec::new());
        let fresh_for = shared.config.policy.max_age;
        for account in &shared.config.accounts {
            let looked = shared.load(&account.id).await?;
            local.now = looked.now;
            all.push(AccountPace::of(&account.id, &looked, fresh_for, options.window.as_deref()));
            looks.push(looked);
        }
        if let Some(window) = &options.window
            && all.iter().all(|account| account.windows.is_empty())
        {
            let name = sanitize(window);
            return Err(CliError::new(Exit::Usage, format!("no account has a window called {name}")));
        }
        show(options, global.json, &all, &local)?;
        shared.run_all_hooks(&looks).await;
        let gaps = all.iter().any(|account| account.windows.iter().any(|window| window.rate().is_none()));
        let empty = all.iter().all(|account| account.windows.is_empty());
        Ok(if gaps || empty { Exit::Incomplete } else { Exit::Success })
    })
}

fn show(options: &PaceArgs, is_json: bool, all: &[AccountPace], local: &LocalTime) -> Result<(), CliError> {
    if let Some(path) = &options.svg {
        let drawing = svg::render(all, local);
        if path == Path::new("-") {
            return term::print(&drawing);
        }
        fs::write(path, drawing).map_err(|error| {
            CliError::new(
                Exit::IoErr,
                format!("could not write {}: {}", path.display(), io_cause::of_write(&error)),
            )
        })?;
    }
    if is_json {
        return term::print(&json::render(all, local));
    }
    term::print(&text::render(all, local, Screen::stdout(), options.plot))
}

impl AccountPace {
    fn of(account: &AccountId, looked: &JournalUpdate, fresh_for: Duration, only: Option<&str>) -> Self {
        let snapshot = looked.record.snapshot();
        let meant = |id: &str| only.is_none_or(|only| only == id);
        let mut windows: Vec<_> = snapshot
            .windows()
            .iter()
            .filter(|window| meant(window.id().as_str()))
            .map(|window| {
                let id = window.id().as_str().to_owned();
                let resets_at = window.expires_at();
                let is_over = resets_at.is_some_and(|reset| reset <= looked.now);
                let period = Period::current(looked.journal.history().samples(&id), resets_at);
                let estimate = if is_over {
                    Estimate::rolled_over()
                } else {
                    let reading = Sample {
                        at_s: window.observed_at().as_second(),
                        used_bp: window.used().basis_points(),
                        resets_s: resets_at.map(Timestamp::as_second),
                    };
                    Estimate::new(&period, reading, resets_at, window.length(), looked.now)
                };
                WindowPace {
                    used: (!is_over).then(|| window.used()),
                    is_old: between(window.observed_at(), looked.now) >= fresh_for,
                    observed_at: window.observed_at(),
                    resets_at,
                    length: window.length(),
                    estimate,
                    samples: period.samples,
                    id,
                }
            })
            .collect();
        windows.sort_by_key(|window| (window.length.unwrap_or(Duration::MAX), window.id.clone()));
        Self { account: account.clone(), windows }
    }
}

impl WindowPace {
    fn rate(&self) -> Option<&Rate> {
        self.estimate.rate.as_ref()
    }

    /// How much of the window's time has passed, from 0 to 1.
    fn passed(&self, now: Timestamp) -> Option<f64> {
        let (reset, length) = (self.resets_at?, self.length.filter(|length| !length.is_zero())?);
        let left = between(now, reset);
        (reset > now && left <= length).then(|| 1.0 - left.as_secs_f64() / length.as_secs_f64())
    }
}

/// What is shown of these accounts with `--plot`, for the captures.
#[cfg(test)]
pub(crate) fn drawn(looked: &[(AccountId, JournalUpdate)], local: &LocalTime, screen: Screen) -> String {
    let fresh_for = quota::Policy::default().max_age;
    let of = |(account, looked): &(_, _)| AccountPace::of(account, looked, fresh_for, None);
    let all: Vec<_> = looked.iter().map(of).collect();
    text::render(&all, local, screen, true)
}

#[cfg(test)]
mod tests;
