//! A JSON document that borrows its strings from the bytes, for parsers that read a response once and drop it.
//!
//! [`Value`] has the methods of `serde_json::Value`, and the same rules: fields are sorted by name, and if a name
//! occurs twice, the last field counts. Only strings with escapes are copied, and an object is one allocation. So a
//! document costs half as much.
//!
//! ```
//! use quota_http::json::Value;
//!
//! let document: Value<'_> = serde_json::from_str(r#"{ "b": [1, 2.5], "a": "text", "b": null }"#)?;
//! let fields = document.as_object().unwrap();
//!
//! assert_eq!(fields.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["a", "b"]);
//! assert_eq!(document.get("a").and_then(Value::as_str), Some("text"));
//! assert!(document.get("b").is_some_and(Value::is_null));
//! # Ok::<(), serde_json::Error>(())
//! ```

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de::Error as _};
use serde_json::{Map, Number};

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A string.
    String(Cow<'a, str>),
    /// A list.
    Array(Vec<Value<'a>>),
    /// An object.
    Object(Object<'a>),
}

/// The fields of a JSON object, sorted by name. Each name occurs once.
#[derive(Debug, Clone, PartialEq)]
pub struct Object<'a>(Vec<(Cow<'a, str>, Value<'a>)>);

impl<'a> Value<'a> {
    /// The value of this field; `None` if there is none, or if this is not an object.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        self.as_object()?.get(name)
    }

    /// The fields of an object.
    #[must_use]
    pub fn as_object(&self) -> Option<&Object<'a>> {
        match self {
            Self::Object(fields) => Some(fields),
            _ => None,
        }
    }

    /// The values of a list.
    #[must_use]
    pub fn as_array(&self) -> Option<&Vec<Self>> {
        match self {
            Self::Array(values) => Some(values),
            _ => None,
        }
    }

    /// The text of a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// Whether this is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Whether this is a string.
    #[must_use]
    pub fn is_string(&self) -> bool {
        matches!(self, Self::String(_))
    }

    /// Whether this is a list.
    #[must_use]
    pub fn is_array(&self) -> bool {
        matches!(self, Self::Array(_))
    }

    /// Whether this is an object.
    #[must_use]
    pub fn is_object(&self) -> bool {
        matches!(self, Self::Object(_))
    }
}

impl<'a> Object<'a> {
    fn new(mut fields: Vec<(Cow<'a, str>, Value<'a>)>) -> Self {
        fields.sort_by(|(one, _), (other, _)| one.cmp(other));
        // The sort is stable, so the last field in the document wins.
        fields.dedup_by(|later, earlier| {
            let is_repeated = later.0 == earlier.0;
            if is_repeated {
                std::mem::swap(later, earlier);
            }
            is_repeated
        });
        Self(fields)
    }

    /// The value of this field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value<'a>> {
        let at = self.0.binary_search_by(|(other, _)| (**other).cmp(name)).ok()?;
        Some(&self.0[at].1)
    }

    /// Whether there is this field.
    #[must_use]
    pub fn contains_key(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The number of fields.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no fields.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The fields with their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value<'a>)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }

    /// The values of all fields.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &Value<'a>> {
        self.0.iter().map(|(_, value)| value)
    }
}

/// The kind of a value, without the values that it contains.
#[derive(Debug, Clone, Copy)]
pub enum Scalar<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(&'a Number),
    /// A string.
    String(&'a str),
    /// A list or an object.
    Composite,
}

impl<'a> From<&'a Value<'_>> for Scalar<'a> {
    fn from(value: &'a Value<'_>) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Bool(*flag),
            Value::Number(number) => Self::Number(number),
            Value::String(text) => Self::String(text),
            Value::Array(_) | Value::Object(_) => Self::Composite,
        }
    }
}

impl<'a> From<&'a serde_json::Value> for Scalar<'a> {
    fn from(value: &'a serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(flag) => Self::Bool(*flag),
            serde_json::Value::Number(number) => Self::Number(number),
            serde_json::Value::String(text) => Self::String(text),
            serde_json::Value::Array(_) | serde_json::Value::Object(_) => Self::Composite,
        }
    }
}

impl<'a> From<&'a serde_json::Value> for Value<'a> {
    fn from(value: &'a serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(flag) => Self::Bool(*flag),
            serde_json::Value::Number(number) => Self::Number(number.clone()),
            serde_json::Value::String(text) => Self::String(Cow::Borrowed(text)),
            serde_json::Value::Array(values) => Self::Array(values.iter().map(Self::from).collect()),
            serde_json::Value::Object(fields) => Self::Object(fields.into()),
        }
    }
}

impl<'a> From<&'a Map<String, serde_json::Value>> for Object<'a> {
    fn from(fields: &'a Map<String, serde_json::Value>) -> Self {
        Self::new(fields.iter().map(|(name, value)| (Cow::Borrowed(&**name), value.into())).collect())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Value<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value<'de>, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value<'de>, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value<'de>, E> {
        Ok(Number::from_f64(number).map_or(Value::Null, Value::Number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::String(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::String(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<Value<'de>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = rows.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
        /// With the feature `arbitrary_precision`, which any crate of a program can enable, `serde_json` represents a
        /// number as an object with only this field.
        const NUMBER: &str = "$serde_json::private::Number";
        let mut fields = Vec::new();
        while let Some(name) = map.next_key_seed(Name)? {
            if name == NUMBER && fields.is_empty() {
                let number: Cow<'de, str> = map.next_value()?;
                return number.parse().map(Value::Number).map_err(A::Error::custom);
            }
            if fields.is_empty() {
                // The usual number of fields. Growing the list would copy it, and an empty object allocates nothing.
                fields.reserve(8);
            }
            fields.push((name, map.next_value()?));
        }
        Ok(Value::Object(Object::new(fields)))
    }
}

/// Borrows a name if it has no escapes.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parse(text: &str) -> Value<'_> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn of_two_fields_with_one_name_the_last_counts() {
        let document = parse(r#"{"b":1,"a":2,"b":3,"a":4,"b":5}"#);

        assert_eq!(document, (&json!({ "a": 4, "b": 5 })).into());
    }

    #[test]
    fn a_text_is_borrowed_unless_it_has_an_escape() {
        let Value::Array(texts) = parse(r#"["plain", "with \"escape\""]"#) else { unreachable!() };

        assert!(matches!(&texts[..], [Value::String(Cow::Borrowed(_)), Value::String(Cow::Owned(_))]));
    }

    #[test]
    fn a_number_of_arbitrary_precision_is_a_number() {
        let document = parse(r#"{"used":{"$serde_json::private::Number":"12.5"}}"#);

        assert_eq!(document, (&json!({ "used": 12.5 })).into());
    }

    #[test]
    fn deep_nesting_is_an_error() {
        let text = format!("{}{}", "[".repeat(200), "]".repeat(200));

        assert!(serde_json::from_str::<Value<'_>>(&text).is_err());
    }

    fn document() -> impl Strategy<Value = String> {
        let scalar = prop_oneof![
            "null|true|false|-?[0-9]{1,25}|-?[0-9]{1,3}\\.[0-9]{1,25}|[0-9]e-?[0-9]{1,3}",
            any::<String>().prop_map(|text| json!(text).to_string()),
        ];
        scalar.prop_recursive(4, 32, 6, |inner| {
            let field =
                ("\"[ab\\\\\\\\]{0,2}\"", inner.clone()).prop_map(|(name, value)| format!("{name}:{value}"));
            prop_oneof![
                prop::collection::vec(inner, 0..6).prop_map(|rows| format!("[{}]", rows.join(","))),
                prop::collection::vec(field, 0..9).prop_map(|fields| format!("{{{}}}", fields.join(","))),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_document_has_the_values_that_serde_json_reads(text in document()) {
            let expected = serde_json::from_str::<serde_json::Value>(&text);
            let read = serde_json::from_str::<Value<'_>>(&text);

            match (read, expected) {
                (Ok(read), Ok(expected)) => prop_assert_eq!(read, Value::from(&expected)),
                (read, expected) => prop_assert_eq!(read.is_err(), expected.is_err()),
            }
        }
    }
}
