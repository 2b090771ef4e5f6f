//! Fields that a newer program wrote and this one does not know.
//! They are carried along untouched, so that an older program's rewrite loses nothing.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The unknown fields of one stored object; almost always none, which costs a pointer.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Unknown(Option<Box<Map<String, Value>>>);

impl Unknown {
    /// A stable text to break ties with, so that joins of two stored objects stay commutative.
    pub(crate) fn rank(&self) -> String {
        self.0.as_ref().map(|fields| Value::Object((**fields).clone()).to_string()).unwrap_or_default()
    }
}

impl Serialize for Unknown {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(fields) => fields.serialize(serializer),
            None => Map::new().serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Unknown {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Map::deserialize(deserializer)?;
        Ok(Self((!fields.is_empty()).then(|| Box::new(fields))))
    }
}
