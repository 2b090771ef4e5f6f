//! The time and the source of a reading.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::UnknownWord;
use crate::time;

/// Where a reading came from. For readings with the same timestamp, the later source in this list wins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Source {
    /// Not stated.
    #[default]
    Unknown,
    /// A source from a newer version. These sort by name.
    Other(UnknownWord),
    /// A statusline or another source without timestamps. It may repeat readings that are hours old.
    ///
    /// Such a reading only raises a window. It counts if it exceeds all usage reported in the window's period and
    /// arrived after the newest timestamped reading.
    Statusline,
    /// A timestamped reading that another program on this machine stored.
    Local,
    /// Headers of an ordinary response. They do not cover model-scoped windows or credits.
    Headers,
    /// The provider's usage endpoint.
    Poll,
}

impl Source {
    /// Whether its readings have timestamps, so that they can be ordered.
    #[must_use]
    pub fn has_time(self) -> bool {
        self != Self::Statusline
    }

    /// Whether the reading comes from the provider itself.
    pub(crate) fn is_provider(self) -> bool {
        matches!(self, Self::Poll | Self::Headers)
    }

    /// The source as a stable name for programs, such as `poll`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Other(word) => word.as_str(),
            Self::Statusline => "statusline",
            Self::Local => "local",
            Self::Headers => "headers",
            Self::Poll => "poll",
        }
    }
}

impl Serialize for Source {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match &*Cow::<str>::deserialize(deserializer)? {
            "statusline" => Self::Statusline,
            "local" => Self::Local,
            "headers" => Self::Headers,
            "poll" => Self::Poll,
            "unknown" => Self::Unknown,
            word => Self::Other(word.into()),
        })
    }
}

/// The time and source of a reading. Readings supersede each other in this order first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Provenance {
    /// The start of the call. The age of a reading counts from it.
    #[serde(rename = "at_ms", with = "time::ms")]
    pub at: Timestamp,
    /// The source of the reading.
    pub source: Source,
}

impl Provenance {
    /// Creates the provenance of a reading from `source`, requested at `at`.
    #[must_use]
    pub fn new(at: Timestamp, source: Source) -> Self {
        Self { at: time::truncate_ms(at), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_newer_programs_sort_by_name_above_unknown() {
        let [later, sooner] = ["telepathy", "oracle"].map(|word| Source::Other(word.into()));

        assert!(Source::Unknown < sooner && sooner < later && later < Source::Local);
        assert_eq!(serde_json::to_string(&later).unwrap(), "\"telepathy\"");
        assert_eq!(serde_json::from_str::<Source>("\"telepathy\"").unwrap(), later);
    }
}
