//! Money an account may spend beyond its windows.
//! Amounts are whole minor units (cents); nothing here converts currencies.

use serde::{Deserialize, Serialize};

use super::extra_fields::ExtraFields;

/// An amount of money in minor units: 2050 with exponent 2 is 20.50.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Money {
    /// The amount in the currency's smallest unit; may be negative.
    pub minor: i64,
    /// The currency as the provider writes it, mostly ISO 4217.
    pub currency: String,
    /// How many decimal digits the minor unit stands for.
    pub exponent: u8,
    #[serde(flatten)]
    unknown: ExtraFields,
}

impl Money {
    /// An amount in minor units.
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

/// What an account may spend beyond its windows, and what it has spent.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Credits {
    /// Whether spending is switched on; absent if the provider does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// What was spent in this period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Money>,
    /// What may be spent in this period; absent if there is no cap, or none is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Money>,
    /// What is left to spend, where the provider counts that way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<Money>,
    /// Why spending is switched off, in the provider's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled_reason: Option<String>,
    #[serde(flatten)]
    unknown: ExtraFields,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minor_units_are_written_with_their_decimals() {
        let text = |minor, exponent| Money::new(minor, "EUR", exponent).to_string();

        assert_eq!(text(2050, 2), "20.50 EUR");
        assert_eq!(text(7, 2), "0.07 EUR");
        assert_eq!(text(-1250, 2), "-12.50 EUR");
        assert_eq!(text(300, 0), "300 EUR");
    }

    #[test]
    fn an_absurd_exponent_is_written_without_a_panic() {
        assert!(Money::new(i64::MIN, "X", 255).to_string().ends_with(" X"));
    }
}
