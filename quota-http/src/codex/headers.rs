//! Parses the rate-limit headers of OpenAI's responses to Codex: `x-codex-…` for the account, and `x-<limit>-…` for
//! limits on a part of it. A window is identified by its length, not by its slot: the first slot may contain a weekly
//! window.

use std::time::Duration;

use jiff::Timestamp;
use quota_core::model::Scope;
use quota_core::{Percent, WindowId, WindowReading};

use super::money;
use crate::lenient::{after, from_epoch, is_short_text, parse_number};
use crate::limit_headers::{HeaderReadings, LimitHeaders, has_prefix};
use crate::report::IMPLAUSIBLE;
use crate::window_length::window_of_length;

const SLOTS: [&str; 3] = ["primary", "secondary", "tertiary"];
const PARTS: [&str; 4] = ["used-percent", "window-minutes", "reset-at", "reset-after-seconds"];
/// The account's limit, as the headers name it.
const ACCOUNT_LIMIT: &str = "codex";

/// Whether the header with this name, in any case, is one of these.
pub(super) fn is_relevant(name: &str) -> bool {
    // A limit may have any name, so check only the other parts of the header's name.
    has_prefix(name, "x-codex-")
        || (has_prefix(name, "x-")
            && (has_suffix(name, "-limit-name") || PARTS.iter().any(|part| has_suffix(name, part))))
}

fn has_suffix(name: &str, suffix: &str) -> bool {
    let start = name.len().checked_sub(suffix.len());
    start.is_some_and(|start| name.as_bytes()[start..].eq_ignore_ascii_case(suffix.as_bytes()))
}

/// The headers of one limit.
#[derive(Default)]
struct Limit<'a> {
    /// The name in the headers: `codex`, or `codex-bengalfox`.
    id: &'a str,
    name: Option<&'a str>,
    slots: [[Option<&'a str>; PARTS.len()]; SLOTS.len()],
}

/// Adds the windows of a response that arrived at `now`.
///
/// If a limit is not the account's, its windows count only the models of that limit. So they have the scope of these
/// models, and differ from the account's windows of the same length. If such a limit is active, the headers of the
/// account may repeat its numbers.
pub(super) fn read(headers: &LimitHeaders<'_>, now: Timestamp, readings: &mut HeaderReadings) {
    let mut limits = Vec::<Limit<'_>>::new();
    let mut active = None;
    let [mut has_credits, mut unlimited, mut balance] = [None; 3];
    for (header, value) in headers.iter() {
        let Some(rest) = header.strip_prefix("x-") else { continue };
        if rest == "codex-active-limit" {
            active = active.or(Some(value));
        } else if let Some(part) = rest.strip_prefix("codex-credits-") {
            let field = match part {
                "has-credits" => &mut has_credits,
                "unlimited" => &mut unlimited,
                "balance" => &mut balance,
                _ => {
                    readings.skipped.add(|| header.to_owned(), "not a reading");
                    continue;
                }
            };
            field.get_or_insert(value);
        } else if let Some(id) = rest.strip_suffix("-limit-name") {
            entry(&mut limits, id).name.get_or_insert(value);
        } else if let Some((id, slot, part)) = slot_of(rest) {
            entry(&mut limits, id).slots[slot][part].get_or_insert(value);
        } else if has_prefix(rest, "codex-") {
            readings.skipped.add(|| header.to_owned(), "not a reading");
        }
    }
    readings.credits = money::of_headers(has_credits, unlimited, balance);
    // Read the account's limit first, and then the others in the order of their names.
    limits.sort_unstable_by_key(|limit| (limit.id != ACCOUNT_LIMIT, limit.id));
    let active = active.map(|active| active.to_ascii_lowercase().replace('_', "-"));
    // If there are no headers with this name, such as `premium`, it is another name for the account's limit. It must
    // not become a model.
    let active = limits.iter().find(|limit| Some(limit.id) == active.as_deref());
    readings.active_scope = active.and_then(Limit::scope);
    let other = active.filter(|active| active.id != ACCOUNT_LIMIT);
    for limit in &limits {
        for (at, (slot, parts)) in SLOTS.iter().zip(&limit.slots).enumerate() {
            let is_repeated = |other: &Limit<'_>| parts[0].is_some() && other.slots[at][0] == parts[0];
            if limit.id == ACCOUNT_LIMIT && other.is_some_and(is_repeated) {
                let header = || format!("x-{}-{slot}-{}", limit.id, PARTS[0]);
                readings.skipped.add(header, "it repeats the active limit");
                continue;
            }
            add_slot(limit, slot, parts, now, readings);
        }
    }
}

/// Splits `codex-primary-used-percent` into the limit and the positions of the slot and the part.
fn slot_of(rest: &str) -> Option<(&str, usize, usize)> {
    let (part, rest) = PARTS
        .iter()
        .enumerate()
        .find_map(|(at, part)| Some((at, rest.strip_suffix(part)?.strip_suffix('-')?)))?;
    let (id, slot) = rest.rsplit_once('-')?;
    let slot = SLOTS.iter().position(|other| *other == slot)?;
    (!id.is_empty()).then_some((id, slot, part))
}

fn entry<'l, 'a>(limits: &'l mut Vec<Limit<'a>>, id: &'a str) -> &'l mut Limit<'a> {
    let at = limits.iter().position(|limit| limit.id == id).unwrap_or_else(|| {
        limits.push(Limit { id, ..Limit::default() });
        limits.len() - 1
    });
    &mut limits[at]
}

impl Limit<'_> {
    /// The scope of the limit; `None` for the whole account.
    fn scope(&self) -> Option<Scope> {
        if self.id == ACCOUNT_LIMIT {
            return None;
        }
        self.name.and_then(model_scope).or_else(|| model_scope(self.id))
    }

    /// The window of this limit that corresponds to this account-wide id.
    fn window(&self, id: Option<WindowId>, slot: &str) -> Option<WindowId> {
        if self.id == ACCOUNT_LIMIT {
            return id;
        }
        match id {
            Some(id) => id.for_model(&self.scope()?.model?).ok(),
            // Without a length, only the limit identifies the window.
            None if slot == SLOTS[0] => WindowId::new(&self.id.replace('-', "_")).ok(),
            None => WindowId::new(&format!("{}_{slot}", self.id.replace('-', "_"))).ok(),
        }
    }
}

fn model_scope(name: &str) -> Option<Scope> {
    is_short_text(name).then(|| Scope::model(name))
}

/// Adds the window of one slot.
fn add_slot(
    limit: &Limit<'_>,
    slot: &str,
    parts: &[Option<&str>; PARTS.len()],
    now: Timestamp,
    readings: &mut HeaderReadings,
) {
    let header = |part: &'static str| move || format!("x-{}-{slot}-{part}", limit.id);
    let [used, minutes, reset_at, reset_after] = parts.map(|text| text.filter(|text| !text.is_empty()));
    let Some(used) = used else { return };
    let Some(used) = parse_number(used).and_then(Percent::from_percent) else {
        return readings.skipped.add(header(PARTS[0]), IMPLAUSIBLE);
    };
    let resets_at = reset_at
        .and_then(parse_number)
        .and_then(from_epoch)
        .or_else(|| after(parse_number(reset_after?)?, now));
    let minutes = minutes.and_then(parse_number).filter(|minutes| *minutes > 0.0);
    let known = minutes.and_then(window_for);
    // All zeros mean that the limit does not exist.
    if known.is_none() && used == Percent::ZERO && resets_at.is_none() {
        return;
    }
    let (id, length) = known.unzip();
    let Some(id) = limit.window(id, slot) else {
        if used >= Percent::FULL {
            readings.unnamed_reset = readings.unnamed_reset.max(resets_at);
        }
        return readings.skipped.add(header(PARTS[1]), "its length is missing");
    };
    readings.add(WindowReading::new(id, used).resets_at(resets_at).length(length).scope(limit.scope()));
}

fn window_for(minutes: f64) -> Option<(WindowId, Duration)> {
    let length = Duration::try_from_secs_f64(minutes * 60.0).ok()?;
    Some((window_of_length(length)?, length))
}
