//! Field readers for all parsers: numbers, amounts, timestamps and strings in the formats that providers use.
//!
//! A reader takes a field of a [`json::Value`](crate::json::Value) or of a `serde_json::Value`.
//!
//! No reader substitutes a default for a value that it cannot read. [`Field`] distinguishes a missing value from an
//! unreadable one.
//!
//! | rule | reader |
//! |---|---|
//! | a number may be a string; null means missing | [`number`], [`decimal`] |
//! | a time below 10¹² is in seconds, otherwise in milliseconds; zero means missing | [`from_epoch`], [`timestamp`] |
//! | a delay is added to the time of the response | [`after`] |
//! | an ISO 8601 date has 0 to 9 digits of a second, and is in UTC without an offset | [`parse_timestamp`], [`timestamp`] |
//! | money is never a floating point number | [`decimal`] |
//! | the source decides between percent and fraction, never the value | `Percent::from_percent`, `Percent::from_fraction` |
//!
//! ```
//! use quota_http::lenient::{Field, number, timestamp};
//! use serde_json::json;
//!
//! let window = json!({ "used": "42.5", "resets_at": 1_782_907_200 });
//! assert_eq!(number(window.get("used")), Field::Present(42.5));
//! assert_eq!(timestamp(window.get("resets_at")), "2026-07-01T12:00:00Z".parse().ok());
//! assert_eq!(number(window.get("missing")), Field::Absent);
//! ```

use crate::json::Scalar;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use quota_core::Percent;
use quota_core::model::Money;
use quota_core::provider::wait_of_seconds;

/// The content of a JSON field.
#[derive(Debug, Clone, PartialEq)]
pub enum Field<T> {
    /// The field is missing or null.
    Absent,
    /// The field has this value.
    Present(T),
    /// The field has an invalid value.
    Unreadable,
}

impl<T> Field<T> {
    /// The value.
    ///
    /// # Errors
    ///
    /// [`Unreadable`] if the value is invalid.
    pub fn into_result(self) -> Result<Option<T>, Unreadable> {
        match self {
            Self::Absent => Ok(None),
            Self::Present(value) => Ok(Some(value)),
            Self::Unreadable => Err(Unreadable),
        }
    }

    /// The value; `None` if absent or unreadable.
    #[must_use]
    pub fn ok(self) -> Option<T> {
        self.into_result().ok().flatten()
    }

    /// Converts a present value.
    #[must_use]
    pub fn map<U>(self, read: impl FnOnce(T) -> U) -> Field<U> {
        self.and_then(|value| Some(read(value)))
    }

    /// Converts a present value; `None` means that it is unreadable.
    #[must_use]
    pub fn and_then<U>(self, read: impl FnOnce(T) -> Option<U>) -> Field<U> {
        match self {
            Self::Absent => Field::Absent,
            Self::Present(value) => read(value).map_or(Field::Unreadable, Field::Present),
            Self::Unreadable => Field::Unreadable,
        }
    }
}

/// The field has an invalid value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

/// Reads a number, or a string that contains one.
#[must_use]
pub fn number<'a>(field: Option<impl Into<Scalar<'a>>>) -> Field<f64> {
    match field.map(Into::into) {
        None | Some(Scalar::Null) => Field::Absent,
        Some(Scalar::Number(number)) => number.as_f64().map_or(Field::Unreadable, Field::Present),
        Some(Scalar::String(text)) => parse_number(text).map_or(Field::Unreadable, Field::Present),
        Some(_) => Field::Unreadable,
    }
}

/// Reads a finite number.
#[must_use]
pub fn parse_number(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

/// The used share of a limit, in percent, from the used amount if present, otherwise from the remaining amount.
///
/// There is no share without an amount, or without a limit above zero. A share above [`Percent::MAX`] is reduced to the
/// maximum. It is not unreadable: far more than the limit is used.
#[must_use]
pub(crate) fn used_share(limit: Field<f64>, used: Field<f64>, remaining: Field<f64>) -> Field<f64> {
    let limit = match limit {
        Field::Present(limit) if limit > 0.0 => limit,
        Field::Unreadable => return Field::Unreadable,
        _ => return Field::Absent,
    };
    let share = |used: f64| Field::Present((used / limit * 100.0).min(Percent::MAX.as_f64()));
    match (used, remaining) {
        (Field::Present(used), _) => share(used),
        (_, Field::Present(remaining)) => share(limit - remaining),
        (Field::Absent, Field::Absent) => Field::Absent,
        _ => Field::Unreadable,
    }
}

/// The used share of an amount of money, in percent, like [`used_share`]. A limit of zero counts as fully used, because
/// nothing may be spent.
#[must_use]
pub(crate) fn spent_share(limit: Field<f64>, used: Field<f64>, remaining: Field<f64>) -> Field<f64> {
    match limit {
        Field::Present(0.0) => Field::Present(100.0),
        limit => used_share(limit, used, remaining),
    }
}

/// Reads a boolean.
#[must_use]
pub fn flag<'a>(field: Option<impl Into<Scalar<'a>>>) -> Field<bool> {
    match field.map(Into::into) {
        None | Some(Scalar::Null) => Field::Absent,
        Some(Scalar::Bool(flag)) => Field::Present(flag),
        Some(_) => Field::Unreadable,
    }
}

/// Reads a short string without control characters. An empty string is absent.
#[must_use]
pub fn text<'a>(field: Option<impl Into<Scalar<'a>>>) -> Field<&'a str> {
    match field.map(Into::into) {
        None | Some(Scalar::Null) => Field::Absent,
        Some(Scalar::String(text)) if text.trim().is_empty() => Field::Absent,
        Some(Scalar::String(text)) if is_short_text(text) => Field::Present(text.trim()),
        Some(_) => Field::Unreadable,
    }
}

/// Whether a provider's text may be stored and displayed: 1 to 128 bytes, without control characters.
#[must_use]
pub fn is_short_text(text: &str) -> bool {
    const MAX_LEN: usize = 128;
    !text.is_empty() && text.len() <= MAX_LEN && !text.chars().any(char::is_control)
}

/// Reads a timestamp: an ISO 8601 date, a Unix time, or a string with either. Anything else is `None`, because a window
/// without a reset is still usable.
#[must_use]
pub fn timestamp<'a>(field: Option<impl Into<Scalar<'a>>>) -> Option<Timestamp> {
    match field?.into() {
        Scalar::Number(number) => from_epoch(number.as_f64()?),
        Scalar::String(text) => parse_timestamp(text),
        _ => None,
    }
}

/// Parses an ISO 8601 date or a Unix time.
#[must_use]
pub fn parse_timestamp(text: &str) -> Option<Timestamp> {
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
/// Zero is `None`, because programs write zero for a missing time.
#[must_use]
pub fn from_epoch(number: f64) -> Option<Timestamp> {
    const MIN_MILLISECONDS: f64 = 1e12;
    if number <= 0.0 {
        return None;
    }
    let ms = if number < MIN_MILLISECONDS { number * 1000.0 } else { number };
    // `as` saturates, and both limits are out of range for a timestamp.
    Timestamp::from_millisecond(ms.round() as i64).ok()
}

/// The time `seconds` after `now`, for a reset that is a number of seconds. A number that is large enough counts as a
/// Unix time. `None` if the result is not in the future.
#[must_use]
pub fn after(seconds: f64, now: Timestamp) -> Option<Timestamp> {
    now.checked_add(wait_of_seconds(seconds, Some(now))?).ok().filter(|at| *at > now)
}

/// An exact decimal amount: 1450 with exponent 2 is 14.50. Amounts of money never become floating point numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decimal {
    /// The amount in units of the last digit.
    pub units: i64,
    /// The number of decimal digits, at most 18.
    pub exponent: u8,
}

impl Decimal {
    /// Extends the amount to at least this many decimal digits, if they fit: 14.5 becomes 14.50.
    #[must_use]
    pub fn extended(self, digits: u8) -> Self {
        let missing = digits.saturating_sub(self.exponent);
        let factor = 10_i64.checked_pow(missing.into());
        match factor.and_then(|factor| self.units.checked_mul(factor)) {
            Some(units) => Self { units, exponent: self.exponent + missing },
            None => self,
        }
    }

    /// Converts the amount to exactly this many decimal digits, if they fit. It rounds half away from zero.
    #[must_use]
    pub fn rounded(self, digits: u8) -> Self {
        let Some(excess) = self.exponent.checked_sub(digits) else { return self.extended(digits) };
        // At most 18 digits, so the power fits.
        let unit = 10_i64.pow(excess.into());
        let (whole, rest) = (self.units / unit, self.units % unit);
        let carry =
            if rest.unsigned_abs() * 2 >= unit.unsigned_abs() && excess > 0 { rest.signum() } else { 0 };
        Self { units: whole + carry, exponent: digits }
    }

    /// The difference of two amounts; `None` if it does not fit.
    #[must_use]
    pub fn minus(self, other: Self) -> Option<Self> {
        let exponent = self.exponent.max(other.exponent);
        let (mine, other) = (self.extended(exponent), other.extended(exponent));
        let units = mine.units.checked_sub(other.units).filter(|_| mine.exponent == other.exponent)?;
        Some(Self { units, exponent })
    }

    /// The amount in this currency.
    #[must_use]
    pub fn money(self, currency: &str) -> Money {
        Money::new(self.units, currency, self.exponent)
    }
}

/// Reads an amount: a number, or a string that contains one.
#[must_use]
pub fn decimal<'a>(field: Option<impl Into<Scalar<'a>>>) -> Field<Decimal> {
    match field.map(Into::into) {
        None | Some(Scalar::Null) => Field::Absent,
        Some(Scalar::Number(number)) => {
            parse_decimal(&number.to_string()).map_or(Field::Unreadable, Field::Present)
        }
        Some(Scalar::String(text)) => parse_decimal(text).map_or(Field::Unreadable, Field::Present),
        Some(_) => Field::Unreadable,
    }
}

/// Parses an amount without rounding it. Digits beyond the 18th decimal one are dropped.
#[must_use]
pub fn parse_decimal(text: &str) -> Option<Decimal> {
    const MAX_EXPONENT: usize = 18;
    let text = text.trim();
    let expanded;
    let text = if text.contains(['e', 'E']) {
        // The display of a number never has an exponent.
        expanded = parse_number(text)?.to_string();
        &expanded
    } else {
        text
    };
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && part.is_empty()) || !is_digits(whole) || !is_digits(part) {
        return None;
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // Drop decimal digits if not all of them fit.
    (0..=part.len().min(MAX_EXPONENT)).rev().find_map(|exponent| {
        let part = if exponent == 0 { 0 } else { part[..exponent].parse::<i64>().ok()? };
        let unit = 10_i64.checked_pow(u32::try_from(exponent).ok()?)?;
        let units = whole.checked_mul(unit)?.checked_add(part)?;
        Some(Decimal {
            units: if is_negative { -units } else { units },
            exponent: u8::try_from(exponent).ok()?,
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_difference_has_the_digits_of_the_more_precise_amount() {
        let minus = |a: &str, b: &str| parse_decimal(a)?.minus(parse_decimal(b)?);

        assert_eq!(minus("500", "454.54"), Some(Decimal { units: 4546, exponent: 2 }));
        assert_eq!(minus("0.5", "2"), Some(Decimal { units: -15, exponent: 1 }));
        assert_eq!(minus("9000000000000000000", "0.123456789"), None);
    }

    #[test]
    fn all_of_a_limit_of_zero_is_spent() {
        let of = |limit, used| spent_share(Field::Present(limit), Field::Present(used), Field::Absent);

        assert_eq!((of(4.0, 5.0), of(0.0, 0.0)), (Field::Present(125.0), Field::Present(100.0)));
    }

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
        assert_eq!(number(None::<&Value>), Field::Absent);
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
    fn the_used_share_is_computed_from_either_amount() {
        let share = |used, remaining| used_share(Field::Present(200.0), used, remaining);

        assert_eq!(share(Field::Present(50.0), Field::Unreadable), Field::Present(25.0));
        assert_eq!(share(Field::Unreadable, Field::Present(50.0)), Field::Present(75.0));
        assert_eq!(share(Field::Present(300.0), Field::Absent), Field::Present(150.0));
        assert_eq!(share(Field::Absent, Field::Absent), Field::Absent);
        assert_eq!(share(Field::Absent, Field::Unreadable), Field::Unreadable);
    }

    #[test]
    fn without_a_limit_there_is_no_share() {
        for limit in [Field::Absent, Field::Present(0.0), Field::Present(-1.0)] {
            assert_eq!(used_share(limit, Field::Present(0.0), Field::Absent), Field::Absent);
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

    fn amount(text: &str) -> Option<(i64, u8)> {
        parse_decimal(text).map(|amount| (amount.units, amount.exponent))
    }

    #[test]
    fn an_amount_keeps_its_digits() {
        assert_eq!(amount("14.5"), Some((145, 1)));
        assert_eq!(amount("-0.05"), Some((-5, 2)));
        assert_eq!(amount("1000"), Some((1000, 0)));
        assert_eq!(amount("36.79748725891113"), Some((3_679_748_725_891_113, 14)));
        assert_eq!(amount("1e-2"), Some((1, 2)));
        assert_eq!(decimal(Some(&json!(0.1))), Field::Present(Decimal { units: 1, exponent: 1 }));
    }

    #[test]
    fn text_that_is_not_an_amount_is_unreadable() {
        for text in ["", ".", "-", "1.2.3", "1,5", "abc", "NaN", "inf", "1e999", "99999999999999999999"] {
            assert_eq!(amount(text), None, "{text}");
        }
        assert_eq!(decimal(Some(&json!([]))), Field::Unreadable);
        assert_eq!(decimal(Some(&json!(null))), Field::Absent);
    }

    #[test]
    fn an_amount_is_rounded_half_away_from_zero() {
        let rounded = |text| parse_decimal(text).map(|amount| amount.rounded(2).units);

        assert_eq!(
            [rounded("36.795"), rounded("-36.795"), rounded("36.794"), rounded("2")],
            [3680, -3680, 3679, 200].map(Some)
        );
    }

    #[test]
    fn a_date_without_a_time_is_midnight_in_utc() {
        assert_eq!(timestamp(Some(&json!("2026-07-01"))), "2026-07-01T00:00:00Z".parse().ok());
    }

    #[test]
    fn a_computed_share_ends_at_the_highest_use() {
        let most = Field::Present(Percent::MAX.as_f64());

        assert_eq!(used_share(Field::Present(300.0), Field::Absent, Field::Present(-2_800.0)), most);
        assert_eq!(spent_share(Field::Present(0.01), Field::Present(0.2), Field::Absent), most);
        assert_eq!(used_share(Field::Present(1e-300), Field::Present(1e300), Field::Absent), most);
    }

    proptest! {
        #[test]
        fn a_number_and_its_text_are_the_same(value in -1e15..1e15_f64) {
            prop_assert_eq!(read_number(json!(value)), read_number(json!(value.to_string())));
        }

        #[test]
        fn null_and_missing_are_never_a_number(name in "[a-z]{1,8}") {
            let object = json!({ name.as_str(): null });
            prop_assert_eq!(number(object.get(&name)), Field::Absent);
            prop_assert_eq!(number(object.get("0")), Field::Absent);
        }

        #[test]
        fn an_epoch_below_a_million_million_is_in_seconds(seconds in 1..1_000_000_000_000_i64) {
            // Times after the year 9999 do not exist.
            let expected = Timestamp::from_second(seconds).ok();
            prop_assert_eq!(from_epoch(seconds as f64), expected);
        }

        #[test]
        fn a_larger_epoch_is_in_milliseconds(ms in 1_000_000_000_000..200_000_000_000_000_i64) {
            prop_assert_eq!(from_epoch(ms as f64), Timestamp::from_millisecond(ms).ok());
            prop_assert_eq!(timestamp(Some(&json!(ms))), timestamp(Some(&json!(ms.to_string()))));
        }

        #[test]
        fn a_date_has_zero_to_nine_digits_and_any_offset(
            second in 0..4_000_000_000_i64, nanos in 0..1_000_000_000_u32, digits in 0..10_usize, offset in -23..24_i8,
        ) {
            let unit = 10_u32.pow(9 - u32::try_from(digits).unwrap());
            let nanos = nanos / unit * unit;
            let at = Timestamp::new(second, i32::try_from(nanos).unwrap()).unwrap();
            let fraction = if digits == 0 { String::new() } else { format!(".{:0digits$}", nanos / unit) };
            let local = |offset: i8| jiff::tz::Offset::constant(offset).to_datetime(Timestamp::from_second(second).unwrap());
            let text = |offset| local(offset).strftime("%Y-%m-%dT%H:%M:%S").to_string() + &fraction;

            let with_offset = format!("{}{offset:+03}:00", text(offset));
            prop_assert_eq!(parse_timestamp(&with_offset), Some(at), "{}", with_offset);
            prop_assert_eq!(parse_timestamp(&format!("{}Z", text(0))), Some(at));
            prop_assert_eq!(parse_timestamp(&text(0)), Some(at), "without an offset it is UTC");
        }

        #[test]
        fn an_amount_never_passes_through_a_float(units in any::<i32>(), exponent in 0..9_u8) {
            let text = Money::new(units.into(), "", exponent).to_string();
            let read = parse_decimal(text.trim()).unwrap();
            prop_assert_eq!((read.units, read.exponent), (units.into(), exponent));
        }

        #[test]
        fn no_text_makes_a_reader_panic(text in any::<String>()) {
            let value = json!(text);
            let _ = (number(Some(&value)), decimal(Some(&value)), timestamp(Some(&value)), self::text(Some(&value)));
        }

        #[test]
        fn the_source_decides_between_percent_and_fraction(value in 0.0..1.0_f64) {
            let (percent, fraction) = (Percent::from_percent(value).unwrap(), Percent::from_fraction(value).unwrap());
            prop_assert!(percent.basis_points() <= 100);
            prop_assert_eq!(fraction.basis_points(), (value * 10_000.0).round() as u32);
        }

        #[test]
        fn a_percentage_above_100_is_not_clamped(value in 100.0..1_000.0_f64) {
            prop_assert_eq!(Percent::from_percent(value).unwrap().basis_points(), (value * 100.0).round() as u32);
        }
    }
}
