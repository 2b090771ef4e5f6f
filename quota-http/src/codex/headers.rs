//! The headers that OpenAI puts on the answers of Codex.
//! A window is known by its length, never by the slot it stands in: a weekly one may stand in the first.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use quota_core::{Percent, WindowId, WindowReading, plausible_reset, wait_of_seconds};

use crate::lenient::{epoch, parse_number};
use crate::parsed::Ignored;

/// What the headers of an answer say.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What they say of the whole account.
    pub(super) slots: Vec<Slot>,
    /// The limit that has turned the request away, if it is not that of the whole account: a name for people.
    pub(super) limit: Option<String>,
    /// What they say of that limit. It is not kept as a reading, since it is of a part of the account.
    pub(super) of_limit: Vec<Slot>,
    pub(super) ignored: Vec<Ignored>,
}

/// One slot of a family of headers.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) used: Percent,
    pub(super) resets_at: Option<Timestamp>,
    /// Which window it is and how long, if its length is told.
    pub(super) window: Option<(WindowId, Duration)>,
}

const PREFIX: &str = "x-codex-";
const SLOTS: [&str; 3] = ["primary", "secondary", "tertiary"];
/// The limit of the whole account, as `x-codex-active-limit` names it.
const WHOLE: &str = "codex";
/// More than any answer has; a bound on what a hostile one makes us do.
const MOST: usize = 256;

/// Reads the headers of an answer that arrived at `now`. Names may be in any case.
pub(super) fn read<'a>(headers: impl Iterator<Item = (&'a str, &'a str)>, now: Timestamp) -> Found {
    let mut known = BTreeMap::<String, &str>::new();
    for (name, value) in headers {
        let name = name.to_ascii_lowercase();
        if known.len() < MOST && name.starts_with(PREFIX) {
            known.entry(name).or_insert_with(|| value.trim());
        }
    }
    let mut found = Found::default();
    found.slots = slots(&known, PREFIX, now, &mut found.ignored);
    let active = known.get("x-codex-active-limit").map(|limit| limit.to_ascii_lowercase());
    if let Some(active) = active.filter(|limit| !limit.is_empty() && limit != WHOLE) {
        // `codex_fast` is told of in `x-codex-fast-…`.
        let prefix = format!("x-{}-", active.replace('_', "-"));
        found.of_limit = slots(&known, &prefix, now, &mut found.ignored);
        let name = known.get(&format!("{prefix}limit-name")).copied();
        let is_name = |name: &&str| !name.is_empty() && crate::lenient::is_word(name);
        found.limit = name.filter(is_name).map(str::to_owned).or(Some(active).filter(|id| is_name(&&**id)));
    }
    found
}

/// Reads the slots whose headers begin with this.
fn slots(
    known: &BTreeMap<String, &str>,
    prefix: &str,
    now: Timestamp,
    ignored: &mut Vec<Ignored>,
) -> Vec<Slot> {
    let mut slots = Vec::new();
    for slot in SLOTS {
        let header = |part: &str| format!("{prefix}{slot}-{part}");
        let text = |part: &str| known.get(&header(part)).copied().filter(|text| !text.is_empty());
        let number = |part: &str| text(part).and_then(parse_number);
        let Some(used) = text("used-percent") else { continue };
        let Some(used) = parse_number(used).and_then(Percent::from_percent) else {
            ignored.push(Ignored::new(header("used-percent"), "its use is not between 0 % and 1,000 %"));
            continue;
        };
        let resets_at = number("reset-at").and_then(epoch).or_else(|| {
            let span = wait_of_seconds(number("reset-after-seconds")?, Some(now))?;
            now.checked_add(span).ok().filter(|_| !span.is_zero())
        });
        let window = number("window-minutes").filter(|minutes| *minutes > 0.0).and_then(named);
        let length = window.as_ref().map(|(_, length)| *length);
        let plausible = resets_at.and_then(|at| plausible_reset(at, length, now));
        if plausible != resets_at {
            ignored.push(Ignored::new(header("reset-at"), "its reset is implausible"));
        }
        let resets_at = plausible;
        if window.is_none() {
            // Nothing but zeros is how it says that there is no such limit.
            if used == Percent::ZERO && resets_at.is_none() {
                continue;
            }
            ignored.push(Ignored::new(header("window-minutes"), "its length is not told"));
        }
        slots.push(Slot { used, resets_at, window });
    }
    slots
}

impl Found {
    /// The windows of the whole account. Of two slots about one the one that leaves less stands.
    pub(super) fn windows(&self) -> impl Iterator<Item = WindowReading> {
        let mut windows = BTreeMap::<WindowId, WindowReading>::new();
        for slot in &self.slots {
            let Some((id, length)) = slot.window.clone() else { continue };
            if windows.get(&id).is_none_or(|known| known.used < slot.used) {
                let reading = WindowReading::new(id.clone(), slot.used).resets_at(slot.resets_at);
                windows.insert(id, reading.length(length));
            }
        }
        windows.into_values()
    }
}

/// The window of so many minutes. Lengths are told a little off at times; one that is not known keeps its number.
fn named(minutes: f64) -> Option<(WindowId, Duration)> {
    const FIVE_HOURS: f64 = 300.0;
    const WEEK: f64 = 7.0 * 24.0 * 60.0;
    const MONTH: std::ops::RangeInclusive<f64> = 28.0 * 24.0 * 60.0..=31.0 * 24.0 * 60.0;
    let length = Duration::try_from_secs_f64(minutes * 60.0).ok()?;
    let is_about = |known: f64| (minutes - known).abs() <= known * 0.02;
    let id = match minutes {
        minutes if MONTH.contains(&minutes) => WindowId::monthly(),
        _ if is_about(FIVE_HOURS) => WindowId::five_hour(),
        _ if is_about(WEEK) => WindowId::seven_day(),
        _ => WindowId::new(&format!("{}_minutes", minutes.round())).ok()?,
    };
    Some((id, length))
}
