//! The JSON of the pace, for `quota pace --json` and the gateway. docs/pace-json.md describes it.

use jiff::Timestamp;
use quota_journal::pace::Basis;
use serde::Serialize;

use super::{AccountPace, WindowPace};
use crate::format::rfc3339;

/// The version of the document with these accounts.
pub const VERSION: u32 = 2;

/// The pace of an account as JSON.
#[derive(Debug, Serialize)]
pub struct AccountPaceJson<'a> {
    account: &'a str,
    windows: Vec<WindowPaceJson<'a>>,
}

#[derive(Debug, Serialize)]
struct WindowPaceJson<'a> {
    id: &'a str,
    used_percent: Option<f64>,
    certainty: &'static str,
    observed_at: String,
    elapsed_percent: Option<f64>,
    resets_at: Option<String>,
    enough: bool,
    basis: Option<&'static str>,
    percent_per_hour: Option<f64>,
    at_reset_percent: Option<f64>,
    exhausted_at: Option<String>,
    evidence: EvidenceJson,
}

#[derive(Debug, Serialize)]
struct EvidenceJson {
    samples: usize,
    span_seconds: u64,
}

impl<'a> AccountPaceJson<'a> {
    /// The pace at this time.
    #[must_use]
    pub fn of(account: &'a AccountPace, now: Timestamp) -> Self {
        let windows = account.windows.iter().map(|window| WindowPaceJson::of(window, now)).collect();
        Self { account: account.account.as_str(), windows }
    }
}

impl<'a> WindowPaceJson<'a> {
    fn of(window: &'a WindowPace, now: Timestamp) -> Self {
        let hundredths = |number: f64| (number * 100.0).round() / 100.0 + 0.0;
        let rate = window.rate();
        Self {
            id: &window.id,
            used_percent: window.used.map(quota::Percent::as_f64),
            certainty: match window.used {
                None => "unknown",
                Some(_) if window.is_stale => "at_least",
                Some(_) => "exact",
            },
            observed_at: rfc3339(window.observed_at),
            elapsed_percent: window.elapsed(now).map(|elapsed| hundredths(elapsed * 100.0)),
            resets_at: window.resets_at.map(rfc3339),
            enough: rate.is_some_and(|rate| rate.basis == Basis::Trend),
            basis: rate.map(|rate| match rate.basis {
                Basis::Trend => "trend",
                Basis::Average => "average",
                Basis::AverageSinceLowered => "average_since_lowered",
            }),
            percent_per_hour: rate.map(|rate| hundredths(rate.percent_per_hour)),
            at_reset_percent: rate.and_then(|rate| rate.at_reset_percent).map(hundredths),
            exhausted_at: rate.and_then(|rate| rate.exhausted_at).map(rfc3339),
            evidence: EvidenceJson {
                samples: window.estimate.samples,
                span_seconds: window.estimate.covered.as_secs(),
            },
        }
    }
}
