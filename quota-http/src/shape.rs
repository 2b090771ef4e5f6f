//! The shape of a provider's response as data instead of code: JSONPaths to windows, credits, the plan and the owner.
//!
//! A window is either one location in the response, or each row of a list. The paths of a row begin at the row. The
//! shape, never the value, decides between percent, fraction and amount. If a path finds nothing, the usage of its
//! window is unknown, not zero.
//!
//! ```
//! use jiff::Timestamp;
//! use quota_core::WindowId;
//! use quota_http::shape::{Unit, UsageShape, WindowShape};
//!
//! let mut window = WindowShape::default();
//! window.rows = Some("$.limits[*]".parse()?);
//! window.length = Some("$.window".parse()?);
//! window.used = Some("$.used".parse()?);
//! window.limit = Some("$.limit".parse()?);
//! window.unit = Unit::Amount;
//! let mut shape = UsageShape::default();
//! shape.windows.push(window);
//!
//! let body = br#"{ "limits": [{ "window": "5h", "limit": 20, "used": 5 }] }"#;
//! let parsed = shape.parse(body, Timestamp::UNIX_EPOCH)?;
//!
//! let window = &parsed.usage.windows[0];
//! assert_eq!((&window.id, window.used.as_f64()), (&WindowId::five_hour(), 25.0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod path;
#[cfg(feature = "schema")]
mod schema;

use std::str::FromStr;
use std::time::Duration;

use jiff::{Span, SpanRelativeTo, Timestamp};
use quota_core::model::{Credits, Money, OwnerId, Scope};
use quota_core::{Percent, WindowId, WindowReading};
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

pub use self::path::{InvalidPath, Path, Text};
use crate::lenient::{Field, Unreadable, after, decimal, flag, number, text, timestamp, used_share};
use crate::parsed::{ParseError, Parsed};
use crate::report::ReportBuilder;
use crate::window_length::{scoped_id, window_of_length};

/// Where the usage is in a response.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct UsageShape {
    /// The windows.
    pub windows: Vec<WindowShape>,
    /// The credits of the account.
    pub credits: Option<CreditsShape>,
    /// The plan of the account.
    pub plan: Option<Text>,
    /// The owner of the account.
    pub owner: Option<Path>,
    /// If there is a value here, the response is an error even if its status is 200.
    pub error: Option<Path>,
}

/// One window, or all windows of a list.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct WindowShape {
    /// The rows that are windows. If it is set, the other paths begin at the row, otherwise at the root.
    pub rows: Option<Path>,
    /// The name of the window. By default, it follows from the length.
    pub id: Option<Text>,
    /// The length of the window.
    pub length: Option<Length>,
    /// The unit of a length that is a number.
    #[serde(default)]
    pub length_unit: TimeUnit,
    /// The used amount or share.
    pub used: Option<Path>,
    /// The remaining amount or share, if there is no `used`.
    pub remaining: Option<Path>,
    /// The limit, for amounts.
    pub limit: Option<Path>,
    /// The unit of `used` and `remaining`.
    #[serde(default)]
    pub unit: Unit,
    /// When the window resets: a date, or a Unix time in seconds or milliseconds.
    pub resets_at: Option<Path>,
    /// The time until the reset, if there is no `resets_at`.
    pub resets_in: Option<Path>,
    /// The unit of `resets_in`.
    #[serde(default)]
    pub resets_in_unit: TimeUnit,
    /// Whether the window has no limit.
    pub unlimited: Option<Path>,
    /// The model whose usage the window counts. Without a model or surface, the window counts the whole account.
    pub model: Option<Text>,
    /// The product or surface whose usage the window counts.
    pub surface: Option<Text>,
}

/// The credits of an account.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct CreditsShape {
    /// The amount spent in this period.
    pub used: Option<Path>,
    /// The spending limit of this period.
    pub limit: Option<Path>,
    /// The remaining balance.
    pub balance: Option<Path>,
    /// The currency, such as `USD`.
    pub currency: Option<Text>,
    /// The number of decimal digits, if amounts are in minor units: 2 for cents.
    #[serde(default)]
    pub minor_digits: u8,
    /// Whether spending has no limit.
    pub unlimited: Option<Path>,
    /// Whether spending is enabled.
    pub enabled: Option<Path>,
}

/// What the number of a window means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Unit {
    /// 1 is 1 %.
    #[default]
    Percent,
    /// 1 is 100 %.
    Fraction,
    /// A part of the limit.
    Amount,
}

/// A unit of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TimeUnit {
    /// 1/1000 of a second.
    Milliseconds,
    /// One second.
    #[default]
    Seconds,
    /// 60 seconds.
    Minutes,
    /// 60 minutes.
    Hours,
    /// 24 hours.
    Days,
}

impl TimeUnit {
    fn seconds(self) -> f64 {
        match self {
            Self::Milliseconds => 0.001,
            Self::Seconds => 1.0,
            Self::Minutes => 60.0,
            Self::Hours => 3600.0,
            Self::Days => 24.0 * 3600.0,
        }
    }
}

/// The length of a window: a fixed length such as `5h`, or a path to it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Length {
    /// This length.
    Fixed(Duration),
    /// The length at this path: a number, or a text such as `5h`.
    At(Path),
}

/// Why a text is neither a length nor a path to one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidLength {
    /// An invalid path.
    #[error(transparent)]
    Path(#[from] InvalidPath),
    /// Not a length.
    #[error("not a length; write it like \"5h\", \"7d\" or \"$.window_seconds\"")]
    Length,
}

impl FromStr for Length {
    type Err = InvalidLength;

    fn from_str(text: &str) -> Result<Self, InvalidLength> {
        match text.starts_with('$') {
            true => Ok(Self::At(text.parse()?)),
            false => parse_length(text).map(Self::Fixed).ok_or(InvalidLength::Length),
        }
    }
}

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A length in words, such as `5h`, `7d` or `90 minutes`.
fn parse_length(text: &str) -> Option<Duration> {
    const LONGEST: usize = 64;
    let span: Span = if text.len() <= LONGEST { text.trim().parse().ok()? } else { return None };
    let length = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    Duration::try_from(length).ok().filter(|length| !length.is_zero())
}

/// Why a shape cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
#[non_exhaustive]
pub struct InvalidShape {
    /// The key, such as `windows[0].limit`.
    pub key: String,
    /// What to write instead.
    pub reason: &'static str,
}

impl InvalidShape {
    pub(crate) fn new(key: impl Into<String>, reason: &'static str) -> Self {
        Self { key: key.into(), reason }
    }
}

impl UsageShape {
    /// The maximum number of window entries. Accounts have about ten windows.
    const MAX_ENTRIES: usize = 64;

    /// Whether the shape reads neither windows nor credits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty() && self.credits.is_none()
    }

    /// Checks that each window has a name and a usage.
    ///
    /// # Errors
    ///
    /// [`InvalidShape`] for the first entry that can never be read.
    pub fn validate(&self) -> Result<(), InvalidShape> {
        if self.is_empty() {
            return Err(InvalidShape::new("windows", "add [[providers.windows]] or [providers.credits]"));
        }
        if self.windows.len() > Self::MAX_ENTRIES {
            return Err(InvalidShape::new("windows", "more windows than an account can have"));
        }
        for (at, window) in self.windows.iter().enumerate() {
            window
                .validate()
                .map_err(|(key, reason)| InvalidShape::new(format!("windows[{at}].{key}"), reason))?;
        }
        self.credits.as_ref().map_or(Ok(()), CreditsShape::validate)
    }

    /// Parses the body of a response that arrived at `now`.
    ///
    /// # Errors
    ///
    /// [`ParseError`] if the body is not JSON, is an error response, or has too many windows.
    pub fn parse(&self, body: &[u8], now: Timestamp) -> Result<Parsed, ParseError> {
        let root: Value = serde_json::from_slice(body)?;
        let is_error = |value: &&Value| !matches!(value, Value::Null | Value::Bool(false));
        if self.error.as_ref().is_some_and(|path| path.all(&root).iter().any(is_error)) {
            return Err(ParseError::ErrorResponse { kind: None });
        }
        let mut report = ReportBuilder::default();
        for (at, window) in self.windows.iter().enumerate() {
            window.read(&root, &format!("windows[{at}]"), now, &mut report)?;
        }
        let mut read_text = |field: Field<&str>, name: &str| {
            if field == Field::Unreadable {
                report.skip(name, "not a short text");
            }
            field.ok().map(str::to_owned)
        };
        let plan = self.plan.as_ref().and_then(|plan| read_text(plan.read(&root), "plan"));
        let owner = self.owner.as_ref().and_then(|path| read_text(path.read(&root, text), "owner"));
        let credits = match self.credits.as_ref().map(|credits| credits.read(&root)) {
            None => Field::Absent,
            Some(Ok(credits)) if credits == Credits::default() => Field::Absent,
            Some(Ok(credits)) => Field::Present(credits),
            Some(Err(Unreadable)) => {
                report.skip("credits", "its amounts are invalid");
                Field::Unreadable
            }
        };
        let mut parsed = report.build(credits)?;
        // A fixed plan alone is not usage.
        parsed.usage.plan = plan.filter(|_| !parsed.usage.is_empty());
        parsed.usage.owner_id = owner.as_deref().map(OwnerId::new);
        Ok(parsed)
    }
}

impl WindowShape {
    fn validate(&self) -> Result<(), (&'static str, &'static str)> {
        if self.used.is_none() && self.remaining.is_none() {
            return Err(("used", "set used or remaining to the path of the window's usage"));
        }
        if self.used.is_some() && self.remaining.is_some() {
            return Err(("remaining", "set only one of used and remaining"));
        }
        if (self.unit == Unit::Amount) != self.limit.is_some() {
            return Err(("limit", "set limit together with unit = \"amount\""));
        }
        match (&self.id, &self.length) {
            (None, None) => return Err(("id", "set id or length, to name the window")),
            (Some(Text::Fixed(id)), _) if WindowId::new(id).is_err() => {
                return Err(("id", "a window's name has 1 to 96 printable characters"));
            }
            (None, Some(Length::Fixed(length))) if window_of_length(*length).is_none() => {
                return Err(("length", "longer than ten years"));
            }
            _ => {}
        }
        let is_empty =
            |name: &Option<Text>| matches!(name, Some(Text::Fixed(name)) if name.trim().is_empty());
        if is_empty(&self.model) || is_empty(&self.surface) {
            return Err(("model", "the name of a model or surface is empty"));
        }
        Ok(())
    }

    fn read(
        &self,
        root: &Value,
        name: &str,
        now: Timestamp,
        report: &mut ReportBuilder,
    ) -> Result<(), ParseError> {
        let Some(rows) = &self.rows else {
            self.row(root, name.to_owned(), now, report);
            return Ok(());
        };
        let rows = rows.located(root, ReportBuilder::MAX_WINDOWS).ok_or(ParseError::TooManyWindows)?;
        if rows.is_empty() {
            report.skip(format!("{name}.rows"), "its path finds nothing");
        }
        for (place, row) in rows.into_iter().filter(|(_, row)| !row.is_null()) {
            self.row(row, format!("{name}:{place}"), now, report);
        }
        Ok(())
    }

    /// Adds the window of one row.
    fn row(&self, row: &Value, field: String, now: Timestamp, report: &mut ReportBuilder) {
        let length = match self.length(row) {
            Ok(length) => length,
            Err(Unreadable) if self.id.is_none() => {
                return report.mark_unnamed(field, "its length is unclear");
            }
            Err(Unreadable) => {
                report.skip(format!("{field}.length"), "its length is unclear");
                None
            }
        };
        let scope = match self.scope(row) {
            Ok(scope) => scope,
            Err(Unreadable) => return report.mark_unnamed(field, "it names no model and no surface"),
        };
        let whole = match &self.id {
            Some(id) => id.read(row).ok().and_then(|id| WindowId::new(id).ok()),
            None => length.and_then(window_of_length),
        };
        let id = whole.and_then(|whole| match &scope {
            Some(scope) => scoped_id(&whole, scope).ok(),
            None => Some(whole),
        });
        let Some(id) = id else { return report.mark_unnamed(field, "not a valid window name") };
        let unlimited = self.unlimited.as_ref().map_or(Field::Absent, |path| path.read(row, flag));
        if unlimited == Field::Present(true) {
            return report.add(WindowReading::unlimited(id).scope(scope), field);
        }
        let used = self.used(row);
        let resets_at = self.resets_at(row, now);
        report.add_used(id, used, field, |reading| reading.length(length).scope(scope).resets_at(resets_at));
    }

    /// The length; `None` if the shape has none.
    fn length(&self, row: &Value) -> Result<Option<Duration>, Unreadable> {
        let path = match &self.length {
            None => return Ok(None),
            Some(Length::Fixed(length)) => return Ok(Some(*length)),
            Some(Length::At(path)) => path,
        };
        let value = path.one(row)?;
        let length = match number(value) {
            Field::Present(number) => Duration::try_from_secs_f64(number * self.length_unit.seconds()).ok(),
            _ => value.and_then(Value::as_str).and_then(parse_length),
        };
        length.filter(|length| !length.is_zero()).map(Some).ok_or(Unreadable)
    }

    fn scope(&self, row: &Value) -> Result<Option<Scope>, Unreadable> {
        let read = |name: &Option<Text>| match name {
            None => Ok(None),
            Some(name) => name.read(row).ok().map(str::to_owned).map(Some).ok_or(Unreadable),
        };
        Ok(match (read(&self.model)?, read(&self.surface)?) {
            (None, None) => None,
            (Some(model), surface) => {
                let mut scope = Scope::model(&model);
                scope.surface = surface;
                Some(scope)
            }
            (None, Some(surface)) => Some(Scope::surface(&surface)),
        })
    }

    fn used(&self, row: &Value) -> Field<Percent> {
        let read = |path: &Option<Path>| path.as_ref().map_or(Field::Absent, |path| path.read(row, number));
        let (used, remaining) = (read(&self.used), read(&self.remaining));
        match self.unit {
            Unit::Amount => used_share(read(&self.limit), used, remaining).and_then(Percent::from_percent),
            Unit::Percent if self.used.is_some() => used.and_then(Percent::from_percent),
            Unit::Percent => remaining.and_then(|rest| Percent::from_percent(100.0 - rest)),
            Unit::Fraction if self.used.is_some() => used.and_then(Percent::from_fraction),
            Unit::Fraction => remaining.and_then(|rest| Percent::from_fraction(1.0 - rest)),
        }
    }

    fn resets_at(&self, row: &Value, now: Timestamp) -> Option<Timestamp> {
        let at = self.resets_at.as_ref().and_then(|path| timestamp(path.one(row).ok()?));
        at.or_else(|| {
            let wait = self.resets_in.as_ref()?.read(row, number).ok()?;
            after(wait * self.resets_in_unit.seconds(), now)
        })
    }
}

impl CreditsShape {
    const MAX_DIGITS: u8 = 18;

    fn validate(&self) -> Result<(), InvalidShape> {
        if self.used.is_none() && self.limit.is_none() && self.balance.is_none() && self.unlimited.is_none() {
            return Err(InvalidShape::new("credits", "set used, limit, balance or unlimited"));
        }
        if self.minor_digits > Self::MAX_DIGITS {
            return Err(InvalidShape::new("credits.minor_digits", "more than 18 digits"));
        }
        Ok(())
    }

    fn read(&self, root: &Value) -> Result<Credits, Unreadable> {
        let currency = match &self.currency {
            None => "",
            Some(currency) => currency.read(root).into_result()?.unwrap_or_default(),
        };
        let amount = |path: &Option<Path>| -> Result<Option<Money>, Unreadable> {
            let Some(path) = path else { return Ok(None) };
            let Some(amount) = path.read(root, decimal).into_result()? else { return Ok(None) };
            // An amount of money has at most 18 digits after the point.
            let amount =
                amount.rounded(amount.exponent.min(Self::MAX_DIGITS.saturating_sub(self.minor_digits)));
            Ok(Some(Money::new(amount.units, currency, amount.exponent.saturating_add(self.minor_digits))))
        };
        let is = |path: &Option<Path>| match path {
            None => Ok(None),
            Some(path) => path.read(root, flag).into_result(),
        };
        let mut credits = Credits::default();
        credits.used = amount(&self.used)?;
        credits.limit = amount(&self.limit)?;
        credits.balance = amount(&self.balance)?;
        credits.unlimited = is(&self.unlimited)?;
        credits.enabled = is(&self.enabled)?;
        Ok(credits)
    }
}

#[cfg(test)]
mod tests;
