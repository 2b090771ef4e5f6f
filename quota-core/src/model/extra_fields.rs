//! Fields of a stored document that a newer program wrote and this one does not know.
//! They are preserved, so that a rewrite by an older program loses nothing.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The unknown fields of one stored object; almost always none, which costs a pointer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct ExtraFields(Option<Box<Map<String, Value>>>);

impl ExtraFields {
    fn text(&self) -> Option<String> {
        self.0.as_ref().map(|fields| Value::Object((**fields).clone()).to_string())
    }
}

/// By a stable text, to break ties with: joins of two stored objects stay commutative.
impl Ord for ExtraFields {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text().cmp(&other.text())
    }
}

impl PartialOrd for ExtraFields {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Serialize for ExtraFields {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(fields) => fields.serialize(serializer),
            None => Map::new().serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ExtraFields {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Map::deserialize(deserializer)?;
        Ok(Self((!fields.is_empty()).then(|| Box::new(fields))))
    }
}
