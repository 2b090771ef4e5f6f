//! Unknown fields of a stored document, which a newer program wrote. A rewrite by this program preserves them.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The unknown fields of one stored object. Almost every object has none, which costs one pointer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct ExtraFields(Option<Box<Map<String, Value>>>);

impl ExtraFields {
    fn text(&self) -> Option<String> {
        self.0.as_ref().map(|fields| Value::Object((**fields).clone()).to_string())
    }
}

/// Compares the serialized text. The merge of stored objects needs this tie-break to be commutative.
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
