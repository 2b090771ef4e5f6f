//! Reads numbers, timestamps and texts in the formats that providers use. This module has no field names, and never substitutes
//! a default for a value that it cannot read.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::Value;

/// The content of a JSON field.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Field<T> {
    /// The field is missing or null.
    Absent,
    /// The field has this value.
    Present(T),
    /// The field has an invalid value.
    Unreadable,
}

impl<T> Field<T> {
    /// The value, or [`Unreadable`].
    pub(crate) fn into_result(self) -> Result<Option<T>, Unreadable> {
        match self {
            Self::Absent => Ok(None),
            Self::Present(value) => Ok(Some(value)),
            Self::Unreadable => Err(Unreadable),
        }
    }

    /// The value; `None` if absent or unreadable.
    pub(crate) fn ok(self) -> Option<T> {
        self.into_result().ok().flatten()
    }

    pub(crate) fn map<U>(self, read: impl FnOnce(T) -> U) -> Field<U> {
        self.and_then(|value| Some(read(value)))
    }

    pub(crate) fn and_then<U>(self, read: impl FnOnce(T) -> Option<U>) -> Field<U> {
        match self {
            Self::Absent => Field::Absent,
            Self::Present(value) => read(value).map_or(Field::Unreadable, Field::Present),
            Self::Unreadable => Field::Unreadable,
        }
    }
}

/// The field has an invalid value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Unreadable;

/// Reads a number, or a string that contains one.
pub(crate) fn number(field: Option<&Value>) -> Field<f64> {
    match field {
        None | Some(Value::Null) => Field::Absent,
        Some(Value::Number(number)) => number.as_f64().map_or(Field::Unreadable, Field::Present),
        Some(Value::String(text)) => parse_number(text).map_or(Field::Unreadable, Field::Present),
        Some(_) => Field::Unreadable,
    }
}

/// Reads a finite number.
pub(crate) fn parse_number(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

/// Reads a boolean.
pub(crate) fn flag(field: Option<&Value>) -> Field<bool> {
    match field {
        None | Some(Value::Null) => Field::Absent,
        Some(Value::Bool(flag)) => Field::Present(*flag),
        Some(_) => Field::Unreadable,
    }
}

/// Reads a short string without control characters. An empty string is absent.
pub(crate) fn text(field: Option<&Value>) -> Field<&str> {
    match field {
        None | Some(Value::Null) => Field::Absent,
        Some(Value::String(text)) if text.trim().is_empty() => Field::Absent,
        Some(Value::String(text)) if is_short_text(text) => Field::Present(text.trim()),
        Some(_) => Field::Unreadable,
    }
}

/// Whether a provider's text may be stored and shown: at most 128 bytes, no control characters.
pub(crate) fn is_short_text(text: &str) -> bool {
    const MAX_LEN: usize = 128;
    text.len() <= MAX_LEN && !text.chars().any(char::is_control)
}

/// Reads a timestamp: an ISO 8601 date, a Unix time, or a string with either. Anything else is `None`, because a window without
/// its reset is still usable.
pub(crate) fn timestamp(field: Option<&Value>) -> Option<Timestamp> {
    match field? {
        Value::Number(number) => from_epoch(number.as_f64()?),
        Value::String(text) => parse_timestamp(text),
        _ => None,
    }
}

/// Parses an ISO 8601 date or a Unix time.
pub(crate) fn parse_timestamp(text: &str) -> Option<Timestamp> {
    if let Some(number) = parse_number(text) {
        return from_epoch(number);
    }
    let text = text.trim();
    text.parse().ok().or_else(|| {
        // Providers use UTC if there is no offset.
        let civil: DateTime = text.parse().ok()?;
        TimeZone::UTC.to_timestamp(civil).ok()
    })
}

/// Converts a Unix time in seconds. A number that would be after the year 33,000 is in milliseconds.
///
/// Programs write zero for a missing time, so zero is `None`.
pub(crate) fn from_epoch(number: f64) -> Option<Timestamp> {
    const MIN_MILLISECONDS: f64 = 1e12;
    if number <= 0.0 {
        return None;
    }
    let ms = if number < MIN_MILLISECONDS { number * 1000.0 } else { number };
    // `as` saturates, and both limits are out of range for a timestamp.
    Timestamp::from_millisecond(ms.round() as i64).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read_number(value: Value) -> Field<f64> {
        number(Some(&value))
    }

    #[test]
    fn a_number_in_a_string_is_read() {
        assert_eq!(read_number(json!("42.5")), Field::Present(42.5));
        assert_eq!(read_number(json!(" 7 ")), Field::Present(7.0));
    }

    #[test]
    fn null_and_missing_are_absent() {
        assert_eq!(read_number(json!(null)), Field::Absent);
        assert_eq!(number(None), Field::Absent);
    }

    #[test]
    fn a_value_that_is_not_a_finite_number_is_unreadable() {
        for value in
            [json!("abc"), json!(""), json!("NaN"), json!("inf"), json!("1e999"), json!({}), json!(true)]
        {
            assert_eq!(read_number(value.clone()), Field::Unreadable, "{value}");
        }
    }

    #[test]
    fn every_timestamp_format_is_read() {
        let noon = "2026-07-01T12:00:00Z".parse().ok();
        let forms = [
            json!("2026-07-01T12:00:00Z"),
            json!("2026-07-01T12:00:00+00:00"),
            json!("2026-07-01T14:00:00+02:00"),
            json!("2026-07-01T12:00:00.000Z"),
            json!("2026-07-01T12:00:00.000000000+00:00"),
            json!("2026-07-01T12:00:00"),
            json!("2026-07-01 12:00:00.0"),
            json!(1_782_907_200),
            json!(1_782_907_200.0),
            json!("1782907200"),
            json!(1_782_907_200_000_i64),
            json!("1782907200000"),
        ];

        for form in forms {
            assert_eq!(timestamp(Some(&form)), noon, "{form}");
        }
    }

    #[test]
    fn fractions_of_a_second_are_preserved() {
        let text = json!("2026-07-01T12:00:00.282668+00:00");

        assert_eq!(timestamp(Some(&text)).unwrap().subsec_microsecond(), 282_668);
    }

    #[test]
    fn an_invalid_timestamp_is_none() {
        let invalid = [
            json!(null),
            json!(""),
            json!("soon"),
            json!(0),
            json!(-5),
            json!(1e308),
            json!("1e308"),
            json!([]),
        ];
        for value in invalid {
            assert_eq!(timestamp(Some(&value)), None, "{value}");
        }
    }

    #[test]
    fn text_with_control_characters_is_unreadable() {
        assert_eq!(text(Some(&json!("a\u{1b}[2Jb"))), Field::Unreadable);
        assert_eq!(text(Some(&json!("x".repeat(129)))), Field::Unreadable);
        assert_eq!(text(Some(&json!(" EUR "))), Field::Present("EUR"));
    }
}
