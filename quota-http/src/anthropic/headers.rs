//! Parses the rate-limit headers of Anthropic's ordinary API responses. Extra usage becomes the window `overage`,
//! because only the usage endpoint reports amounts of money.

use std::time::Duration;

use quota_core::model::{LimitStatus, OwnerId, WindowStatus};
use quota_core::{Percent, UsageReport, WindowId, WindowReading};

use super::ORGANIZATION;
use super::windows::WindowDef;
use crate::lenient::{is_short_text, parse_number, parse_timestamp};
use crate::limit_headers::{HeaderReadings, LimitHeaders, Skipped, has_prefix, used_fraction};
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
    let mut relevant = LimitHeaders::default();
    for (name, value) in headers {
        let of_waits = ["date", "retry-after", "retry-after-ms"];
        if is_relevant(name) || of_waits.iter().any(|other| other.eq_ignore_ascii_case(name)) {
            relevant.push(name, value);
        }
    }
    let mut readings = HeaderReadings::new(Skipped::new(true));
    add_windows(&relevant, &mut readings);
    let is_rejected = status.is_none_or(|status| status >= 400);
    ParsedHeaders {
        usage: UsageReport::from_headers(readings.windows)
            .window_statuses(readings.window_statuses)
            .owner_id(owner_id(&relevant)),
        retry_after: retry_after(|name| relevant.get(name), None).filter(|_| is_rejected),
        skipped: readings.skipped.fields,
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

/// Whether this module reads the header with this name, in any case.
pub(super) fn is_relevant(name: &str) -> bool {
    // Fast path: most header names begin with another letter.
    matches!(name.as_bytes().first(), Some(b'a' | b'A'))
        && (has_prefix(name, RATELIMIT) || name.eq_ignore_ascii_case(ORGANIZATION))
}

/// The organization that the response belongs to.
pub(super) fn owner_id(headers: &LimitHeaders<'_>) -> Option<OwnerId> {
    headers.get(ORGANIZATION).filter(|id| is_short_text(id)).map(OwnerId::new)
}

/// Adds the windows that the headers report.
pub(super) fn add_windows(headers: &LimitHeaders<'_>, readings: &mut HeaderReadings) {
    let mut overall = Overall::default();
    let mut unified = Vec::<(&str, WindowHeaders<'_>)>::with_capacity(8);
    let mut counts = API_KEY_WINDOWS.map(|_| Counts::default());
    for (header, value) in headers.iter() {
        let Some(rest) = header.strip_prefix(RATELIMIT) else { continue };
        if let Some(rest) = rest.strip_prefix("unified-") {
            let field = match rest.rsplit_once('-') {
                _ if rest == "status" => &mut overall.status,
                _ if rest == "reset" => &mut overall.resets_at,
                Some(("representative", "claim")) => &mut overall.window,
                // This header states whether extra usage is allowed. It is `rejected` for every account without extra
                // usage, even if a window has quota left. So it must not count as the status of a window.
                Some(("overage" | "grace", "status")) => {
                    readings.skipped.add(|| header.to_owned(), "not the status of a window");
                    continue;
                }
                Some((name, "utilization")) => &mut entry(&mut unified, name).used,
                Some((name, "status")) => &mut entry(&mut unified, name).status,
                Some((name, "reset")) => &mut entry(&mut unified, name).resets_at,
                _ => {
                    readings.skipped.add(|| header.to_owned(), "not a reading");
                    continue;
                }
            };
            field.get_or_insert(value);
        } else {
            let family = rest.rsplit_once('-').and_then(|(family, part)| {
                let at = API_KEY_WINDOWS.iter().position(|(name, _)| *name == family)?;
                counts[at].part(part)
            });
            match family {
                Some(field) => _ = field.get_or_insert(value),
                None => readings.skipped.add(|| header.to_owned(), "unknown rate-limit header"),
            }
        }
    }
    unified.sort_unstable_by_key(|(name, _)| *name);
    for (name, window) in &unified {
        add_window(name, window, readings);
    }
    if let Some(status) = overall.status(&unified) {
        readings.window_statuses.push(status);
    }
    for ((name, id), Counts { limit, remaining, reset }) in API_KEY_WINDOWS.into_iter().zip(counts) {
        if let Some(used) = used_fraction(limit, remaining) {
            let id = WindowId::new(id).expect("the names of this table are valid");
            readings.add_count(WindowReading::new(id, used).resets_at(reset.and_then(parse_timestamp)));
        } else if limit.or(remaining).is_some() {
            readings.skipped.add(|| format!("{RATELIMIT}{name}-limit"), "no used fraction can be computed");
        }
    }
}

/// The values of one window of a subscription.
#[derive(Default)]
struct WindowHeaders<'a> {
    used: Option<&'a str>,
    status: Option<&'a str>,
    resets_at: Option<&'a str>,
}

fn entry<'w, 'a, 'n>(
    windows: &'w mut Vec<(&'n str, WindowHeaders<'a>)>,
    name: &'n str,
) -> &'w mut WindowHeaders<'a> {
    let at = windows.iter().position(|(other, _)| *other == name).unwrap_or_else(|| {
        windows.push((name, WindowHeaders::default()));
        windows.len() - 1
    });
    &mut windows[at].1
}

/// The values of one window of an API key.
#[derive(Default, Clone, Copy)]
struct Counts<'a> {
    limit: Option<&'a str>,
    remaining: Option<&'a str>,
    reset: Option<&'a str>,
}

impl<'a> Counts<'a> {
    fn part(&mut self, name: &str) -> Option<&mut Option<&'a str>> {
        match name {
            "limit" => Some(&mut self.limit),
            "remaining" => Some(&mut self.remaining),
            "reset" => Some(&mut self.reset),
            _ => None,
        }
    }
}

fn add_window(name: &str, window: &WindowHeaders<'_>, readings: &mut HeaderReadings) {
    let header = |part: &'static str| move || format!("{UNIFIED}{name}-{part}");
    let Some(named) = window_def(name) else {
        return readings.skipped.add(header("*"), "not a valid window name");
    };
    let resets_at = window.resets_at.and_then(parse_timestamp);
    match window.status.map(parse_status) {
        None => {}
        Some(None) => readings.skipped.add(header("status"), "unknown status"),
        Some(Some(limit_status)) => {
            let status = WindowStatus::new(named.id.clone(), limit_status).scope(named.scope.clone());
            readings.window_statuses.push(status.resets_at(resets_at));
        }
    }
    match window.used.map(|text| parse_number(text).and_then(Percent::from_fraction)) {
        None => {}
        Some(None) => readings.skipped.add(header("utilization"), "not a fraction from 0 to 10"),
        Some(Some(used)) => readings.add(named.used(used).resets_at(resets_at)),
    }
}

/// The values for all windows together.
#[derive(Default)]
struct Overall<'a> {
    status: Option<&'a str>,
    resets_at: Option<&'a str>,
    window: Option<&'a str>,
}

impl Overall<'_> {
    /// The overall status, which applies to the window that `representative-claim` names. It counts only if no window
    /// has its own status.
    fn status(&self, windows: &[(&str, WindowHeaders<'_>)]) -> Option<WindowStatus> {
        if windows.iter().any(|(_, window)| window.status.is_some()) {
            return None;
        }
        let named = window_def(self.window.filter(|claim| !claim.is_empty())?)?;
        let is_own = |name: &str| window_def(name).is_some_and(|own| own.id == named.id);
        let own = windows.iter().find(|(name, _)| is_own(name));
        let resets_at = own.and_then(|(_, window)| window.resets_at).or(self.resets_at);
        let status = WindowStatus::new(named.id, parse_status(self.status?)?).scope(named.scope);
        Some(status.resets_at(resets_at.and_then(parse_timestamp)))
    }
}

/// The window that the headers call `name`. For example, the usage endpoint's `seven_day_sonnet` is `7d_sonnet` in
/// headers.
fn window_def(name: &str) -> Option<WindowDef> {
    match name {
        "5h" => WindowDef::parse("five_hour"),
        "7d" => WindowDef::parse("seven_day"),
        "7d_oi" => WindowDef::parse("seven_day_overage_included"),
        "7d_opus" => WindowDef::parse("seven_day_opus"),
        "7d_sonnet" => WindowDef::parse("seven_day_sonnet"),
        _ => match name.strip_prefix("7d_") {
            Some(part) => WindowDef::parse(&format!("seven_day_{part}")),
            None => WindowDef::parse(name),
        },
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

#[cfg(test)]
mod tests;
