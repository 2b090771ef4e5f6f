//! Unknown enum values from a newer version, which a rewrite preserves. Unknown fields are in `extra_fields`.

use std::cmp::Ordering;
use std::fmt;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

/// An enum value from a newer version, such as a reason of a hold.
///
/// It takes one byte, so that enums that contain it stay small and `Copy`. The process interns the first 254 words of at most
/// 64 bytes without control characters. Every other word is read as `other`, so that invented words use no memory.
///
/// ```
/// use quota_core::model::UnknownWord;
/// use quota_core::record::HoldReason;
///
/// let reason: HoldReason = serde_json::from_str("\"eclipse\"")?;
///
/// assert_eq!(reason, HoldReason::Other(UnknownWord::from("eclipse")));
/// assert_eq!(serde_json::to_string(&reason)?, "\"eclipse\"");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct UnknownWord(u8);

/// Each slot is filled once. The first slot contains [`OTHER`].
static WORDS: [OnceLock<Box<str>>; 255] = [const { OnceLock::new() }; 255];

const OTHER: &str = "other";
const LONGEST: usize = 64;

impl UnknownWord {
    /// The text of the word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        WORDS[usize::from(self.0)].get().map_or(OTHER, |word| word)
    }
}

impl From<&str> for UnknownWord {
    fn from(word: &str) -> Self {
        WORDS[0].get_or_init(|| OTHER.into());
        if word.len() > LONGEST || word.chars().any(char::is_control) {
            return Self(0);
        }
        let slot = WORDS.iter().position(|slot| **slot.get_or_init(|| word.into()) == *word);
        Self(slot.and_then(|slot| u8::try_from(slot).ok()).unwrap_or(0))
    }
}

/// Compares the words, because their numbers differ between processes.
impl Ord for UnknownWord {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl PartialOrd for UnknownWord {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnknownWord({:?})", self.as_str())
    }
}

impl Serialize for UnknownWord {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for UnknownWord {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from(&*std::borrow::Cow::<str>::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_preserved_and_equals_itself() {
        let word = UnknownWord::from("eclipse");

        assert_eq!((word.as_str(), word), ("eclipse", UnknownWord::from("eclipse")));
        assert_ne!(word, UnknownWord::from("comet"));
    }

    #[test]
    fn words_are_ordered_alphabetically() {
        let (late, early) = (UnknownWord::from("zenith"), UnknownWord::from("aurora"));

        assert!(early < late);
    }

    #[test]
    fn a_word_that_is_too_long_or_unprintable_is_read_as_other() {
        for word in ["x".repeat(65), "\u{1b}[31m".to_owned()] {
            assert_eq!(UnknownWord::from(&*word).as_str(), "other");
        }
    }

    #[test]
    fn words_beyond_the_capacity_are_read_as_other() {
        let words: Vec<_> = (0..300).map(|number| UnknownWord::from(&*format!("word-{number}"))).collect();

        let preserved = words.iter().filter(|word| word.as_str() != "other").count();
        assert!(preserved <= 254, "{preserved}");
        assert_eq!(words[299].as_str(), "other");
    }

    #[test]
    fn a_word_takes_one_byte() {
        assert_eq!(size_of::<UnknownWord>(), 1);
    }
}
