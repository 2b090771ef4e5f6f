//! The merged readings of an account, which arrive in any order.
//! The merge is commutative, associative and idempotent, so the order and number of merges do not matter.

use std::collections::BTreeMap;
use std::mem::take;
use std::sync::LazyLock;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::bounds::is_too_far;
use super::extra_fields::ExtraFields;
use super::peak::Peak;
use super::plausibility::check_reading;
use super::{Coverage, Credits, IgnoredField, Provenance, Source, UsageReport, Window, WindowId};
use crate::time::UnixMillis;

/// All windows of an account, its plan and its credits, each with its own age.
///
/// The newest reading of each window wins; see [`Window::supersedes`]. A later and higher reading of a source without
/// timestamps ([`Source::Statusline`]) overrides it. If a later response covers a window and does not report it, the window
/// is removed.
///
/// Merging the same snapshot again changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Sorted by id, without duplicates.
    #[serde(default, deserialize_with = "in_order", skip_serializing_if = "Vec::is_empty")]
    windows: Vec<Window>,
    /// The peaks of removed windows. Otherwise a session that repeats an old reading would restore the window.
    #[serde(default, deserialize_with = "plausible_peaks", skip_serializing_if = "Option::is_none")]
    #[expect(clippy::box_collection, reason = "almost always absent, and then a pointer instead of a map")]
    peaks: Option<Box<BTreeMap<WindowId, Peak>>>,
    #[serde(default, skip_serializing_if = "CoverageWatermark::is_empty")]
    watermark: CoverageWatermark,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plan: Option<Box<Stamped<String>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    credits: Option<Box<Stamped<Credits>>>,
    /// The fields of the last complete response that the parser skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ignored: Option<Box<Stamped<Vec<IgnoredField>>>>,
    #[serde(flatten)]
    unknown: ExtraFields,
}

/// The maximum number of skipped fields. It bounds the size of a record, and more fields would not help a user to
/// detect a changed format.
const MAX_IGNORED: usize = 16;

/// A value with its provenance. The later value wins; at equal provenance, the greater one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Stamped<T> {
    #[serde(flatten)]
    stamp: Provenance,
    value: T,
    #[serde(flatten)]
    unknown: ExtraFields,
}

impl<T> Stamped<T> {
    fn boxed(stamp: Provenance, value: T) -> Box<Self> {
        Box::new(Self { stamp, value, unknown: ExtraFields::default() })
    }
}

/// The time up to which responses account for each window. An earlier reading is removed if a response covered the window and
/// did not report it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct CoverageWatermark {
    /// The last complete response. It applies to every window that is not in `exceptions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    all: Option<CoverageStamp>,
    /// Windows with another stamp, because the last complete response contained them in an unreadable form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[expect(clippy::box_collection, reason = "almost always absent, and then a pointer instead of a map")]
    exceptions: Option<Box<BTreeMap<WindowId, Option<CoverageStamp>>>>,
    #[serde(flatten)]
    unknown: ExtraFields,
}

/// The key of the credits in a watermark, which otherwise has window ids as keys.
static CREDITS_KEY: LazyLock<WindowId> =
    LazyLock::new(|| WindowId::new("$credits").expect("it is printable"));

/// The stored provenance of a response.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct CoverageStamp {
    #[serde(flatten)]
    stamp: Provenance,
    #[serde(flatten)]
    unknown: ExtraFields,
}

impl Snapshot {
    /// Creates a snapshot of `usage` at `at`, without implausible values; see [`UsageReport::reject_implausible`].
    ///
    /// Headers and statuslines never cover model or surface windows, credits, or the whole account. Such fields of `usage`
    /// are ignored.
    #[must_use]
    pub fn of(usage: &UsageReport, at: Timestamp) -> Self {
        let stamp = Provenance::new(at, usage.source);
        let is_partial = matches!(usage.source, Source::Headers | Source::Statusline);
        let readings = usage.windows.iter().filter(|reading| !(is_partial && reading.scope.is_some()));
        let mut snapshot = Self { windows: Vec::with_capacity(usage.windows.len()), ..Self::default() };
        let mut unreadable = Vec::new();
        for reading in readings {
            let mut reading = reading.clone();
            if let Some(rejected) = check_reading(&reading, at, usage.source) {
                if rejected.whole {
                    unreadable.push(rejected.window);
                    continue;
                }
                reading.resets_at = None;
            }
            snapshot.add(&reading.stamped(stamp));
        }
        snapshot.resolve();
        if !usage.source.has_time() {
            // A reading without a timestamp may be hours old, so it must not replace the plan, the credits or the coverage.
            return snapshot;
        }
        snapshot.plan = usage.plan.clone().map(|plan| Stamped::boxed(stamp, plan));
        if !is_partial {
            snapshot.credits = usage.credits.clone().map(|credits| Stamped::boxed(stamp, credits));
        }
        if let Coverage::Complete { except, credits } = &usage.coverage
            && !is_partial
        {
            let response = CoverageStamp { stamp, unknown: ExtraFields::default() };
            let credits_exception = (!credits).then(|| CREDITS_KEY.clone());
            let except = except.iter().cloned().chain(unreadable).chain(credits_exception);
            let exceptions = except.map(|id| (id, None)).collect();
            snapshot.watermark = CoverageWatermark::new(Some(response), exceptions);
        }
        if usage.source == Source::Poll {
            // Store the skipped fields of an incomplete response too, because they explain why it is incomplete.
            let ignored: Vec<_> = usage.ignored.iter().take(MAX_IGNORED).cloned().collect();
            snapshot.ignored = (!ignored.is_empty()).then(|| Stamped::boxed(stamp, ignored));
        }
        snapshot
    }

    /// Merges another snapshot of the same login into this one.
    pub fn join(&mut self, other: &Self) {
        self.watermark.join(&other.watermark);
        if self.windows.is_empty() {
            self.windows.reserve_exact(other.windows.len());
        }
        for window in &other.windows {
            self.add(window);
        }
        for (id, peak) in other.peaks.iter().flat_map(|peaks| peaks.iter()) {
            self.raise(id, peak);
        }
        self.resolve();
        max_into(&mut self.plan, other.plan.as_ref());
        max_into(&mut self.credits, other.credits.as_ref());
        let watermark = &self.watermark;
        self.credits
            .take_if(|stamped| watermark.of(&CREDITS_KEY).is_some_and(|gone| stamped.stamp < gone.stamp));
        max_into(&mut self.ignored, other.ignored.as_ref());
        self.ignored.take_if(|stamped| watermark.all.as_ref().is_some_and(|last| stamped.stamp < last.stamp));
        self.unknown = take(&mut self.unknown).max(other.unknown.clone());
    }

    /// Adds the reset of the current period to readings that have neither a timestamp nor a reset.
    ///
    /// Their usage counts only if it exceeds the peak of its period, so the period must be known.
    pub(crate) fn assume_resets(&mut self, known: &Self) {
        for window in &mut self.windows {
            if let Some(known) = known.window(window.id()) {
                window.assume_reset(known);
            }
        }
    }

    /// Whether merging `usage`, read at `at`, would change this snapshot.
    ///
    /// An idle session repeats its last numbers with every line of its statusline. Such a line changes nothing, and the
    /// caller can skip the write.
    #[must_use]
    pub fn is_changed_by(&self, usage: &UsageReport, at: Timestamp) -> bool {
        let mut update = Self::of(usage, at);
        update.assume_resets(self);
        let mut joined = self.clone();
        joined.join(&update);
        joined != *self
    }

    /// Drops values with a timestamp after `limit`. A wrong clock wrote them, and they would override every correct reading.
    pub(crate) fn drop_after(&mut self, limit: Timestamp) {
        self.windows.retain_mut(|window| window.drop_after(limit.into()));
        self.plan.take_if(|stamped| stamped.stamp.at > limit);
        self.credits.take_if(|stamped| stamped.stamp.at > limit);
        self.ignored.take_if(|stamped| stamped.stamp.at > limit);
        let is_unchanged = self.watermark.drop_after(limit);
        // A peak of a timestamped source stores no time, so the wrong clock may have written it.
        self.retain_peaks(|peak| {
            peak.arrived_at.map_or(is_unchanged, |arrived_at| arrived_at.timestamp() <= limit)
        });
    }

    /// Removes the peaks of periods that ended before `now`, and limits those of removed windows to [`MAX_REMOVED_PEAKS`].
    pub(crate) fn forget_peaks(&mut self, now: Timestamp) {
        let now = UnixMillis::from(now);
        self.windows.iter_mut().for_each(|window| window.forget_peak(now));
        let mut left = MAX_REMOVED_PEAKS;
        self.retain_peaks(|peak| {
            let is_near = |reset: UnixMillis| !is_too_far(reset.timestamp(), None, now.timestamp());
            let counts = left > 0 && !peak.is_over(now) && peak.resets_at.is_some_and(is_near);
            left -= usize::from(counts);
            counts
        });
    }

    fn retain_peaks(&mut self, mut is_kept: impl FnMut(&Peak) -> bool) {
        if let Some(peaks) = &mut self.peaks {
            peaks.retain(|_, peak| is_kept(peak));
        }
        self.peaks.take_if(|peaks| peaks.is_empty());
    }

    /// Drops values that were read at or before `limit`.
    ///
    /// A peak of a timestamped source stores no time. It is dropped with its reading, or with the response that removed its
    /// window.
    pub(crate) fn drop_until(&mut self, limit: Timestamp) {
        self.windows.retain_mut(|window| window.drop_until(limit.into()));
        if let Some(peaks) = &mut self.peaks {
            let ended_at = |id: &WindowId| self.watermark.of(id).map(|covered| covered.stamp.at);
            peaks
                .retain(|id, peak| peak.arrived_at.map(UnixMillis::timestamp).or(ended_at(id)) > Some(limit));
        }
        self.peaks.take_if(|peaks| peaks.is_empty());
        self.plan.take_if(|stamped| stamped.stamp.at <= limit);
        self.credits.take_if(|stamped| stamped.stamp.at <= limit);
        self.ignored.take_if(|stamped| stamped.stamp.at <= limit);
        if self.complete_at().is_none_or(|at| at <= limit) {
            self.watermark = CoverageWatermark::default();
        }
        if self.is_empty() {
            *self = Self::default();
        }
    }

    pub(crate) fn shrink(&mut self) {
        self.windows.shrink_to_fit();
    }

    fn add(&mut self, window: &Window) {
        match self.position(window.id()) {
            Ok(at) => self.windows[at].join(window),
            Err(at) => {
                let mut window = window.clone();
                let gone = self.peaks.as_mut().and_then(|peaks| peaks.remove(window.id()));
                gone.into_iter().for_each(|peak| window.raise(peak));
                self.windows.insert(at, window);
            }
        }
    }

    fn raise(&mut self, id: &WindowId, peak: &Peak) {
        if let Ok(at) = self.position(id) {
            return self.windows[at].raise(peak.clone());
        }
        let peaks = self.peaks.get_or_insert_default();
        match peaks.get_mut(id) {
            Some(known) if peak.order(known).is_le() => {}
            Some(known) => *known = peak.clone(),
            None => drop(peaks.insert(id.clone(), peak.clone())),
        }
    }

    /// Removes windows that a later response no longer reports. Their peaks stay.
    fn resolve(&mut self) {
        let (watermark, peaks) = (&self.watermark, &mut self.peaks);
        self.windows.retain_mut(|window| {
            let Err(peak) = window.resolve(watermark.of(window.id()).map(|covered| covered.stamp)) else {
                return true;
            };
            if let Some(peak) = peak {
                peaks.get_or_insert_default().insert(window.id().clone(), peak);
            }
            false
        });
        self.peaks.take_if(|peaks| peaks.is_empty());
    }

    fn position(&self, id: &WindowId) -> Result<usize, usize> {
        self.windows.binary_search_by(|known| known.id().cmp(id))
    }

    /// The windows, sorted by id.
    #[must_use]
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// The window with this id, if there is one.
    #[must_use]
    pub fn window(&self, id: &WindowId) -> Option<&Window> {
        self.position(id).ok().map(|at| &self.windows[at])
    }

    /// Whether the account has the window with this id, even if the snapshot has no reading of it.
    ///
    /// ```
    /// use quota_core::{Snapshot, UsageReport, WindowId};
    /// use quota_core::model::{Coverage, Presence};
    ///
    /// let now = "2026-01-01T12:00:00Z".parse()?;
    /// let coverage = Coverage::complete_except([WindowId::seven_day()]);
    /// let snapshot = Snapshot::of(&UsageReport::polled([]).coverage(coverage), now);
    ///
    /// assert_eq!(snapshot.presence(&WindowId::seven_day()), Presence::Unreadable);
    /// assert_eq!(snapshot.presence(&WindowId::five_hour()), Presence::Absent);
    /// assert_eq!(Snapshot::default().presence(&WindowId::five_hour()), Presence::Unknown);
    /// # Ok::<(), jiff::Error>(())
    /// ```
    #[must_use]
    pub fn presence(&self, id: &WindowId) -> Presence {
        if self.window(id).is_some() {
            return Presence::Read;
        }
        let exceptions = self.watermark.exceptions.as_ref().and_then(|exceptions| exceptions.get(id));
        match (exceptions, &self.watermark.all) {
            (Some(_), Some(_)) => Presence::Unreadable,
            (Some(Some(_)), None) | (None, Some(_)) => Presence::Absent,
            (Some(None) | None, None) => Presence::Unknown,
        }
    }

    /// The windows that the account has but that have no reading: those that are [`Presence::Unreadable`].
    pub fn unreadable(&self) -> impl Iterator<Item = &WindowId> {
        let exceptions = self.watermark.exceptions.iter().flat_map(|exceptions| exceptions.keys());
        exceptions.filter(|id| **id != *CREDITS_KEY && self.presence(id) == Presence::Unreadable)
    }

    /// The plan, as the provider names it.
    #[must_use]
    pub fn plan(&self) -> Option<&str> {
        self.plan.as_ref().map(|stamped| stamped.value.as_str())
    }

    /// The credits, if the provider reported any.
    #[must_use]
    pub fn credits(&self) -> Option<&Credits> {
        Some(&self.credits.as_ref()?.value)
    }

    /// The fields of the last usage response that its parser skipped, by name. New fields show that the format has changed. A complete
    /// response without such fields ends the list.
    #[must_use]
    pub fn ignored(&self) -> &[IgnoredField] {
        self.ignored.as_ref().map_or(&[], |stamped| &stamped.value)
    }

    /// The time of the last complete response; `None` if there was none.
    #[must_use]
    pub fn complete_at(&self) -> Option<Timestamp> {
        self.watermark.all.as_ref().map(|covered| covered.stamp.at)
    }

    /// The time of the newest reading.
    #[must_use]
    pub fn newest(&self) -> Option<Timestamp> {
        self.windows.iter().map(Window::observed_at).chain(self.complete_at()).max()
    }

    /// Whether the snapshot has no data.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
            && self.watermark.all.is_none()
            && self.plan.is_none()
            && self.credits.is_none()
    }
}

/// Whether an account has a window, according to a [`Snapshot`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Presence {
    /// There is a reading; [`Window::used_at`] returns the usage.
    Read,
    /// The last complete response contained the window in an unreadable form, and there is no earlier reading. The account
    /// has the window, but its usage is unknown.
    Unreadable,
    /// The last complete response did not contain the window, so the account does not have it.
    Absent,
    /// No response named the window, and no response was complete.
    Unknown,
}

fn max_into<T: Ord + Clone>(mine: &mut Option<T>, other: Option<&T>) {
    if other > mine.as_ref() {
        *mine = other.cloned();
    }
}

/// The maximum number of peaks of removed windows. An account has fewer windows. The limit bounds a record if a provider
/// keeps inventing names.
const MAX_REMOVED_PEAKS: usize = 32;

/// Deserializes windows, sorts them and drops implausible ones.
fn in_order<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Window>, D::Error> {
    let mut snapshot = Snapshot::default();
    for mut window in Vec::<Window>::deserialize(deserializer)? {
        if window.keep_plausible() {
            snapshot.add(&window);
        }
    }
    Ok(snapshot.windows)
}

/// Deserializes peaks and drops implausible ones.
#[expect(clippy::box_collection, reason = "as in the snapshot")]
fn plausible_peaks<'de, D>(deserializer: D) -> Result<Option<Box<BTreeMap<WindowId, Peak>>>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    let mut peaks = Option::<Box<BTreeMap<_, Peak>>>::deserialize(deserializer)?;
    if let Some(peaks) = &mut peaks {
        peaks.retain(|_, peak| peak.is_plausible(None));
    }
    Ok(peaks.filter(|peaks| !peaks.is_empty()))
}

impl CoverageWatermark {
    fn new(all: Option<CoverageStamp>, exceptions: BTreeMap<WindowId, Option<CoverageStamp>>) -> Self {
        let exceptions = (!exceptions.is_empty()).then(|| Box::new(exceptions));
        Self { all, exceptions, unknown: ExtraFields::default() }
    }

    fn of(&self, id: &WindowId) -> Option<&CoverageStamp> {
        match self.exceptions.as_ref().and_then(|exceptions| exceptions.get(id)) {
            Some(exceptions) => exceptions.as_ref(),
            None => self.all.as_ref(),
        }
    }

    /// Merges two watermarks. The later stamp of each window wins.
    fn join(&mut self, other: &Self) {
        let named = [&self.exceptions, &other.exceptions]
            .into_iter()
            .flatten()
            .flat_map(|exceptions| exceptions.keys());
        let all = self.all.as_ref().max(other.all.as_ref());
        let exceptions = named
            .map(|id| (id, self.of(id).max(other.of(id))))
            .filter(|(_, stamp)| *stamp != all)
            .map(|(id, stamp)| (id.clone(), stamp.cloned()))
            .collect();
        let unknown = take(&mut self.unknown).max(other.unknown.clone());
        *self = Self { unknown, ..Self::new(all.cloned(), exceptions) };
    }

    /// Drops stamps after `limit`, and returns whether there were none.
    fn drop_after(&mut self, limit: Timestamp) -> bool {
        let mut is_unchanged = self.all.take_if(|covered| covered.stamp.at > limit).is_none();
        if let Some(exceptions) = &mut self.exceptions {
            let before = exceptions.len();
            exceptions.retain(|_, covered| covered.as_ref().is_none_or(|covered| covered.stamp.at <= limit));
            is_unchanged &= exceptions.len() == before;
        }
        is_unchanged
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests;
