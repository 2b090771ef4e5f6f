//! Rate-limit headers that are not specific to a provider: `x-ratelimit-…`, and the IETF's `RateLimit` with its older
//! forms.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use quota_core::provider::wait_of_seconds;
use quota_core::{WindowId, WindowReading};
use sfv::{BareItem, Dictionary, Item, ListEntry, Parser};

use crate::lenient::{parse_number, parse_timestamp};
use crate::limit_headers::{HeaderReadings, LimitHeaders, has_prefix, used_of};

const X_RATELIMIT: &str = "x-ratelimit-";
const RATELIMIT: &str = "ratelimit-";
const RATELIMIT_LIMITS: &str = "ratelimit";
const RATELIMIT_POLICY: &str = "ratelimit-policy";
/// The window of headers that do not name one.
const UNNAMED: &str = "rate_limit";
/// The maximum number of policies and limits in one response. No real response has as many. It bounds the work for a
/// hostile response.
const MAX_MEMBERS: usize = HeaderReadings::MAX_WINDOWS;

/// Whether the header with this name, in any case, may report a limit.
pub(crate) fn is_generic(name: &str) -> bool {
    // Fast path: most header names begin with another letter.
    match name.as_bytes().first() {
        Some(b'x' | b'X') => has_prefix(name, X_RATELIMIT),
        Some(b'r' | b'R') => has_prefix(name, RATELIMIT) || name.eq_ignore_ascii_case(RATELIMIT_LIMITS),
        _ => false,
    }
}

/// Adds the windows of a response that arrived at `now`, except those that are already in `readings`.
///
/// - `x-ratelimit-{limit,remaining,reset}-{name}`, as OpenAI and many others send them. The reset is a Go duration such as
///   `6m0s`, a number of seconds, a Unix time, or a date. Without a name, the window is `rate_limit`.
/// - `RateLimit` and `RateLimit-Policy` of [draft-ietf-httpapi-ratelimit-headers], and `RateLimit-{Limit,Remaining,Reset}` of
///   its drafts up to 06. A policy without a remaining amount is not a reading.
///
/// [draft-ietf-httpapi-ratelimit-headers]: https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/
pub(crate) fn add_generic(headers: &LimitHeaders<'_>, now: Timestamp, readings: &mut HeaderReadings) {
    if !headers.iter().any(|(name, _)| is_generic(name)) {
        return;
    }
    let mut found = HeaderReadings::new(std::mem::take(&mut readings.skipped));
    add_counts(headers, now, &mut found);
    add_policies(headers, now, &mut found);
    readings.skipped = found.skipped;
    readings.replenished_at = readings.replenished_at.max(found.replenished_at);
    let own = readings.windows.len();
    for window in found.windows {
        if readings.windows[..own].iter().all(|other| other.id != window.id) {
            readings.add(window);
        }
    }
}

/// One limit, whose values are in three headers.
struct Counts<'a> {
    prefix: &'static str,
    name: &'a str,
    limit: Option<&'a str>,
    remaining: Option<&'a str>,
    reset: Option<&'a str>,
}

fn add_counts(headers: &LimitHeaders<'_>, now: Timestamp, readings: &mut HeaderReadings) {
    let mut families = Vec::<Counts<'_>>::new();
    for (header, value) in headers.iter() {
        let (prefix, rest) = match header.strip_prefix(X_RATELIMIT) {
            Some(rest) => (X_RATELIMIT, rest),
            None => match header.strip_prefix(RATELIMIT) {
                Some(rest) if header != RATELIMIT_POLICY => (RATELIMIT, rest),
                _ => continue,
            },
        };
        let (part, name) = rest.split_once('-').unwrap_or((rest, ""));
        let is_part = matches!(part, "limit" | "remaining" | "reset");
        if !is_part || (prefix == RATELIMIT && !name.is_empty()) {
            readings.skipped.add(|| header.to_owned(), "unknown rate-limit header");
            continue;
        }
        let at = families.iter().position(|family| (family.prefix, family.name) == (prefix, name));
        let at = at.unwrap_or_else(|| {
            families.push(Counts { prefix, name, limit: None, remaining: None, reset: None });
            families.len() - 1
        });
        let family = &mut families[at];
        let field = match part {
            "limit" => &mut family.limit,
            "remaining" => &mut family.remaining,
            _ => &mut family.reset,
        };
        field.get_or_insert(value);
    }
    families.sort_unstable_by_key(|family| family.name);
    for Counts { prefix, name, limit, remaining, reset } in families {
        let (limit, length) = match (prefix, limit) {
            (RATELIMIT, Some(text)) => listed_limit(text),
            (_, text) => (text.and_then(parse_number), None),
        };
        let header = |part: &str| match name {
            "" => format!("{prefix}{part}"),
            name => format!("{prefix}{part}-{name}"),
        };
        let remaining_amount = remaining.and_then(parse_number);
        let Some(used) = limit.zip(remaining_amount).and_then(|(limit, left)| used_of(limit, left)) else {
            readings.skipped.add(|| header("limit"), "no used fraction can be computed");
            continue;
        };
        let id =
            if name.is_empty() { WindowId::new(UNNAMED) } else { WindowId::new(&name.replace('-', "_")) };
        let Ok(id) = id else {
            readings.skipped.add(|| header("limit"), "not a valid window name");
            continue;
        };
        let resets_at = reset.and_then(|text| reset_at(text, now));
        if reset.is_some() && resets_at.is_none() {
            readings.skipped.add(|| header("reset"), "not a duration or a time");
        }
        readings.add_count(WindowReading::new(id, used).resets_at(resets_at).length(length));
    }
}

/// The limit of `RateLimit-Limit`, and the length of its window: `100`, or `100, 100;w=60` with the policies that follow it.
fn listed_limit(text: &str) -> (Option<f64>, Option<Duration>) {
    let mut members = members(text);
    let Some(first) = members.next().and_then(|member| Parser::new(member).parse::<Item>().ok()) else {
        return (parse_number(text), None);
    };
    let limit = number(&first.bare_item);
    let others = members.filter_map(|member| Parser::new(member).parse::<Item>().ok());
    let same = std::iter::once(first.clone()).chain(others).filter(|item| number(&item.bare_item) == limit);
    let mut lengths = same.filter_map(|item| length(&item));
    (limit, lengths.next())
}

/// When a window resets: after a duration or a number of seconds, or at a time.
fn reset_at(text: &str, now: Timestamp) -> Option<Timestamp> {
    let wait = match parse_number(text) {
        Some(seconds) => wait_of_seconds(seconds, Some(now))?,
        None => match parse_duration(text) {
            Some(wait) => wait,
            None => return parse_timestamp(text),
        },
    };
    now.checked_add(wait).ok()
}

/// Parses a duration as Go writes it, such as `1h2m3.5s` and `17ms`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let duration: SignedDuration = text.trim().parse().ok()?;
    Duration::try_from(duration).ok()
}

/// A policy of `RateLimit-Policy`, or a limit of `RateLimit`.
struct Member {
    name: String,
    quota: Option<f64>,
    remaining: Option<f64>,
    reset: Option<f64>,
    length: Option<Duration>,
}

fn add_policies(headers: &LimitHeaders<'_>, now: Timestamp, readings: &mut HeaderReadings) {
    let (mut policies, mut limits) = (Vec::new(), Vec::new());
    // Draft 07 sends the parts of its single limit as members of a dictionary.
    let mut parts =
        Member { name: UNNAMED.to_owned(), quota: None, remaining: None, reset: None, length: None };
    let mut left = MAX_MEMBERS;
    for (header, value) in headers.iter() {
        let read = match header {
            RATELIMIT_POLICY => &mut policies,
            RATELIMIT_LIMITS => &mut limits,
            _ => continue,
        };
        for member in members(value).take(left) {
            left -= 1;
            if let Some(member) = Parser::new(member).parse::<Item>().ok().and_then(|item| member_of(&item)) {
                read.push(member);
            } else if !(header == RATELIMIT_LIMITS && add_part(member, &mut parts)) {
                readings.skipped.add(|| header.to_owned(), "not a structured field");
            }
        }
    }
    if parts.remaining.is_some() {
        limits.push(parts);
    }
    for limit in &limits {
        // Draft 07 names no policy, so only the quota identifies it.
        let is_named = limit.name != UNNAMED || limit.quota.is_none();
        let policy = policies.iter().find(|policy| {
            let is_same = is_named || policy.quota == limit.quota;
            policy.name == limit.name && policy.quota.is_some() && is_same
        });
        let quota = limit.quota.or_else(|| policy?.quota);
        let used = quota.zip(limit.remaining).and_then(|(quota, remaining)| used_of(quota, remaining));
        let (Some(used), Ok(id)) = (used, WindowId::new(&limit.name)) else {
            readings.skipped.add(|| RATELIMIT_LIMITS.to_owned(), "no used fraction can be computed");
            continue;
        };
        let wait = limit.reset.and_then(|seconds| wait_of_seconds(seconds, Some(now)));
        let resets_at = wait.and_then(|wait| now.checked_add(wait).ok());
        let length = limit.length.or_else(|| policy?.length);
        readings.add_count(WindowReading::new(id, used).resets_at(resets_at).length(length));
    }
    for policy in policies {
        if limits.iter().all(|limit| limit.name != policy.name) {
            readings.skipped.add(|| RATELIMIT_POLICY.to_owned(), "a policy without a remaining amount");
        }
    }
}

/// Reads `"burst";q=100;w=60` and `"burst";r=50;t=30`; or `100;w=60`, a policy of the drafts up to 07.
fn member_of(item: &Item) -> Option<Member> {
    let parameter = |key: &str| number(item.params.get(key)?);
    let (name, quota) = match &item.bare_item {
        BareItem::String(name) => (name.as_str(), parameter("q")),
        BareItem::Token(name) => (name.as_str(), parameter("q")),
        other => (UNNAMED, Some(number(other)?)),
    };
    Some(Member {
        name: name.to_owned(),
        quota,
        remaining: parameter("r"),
        reset: parameter("t"),
        length: length(item),
    })
}

/// Reads a member of `limit=100, remaining=50, reset=5`; `false` if it is not one.
fn add_part(member: &str, parts: &mut Member) -> bool {
    let Ok(dictionary) = Parser::new(member).parse::<Dictionary>() else { return false };
    let mut is_part = false;
    for (key, entry) in &dictionary {
        let ListEntry::Item(item) = entry else { continue };
        let field = match key.as_str() {
            "limit" => &mut parts.quota,
            "remaining" => &mut parts.remaining,
            "reset" => &mut parts.reset,
            _ => continue,
        };
        *field = number(&item.bare_item);
        is_part = field.is_some();
    }
    is_part
}

/// The length of a window, from the parameter `w` in seconds.
fn length(item: &Item) -> Option<Duration> {
    let seconds = number(item.params.get("w")?).filter(|seconds| *seconds > 0.0)?;
    Duration::try_from_secs_f64(seconds).ok()
}

fn number(item: &BareItem) -> Option<f64> {
    match item {
        BareItem::Integer(number) => Some(i64::from(*number) as f64),
        BareItem::Decimal(number) => Some(f64::from(*number)),
        BareItem::String(text) => parse_number(text.as_str()),
        _ => None,
    }
}

/// The members of a list, split at the commas outside of strings. A malformed member does not affect the others,
/// whereas a strict parser would reject the whole field.
fn members(text: &str) -> impl Iterator<Item = &str> {
    let (mut in_string, mut is_escaped) = (false, false);
    let members = text.split(move |c: char| {
        if in_string {
            in_string = is_escaped || c != '"';
            is_escaped = c == '\\' && !is_escaped;
            return false;
        }
        in_string = c == '"';
        c == ','
    });
    members.map(str::trim).filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests;
