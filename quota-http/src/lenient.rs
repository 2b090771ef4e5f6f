//! Numbers and moments in the many forms in which providers write them.
//! Nothing here knows a field by its name, and nothing here invents a value for what cannot be read.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::Value;

/// What a field holds: a value, nothing, or something that is none of its forms.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Field<T> {
    /// The field is missing or null.
    Absent,
    /// The field holds this.
    Is(T),
    /// Something stands there, and it is not understood.
    Unreadable,
}

impl<T> Field<T> {
    /// The value, or an error for what is not understood.
    pub(crate) fn ok(self) -> Result<Option<T>, Unreadable> {
        match self {
            Self::Absent => Ok(None),
            Self::Is(value) => Ok(Some(value)),
            Self::Unreadable => Err(Unreadable),
        }
    }

    /// The value, where it makes no difference why there is none.
    pub(crate) fn known(self) -> Option<T> {
        self.ok().ok().flatten()
    }

    pub(crate) fn map<U>(self, read: impl FnOnce(T) -> U) -> Field<U> {
        self.and_then(|value| Some(read(value)))
    }

    pub(crate) fn and_then<U>(self, read: impl FnOnce(T) -> Option<U>) -> Field<U> {
        match self {
            Self::Absent => Field::Absent,
            Self::Is(value) => read(value).map_or(Field::Unreadable, Field::Is),
            Self::Unreadable => Field::Unreadable,
        }
    }
}

/// Something stood there, and it was not understood.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Unreadable;

/// Reads a number, or a text that holds one.
pub(crate) fn number(field: Option<&Value>) -> Field<f64> {
    match field {
        None | Some(Value::Null) => Field::Absent,
        Some(Value::Number(number)) => number.as_f64().map_or(Field::Unreadable, Field::Is),
        Some(Value::String(text)) => parse_number(text).map_or(Field::Unreadable, Field::Is),
        Some(_) => Field::Unreadable,
    }
}

/// Reads a finite number.
pub(crate) fn parse_number(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

/// Reads a yes or no.
pub(crate) fn flag(field: Option<&Value>) -> Field<bool> {
    match field {
        None | Some(Value::Null) => Field::Absent,
        Some(Value::Bool(flag)) => Field::Is(*flag),
        Some(_) => Field::Unreadable,
    }
}

/// Reads a text that is short, has something in it and can be shown.
pub(crate) fn text(field: Option<&Value>) -> Field<&str> {
    match field {
        None | Some(Value::Null) => Field::Absent,
        Some(Value::String(text)) if text.trim().is_empty() => Field::Absent,
        Some(Value::String(text)) if is_word(text) => Field::Is(text.trim()),
        Some(_) => Field::Unreadable,
    }
}

/// Whether a provider's word may be kept and shown: it is short and has no control characters.
pub(crate) fn is_word(text: &str) -> bool {
    const MAX_LEN: usize = 128;
    text.len() <= MAX_LEN && !text.chars().any(char::is_control)
}

/// Reads a moment: an ISO date, a number since 1970, or a text that holds one. `None` for everything else, for a window
/// without its reset is still a window.
pub(crate) fn moment(field: Option<&Value>) -> Option<Timestamp> {
    match field? {
        Value::Number(number) => epoch(number.as_f64()?),
        Value::String(text) => parse_moment(text),
        _ => None,
    }
}

/// Reads a moment from a text.
pub(crate) fn parse_moment(text: &str) -> Option<Timestamp> {
    if let Some(number) = parse_number(text) {
        return epoch(number);
    }
    let text = text.trim();
    text.parse().ok().or_else(|| {
        // A provider that names no zone means UTC.
        let civil: DateTime = text.parse().ok()?;
        TimeZone::UTC.to_timestamp(civil).ok()
    })
}

/// The moment that many seconds after 1970, or milliseconds where seconds would lie beyond the year 33,000.
///
/// Zero is what programs write that have no moment to tell.
pub(crate) fn epoch(number: f64) -> Option<Timestamp> {
    const FIRST_MILLISECONDS: f64 = 1e12;
    if number <= 0.0 {
        return None;
    }
    let ms = if number < FIRST_MILLISECONDS { number * 1000.0 } else { number };
    // `as` saturates, and both ends lie beyond what a timestamp holds.
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
    fn a_number_may_stand_in_a_text() {
        assert_eq!(read_number(json!("42.5")), Field::Is(42.5));
        assert_eq!(read_number(json!(" 7 ")), Field::Is(7.0));
    }

    #[test]
    fn null_and_missing_are_absent() {
        assert_eq!(read_number(json!(null)), Field::Absent);
        assert_eq!(number(None), Field::Absent);
    }

    #[test]
    fn what_is_no_finite_number_is_unreadable() {
        for value in
            [json!("abc"), json!(""), json!("NaN"), json!("inf"), json!("1e999"), json!({}), json!(true)]
        {
            assert_eq!(read_number(value.clone()), Field::Unreadable, "{value}");
        }
    }

    #[test]
    fn every_form_of_a_moment_is_read() {
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
            assert_eq!(moment(Some(&form)), noon, "{form}");
        }
    }

    #[test]
    fn fractions_of_a_second_are_kept() {
        let text = json!("2026-07-01T12:00:00.282668+00:00");

        assert_eq!(moment(Some(&text)).unwrap().subsec_microsecond(), 282_668);
    }

    #[test]
    fn what_is_no_moment_is_none() {
        let no_moments = [
            json!(null),
            json!(""),
            json!("soon"),
            json!(0),
            json!(-5),
            json!(1e308),
            json!("1e308"),
            json!([]),
        ];
        for value in no_moments {
            assert_eq!(moment(Some(&value)), None, "{value}");
        }
    }

    #[test]
    fn a_text_that_could_garble_a_terminal_is_unreadable() {
        assert_eq!(text(Some(&json!("a\u{1b}[2Jb"))), Field::Unreadable);
        assert_eq!(text(Some(&json!("x".repeat(129)))), Field::Unreadable);
        assert_eq!(text(Some(&json!(" EUR "))), Field::Is("EUR"));
    }
}
