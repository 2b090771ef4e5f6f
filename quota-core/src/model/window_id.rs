//! The names of windows.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};

use super::{InvalidId, model_matches};

/// The name of a window: `five_hour`, `seven_day`, `seven_day/opus`, `monthly`, or a name that a provider adds later.
///
/// Ids that this version does not know are preserved. Otherwise an older version would drop new windows.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowId(Arc<str>);

impl WindowId {
    const MAX_LEN: usize = 96;

    /// Creates an id from a window's name.
    ///
    /// # Errors
    ///
    /// [`InvalidId::Window`] if the name is empty, longer than 96 bytes, or has control characters.
    pub fn new(name: &str) -> Result<Self, InvalidId> {
        if name.is_empty() || name.len() > Self::MAX_LEN || name.chars().any(char::is_control) {
            return Err(InvalidId::Window);
        }
        Ok(Self(interned(name).unwrap_or_else(|| name.into())))
    }

    /// The rolling window of five hours.
    #[must_use]
    pub fn five_hour() -> Self {
        Self::new(FIVE_HOUR).expect("a constant name is valid")
    }

    /// The seven-day window for all models.
    #[must_use]
    pub fn seven_day() -> Self {
        Self::new(SEVEN_DAY).expect("a constant name is valid")
    }

    /// The window of a calendar or billing month.
    #[must_use]
    pub fn monthly() -> Self {
        Self::new(MONTHLY).expect("a constant name is valid")
    }

    /// Creates the id of this window for one model: `seven_day` and `Opus 4` give `seven_day/opus-4`.
    ///
    /// # Errors
    ///
    /// [`InvalidId::Window`] if the model's name has no words, or the id becomes too long.
    pub fn for_model(&self, model: &str) -> Result<Self, InvalidId> {
        let words = model.split(|c: char| c.is_whitespace() || c == '/').filter(|word| !word.is_empty());
        let slug = words.collect::<Vec<_>>().join("-").to_lowercase();
        if slug.is_empty() {
            return Err(InvalidId::Window);
        }
        Self::new(&format!("{self}/{slug}"))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part of the account that the window counts, by its name: `opus` of `seven_day/opus`. `None` means everything.
    #[must_use]
    pub fn part(&self) -> Option<&str> {
        self.0.split_once('/').map(|(_, part)| part)
    }

    /// Whether a window with this name counts requests for `model`, as requests name it.
    ///
    /// It uses only the name, for windows without a reading. For other windows, see
    /// [`Window::applies_to`](super::Window::applies_to).
    ///
    /// ```
    /// use quota_core::WindowId;
    ///
    /// let opus = WindowId::seven_day().for_model("Opus")?;
    /// assert!(opus.applies_to(Some("claude-opus-4-5")) && !opus.applies_to(None));
    /// assert!(WindowId::seven_day().applies_to(None));
    /// # Ok::<(), quota_core::model::InvalidId>(())
    /// ```
    #[must_use]
    pub fn applies_to(&self, model: Option<&str>) -> bool {
        self.part().is_none_or(|part| model.is_some_and(|model| model_matches(part, model)))
    }
}

const FIVE_HOUR: &str = "five_hour";
const SEVEN_DAY: &str = "seven_day";
const MONTHLY: &str = "monthly";

/// Shares the common names: one copy per process, not one per account.
fn interned(name: &str) -> Option<Arc<str>> {
    static COMMON: LazyLock<[Arc<str>; 3]> = LazyLock::new(|| [FIVE_HOUR, SEVEN_DAY, MONTHLY].map(Arc::from));
    COMMON.iter().find(|common| &***common == name).cloned()
}

impl fmt::Display for WindowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for WindowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WindowId({:?})", &*self.0)
    }
}

impl FromStr for WindowId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Self::new(text)
    }
}

impl Serialize for WindowId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for WindowId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_models_window_is_named_by_a_slug() {
        let id = WindowId::seven_day().for_model("Opus  4.5").unwrap();

        assert_eq!(id.as_str(), "seven_day/opus-4.5");
    }

    #[test]
    fn a_model_without_a_name_has_no_window_id() {
        assert_eq!(WindowId::seven_day().for_model(" / "), Err(InvalidId::Window));
    }
}
