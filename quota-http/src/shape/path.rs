//! A JSONPath (RFC 9535) with limits, so that a path from the configuration costs little time and memory on any
//! response.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use crate::lenient::{Field, Unreadable};

/// A JSONPath (RFC 9535), such as `$.limits[?@.type == 'weekly'].percent`.
///
/// ```
/// use quota_http::shape::Path;
///
/// let path: Path = "$.usage['5h'].percent".parse()?;
/// assert!("usage.percent".parse::<Path>().is_err());
/// # Ok::<(), quota_http::shape::InvalidPath>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Path {
    text: String,
    query: serde_json_path::JsonPath,
}

/// Why a text is not a usable JSONPath. It does not repeat the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPath {
    /// The text does not begin with `$`.
    #[error("a JSONPath begins with $, such as \"$.limits[0].percent\"")]
    NoRoot,
    /// The text is not a JSONPath.
    #[error("not a JSONPath (RFC 9535): wrong at character {character}")]
    #[non_exhaustive]
    Syntax {
        /// The position in the text, from 1.
        character: usize,
    },
    /// The path is too long or too deeply nested.
    #[error(
        "the JSONPath is longer than {} bytes or nested more than {} times",
        Path::MAX_LEN,
        Path::MAX_NESTING
    )]
    TooComplex,
    /// The path has more than one `..`, which would visit some values many times.
    #[error("the JSONPath has more than one `..`")]
    Descents,
    /// A filter contains `$` or `..`, and would visit the whole response for each value that it tests.
    #[error(
        "a filter of the JSONPath has {found}, which would read the whole response for each value; use only @ and names in a filter"
    )]
    #[non_exhaustive]
    FilterVisitsRoot {
        /// The forbidden part of the filter.
        found: &'static str,
    },
}

impl Path {
    const MAX_LEN: usize = 256;
    /// The maximum depth of brackets and parentheses. The library parses them recursively.
    const MAX_NESTING: usize = 12;

    /// The values at this path in `root`.
    pub(super) fn all<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        self.query.query(root).all()
    }

    /// The values with their locations, such as `$['limits'][0]`; `None` if there are more than `max`.
    ///
    /// A location contains keys of the document. So their number is limited, and each is cut after 128 characters.
    pub(super) fn located<'a>(&self, root: &'a Value, max: usize) -> Option<Vec<(String, &'a Value)>> {
        let found = self.query.query_located(root);
        if found.len() > max {
            return None;
        }
        let place = |place: String| match place.char_indices().nth(128) {
            Some((end, _)) => format!("{}…", &place[..end]),
            None => place,
        };
        Some(found.iter().map(|one| (place(one.location().to_string()), one.node())).collect())
    }

    /// The value at this path, unless it is missing.
    ///
    /// # Errors
    ///
    /// [`Unreadable`] if there are several.
    pub(super) fn one<'a>(&self, root: &'a Value) -> Result<Option<&'a Value>, Unreadable> {
        match self.all(root)[..] {
            [] => Ok(None),
            [only] => Ok(Some(only)),
            _ => Err(Unreadable),
        }
    }

    /// Reads the value at this path.
    pub(super) fn read<'a, T>(
        &self,
        root: &'a Value,
        read: impl FnOnce(Option<&'a Value>) -> Field<T>,
    ) -> Field<T> {
        self.one(root).map_or(Field::Unreadable, read)
    }
}

impl FromStr for Path {
    type Err = InvalidPath;

    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        if !text.starts_with('$') {
            return Err(InvalidPath::NoRoot);
        }
        if text.len() > Self::MAX_LEN || nesting(text) > Self::MAX_NESTING {
            return Err(InvalidPath::TooComplex);
        }
        check_descents(text)?;
        // The text of the library's error repeats the path.
        let query = serde_json_path::JsonPath::parse(text)
            .map_err(|error| InvalidPath::Syntax { character: error.position() })?;
        Ok(Self { text: text.to_owned(), query })
    }
}

/// Checks that the path visits each value of a response at most a few times.
fn check_descents(text: &str) -> Result<(), InvalidPath> {
    let (mut quote, mut is_escaped) = (None, false);
    let (mut open, mut descents) = (0_usize, 0);
    let mut previous = 0;
    for (at, character) in text.bytes().enumerate() {
        let before = std::mem::replace(&mut previous, character);
        if let Some(end) = quote {
            quote = (character != end || is_escaped).then_some(end);
            is_escaped = character == b'\\' && !is_escaped;
            continue;
        }
        let found = match character {
            b'\'' | b'"' => {
                quote = Some(character);
                continue;
            }
            b'[' => {
                open += 1;
                continue;
            }
            b']' => {
                open = open.saturating_sub(1);
                continue;
            }
            b'$' if at > 0 => "$",
            b'.' if before == b'.' => "..",
            _ => continue,
        };
        if open > 0 {
            return Err(InvalidPath::FilterVisitsRoot { found });
        }
        descents += usize::from(found == "..");
    }
    if descents > 1 { Err(InvalidPath::Descents) } else { Ok(()) }
}

/// The largest number of open brackets, parentheses and negations. A negation also costs recursion.
fn nesting(text: &str) -> usize {
    let mut open = 0_usize;
    let mut negations = 0;
    let mut deepest = 0;
    for character in text.bytes() {
        match character {
            b'[' | b'(' => open += 1,
            b']' | b')' => open = open.saturating_sub(1),
            b'!' => negations += 1,
            _ => {}
        }
        deepest = deepest.max(open);
    }
    deepest.max(negations)
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Path {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A fixed text, or the path to one. A text that begins with `$` is a path.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Text {
    /// This text.
    Fixed(String),
    /// The text at this path.
    At(Path),
}

impl Text {
    /// The short text.
    pub(super) fn read<'a>(&'a self, root: &'a Value) -> Field<&'a str> {
        match self {
            Self::Fixed(text) => Field::Present(text),
            Self::At(path) => path.read(root, crate::lenient::text),
        }
    }
}

impl FromStr for Text {
    type Err = InvalidPath;

    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        match text.starts_with('$') {
            true => Ok(Self::At(text.parse()?)),
            false => Ok(Self::Fixed(text.to_owned())),
        }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn invalid(text: &str) -> InvalidPath {
        text.parse::<Path>().unwrap_err()
    }

    #[test]
    fn an_invalid_path_has_its_position_and_is_not_repeated() {
        assert_eq!(invalid("usage"), InvalidPath::NoRoot);
        let error = invalid("$.limits[n33dle");
        assert!(
            matches!(error, InvalidPath::Syntax { .. }) && !error.to_string().contains("n33dle"),
            "{error}"
        );
    }

    #[test]
    fn a_costly_path_is_rejected() {
        assert_eq!(invalid("$..a..b"), InvalidPath::Descents);
        assert_eq!(invalid(&format!("$.{}", "a".repeat(256))), InvalidPath::TooComplex);
        assert_eq!(
            invalid(&format!("$[?{}1==1{}]", "(".repeat(40), ")".repeat(40))),
            InvalidPath::TooComplex
        );
        assert_eq!(invalid(&format!("$[?{}@.a]", "!".repeat(40))), InvalidPath::TooComplex);
    }

    #[test]
    fn a_filter_that_visits_the_whole_response_is_rejected() {
        for (text, found) in [
            ("$.rows[?@.id == $.current].used", "$"),
            ("$[?count($..a) > 1]", "$"),
            ("$.rows[?@..used]", ".."),
            ("$.rows[?@[?@..used]]", ".."),
        ] {
            assert_eq!(invalid(text), InvalidPath::FilterVisitsRoot { found }, "{text}");
        }
    }

    #[test]
    fn a_name_or_text_may_contain_what_a_filter_may_not() {
        for text in
            ["$['$ref']['a..b']", r#"$.rows[?@.name == "$1 .. \" ] $"].used"#, r"$['it\'s $']", "$..used"]
        {
            assert!(text.parse::<Path>().is_ok(), "{text}");
        }
    }

    #[test]
    fn several_values_are_not_one() {
        let path: Path = "$.rows[*].used".parse().unwrap();

        assert_eq!(path.one(&json!({ "rows": [{ "used": 1 }] })), Ok(Some(&json!(1))));
        assert_eq!(path.one(&json!({ "rows": [] })), Ok(None));
        assert_eq!(path.one(&json!({ "rows": [{ "used": 1 }, { "used": 2 }] })), Err(Unreadable));
    }

    #[test]
    fn only_a_dollar_begins_a_path() {
        let root = json!({ "plan": "pro" });
        let read = |text: &str| text.parse::<Text>().unwrap().read(&root).ok().map(str::to_owned);

        assert_eq!((read("$.plan").as_deref(), read("plus").as_deref()), (Some("pro"), Some("plus")));
        assert_eq!(read("$.other"), None);
    }
}
