//! `quota pace`: shows how fast windows are used, and when they run out. It makes no provider calls.
//! quota-journal estimates the rates; `text`, `plot`, `svg` and `json` render them.

mod chart;
mod json;
mod plot;
mod svg;
mod text;

use std::fs;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use quota::{AccountId, Percent, Used};

use crate::cli::{GlobalOptions, PaceArgs};
use crate::exit::{CliError, Exit};
use crate::format::{LocalTime, between};
use crate::io_cause;
use crate::read_context::ReadContext;
use crate::sanitize::sanitize;
use crate::scope;
use crate::term::{self, Screen};
use crate::view::account::WindowView;
#[cfg(test)]
use crate::view::line::Line;
use crate::view::window_name::window_name;
use quota_journal::pace::{Estimate, Period, Rate};
use quota_journal::{JournalUpdate, Sample};

/// The pace of an account.
#[derive(Debug, Clone, PartialEq)]
struct AccountPace {
    account: AccountId,
    windows: Vec<WindowPace>,
}

/// The pace of a window.
#[derive(Debug, Clone, PartialEq)]
struct WindowPace {
    id: String,
    name: String,
    /// The use in the last reading; `None` if the window has reset since.
    used: Option<Percent>,
    /// Whether that reading is stale, so that more may be used.
    is_stale: bool,
    observed_at: Timestamp,
    resets_at: Option<Timestamp>,
    length: Option<Duration>,
    estimate: Estimate,
    /// The readings of the current period, oldest first.
    samples: Vec<Sample>,
}

/// Shows the pace of every window.
///
/// # Errors
///
/// [`CliError`] if the configuration or the store cannot be used, or the output cannot be written.
pub(crate) fn run(options: &PaceArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    scope::run(async |scope| {
        // A signal ends the command with its exit code.
        scope.listen()?;
        let Some(shared) = ReadContext::open(&options.accounts, global).await? else {
            return Ok(Exit::NoAccount);
        };
        let mut local = LocalTime::now();
        let mut all = Vec::new();
        for account in &shared.config.accounts {
            let update = shared.load(&account.id).await?;
            local.now = update.now;
            let max_age = shared.config.policy_of(account.id.provider()).max_age;
            all.push(AccountPace::of(&account.id, &update, max_age, options.window.as_deref()));
        }
        if let Some(window) = &options.window
            && all.iter().all(|account| account.windows.is_empty())
        {
            return Err(CliError::new(Exit::Usage, format!("no account has a window {}", sanitize(window))));
        }
        show(options, global.json, &all, &local)?;
        shared.print_hook_failures().await;
        let has_gaps = all.iter().any(|account| account.windows.iter().any(|window| window.rate().is_none()));
        let is_empty = all.iter().all(|account| account.windows.is_empty());
        Ok(if has_gaps || is_empty { Exit::Incomplete } else { Exit::Success })
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
    let screen = Screen::stdout();
    term::print(&screen.show(&text::lines(all, local, screen.width, options.plot)))
}

impl AccountPace {
    fn of(account: &AccountId, update: &JournalUpdate, max_age: Duration, only: Option<&str>) -> Self {
        let snapshot = update.record.snapshot();
        let is_selected = |id: &str| only.is_none_or(|only| only == id);
        let mut windows: Vec<_> = snapshot
            .windows()
            .iter()
            .filter(|window| is_selected(window.id().as_str()))
            .map(|window| {
                let id = window.id().as_str().to_owned();
                let resets_at = window.expires_at();
                let has_reset = resets_at.is_some_and(|reset| reset <= update.now);
                let period = Period::current(update.journal.history().samples(&id), resets_at);
                let estimate = if has_reset {
                    Estimate::rolled_over()
                } else {
                    let reading = Sample {
                        at_s: window.observed_at().as_second(),
                        used_bp: window.used().basis_points(),
                        resets_s: resets_at.map(Timestamp::as_second),
                    };
                    Estimate::new(&period, reading, resets_at, window.length(), update.now)
                };
                WindowPace {
                    used: (!has_reset).then(|| window.used()),
                    is_stale: between(window.observed_at(), update.now) >= max_age,
                    observed_at: window.observed_at(),
                    resets_at,
                    length: window.length(),
                    estimate,
                    samples: period.samples,
                    name: window_name(&WindowView::of(window, Used::Unknown)),
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

    /// The elapsed part of the window, from 0 to 1.
    fn elapsed(&self, now: Timestamp) -> Option<f64> {
        let (reset, length) = (self.resets_at?, self.length.filter(|length| !length.is_zero())?);
        let left = between(now, reset);
        (reset > now && left <= length).then(|| 1.0 - left.as_secs_f64() / length.as_secs_f64())
    }
}

/// Renders these accounts with `--plot`, for the captures.
#[cfg(test)]
pub(crate) fn captured(updates: &[(AccountId, JournalUpdate)], local: &LocalTime, width: usize) -> Vec<Line> {
    let max_age = quota::Policy::default().max_age;
    let of = |(account, update): &(_, _)| AccountPace::of(account, update, max_age, None);
    let all: Vec<_> = updates.iter().map(of).collect();
    text::lines(&all, local, width, true)
}

#[cfg(test)]
mod tests;
