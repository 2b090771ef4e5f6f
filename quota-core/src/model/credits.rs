//! Money that an account may spend beyond its windows. Amounts are whole minor units (cents). No code here converts
//! currencies.

use serde::{Deserialize, Serialize};

use super::extra_fields::ExtraFields;

/// An amount of money in minor units: 2050 with exponent 2 is 20.50.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Money {
    /// The amount in the currency's smallest unit. It may be negative.
    pub minor: i64,
    /// The currency as the provider writes it, usually an ISO 4217 code.
    pub currency: String,
    /// The number of decimal digits in a major unit.
    pub exponent: u8,
    #[serde(flatten)]
    unknown: ExtraFields,
}

impl Money {
    /// Creates an amount in minor units.
    #[must_use]
    pub fn new(minor: i64, currency: impl Into<String>, exponent: u8) -> Self {
        Self { minor, currency: currency.into(), exponent, unknown: ExtraFields::default() }
    }
}

impl std::fmt::Display for Money {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = usize::from(self.exponent.min(18));
        let sign = if self.minor < 0 { "-" } else { "" };
        let text = format!("{:0>width$}", self.minor.unsigned_abs(), width = digits + 1);
        let (whole, part) = text.split_at(text.len() - digits);
        let point = if digits > 0 { "." } else { "" };
        write!(f, "{sign}{whole}{point}{part} {}", self.currency)
    }
}

/// The extra usage of an account: its spending limit beyond the windows, and the amount spent.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Credits {
    /// Whether extra usage is enabled; absent if the provider does not report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// The amount spent in this period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Money>,
    /// The spending limit of this period; absent if the provider reports none, or there is none ([`unlimited`](Self::unlimited)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Money>,
    /// Whether the account may spend without a limit. `Some(true)` and no limit is unlimited, `None` and no limit is unknown, and a
    /// limit of zero is zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlimited: Option<bool>,
    /// The remaining balance, if the provider reports one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<Money>,
    /// Why extra usage is disabled, in the provider's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled_reason: Option<String>,
    #[serde(flatten)]
    unknown: ExtraFields,
}

impl Credits {
    /// Joins two reports about the same account, such as those of two endpoints. If both have a value, this one's counts.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            enabled: self.enabled.or(other.enabled),
            used: self.used.or(other.used),
            limit: self.limit.or(other.limit),
            unlimited: self.unlimited.or(other.unlimited),
            balance: self.balance.or(other.balance),
            disabled_reason: self.disabled_reason.or(other.disabled_reason),
            unknown: self.unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minor_units_are_displayed_with_decimals() {
        let text = |minor, exponent| Money::new(minor, "EUR", exponent).to_string();

        assert_eq!(text(2050, 2), "20.50 EUR");
        assert_eq!(text(7, 2), "0.07 EUR");
        assert_eq!(text(-1250, 2), "-12.50 EUR");
        assert_eq!(text(300, 0), "300 EUR");
    }

    #[test]
    fn a_huge_exponent_is_displayed_without_a_panic() {
        assert!(Money::new(i64::MIN, "X", 255).to_string().ends_with(" X"));
    }
}
