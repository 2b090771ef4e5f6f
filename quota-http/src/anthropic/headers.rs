//! Parses the rate-limit headers of Anthropic's ordinary API responses. Headers that report money are skipped, because only the usage
//! endpoint has reliable amounts.

use std::collections::BTreeMap;
use std::time::Duration;

use quota_core::model::{LimitStatus, OwnerId, WindowStatus};
use quota_core::{Percent, UsageReport, WindowId, WindowReading};

use super::ORGANIZATION;
use super::windows::WindowDef;
use crate::lenient::{is_short_text, parse_number, parse_timestamp};
use crate::parsed::SkippedField;
use quota_core::provider::retry_after;

/// The parsed rate-limit headers of a response.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ParsedHeaders {
    /// The reported windows. The report does not cover windows that have no headers.
    pub usage: UsageReport,
    /// The delay that the response demands, if the request was rejected. If no window is [`LimitStatus::Rejected`], the request rate
    /// was too high: wait, and keep using the account.
    pub retry_after: Option<Duration>,
    /// Rate-limit headers that were skipped, and why.
    pub skipped: Vec<SkippedField>,
}

/// Parses the headers of an ordinary API response.
///
/// Names are case-insensitive. If a header is repeated, its first value counts. `status` is that of the response, if available.
///
/// ```
/// use quota_core::Percent;
/// use quota_core::model::LimitStatus;
/// use quota_http::anthropic::parse_headers;
///
/// let headers = [
///     ("Anthropic-RateLimit-Unified-5h-Utilization", "0.94"),
///     ("anthropic-ratelimit-unified-5h-status", "allowed_warning"),
/// ];
/// let usage = parse_headers(Some(200), headers).usage;
///
/// assert_eq!(usage.windows[0].used, Percent::from_percent(94.0).unwrap());
/// assert_eq!(usage.window_statuses[0].status, LimitStatus::Warning);
/// ```
pub fn parse_headers<'a>(
    status: Option<u16>,
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> ParsedHeaders {
    let headers = Headers::collect(headers);
    let mut readings = HeaderReadings::default();
    readings.add_unified(&headers);
    readings.add_api_key_windows(&headers);
    let owner_id = headers.get(ORGANIZATION).filter(|id| !id.is_empty() && is_short_text(id));
    let is_rejected = status.is_none_or(|status| status >= 400);
    ParsedHeaders {
        usage: UsageReport::from_headers(readings.windows)
            .window_statuses(readings.window_statuses)
            .owner_id(owner_id.map(OwnerId::new)),
        retry_after: retry_after(|name| headers.get(name), None).filter(|_| is_rejected),
        skipped: readings.skipped,
    }
}

const RATELIMIT: &str = "anthropic-ratelimit-";
const UNIFIED: &str = "anthropic-ratelimit-unified-";
/// The windows of API keys: their names in headers, and their window ids.
const API_KEY_WINDOWS: [(&str, &str); 4] = [
    ("requests", "requests"),
    ("tokens", "tokens"),
    ("input-tokens", "input_tokens"),
    ("output-tokens", "output_tokens"),
];

/// The relevant headers, by lower-case name.
struct Headers<'a>(BTreeMap<String, &'a str>);

impl<'a> Headers<'a> {
    /// More than any real response has. The limit bounds the work for a hostile one.
    const MAX: usize = 256;

    fn collect(headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut relevant = BTreeMap::new();
        for (name, value) in headers {
            let name = name.to_ascii_lowercase();
            let known = [ORGANIZATION, "date", "retry-after", "retry-after-ms"];
            if relevant.len() < Self::MAX && (name.starts_with(RATELIMIT) || known.contains(&&*name)) {
                relevant.entry(name).or_insert_with(|| value.trim());
            }
        }
        Self(relevant)
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).copied()
    }

    fn with_prefix(&self, prefix: &str) -> impl Iterator<Item = (&str, &'a str)> {
        self.0.iter().filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, *value)))
    }
}

/// The raw header values of one window.
#[derive(Default)]
struct WindowHeaders<'a> {
    used: Option<&'a str>,
    status: Option<&'a str>,
    resets_at: Option<&'a str>,
}

/// The parsed readings.
#[derive(Default)]
struct HeaderReadings {
    windows: Vec<WindowReading>,
    window_statuses: Vec<WindowStatus>,
    skipped: Vec<SkippedField>,
}

impl HeaderReadings {
    fn skip(&mut self, header: String, reason: &'static str) {
        self.skipped.push(SkippedField::new(header, reason));
    }

    /// Adds the windows of subscriptions.
    fn add_unified(&mut self, headers: &Headers<'_>) {
        let mut windows = BTreeMap::<&str, WindowHeaders<'_>>::new();
        for (rest, value) in headers.with_prefix(UNIFIED) {
            match rest.rsplit_once('-') {
                _ if matches!(rest, "status" | "reset" | "representative-claim") => {}
                _ if rest.starts_with("overage-") => {
                    self.skip(format!("{UNIFIED}{rest}"), "headers about money are not used");
                }
                Some((window, "utilization")) => windows.entry(window).or_default().used = Some(value),
                Some((window, "status")) => windows.entry(window).or_default().status = Some(value),
                Some((window, "reset")) => windows.entry(window).or_default().resets_at = Some(value),
                _ => self.skip(format!("{UNIFIED}{rest}"), "not a reading"),
            }
        }
        for (name, window_headers) in &windows {
            self.add_window(name, window_headers);
        }
        if windows.values().all(|window_headers| window_headers.status.is_none()) {
            self.window_statuses.extend(overall_status(headers, &windows));
        }
    }

    fn add_window(&mut self, name: &str, window_headers: &WindowHeaders<'_>) {
        let header = |part| format!("{UNIFIED}{name}-{part}");
        let Some(named) = WindowDef::parse(usage_field(name)) else {
            return self.skip(header("*"), "not a valid window name");
        };
        let resets_at = window_headers.resets_at.and_then(parse_timestamp);
        match window_headers.status.map(parse_status) {
            None => {}
            Some(None) => self.skip(header("status"), "unknown status"),
            Some(Some(limit_status)) => {
                let status = WindowStatus::new(named.id.clone(), limit_status).scope(named.scope.clone());
                self.window_statuses.push(status.resets_at(resets_at));
            }
        }
        match window_headers.used.map(|text| parse_number(text).and_then(Percent::from_fraction)) {
            None => {}
            Some(None) => self.skip(header("utilization"), "not a fraction from 0 to 10"),
            Some(Some(used)) => self.windows.push(named.used(used).resets_at(resets_at)),
        }
    }

    /// Adds the windows of API keys, reported as counts of requests and tokens.
    fn add_api_key_windows(&mut self, headers: &Headers<'_>) {
        for (name, id) in API_KEY_WINDOWS {
            let part = |part| headers.get(&format!("{RATELIMIT}{name}-{part}"));
            let (limit, remaining) = (part("limit"), part("remaining"));
            if let Some(used) = used_fraction(limit, remaining) {
                let id = WindowId::new(id).expect("the names of this table are valid");
                let resets_at = part("reset").and_then(parse_timestamp);
                self.windows.push(WindowReading::new(id, used).resets_at(resets_at));
            } else if limit.or(remaining).is_some() {
                self.skip(format!("{RATELIMIT}{name}-limit"), "no used fraction can be computed");
            }
        }
        let is_handled = |rest: &str| {
            let family = rest.rsplit_once('-').map(|(family, _)| family);
            rest.starts_with("unified-") || API_KEY_WINDOWS.iter().any(|(name, _)| Some(*name) == family)
        };
        for (rest, _) in headers.with_prefix(RATELIMIT).filter(|(rest, _)| !is_handled(rest)) {
            self.skip(format!("{RATELIMIT}{rest}"), "unknown rate-limit header");
        }
    }
}

/// The overall status, for the window that `representative-claim` names. It is used if no window has a status of its own.
fn overall_status(
    headers: &Headers<'_>,
    windows: &BTreeMap<&str, WindowHeaders<'_>>,
) -> Option<WindowStatus> {
    let unified = |name| headers.get(&format!("{UNIFIED}{name}"));
    let named = WindowDef::parse(unified("representative-claim").filter(|claim| !claim.is_empty())?)?;
    let own = windows
        .iter()
        .find(|(name, _)| WindowDef::parse(usage_field(name)).is_some_and(|own| own.id == named.id));
    let resets_at = own.and_then(|(_, window_headers)| window_headers.resets_at).or_else(|| unified("reset"));
    let status = WindowStatus::new(named.id, parse_status(unified("status")?)?).scope(named.scope);
    Some(status.resets_at(resets_at.and_then(parse_timestamp)))
}

/// The name that the usage endpoint gives to a window in the headers.
fn usage_field(name: &str) -> &str {
    match name {
        "5h" => "five_hour",
        "7d" => "seven_day",
        "7d_oi" => "seven_day_overage_included",
        other => other,
    }
}

/// Parses a status; `None` if it is unknown.
pub(super) fn parse_status(status: &str) -> Option<LimitStatus> {
    match status {
        "allowed" => Some(LimitStatus::Allowed),
        "allowed_warning" => Some(LimitStatus::Warning),
        "rejected" => Some(LimitStatus::Rejected),
        _ => None,
    }
}

/// The used fraction, computed from the limit and the remaining amount.
fn used_fraction(limit: Option<&str>, remaining: Option<&str>) -> Option<Percent> {
    let limit = limit.and_then(parse_number).filter(|limit| *limit > 0.0)?;
    let remaining = remaining.and_then(parse_number)?;
    Percent::from_fraction((limit - remaining) / limit)
}

#[cfg(test)]
mod tests;
