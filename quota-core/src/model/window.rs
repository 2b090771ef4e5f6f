//! One window of an account: its usage, its reset, and the time and source of the reading. The merge of all windows of an
//! account is in `snapshot`.

use std::cmp::Ordering;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::bounds::{WindowLength, is_too_far};
use super::extra_fields::ExtraFields;
use super::peak::Peak;
use super::{Percent, Provenance, Scope, Source, WindowId};
use crate::time::UnixMillis;

/// One window as a provider response reports it, without a timestamp.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WindowReading {
    /// The id of the window.
    pub id: WindowId,
    /// How much of the window is used.
    pub used: Percent,
    /// When the window resets; absent if it has not started or the provider does not report it.
    pub resets_at: Option<Timestamp>,
    /// The length of the window, if known.
    pub length: Option<Duration>,
    /// What the window counts, if not everything.
    pub scope: Option<Scope>,
    /// Whether the provider states that the window has no limit. Its usage is then zero.
    pub is_unlimited: bool,
}

impl WindowReading {
    /// Creates a reading of the account-wide window `id`.
    #[must_use]
    pub fn new(id: WindowId, used: Percent) -> Self {
        Self { id, used, resets_at: None, length: None, scope: None, is_unlimited: false }
    }

    /// Creates a reading of a window that the provider states to have no limit.
    ///
    /// This differs from a window with a usage of zero, and from one whose usage is unknown.
    #[must_use]
    pub fn unlimited(id: WindowId) -> Self {
        Self { is_unlimited: true, ..Self::new(id, Percent::ZERO) }
    }

    /// Sets when the window resets.
    #[must_use]
    pub fn resets_at(mut self, at: impl Into<Option<Timestamp>>) -> Self {
        self.resets_at = at.into();
        self
    }

    /// Sets the length of the window.
    #[must_use]
    pub fn length(mut self, length: impl Into<Option<Duration>>) -> Self {
        self.length = length.into();
        self
    }

    /// Limits the window to this scope.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<Option<Scope>>) -> Self {
        self.scope = scope.into();
        self
    }

    /// Adds the time and the source of the reading.
    #[must_use]
    pub fn stamped(self, stamp: Provenance) -> Window {
        Window {
            id: self.id,
            at: stamp.at.into(),
            source: stamp.source,
            used: self.used,
            resets_at: self.resets_at.map(UnixMillis::from),
            length: self.length.and_then(WindowLength::new),
            scope: self.scope.map(Box::new),
            unlimited: self.is_unlimited,
            peak: None,
            unknown: ExtraFields::default(),
        }
    }
}

/// One window of an account, with the time and source of its reading.
///
/// The reading is the newest timestamped one, or a later and higher one from a source without timestamps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Window {
    id: WindowId,
    #[serde(rename = "at_ms")]
    at: UnixMillis,
    source: Source,
    #[serde(rename = "used_bp", deserialize_with = "Percent::deserialize_any")]
    used: Percent,
    #[serde(rename = "resets_ms", default, skip_serializing_if = "Option::is_none")]
    resets_at: Option<UnixMillis>,
    #[serde(
        rename = "length_ms",
        deserialize_with = "WindowLength::deserialize_plausible",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    length: Option<WindowLength>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<Box<Scope>>,
    /// Whether the window has no limit. An older program reads it as a window with a usage of zero.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    unlimited: bool,
    /// The highest usage reported in the period, if it differs from the reading's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    peak: Option<Box<Peak>>,
    #[serde(flatten)]
    unknown: ExtraFields,
}

impl Window {
    /// The id of the window.
    #[must_use]
    pub fn id(&self) -> &WindowId {
        &self.id
    }

    /// The usage at the time of the reading. For the current usage see [`used_at`](Self::used_at).
    #[must_use]
    pub fn used(&self) -> Percent {
        self.shown().1
    }

    /// When the window resets, if the source reports it.
    #[must_use]
    pub fn resets_at(&self) -> Option<Timestamp> {
        self.shown().2.map(UnixMillis::timestamp)
    }

    /// The time of the reading: the start of the call that reported it, or the arrival if the source has no timestamps.
    #[must_use]
    pub fn observed_at(&self) -> Timestamp {
        self.shown().0.timestamp()
    }

    /// The time of the newest timestamped reading, even if an untimed reading overrides it; `None` if there is none.
    #[must_use]
    pub fn timed_at(&self) -> Option<Timestamp> {
        self.source.has_time().then(|| self.at.timestamp())
    }

    /// The source of the reading.
    #[must_use]
    pub fn source(&self) -> Source {
        if self.raised().is_some() { Source::Statusline } else { self.source }
    }

    /// The time and source of the reading.
    #[must_use]
    pub fn stamp(&self) -> Provenance {
        Provenance { at: self.observed_at(), source: self.source() }
    }

    /// The length of the window, if known.
    #[must_use]
    pub fn length(&self) -> Option<Duration> {
        self.length.map(WindowLength::duration)
    }

    /// What the window counts, if not everything.
    #[must_use]
    pub fn scope(&self) -> Option<&Scope> {
        self.scope.as_deref()
    }

    /// Whether the provider states that the window has no limit.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.unlimited && self.raised().is_none()
    }

    /// Whether the window counts requests for `model`, as requests name it; see [`Scope::applies_to`].
    #[must_use]
    pub fn applies_to(&self, model: Option<&str>) -> bool {
        self.scope().is_none_or(|scope| scope.applies_to(model))
    }

    /// The usage of the window at `now`. A reading counts as exact for `fresh_for`.
    ///
    /// An older reading is a lower bound until the window resets. If the provider lowers the usage within a period, its next
    /// reading shows that.
    ///
    /// After the reset the usage is unknown. An old reading without a reset is unknown too. A window without a limit has no reset, so an
    /// old reading of it is a lower bound of zero.
    ///
    /// ```
    /// use std::time::Duration;
    /// use quota_core::{Percent, Used, WindowId, WindowReading};
    /// use quota_core::model::{Provenance, Source};
    ///
    /// let read_at: jiff::Timestamp = "2026-01-01T12:00:00Z".parse()?;
    /// let reset: jiff::Timestamp = "2026-01-01T14:00:00Z".parse()?;
    /// let half = Percent::from_percent(50.0).unwrap();
    /// let window = WindowReading::new(WindowId::five_hour(), half)
    ///     .resets_at(reset)
    ///     .stamped(Provenance::new(read_at, Source::Poll));
    ///
    /// let five_minutes = Duration::from_secs(300);
    /// assert_eq!(window.used_at(read_at, five_minutes), Used::Exact(half));
    /// assert_eq!(window.used_at("2026-01-01T13:00:00Z".parse()?, five_minutes), Used::AtLeast(half));
    /// assert_eq!(window.used_at(reset, five_minutes), Used::Unknown);
    /// # Ok::<(), jiff::Error>(())
    /// ```
    #[must_use]
    pub fn used_at(&self, now: Timestamp, fresh_for: Duration) -> Used {
        // Compare whole milliseconds, because routing calls this for every window of every account.
        let now = UnixMillis::from(now);
        let (at, used, resets_at) = self.shown();
        match resets_at.filter(|reset| *reset > at) {
            Some(reset) if reset <= now => Used::Unknown,
            _ if at.until(now) < fresh_for => Used::Exact(used),
            None if self.is_unlimited() => Used::AtLeast(used),
            Some(_) => Used::AtLeast(used),
            None => Used::Unknown,
        }
    }

    /// When this reading expires: at its reset, if that was in the future when the provider reported it.
    ///
    /// A reset that was already past comes from a provider that lags, so it is ignored.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        let (at, _, resets_at) = self.shown();
        resets_at.filter(|reset| *reset > at).map(UnixMillis::timestamp)
    }

    /// Whether this reading replaces `other`, by a total order of timestamped readings.
    ///
    /// The order compares time, source, usage and reset, and then all other fields. So the same one of two different
    /// readings wins in any order of arrival.
    #[must_use]
    pub fn supersedes(&self, other: &Self) -> bool {
        self.order(other) == Ordering::Greater
    }

    /// The time, usage and reset of the effective reading.
    #[inline]
    fn shown(&self) -> (UnixMillis, Percent, Option<UnixMillis>) {
        match self.raised() {
            Some((arrived_at, peak)) => (arrived_at, peak.used, peak.resets_at),
            None => (self.at, self.used, self.resets_at),
        }
    }

    /// The arrival and the peak, if the peak is an untimed reading that overrides the timestamped one.
    ///
    /// A later arrival implies that the peak exceeds all usage reported before it. If the timestamped reading has no
    /// reset, the periods cannot be compared, and only a higher usage counts.
    #[inline]
    fn raised(&self) -> Option<(UnixMillis, &Peak)> {
        let peak = self.peak.as_deref()?;
        let arrived_at = peak.arrived_at.filter(|arrived_at| *arrived_at > self.at)?;
        (self.resets_at.is_some() || peak.used > self.used).then_some((arrived_at, peak))
    }

    /// Merges another reading of this window. The caller must then call [`resolve`](Self::resolve).
    pub(crate) fn join(&mut self, other: &Self) {
        let peak = later(self.peak(), other.peak());
        let replaces = match (self.source.has_time(), other.source.has_time()) {
            (mine, theirs) if mine != theirs => theirs,
            _ => other.supersedes(self),
        };
        if replaces {
            *self = other.clone();
        }
        self.set_peak(peak);
    }

    /// Adds the reset of `cached` to an untimed reading without a reset, if the reading arrived in that period.
    ///
    /// A reset that is implausible for this reading is not added, because a store would drop it.
    pub(crate) fn assume_reset(&mut self, cached: &Self) {
        let (at, _, resets_at) = cached.shown();
        if !self.source.has_time() && self.resets_at.is_none() && at <= self.at {
            self.length = self.length.or(cached.length);
            self.resets_at = resets_at.filter(|reset| *reset > self.at && !self.is_too_far(*reset));
        }
    }

    /// Whether the reset is further after the reading than the window is long.
    fn is_too_far(&self, reset: UnixMillis) -> bool {
        is_too_far(reset.timestamp(), self.length, self.at.timestamp())
    }

    /// Merges a peak without a reading.
    pub(crate) fn raise(&mut self, peak: Peak) {
        self.set_peak(later(self.peak(), Some(peak)));
    }

    /// The highest usage that any source reported in the period.
    fn peak(&self) -> Option<Peak> {
        self.peak.as_deref().cloned().or_else(|| self.own_peak())
    }

    /// The peak that the reading itself contributes.
    fn own_peak(&self) -> Option<Peak> {
        if self.scope.is_some() {
            return None;
        }
        if self.source.has_time() {
            return Some(Peak::timed(self.used, self.resets_at, self.length));
        }
        Some(Peak {
            used: self.used,
            resets_at: self.resets_at,
            arrived_at: Some(self.at),
            length: self.length,
            unknown: self.unknown.clone(),
        })
    }

    fn set_peak(&mut self, peak: Option<Peak>) {
        self.peak = peak.filter(|peak| self.own_peak().as_ref() != Some(peak)).map(Box::new);
    }

    /// Creates a window from an untimed reading.
    fn of_peak(id: WindowId, arrived_at: UnixMillis, peak: Peak) -> Self {
        Self {
            id,
            at: arrived_at,
            source: Source::Statusline,
            used: peak.used,
            resets_at: peak.resets_at,
            length: peak.length,
            scope: None,
            unlimited: false,
            peak: None,
            unknown: peak.unknown,
        }
    }

    /// Drops the reading if a later response, at `gone`, covered the window and did not report it.
    ///
    /// An untimed peak that arrived after that response replaces the reading.
    ///
    /// # Errors
    ///
    /// The remaining peak, if no untimed peak replaces the reading. The caller must then remove the window.
    pub(crate) fn resolve(&mut self, gone: Option<Provenance>) -> Result<(), Option<Peak>> {
        let is_gone = |at: UnixMillis, source| {
            gone.is_some_and(|gone| Provenance { at: at.timestamp(), source } < gone)
        };
        if self.source.has_time() && !is_gone(self.at, self.source) {
            return Ok(());
        }
        let peak = self.peak().ok_or(None)?;
        match peak.arrived_at.filter(|arrived_at| !is_gone(*arrived_at, Source::Statusline)) {
            Some(arrived_at) => *self = Self::of_peak(self.id.clone(), arrived_at, peak),
            None => return Err(Some(peak)),
        }
        Ok(())
    }

    /// Drops data with a timestamp after `limit`, and returns whether any is left.
    pub(crate) fn drop_after(&mut self, limit: UnixMillis) -> bool {
        self.peak.take_if(|peak| peak.arrived_at.is_some_and(|arrived_at| arrived_at > limit));
        if self.at <= limit {
            return true;
        }
        // A peak of a timestamped source stores no time, so the same wrong clock may have written it.
        let rest = self.peak.take().and_then(|peak| Some((peak.arrived_at?, *peak)));
        let Some((arrived_at, peak)) = rest else { return false };
        *self = Self::of_peak(self.id.clone(), arrived_at, peak);
        true
    }

    /// Drops data read at or before `limit`, and returns whether any is left. A peak of a timestamped source is dropped with
    /// the reading.
    pub(crate) fn drop_until(&mut self, limit: UnixMillis) -> bool {
        self.peak.take_if(|peak| peak.arrived_at.is_some_and(|arrived_at| arrived_at <= limit));
        if self.at > limit {
            return true;
        }
        let rest = self.peak.take().and_then(|peak| Some((peak.arrived_at?, *peak)));
        let Some((arrived_at, peak)) = rest else { return false };
        *self = Self::of_peak(self.id.clone(), arrived_at, peak);
        true
    }

    /// Removes a peak whose period is over, unless it overrides the reading.
    pub(crate) fn forget_peak(&mut self, now: UnixMillis) {
        let is_shown = self.raised().is_some();
        self.peak.take_if(|peak| !is_shown && peak.is_over(now));
    }

    /// Removes implausible values from a stored window, and returns whether a reading is left.
    ///
    /// Values that a snapshot accepted stay unchanged, so that a record survives a round trip through a store.
    pub(crate) fn keep_plausible(&mut self) -> bool {
        let read_at = self.at;
        self.peak.take_if(|peak| !peak.is_plausible(Some(read_at)));
        let is_too_far = self.resets_at.is_some_and(|reset| self.is_too_far(reset));
        self.resets_at.take_if(|_| is_too_far);
        self.used.is_plausible() && (!is_too_far || self.source.is_provider())
    }

    fn order(&self, other: &Self) -> Ordering {
        let key = |window: &Self| (window.at, window.source, window.used, window.resets_at, window.length);
        key(self)
            .cmp(&key(other))
            .then_with(|| self.scope.cmp(&other.scope))
            .then_with(|| self.unlimited.cmp(&other.unlimited))
            .then_with(|| self.unknown.cmp(&other.unknown))
    }
}

fn later(one: Option<Peak>, other: Option<Peak>) -> Option<Peak> {
    match (one, other) {
        (Some(one), Some(other)) => Some(if other.order(&one) == Ordering::Greater { other } else { one }),
        (one, other) => one.or(other),
    }
}

/// The usage of a window at a point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Used {
    /// A fresh reading.
    Exact(Percent),
    /// An older reading of a window that has not reset since. At least this much is used.
    AtLeast(Percent),
    /// There is no reading, or the window has reset since.
    Unknown,
}

/// Displays `42%`, `at least 42%` or `unknown`.
impl fmt::Display for Used {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(used) => write!(f, "{used}"),
            Self::AtLeast(used) => write!(f, "at least {used}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl Used {
    /// The number, whether exact or a lower bound.
    #[must_use]
    pub fn lower_bound(self) -> Option<Percent> {
        match self {
            Self::Exact(used) | Self::AtLeast(used) => Some(used),
            Self::Unknown => None,
        }
    }

    /// The name of this certainty: `exact`, `at_least` or `unknown`.
    #[must_use]
    pub fn certainty(self) -> &'static str {
        match self {
            Self::Exact(_) => "exact",
            Self::AtLeast(_) => "at_least",
            Self::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Duration = Duration::from_secs(300);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn half() -> WindowReading {
        WindowReading::new(WindowId::five_hour(), Percent::from_percent(50.0).unwrap())
    }

    fn polled(reading: WindowReading, second: i64) -> Window {
        reading.stamped(Provenance::new(at(second), Source::Poll))
    }

    #[test]
    fn a_reading_is_exact_while_it_is_fresh() {
        let window = polled(half().resets_at(at(10_000)), 0);

        assert!(matches!(window.used_at(at(299), FRESH), Used::Exact(_)));
        assert!(matches!(window.used_at(at(300), FRESH), Used::AtLeast(_)));
    }

    #[test]
    fn the_use_is_unknown_after_the_reset() {
        let window = polled(half().resets_at(at(100)), 0);

        assert_eq!(window.used_at(at(100), FRESH), Used::Unknown);
    }

    #[test]
    fn an_old_reading_without_a_reset_is_unknown() {
        assert_eq!(polled(half(), 0).used_at(at(300), FRESH), Used::Unknown);
    }

    #[test]
    fn an_unlimited_window_is_never_unknown() {
        let window = polled(WindowReading::unlimited(WindowId::monthly()), 0);

        assert_eq!(window.used_at(at(10), FRESH), Used::Exact(Percent::ZERO));
        assert_eq!(window.used_at(at(300), FRESH), Used::AtLeast(Percent::ZERO));
        assert!(window.is_unlimited() && !polled(half(), 0).is_unlimited());
    }

    #[test]
    fn an_unlimited_window_survives_an_older_program() {
        let window = polled(WindowReading::unlimited(WindowId::monthly()), 0);
        let mut stored = serde_json::to_value(&window).unwrap();
        assert_eq!(stored["unlimited"], true);

        // An older program reads the field as an unknown one.
        let unlimited = stored.as_object_mut().unwrap().remove("unlimited").unwrap();
        stored["new_field"] = unlimited.clone();
        let old: Window = serde_json::from_value(stored).unwrap();

        assert_eq!(serde_json::to_value(&old).unwrap()["new_field"], unlimited);
        assert_eq!(old.used_at(at(10), FRESH), Used::Exact(Percent::ZERO));
    }

    #[test]
    fn a_reset_before_the_reading_is_ignored() {
        let window = polled(half().resets_at(at(50)), 100);

        assert!(matches!(window.used_at(at(101), FRESH), Used::Exact(_)));
    }

    #[test]
    fn a_poll_wins_over_headers_of_the_same_time() {
        let poll = polled(half(), 7);
        let headers = half().stamped(Provenance::new(at(7), Source::Headers));

        assert!(poll.supersedes(&headers) && !headers.supersedes(&poll));
    }
}
