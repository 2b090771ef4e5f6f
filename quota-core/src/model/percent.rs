//! How much of a window is used. The caller states whether a number is a percentage or a fraction. The value of the number
//! never decides that.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// The used share of a window, in basis points (hundredths of a percent).
///
/// It may exceed 100 %, because providers report that. A number above 1,000 % is rejected.
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
    /// The highest accepted usage: 1,000 %.
    pub const MAX: Self = Self(100_000);

    /// Converts a number where 100 means all. Returns `None` below −100, above 1,000 and for NaN. Numbers from −100 to 0
    /// count as 0.
    #[must_use]
    pub fn from_percent(value: f64) -> Option<Self> {
        Self::plausible(value * 100.0)
    }

    /// Converts a number where 1 means all. Returns `None` below −1, above 10 and for NaN. Numbers from −1 to 0 count as 0.
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
        // This comparison is false for NaN.
        let is_plausible = rounded >= -f64::from(Self::FULL.0) && rounded <= f64::from(Self::MAX.0);
        is_plausible.then_some(Self(rounded as u32))
    }

    /// Converts basis points, where 10,000 means all. Values above [`MAX`](Self::MAX) saturate.
    #[must_use]
    pub const fn from_basis_points(basis_points: u32) -> Self {
        if basis_points > Self::MAX.0 { Self::MAX } else { Self(basis_points) }
    }

    /// Deserializes basis points even above [`MAX`](Self::MAX), so that the caller can drop one window and keep the others.
    pub(crate) fn deserialize_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u32::deserialize(deserializer).map(Self)
    }

    /// Whether the value is at most [`MAX`](Self::MAX). Only [`deserialize_any`](Self::deserialize_any) creates greater
    /// values.
    pub(crate) fn is_plausible(self) -> bool {
        self <= Self::MAX
    }

    /// The value in hundredths of a percent.
    #[must_use]
    pub const fn basis_points(self) -> u32 {
        self.0
    }

    /// The value as a number where 100 means all.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / 100.0
    }

    /// The unused share of the window; zero at 100 % and above.
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
    fn a_small_percentage_is_not_read_as_a_fraction() {
        assert_eq!(Percent::from_fraction(0.42).unwrap().as_f64(), 42.0);
        assert_eq!(Percent::from_percent(0.42).unwrap().as_f64(), 0.42);
        assert_eq!(Percent::from_percent(1.0).unwrap().as_f64(), 1.0);
    }

    #[test]
    fn nan_and_infinity_are_rejected() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(Percent::from_fraction(value), None);
        }
    }

    #[test]
    fn slightly_negative_numbers_are_zero_and_overuse_is_preserved() {
        assert_eq!(Percent::from_fraction(-0.1), Some(Percent::ZERO));
        assert_eq!(Percent::from_fraction(1.7).unwrap().as_f64(), 170.0);
        assert_eq!(Percent::from_fraction(1.7).unwrap().remaining(), Percent::ZERO);
    }

    #[test]
    fn a_number_out_of_range_is_rejected() {
        for value in [1_782_907_200.0, 1e308, 1_000.1, -100.1] {
            assert_eq!(Percent::from_percent(value), None, "{value}");
            assert_eq!(Percent::from_fraction(value / 100.0), None, "{value}");
        }
        assert_eq!(Percent::from_percent(1_000.0), Some(Percent::MAX));
        assert_eq!(Percent::from_percent(-100.0), Some(Percent::ZERO));
    }

    #[test]
    fn basis_points_saturate_at_the_maximum() {
        assert_eq!(Percent::from_basis_points(u32::MAX), Percent::MAX);
        assert_eq!(serde_json::from_str::<Percent>("4294967295").unwrap(), Percent::MAX);
    }
}
