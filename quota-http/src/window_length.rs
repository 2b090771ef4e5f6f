//! Names a window by its length. The field never determines the name, because a provider may move a window to another
//! field.

use std::time::Duration;

use crate::json::Value;
use jiff::Timestamp;
use quota_core::model::{InvalidId, Scope};
use quota_core::{WindowId, WindowReading};

use crate::lenient::timestamp;

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// The id of the account-wide window with this length. `None` for zero and for lengths over ten years.
///
/// Reported lengths vary slightly, so a length within 2 % of a usual one has its name, and 28 to 31 days are a month.
/// Any other length becomes part of the id, rounded to minutes.
///
/// ```
/// use std::time::Duration;
/// use quota_core::WindowId;
/// use quota_http::window_of_length;
///
/// assert_eq!(window_of_length(Duration::from_secs(18_000)), Some(WindowId::five_hour()));
/// assert_eq!(window_of_length(Duration::from_secs(2_628_000)), Some(WindowId::monthly()));
/// assert_eq!(window_of_length(Duration::from_secs(32_400)).unwrap().as_str(), "540_minutes");
/// ```
#[must_use]
pub fn window_of_length(length: Duration) -> Option<WindowId> {
    const LONGEST: u64 = 10 * 366 * DAY;
    let seconds = length.as_secs_f64();
    if length.is_zero() || length.as_secs() > LONGEST {
        return None;
    }
    let is_about = |usual: u64| (seconds - usual as f64).abs() <= usual as f64 * 0.02;
    if (28 * DAY..=31 * DAY).contains(&length.as_secs()) {
        Some(WindowId::monthly())
    } else if is_about(5 * HOUR) {
        Some(WindowId::five_hour())
    } else if is_about(7 * DAY) {
        Some(WindowId::seven_day())
    } else {
        WindowId::new(&format!("{}_minutes", (seconds / 60.0).round())).ok()
    }
}

/// A period with a start and an end, and the account-wide window with its length.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Period {
    pub(crate) length: Option<Duration>,
    pub(crate) resets_at: Option<Timestamp>,
}

impl Period {
    /// Reads the period from two fields. If one of them is missing, or if the period is too long for a window, the
    /// length is unknown.
    pub(crate) fn of(start: Option<&Value<'_>>, end: Option<&Value<'_>>) -> Self {
        let (start, resets_at) = (timestamp(start), timestamp(end));
        let length = start.zip(resets_at).and_then(|(start, end)| Duration::try_from(end - start).ok());
        let length = length.filter(|length| window_of_length(*length).is_some());
        Self { length, resets_at }
    }

    /// The account-wide window with the length of the period.
    pub(crate) fn window(self) -> Option<WindowId> {
        self.length.and_then(window_of_length)
    }

    /// The reading of a window in this period.
    pub(crate) fn complete(self, reading: WindowReading) -> WindowReading {
        reading.length(self.length).resets_at(self.resets_at)
    }
}

/// The id of the part of the window `whole` that counts only `scope`.
///
/// # Errors
///
/// [`InvalidId`] if the scope has no name, or a name that is not valid in an id.
pub(crate) fn scoped_id(whole: &WindowId, scope: &Scope) -> Result<WindowId, InvalidId> {
    match (&scope.model, &scope.surface) {
        (Some(model), Some(surface)) => whole.for_model(&format!("{model} {surface}")),
        (Some(model), None) => whole.for_model(model),
        (None, surface) => {
            let words: Vec<_> = surface.as_deref().unwrap_or_default().split_whitespace().collect();
            WindowId::new(&format!("{whole}_{}", words.join("_").to_lowercase()))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(seconds: u64) -> Option<String> {
        window_of_length(Duration::from_secs(seconds)).map(|id| id.to_string())
    }

    #[test]
    fn usual_lengths_have_usual_names() {
        for (seconds, id) in [(5 * HOUR, "five_hour"), (7 * DAY, "seven_day"), (30 * DAY, "monthly")] {
            assert_eq!(name(seconds).as_deref(), Some(id));
        }
        assert_eq!(name(DAY).as_deref(), Some("1440_minutes"));
    }

    #[test]
    fn a_length_of_zero_or_of_a_century_has_no_name() {
        assert_eq!((name(0), name(36_500 * DAY)), (None, None));
        assert_eq!(window_of_length(Duration::MAX), None);
    }

    proptest! {
        #[test]
        fn the_length_alone_decides_the_name(seconds in 1..31_622_400_u64) {
            let about = |usual: u64| seconds.abs_diff(usual) * 50 <= usual;
            let expected = match seconds {
                _ if (28 * DAY..=31 * DAY).contains(&seconds) => "monthly".to_owned(),
                _ if about(5 * HOUR) => "five_hour".to_owned(),
                _ if about(7 * DAY) => "seven_day".to_owned(),
                _ => format!("{}_minutes", (seconds as f64 / 60.0).round()),
            };

            prop_assert_eq!(name(seconds), Some(expected));
        }
    }
}
