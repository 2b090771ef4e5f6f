//! The pace of windows as values, and as text: `chart` computes the points of a chart. quota-journal estimates the rates.

mod chart;
mod json;

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use quota::{AccountId, Percent, Snapshot, Used};
use quota_journal::pace::{Basis, Estimate, Period, Rate};
use quota_journal::{History, Sample};

pub use self::chart::{Chart, Point};
pub use self::json::{AccountPaceJson, VERSION as JSON_VERSION};
use crate::account::WindowView;
use crate::format::{self, LocalTime, between};
use crate::window_name::window_name;

const ROLLED_OVER: &str = "not refreshed since its reset";
const LASTS: &str = "does not run out at this rate";

/// The pace of an account.
#[derive(Debug, Clone, PartialEq)]
pub struct AccountPace {
    /// The account.
    pub account: AccountId,
    /// The short windows first.
    pub windows: Vec<WindowPace>,
}

/// The pace of a window.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowPace {
    /// The id.
    pub id: String,
    /// The display name.
    pub name: String,
    /// The usage in the last reading; `None` if the window has reset since.
    pub used: Option<Percent>,
    /// Whether that reading is stale, so that more may be used.
    pub is_stale: bool,
    /// When it was read.
    pub observed_at: Timestamp,
    /// When it resets.
    pub resets_at: Option<Timestamp>,
    /// The length of its period.
    pub length: Option<Duration>,
    /// How fast it is used.
    pub estimate: Estimate,
    /// The readings of the current period, oldest first.
    pub samples: Vec<Sample>,
}

impl AccountPace {
    /// The pace of the windows in these readings, or only of the window `only`. Readings of the age `max_age` or older
    /// are stale.
    #[must_use]
    pub fn of(
        account: &AccountId,
        snapshot: &Snapshot,
        history: &History,
        now: Timestamp,
        max_age: Duration,
        only: Option<&str>,
    ) -> Self {
        let is_selected = |id: &str| only.is_none_or(|only| only == id);
        let mut windows: Vec<_> = snapshot
            .windows()
            .iter()
            .filter(|window| is_selected(window.id().as_str()))
            .map(|window| {
                let id = window.id().as_str().to_owned();
                let resets_at = window.expires_at();
                let has_reset = resets_at.is_some_and(|reset| reset <= now);
                let period = Period::current(history.samples(&id), resets_at);
                let estimate = if has_reset {
                    Estimate::rolled_over()
                } else {
                    let reading = Sample {
                        at_s: window.observed_at().as_second(),
                        used_bp: window.used().basis_points(),
                        resets_s: resets_at.map(Timestamp::as_second),
                    };
                    Estimate::new(&period, reading, resets_at, window.length(), now)
                };
                WindowPace {
                    used: (!has_reset).then(|| window.used()),
                    is_stale: between(window.observed_at(), now) >= max_age,
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
    /// Its rate, if there is enough data.
    #[must_use]
    pub fn rate(&self) -> Option<&Rate> {
        self.estimate.rate.as_ref()
    }

    /// The elapsed part of the window, from 0 to 1.
    #[must_use]
    pub fn elapsed(&self, now: Timestamp) -> Option<f64> {
        let (reset, length) = (self.resets_at?, self.length.filter(|length| !length.is_zero())?);
        let left = between(now, reset);
        (reset > now && left <= length).then(|| 1.0 - left.as_secs_f64() / length.as_secs_f64())
    }
}

/// The usage and the elapsed time.
#[must_use]
pub fn status(window: &WindowPace, local: &LocalTime) -> String {
    let Some(used) = window.used else { return "unknown since its reset".to_owned() };
    let mut status = match window.is_stale {
        false => format!("{} used", format::percent(used)),
        true => {
            let age = format::ago(between(window.observed_at, local.now));
            format!("≥ {} used, read {age}", format::percent(used))
        }
    };
    if let Some(elapsed) = window.elapsed(local.now) {
        let _ = write!(status, ", {:.0} % elapsed", elapsed * 100.0);
    }
    if let Some(reset) = window.resets_at {
        let _ = write!(status, ", resets {}", local.relative(reset));
    }
    status
}

/// The rate, its projection, and the underlying data.
#[must_use]
pub fn summary(window: &WindowPace, local: &LocalTime) -> String {
    let estimate = &window.estimate;
    if estimate.is_rolled_over {
        return ROLLED_OVER.to_owned();
    }
    let Some(rate) = &estimate.rate else { return needed(estimate) };
    let evidence = match rate.basis {
        Basis::Trend => {
            let readings = format::pluralize(estimate.samples as u64, "reading");
            format!("trend of {readings} over {}", format::duration(estimate.covered))
        }
        Basis::Average => "average since the window began".to_owned(),
        Basis::AverageSinceLowered => "average since the provider lowered it".to_owned(),
    };
    let rate_text = format!("{} % per hour", tenths(rate.percent_per_hour));
    let outcome: Vec<_> = runs_out(window, local).into_iter().chain(on_track(window)).collect();
    let outcome = if outcome.is_empty() { LASTS.to_owned() } else { outcome.join(", ") };
    format!("{rate_text}: {outcome} ({evidence})")
}

/// The projection of the rate without its evidence: `runs out in 1 h 4 min (22:27), 26 min early`.
#[must_use]
pub fn forecast(window: &WindowPace, local: &LocalTime) -> String {
    if window.estimate.is_rolled_over {
        return ROLLED_OVER.to_owned();
    }
    match &window.estimate.rate {
        None => needed(&window.estimate),
        Some(_) => runs_out(window, local).or_else(|| on_track(window)).unwrap_or_else(|| LASTS.to_owned()),
    }
}

/// How much data is missing for a rate.
fn needed(estimate: &Estimate) -> String {
    let readings = format::pluralize(estimate.samples as u64, "reading");
    let over = match estimate.samples {
        0 | 1 => String::new(),
        _ => format!(" over {}", format::duration(estimate.covered)),
    };
    format!("trend needs {} of data ({readings}{over} so far)", format::duration(estimate.required))
}

fn runs_out(window: &WindowPace, local: &LocalTime) -> Option<String> {
    let at = window.rate()?.exhausted_at?;
    let early = window.resets_at.map(|reset| format!(", {} early", format::duration(between(at, reset))));
    Some(format!("runs out {}{}", local.relative(at), early.unwrap_or_default()))
}

fn on_track(window: &WindowPace) -> Option<String> {
    Some(format!("on track for {} %", tenths(window.rate()?.at_reset_percent?)))
}

/// Formats with at most one decimal. Adding 0 removes the sign of -0.
fn tenths(number: f64) -> String {
    let rounded = (number * 10.0).round() / 10.0 + 0.0;
    format!("{rounded}")
}
