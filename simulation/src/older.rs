//! A program of an earlier version: it does not know some fields of a record. It ignores them when it reads, and keeps them unchanged
//! when it writes.

use bytes::Bytes;
use quota_core::store::Document;
use serde_json::{Map, Value};

/// The fields of a record that the latest versions have added.
const NEW_FIELDS: [&str; 4] = ["unscoped", "given_back", "succeeded", "failed"];

/// A document as an older program understands it.
pub(crate) fn read(found: Document) -> Document {
    let Some(mut fields) = fields_of(&found.body) else { return found };
    NEW_FIELDS.iter().for_each(|field| drop(fields.remove(*field)));
    Document::new(found.version, encode(fields))
}

/// The document that an older program writes: `body`, with the new fields of the document that it replaces.
pub(crate) fn write(body: &Bytes, replaced: Option<&[u8]>) -> Bytes {
    let Some(mut fields) = fields_of(body) else { return body.clone() };
    let mut known = replaced.and_then(fields_of).unwrap_or_default();
    for field in NEW_FIELDS {
        fields.remove(field);
        if let Some(value) = known.remove(field) {
            fields.insert(field.to_owned(), value);
        }
    }
    encode(fields)
}

/// The fields of a record; `None` for any other document.
fn fields_of(body: &[u8]) -> Option<Map<String, Value>> {
    let document: Value = serde_json::from_slice(body).ok()?;
    document.as_object().filter(|fields| fields.contains_key("snapshot")).cloned()
}

fn encode(fields: Map<String, Value>) -> Bytes {
    Value::Object(fields).to_string().into()
}
