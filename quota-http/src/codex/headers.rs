//! Parses the `x-codex-…` headers of OpenAI's responses to Codex. The length of a window identifies it, not its slot: the first
//! slot may contain a weekly window.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use quota_core::model::plausible_reset;
use quota_core::provider::wait_of_seconds;
use quota_core::{Percent, WindowId, WindowReading};

use crate::lenient::{from_epoch, parse_number};
use crate::parsed::SkippedField;

/// The parsed headers of a response.
#[derive(Debug, Default)]
pub(super) struct CodexHeaders {
    /// The windows of the whole account.
    pub(super) slots: Vec<Slot>,
    /// The display name of the limit that rejected the request, if it is not the account's limit.
    pub(super) limit: Option<String>,
    /// The windows of that limit. They are not readings of the account, because they count only a part of it.
    pub(super) active_limit_slots: Vec<Slot>,
    pub(super) skipped: Vec<SkippedField>,
}

/// One slot (`primary`, `secondary`, `tertiary`) of a limit's headers.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) used: Percent,
    pub(super) resets_at: Option<Timestamp>,
    /// The window and its length, if the length is reported.
    pub(super) window: Option<(WindowId, Duration)>,
}

const PREFIX: &str = "x-codex-";
const SLOTS: [&str; 3] = ["primary", "secondary", "tertiary"];
/// The account's limit, as named in `x-codex-active-limit`.
const ACCOUNT_LIMIT: &str = "codex";
/// More than any real response has. The limit bounds the work for a hostile one.
const MAX_HEADERS: usize = 256;

/// Parses the headers of a response that arrived at `now`. Names are case-insensitive.
pub(super) fn read<'a>(headers: impl Iterator<Item = (&'a str, &'a str)>, now: Timestamp) -> CodexHeaders {
    let mut by_name = BTreeMap::<String, &str>::new();
    for (name, value) in headers {
        let name = name.to_ascii_lowercase();
        if by_name.len() < MAX_HEADERS && name.starts_with(PREFIX) {
            by_name.entry(name).or_insert_with(|| value.trim());
        }
    }
    let mut headers = CodexHeaders::default();
    headers.slots = slots(&by_name, PREFIX, now, &mut headers.skipped);
    let active = by_name.get("x-codex-active-limit").map(|limit| limit.to_ascii_lowercase());
    if let Some(active) = active.filter(|limit| !limit.is_empty() && limit != ACCOUNT_LIMIT) {
        // The headers of `codex_fast` begin with `x-codex-fast-`.
        let prefix = format!("x-{}-", active.replace('_', "-"));
        headers.active_limit_slots = slots(&by_name, &prefix, now, &mut headers.skipped);
        let name = by_name.get(&format!("{prefix}limit-name")).copied();
        let is_name = |name: &&str| !name.is_empty() && crate::lenient::is_short_text(name);
        headers.limit = name.filter(is_name).map(str::to_owned).or(Some(active).filter(|id| is_name(&&**id)));
    }
    headers
}

/// Parses the slots whose headers begin with `prefix`.
fn slots(
    by_name: &BTreeMap<String, &str>,
    prefix: &str,
    now: Timestamp,
    skipped: &mut Vec<SkippedField>,
) -> Vec<Slot> {
    let mut slots = Vec::new();
    for slot in SLOTS {
        let header = |part: &str| format!("{prefix}{slot}-{part}");
        let text = |part: &str| by_name.get(&header(part)).copied().filter(|text| !text.is_empty());
        let number = |part: &str| text(part).and_then(parse_number);
        let Some(used) = text("used-percent") else { continue };
        let Some(used) = parse_number(used).and_then(Percent::from_percent) else {
            skipped
                .push(SkippedField::new(header("used-percent"), "its usage is not between 0 % and 1,000 %"));
            continue;
        };
        let resets_at = number("reset-at").and_then(from_epoch).or_else(|| {
            let wait = wait_of_seconds(number("reset-after-seconds")?, Some(now))?;
            now.checked_add(wait).ok().filter(|_| !wait.is_zero())
        });
        let window = number("window-minutes").filter(|minutes| *minutes > 0.0).and_then(window_for);
        let length = window.as_ref().map(|(_, length)| *length);
        let plausible = resets_at.and_then(|at| plausible_reset(at, length, now));
        if plausible != resets_at {
            skipped.push(SkippedField::new(header("reset-at"), "its reset is implausible"));
        }
        let resets_at = plausible;
        if window.is_none() {
            // All zeros mean that the limit does not exist.
            if used == Percent::ZERO && resets_at.is_none() {
                continue;
            }
            skipped.push(SkippedField::new(header("window-minutes"), "its length is missing"));
        }
        slots.push(Slot { used, resets_at, window });
    }
    slots
}

impl CodexHeaders {
    /// The windows of the whole account. If two slots name the same window, the larger use counts.
    pub(super) fn windows(&self) -> impl Iterator<Item = WindowReading> {
        let mut windows = BTreeMap::<WindowId, WindowReading>::new();
        for slot in &self.slots {
            let Some((id, length)) = slot.window.clone() else { continue };
            if windows.get(&id).is_none_or(|other| other.used < slot.used) {
                let reading = WindowReading::new(id.clone(), slot.used).resets_at(slot.resets_at);
                windows.insert(id, reading.length(length));
            }
        }
        windows.into_values()
    }
}

/// The window with this length. Reported lengths vary slightly. An unknown length becomes part of the id.
fn window_for(minutes: f64) -> Option<(WindowId, Duration)> {
    const FIVE_HOURS: f64 = 300.0;
    const WEEK: f64 = 7.0 * 24.0 * 60.0;
    const MONTH: std::ops::RangeInclusive<f64> = 28.0 * 24.0 * 60.0..=31.0 * 24.0 * 60.0;
    let length = Duration::try_from_secs_f64(minutes * 60.0).ok()?;
    let is_about = |length: f64| (minutes - length).abs() <= length * 0.02;
    let id = match minutes {
        minutes if MONTH.contains(&minutes) => WindowId::monthly(),
        _ if is_about(FIVE_HOURS) => WindowId::five_hour(),
        _ if is_about(WEEK) => WindowId::seven_day(),
        _ => WindowId::new(&format!("{}_minutes", minutes.round())).ok()?,
    };
    Some((id, length))
}
