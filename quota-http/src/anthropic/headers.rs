//! The rate-limit headers that Anthropic puts on ordinary answers.
//! They speak of windows only in fractions, and never of money; what they say about it is listed and left out.

use std::collections::BTreeMap;
use std::time::Duration;

use quota_core::{Identity, Percent, Ruling, Usage, Verdict, WindowId, WindowReading};

use super::ORGANIZATION;
use super::windows::Named;
use crate::lenient::{is_word, parse_moment, parse_number};
use crate::parsed::Ignored;
use quota_core::retry_after;

/// What the headers of an answer say.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ParsedHeaders {
    /// What they say about windows. It speaks only about what it reports.
    pub usage: Usage,
    /// How long the provider asked to be left alone, if it turned the request away and said so. If no window is
    /// [`Ruling::Rejected`] beside it, only the pace was too high: wait, and stay with the account.
    pub retry_after: Option<Duration>,
    /// Rate-limit headers that were left out, and why.
    pub ignored: Vec<Ignored>,
}

/// Reads the headers of an answer to an ordinary request.
///
/// Names may be in any case. Where a header comes twice, the first counts. `status` is the answer's, where it is known.
///
/// ```
/// use quota_core::{Percent, Ruling};
/// use quota_http::anthropic::parse_headers;
///
/// let headers = [
///     ("Anthropic-RateLimit-Unified-5h-Utilization", "0.94"),
///     ("anthropic-ratelimit-unified-5h-status", "allowed_warning"),
/// ];
/// let usage = parse_headers(Some(200), headers).usage;
///
/// assert_eq!(usage.windows[0].used, Percent::from_percent(94.0).unwrap());
/// assert_eq!(usage.verdicts[0].ruling, Ruling::Warned);
/// ```
pub fn parse_headers<'a>(
    status: Option<u16>,
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> ParsedHeaders {
    let headers = Headers::collect(headers);
    let mut found = Found::default();
    found.take_unified(&headers);
    found.take_counted(&headers);
    let identity = headers.get(ORGANIZATION).filter(|id| !id.is_empty() && is_word(id));
    let was_turned_away = status.is_none_or(|status| status >= 400);
    ParsedHeaders {
        usage: Usage::from_headers(found.windows)
            .verdicts(found.verdicts)
            .identity(identity.map(Identity::new)),
        retry_after: retry_after(|name| headers.get(name), None).filter(|_| was_turned_away),
        ignored: found.ignored,
    }
}

const ALL: &str = "anthropic-ratelimit-";
const UNIFIED: &str = "anthropic-ratelimit-unified-";
/// The windows of API keys, as their headers and as our ids have them.
const COUNTED: [(&str, &str); 4] = [
    ("requests", "requests"),
    ("tokens", "tokens"),
    ("input-tokens", "input_tokens"),
    ("output-tokens", "output_tokens"),
];

/// The headers that matter here, by their names in lower case.
struct Headers<'a>(BTreeMap<String, &'a str>);

impl<'a> Headers<'a> {
    /// More than any answer has; a bound on what a hostile one makes us do.
    const MAX: usize = 256;

    fn collect(headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut kept = BTreeMap::new();
        for (name, value) in headers {
            let name = name.to_ascii_lowercase();
            let known = [ORGANIZATION, "date", "retry-after", "retry-after-ms"];
            if kept.len() < Self::MAX && (name.starts_with(ALL) || known.contains(&&*name)) {
                kept.entry(name).or_insert_with(|| value.trim());
            }
        }
        Self(kept)
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).copied()
    }

    fn below(&self, prefix: &str) -> impl Iterator<Item = (&str, &'a str)> {
        self.0.iter().filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, *value)))
    }
}

/// What the headers say about one window.
#[derive(Default)]
struct Said<'a> {
    used: Option<&'a str>,
    status: Option<&'a str>,
    resets_at: Option<&'a str>,
}

/// What was found.
#[derive(Default)]
struct Found {
    windows: Vec<WindowReading>,
    verdicts: Vec<Verdict>,
    ignored: Vec<Ignored>,
}

impl Found {
    fn ignore(&mut self, header: String, why: &'static str) {
        self.ignored.push(Ignored::new(header, why));
    }

    /// Reads the windows of subscriptions.
    fn take_unified(&mut self, headers: &Headers<'_>) {
        let mut windows = BTreeMap::<&str, Said<'_>>::new();
        for (rest, value) in headers.below(UNIFIED) {
            match rest.rsplit_once('-') {
                _ if matches!(rest, "status" | "reset" | "representative-claim") => {}
                _ if rest.starts_with("overage-") => {
                    self.ignore(format!("{UNIFIED}{rest}"), "headers are not believed about money");
                }
                Some((window, "utilization")) => windows.entry(window).or_default().used = Some(value),
                Some((window, "status")) => windows.entry(window).or_default().status = Some(value),
                Some((window, "reset")) => windows.entry(window).or_default().resets_at = Some(value),
                _ => self.ignore(format!("{UNIFIED}{rest}"), "not a reading"),
            }
        }
        for (name, said) in &windows {
            self.take_window(name, said);
        }
        if windows.values().all(|said| said.status.is_none()) {
            self.verdicts.extend(overall(headers, &windows));
        }
    }

    fn take_window(&mut self, name: &str, said: &Said<'_>) {
        let header = |part| format!("{UNIFIED}{name}-{part}");
        let Some(named) = Named::of(field_of(name)) else {
            return self.ignore(header("*"), "no window can have this name");
        };
        let resets_at = said.resets_at.and_then(parse_moment);
        match said.status.map(ruling) {
            None => {}
            Some(None) => self.ignore(header("status"), "not a known status"),
            Some(Some(ruling)) => {
                let verdict = Verdict::new(named.id.clone(), ruling).scope(named.scope.clone());
                self.verdicts.push(verdict.resets_at(resets_at));
            }
        }
        match said.used.map(|text| parse_number(text).and_then(Percent::from_fraction)) {
            None => {}
            Some(None) => self.ignore(header("utilization"), "not a fraction between 0 and 10"),
            Some(Some(used)) => self.windows.push(named.used(used).resets_at(resets_at)),
        }
    }

    /// Reads the windows of API keys, which are told in numbers of requests and tokens.
    fn take_counted(&mut self, headers: &Headers<'_>) {
        for (name, id) in COUNTED {
            let part = |part| headers.get(&format!("{ALL}{name}-{part}"));
            let (limit, remaining) = (part("limit"), part("remaining"));
            if let Some(used) = share(limit, remaining) {
                let id = WindowId::new(id).expect("the names of this table are valid");
                let resets_at = part("reset").and_then(parse_moment);
                self.windows.push(WindowReading::new(id, used).resets_at(resets_at));
            } else if limit.or(remaining).is_some() {
                self.ignore(format!("{ALL}{name}-limit"), "no share can be told from it");
            }
        }
        let is_known = |rest: &str| {
            let family = rest.rsplit_once('-').map(|(family, _)| family);
            rest.starts_with("unified-") || COUNTED.iter().any(|(name, _)| Some(*name) == family)
        };
        for (rest, _) in headers.below(ALL).filter(|(rest, _)| !is_known(rest)) {
            self.ignore(format!("{ALL}{rest}"), "an unknown family");
        }
    }
}

/// The verdict over everything, on the window that it is said to rest on. It stands in where no window has its own.
fn overall(headers: &Headers<'_>, windows: &BTreeMap<&str, Said<'_>>) -> Option<Verdict> {
    let unified = |name| headers.get(&format!("{UNIFIED}{name}"));
    let named = Named::of(unified("representative-claim").filter(|claim| !claim.is_empty())?)?;
    let own =
        windows.iter().find(|(name, _)| Named::of(field_of(name)).is_some_and(|own| own.id == named.id));
    let resets_at = own.and_then(|(_, said)| said.resets_at).or_else(|| unified("reset"));
    let verdict = Verdict::new(named.id, ruling(unified("status")?)?).scope(named.scope);
    Some(verdict.resets_at(resets_at.and_then(parse_moment)))
}

/// The name that the usage endpoint has for a window of the headers.
fn field_of(name: &str) -> &str {
    match name {
        "5h" => "five_hour",
        "7d" => "seven_day",
        "7d_oi" => "seven_day_overage_included",
        other => other,
    }
}

/// What a status says; `None` for a word that is not known.
pub(super) fn ruling(status: &str) -> Option<Ruling> {
    match status {
        "allowed" => Some(Ruling::Allowed),
        "allowed_warning" => Some(Ruling::Warned),
        "rejected" => Some(Ruling::Rejected),
        _ => None,
    }
}

/// How much is used, where the limit and what is left of it are told.
fn share(limit: Option<&str>, remaining: Option<&str>) -> Option<Percent> {
    let limit = limit.and_then(parse_number).filter(|limit| *limit > 0.0)?;
    let remaining = remaining.and_then(parse_number)?;
    Percent::from_fraction((limit - remaining) / limit)
}

#[cfg(test)]
mod tests;
