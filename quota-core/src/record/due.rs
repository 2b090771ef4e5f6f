//! When the readings of a record become stale.
//! The module `begin` decides whether a call is then allowed.

use std::time::Duration;

use jiff::Timestamp;

use super::Record;
use crate::model::{Source, Window};
use crate::policy::Policy;
use crate::time;

/// After a reset, the next call is at least this long after the last one.
const ROLLOVER_FLOOR: Duration = Duration::from_secs(60);

impl Record {
    /// When the readings become stale, if they count as fresh for `within`; `None` if there are none.
    ///
    /// Readings become stale at the earliest of three times: when the oldest counted window reaches that age, shortly after
    /// the first reset of a counted window, and when the next complete refresh is due. A window that the last call covered is
    /// as young as that call, even if it was unreadable, because an immediate second call would not help.
    ///
    /// Response headers never name the windows of one model or surface. Windows that are not counted are refreshed by the
    /// next complete refresh, after [`full_refresh_interval`](crate::Policy#structfield.full_refresh_interval).
    #[must_use]
    pub fn due_at(&self, within: Duration, counted: Counted<'_>, policy: &Policy) -> Option<Timestamp> {
        let windows = self.snapshot.windows();
        let complete = self.complete_at();
        let is_counted = |window: &&Window| counted.includes(window);
        let covered_at =
            |window: &Window| complete.map_or(window.observed_at(), |at| at.max(window.observed_at()));

        let oldest = windows.iter().filter(is_counted).map(covered_at).min();
        let oldest = oldest.or(complete).or_else(|| windows.iter().map(covered_at).min())?;
        // Headers alone do not make an account fresh, because they do not cover all windows.
        let reported = windows
            .iter()
            .filter(|window| window.source() != Source::Headers)
            .map(|window| window.observed_at());
        let last_full = complete.or(reported.max())?;
        let rollover = windows.iter().filter(is_counted).filter_map(|window| {
            let covered_at = covered_at(window);
            let reset = window.expires_at().filter(|reset| *reset > covered_at)?;
            // A provider whose resets are always a few seconds away must not cause a call every few seconds.
            Some(
                time::saturating_add(reset, policy.reset_grace)
                    .max(time::saturating_add(covered_at, ROLLOVER_FLOOR)),
            )
        });

        let by_age = time::saturating_add(oldest, within)
            .min(time::saturating_add(last_full, policy.full_refresh_interval.max(within)));
        Some(rollover.min().map_or(by_age, |rollover| by_age.min(rollover)))
    }
}

/// The windows whose age decides whether an account is fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Counted<'a> {
    /// The windows of the whole account. They are sufficient for a status, and for a request without a model.
    Account,
    /// The windows of the whole account and of this model, as requests name it.
    Model(&'a str),
    /// All windows.
    All,
}

impl Counted<'_> {
    /// The windows that limit a request for `model`.
    #[must_use]
    pub fn for_model(model: Option<&str>) -> Counted<'_> {
        model.map_or(Counted::Account, Counted::Model)
    }

    fn includes(self, window: &Window) -> bool {
        match self {
            Self::Account => window.scope().is_none(),
            Self::Model(model) => window.applies_to(Some(model)),
            Self::All => true,
        }
    }
}
