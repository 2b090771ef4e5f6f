//! How much of a window is used.
//! The source decides whether a number is a percentage or a fraction, never its size.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// The used share of a window, in basis points (hundredths of a percent).
///
/// It may exceed 100 %: providers report that. More than 1,000 % is a number of something else, and no percentage.
///
/// ```
/// use quota_core::Percent;
///
/// assert_eq!(Percent::from_percent(42.5), Percent::from_fraction(0.425));
/// assert_eq!(Percent::from_fraction(1.01).unwrap().to_string(), "101%");
/// assert_eq!(Percent::from_percent(f64::NAN), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Percent(u32);

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u32::deserialize(deserializer).map(Self::from_basis_points)
    }
}

impl Percent {
    /// Nothing used.
    pub const ZERO: Self = Self(0);
    /// All used.
    pub const FULL: Self = Self(10_000);
    /// The highest use that is believed: ten times all.
    pub const MAX: Self = Self(100_000);

    /// Reads a number where 100 means all; `None` below −100, above 1,000 and for what is no number. Below 0 counts as 0.
    #[must_use]
    pub fn from_percent(value: f64) -> Option<Self> {
        Self::plausible(value * 100.0)
    }

    /// Reads a number where 1 means all; `None` below −1, above 10 and for what is no number. Below 0 counts as 0.
    #[must_use]
    pub fn from_fraction(value: f64) -> Option<Self> {
        Self::plausible(value * 10_000.0)
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is in range, and `as` saturates at 0"
    )]
    fn plausible(basis_points: f64) -> Option<Self> {
        let rounded = basis_points.round();
        // Written so that it is false for what is no number.
        let is_plausible = rounded >= -f64::from(Self::FULL.0) && rounded <= f64::from(Self::MAX.0);
        is_plausible.then_some(Self(rounded as u32))
    }

    /// Takes basis points: 10,000 means all. More than [`MAX`](Self::MAX) counts as that.
    #[must_use]
    pub const fn from_basis_points(basis_points: u32) -> Self {
        if basis_points > Self::MAX.0 { Self::MAX } else { Self(basis_points) }
    }

    /// Reads stored basis points even above [`MAX`](Self::MAX), so that one window can be left out and the others kept.
    pub(crate) fn deserialize_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u32::deserialize(deserializer).map(Self)
    }

    /// Whether it can be true; it cannot where [`deserialize_any`](Self::deserialize_any) has read something absurd.
    pub(crate) fn is_plausible(self) -> bool {
        self <= Self::MAX
    }

    /// In hundredths of a percent.
    #[must_use]
    pub const fn basis_points(self) -> u32 {
        self.0
    }

    /// As a number where 100 means all.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / 100.0
    }

    /// What is left of the window; nothing is left at 100 % and above.
    #[must_use]
    pub const fn remaining(self) -> Self {
        Self(Self::FULL.0.saturating_sub(self.0))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}%", self.as_f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_is_not_guessed_to_be_a_percentage() {
        assert_eq!(Percent::from_fraction(0.42).unwrap().as_f64(), 42.0);
        assert_eq!(Percent::from_percent(0.42).unwrap().as_f64(), 0.42);
        assert_eq!(Percent::from_percent(1.0).unwrap().as_f64(), 1.0);
    }

    #[test]
    fn what_is_not_a_number_is_no_reading() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(Percent::from_fraction(value), None);
        }
    }

    #[test]
    fn below_nothing_is_nothing_and_above_all_is_kept() {
        assert_eq!(Percent::from_fraction(-0.1), Some(Percent::ZERO));
        assert_eq!(Percent::from_fraction(1.7).unwrap().as_f64(), 170.0);
        assert_eq!(Percent::from_fraction(1.7).unwrap().remaining(), Percent::ZERO);
    }

    #[test]
    fn an_absurd_number_is_no_percentage() {
        for value in [1_782_907_200.0, 1e308, 1_000.1, -100.1] {
            assert_eq!(Percent::from_percent(value), None, "{value}");
            assert_eq!(Percent::from_fraction(value / 100.0), None, "{value}");
        }
        assert_eq!(Percent::from_percent(1_000.0), Some(Percent::MAX));
        assert_eq!(Percent::from_percent(-100.0), Some(Percent::ZERO));
    }

    #[test]
    fn basis_points_end_at_the_greatest_use() {
        assert_eq!(Percent::from_basis_points(u32::MAX), Percent::MAX);
        assert_eq!(serde_json::from_str::<Percent>("4294967295").unwrap(), Percent::MAX);
    }
}
