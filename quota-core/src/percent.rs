//! How much of a window is used.
//! Whether a number is a percentage or a fraction is decided by where it came from, never by its size.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The used share of a window, in basis points (hundredths of a percent).
///
/// It may exceed 100 %: providers report that, and it is not cut off.
///
/// ```
/// use quota_core::Percent;
///
/// assert_eq!(Percent::from_percent(42.5), Percent::from_fraction(0.425));
/// assert_eq!(Percent::from_fraction(1.01).unwrap().to_string(), "101%");
/// assert_eq!(Percent::from_percent(f64::NAN), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Percent(u32);

impl Percent {
    /// Nothing used.
    pub const ZERO: Self = Self(0);
    /// All used.
    pub const FULL: Self = Self(10_000);

    /// Reads a number where 100 means all; `None` for what is not a finite number. Below 0 counts as 0.
    #[must_use]
    pub fn from_percent(value: f64) -> Option<Self> {
        value.is_finite().then(|| Self::saturating(value * 100.0))
    }

    /// Reads a number where 1 means all; `None` for what is not a finite number. Below 0 counts as 0.
    #[must_use]
    pub fn from_fraction(value: f64) -> Option<Self> {
        value.is_finite().then(|| Self::saturating(value * 10_000.0))
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates at both ends"
    )]
    fn saturating(basis_points: f64) -> Self {
        Self(basis_points.round() as u32)
    }

    /// Takes basis points as they are: 10,000 means all.
    #[must_use]
    pub const fn from_basis_points(basis_points: u32) -> Self {
        Self(basis_points)
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
    fn an_absurd_number_saturates() {
        assert_eq!(Percent::from_percent(1e308).unwrap().basis_points(), u32::MAX);
        assert_eq!(Percent::from_fraction(1e308), Percent::from_percent(1e308));
    }
}
