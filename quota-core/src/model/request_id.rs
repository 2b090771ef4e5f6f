//! The id of one attempt to refresh, or of one holder of a lease.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::random;

/// Identifies one attempt to refresh. A retry after a lost response has the same id, so the attempt counts once.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(u128);

impl RequestId {
    /// Returns a new random id.
    #[must_use]
    pub fn random() -> Self {
        Self(u128::from(random::random_u64()) << 64 | u128::from(random::random_u64()))
    }

    /// Returns a number from 0 up to but excluding 1 that is fixed per id. It spreads the backoffs of a fleet.
    #[must_use]
    pub fn jitter_unit(self) -> f64 {
        #[expect(clippy::cast_possible_truncation, reason = "the low bits are as random as all of them")]
        let bits = self.0 as u32;
        f64::from(bits) / (f64::from(u32::MAX) + 1.0)
    }
}

impl From<u128> for RequestId {
    fn from(bits: u128) -> Self {
        Self(bits)
    }
}

impl FromStr for RequestId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({self})")
    }
}

impl Serialize for RequestId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RequestId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
