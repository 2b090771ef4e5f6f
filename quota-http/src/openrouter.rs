//! OpenRouter: the spending limit of an API key, and the balance of the account. Amounts are in US dollars.

mod write;

use std::time::Duration;

use crate::json::{Object, Value};
use jiff::Timestamp;
use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use quota_core::model::{Credits, OwnerId, Scope};
use quota_core::{Credential, FetchError, Percent, WindowId};

use crate::command_environment::CommandEnvironment;
use crate::lenient::{Decimal, Field, Unreadable, decimal, flag, number, spent_share, used_share};
use crate::parsed::{ParseError, Parsed};
use crate::provider::{Provider, two_requests};
use crate::report::{ReportBuilder, credits_or_skip, json_object, text_or_skip};
use crate::request::UsageRequest;
use crate::usage_endpoint::UsageEndpoint;
use crate::window_length::window_of_length;

/// OpenRouter: the limit of a key, and with a management key the balance of the account.
pub static PROVIDER: Provider = Provider::new("openrouter", "OpenRouter", request, parse_usage)
    .base_url("https://openrouter.ai")
    .second_request(credits_request)
    .usage_endpoint(&ENDPOINT)
    .token_variables(&["OPENROUTER_API_KEY"])
    .command_environment(CommandEnvironment::new().token("OPENROUTER_API_KEY", &[]))
    .default_policy(two_requests);

static ENDPOINT: UsageEndpoint = UsageEndpoint::new("/api/v1/key", write::usage, write::failure)
    // The label contains a part of the key.
    .personal(&["data.creator_user_id", "data.label"]);

/// The scope of the window for free models.
const FREE_MODELS: &str = "free_models";
const CURRENCY: &str = "USD";
/// Amounts have up to nine decimal digits, because a request may cost less than a cent.
const DIGITS: u8 = 2;

/// Fields that are not readings. They are neither parsed nor listed as skipped. The rate limit is deprecated, and the
/// label contains a part of the key.
const KNOWN: [&str; 22] = [
    "byok_usage",
    "byok_usage_daily",
    "byok_usage_monthly",
    "byok_usage_weekly",
    "creator_user_id",
    "expires_at",
    "free_model_daily_requests",
    "include_byok_in_limit",
    "is_free_tier",
    "is_management_key",
    "is_provisioning_key",
    "label",
    "limit",
    "limit_remaining",
    "limit_reset",
    "rate_limit",
    "total_credits",
    "total_usage",
    "usage",
    "usage_daily",
    "usage_monthly",
    "usage_weekly",
];

fn request(credential: &Credential) -> UsageRequest {
    UsageRequest::get("api/v1/key").bearer(&credential.secret)
}

/// Requests the balance. Only a management key may read it, and the first response states whether the key is one.
fn credits_request(credential: &Credential, key: &[u8]) -> Result<Option<UsageRequest>, FetchError> {
    // The parser will report the error in the first body.
    let Ok(root) = json_object(key) else { return Ok(None) };
    let is = |name| flag(root.get("data").and_then(|data| data.get(name)));
    let states = [is("is_management_key"), is("is_provisioning_key")];
    if states.contains(&Field::Present(false)) && !states.contains(&Field::Present(true)) {
        return Ok(None);
    }
    Ok(Some(UsageRequest::get("api/v1/credits").bearer(&credential.secret).optional()))
}

/// Parses the response of the key endpoint or the credits endpoint, which arrived at `now`.
///
/// A limit that resets each day, week or month becomes the window of that length. Periods are in UTC, and weeks begin
/// on Monday. A limit that never resets becomes the window `limit`.
///
/// ```
/// use quota_core::{Percent, WindowId};
/// use quota_http::openrouter::parse_usage;
///
/// let body = br#"{ "data": { "limit": 20, "limit_remaining": 15, "limit_reset": "weekly", "usage": 800 } }"#;
/// let parsed = parse_usage(body, "2026-07-01T12:00:00Z".parse()?)?;
///
/// let week = &parsed.usage.windows[0];
/// assert_eq!((&week.id, Some(week.used)), (&WindowId::seven_day(), Percent::from_percent(25.0)));
/// assert_eq!(parsed.usage.credits.unwrap().used.unwrap().to_string(), "5.00 USD");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`ParseError`] if the body is not a JSON object, is empty, or is an error response.
pub fn parse_usage(body: &[u8], now: Timestamp) -> Result<Parsed, ParseError> {
    let root = json_object(body)?;
    let data = match root.get("data") {
        Some(Value::Object(data)) => data,
        _ => return Err(error(&root)),
    };
    let mut report = ReportBuilder::default();
    report.skip_unknown(&root, &["data"], "");
    report.skip_unknown(data, &KNOWN, "data.");
    key_limit(data, now, &mut report);
    free_models(data.get("free_model_daily_requests"), now, &mut report);
    let owner = text_or_skip(data, "creator_user_id", "data.", &mut report);
    let credits = credits(data, &mut report);
    let mut parsed = report.build(credits)?;
    parsed.usage.plan = (flag(data.get("is_free_tier")) == Field::Present(true)).then(|| "free".to_owned());
    parsed.usage.owner_id = owner.as_deref().map(OwnerId::new);
    Ok(parsed)
}

fn error(root: &Object<'_>) -> ParseError {
    match root.get("error") {
        None | Some(Value::Null) => ParseError::NoUsage,
        Some(error) => match number(error.get("code")) {
            Field::Present(401.0) => ParseError::Unauthorized,
            Field::Present(429.0) => ParseError::RateLimited,
            _ => ParseError::ErrorResponse { kind: None },
        },
    }
}

/// The period after which a limit is available again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Period {
    Day,
    Week,
    Month,
    Never,
}

impl Period {
    const ALL: [Self; 4] = [Self::Day, Self::Week, Self::Month, Self::Never];

    /// The period as the provider names it.
    fn name(self) -> Option<&'static str> {
        match self {
            Self::Day => Some("daily"),
            Self::Week => Some("weekly"),
            Self::Month => Some("monthly"),
            Self::Never => None,
        }
    }

    /// The period of the key's limit; `None` if this version does not know it.
    fn of(data: &Object<'_>) -> Option<Self> {
        match data.get("limit_reset") {
            None | Some(Value::Null) => Some(Self::Never),
            Some(reset) => {
                let reset = reset.as_str()?;
                Self::ALL.into_iter().find(|period| period.name() == Some(reset))
            }
        }
    }

    fn window(self) -> WindowId {
        let named = |name| WindowId::new(name).expect("a constant name is valid");
        match self {
            Self::Month => WindowId::monthly(),
            Self::Never => named("limit"),
            Self::Day | Self::Week => self.length().and_then(window_of_length).expect("the length is usual"),
        }
    }

    /// The length; `None` if it varies.
    fn length(self) -> Option<Duration> {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        match self {
            Self::Day => Some(DAY),
            Self::Week => Some(DAY * 7),
            Self::Month | Self::Never => None,
        }
    }

    /// When the current period ends. OpenRouter states only the kind of period.
    fn end(self, now: Timestamp) -> Option<Timestamp> {
        let today = TimeZone::UTC.to_datetime(now).date();
        let next = match self {
            Self::Day => today.tomorrow(),
            Self::Week => today.nth_weekday(1, Weekday::Monday),
            Self::Month => today.last_of_month().tomorrow(),
            Self::Never => return None,
        };
        TimeZone::UTC.to_timestamp(next.ok()?.at(0, 0, 0, 0)).ok()
    }

    /// The field with the key's usage in the period.
    fn usage(self) -> &'static str {
        match self {
            Self::Day => "usage_daily",
            Self::Week => "usage_weekly",
            Self::Month => "usage_monthly",
            Self::Never => "usage",
        }
    }
}

/// Adds the limit of the key. Without one, the key has no window.
fn key_limit(data: &Object<'_>, now: Timestamp, report: &mut ReportBuilder) {
    match data.get("limit") {
        None if data.contains_key("total_credits") || data.contains_key("total_usage") => {
            // The response of the credits endpoint, which states no limit.
            return;
        }
        None => return report.mark_unnamed("data.limit", "it is missing"),
        Some(Value::Null) => return,
        Some(_) => {}
    }
    let Some(period) = Period::of(data) else {
        return report.mark_unnamed("data.limit_reset", "an unknown period");
    };
    let id = period.window();
    let remaining = number(data.get("limit_remaining"));
    // The remaining amount takes precedence.
    let used = if remaining == Field::Absent { number(data.get(period.usage())) } else { Field::Absent };
    let used = spent_share(number(data.get("limit")), used, remaining).and_then(Percent::from_percent);
    report.add_used(id, used, "data.limit", |reading| {
        reading.length(period.length()).resets_at(period.end(now))
    });
}

/// Adds the daily number of requests to free models.
fn free_models(requests: Option<&Value<'_>>, now: Timestamp, report: &mut ReportBuilder) {
    const FIELD: &str = "data.free_model_daily_requests";
    let Some(requests) = requests.filter(|requests| !requests.is_null()) else { return };
    let id = WindowId::new(&format!("{}_{FREE_MODELS}", Period::Day.window())).expect("the name is valid");
    let of = |name| number(requests.get(name));
    let used = used_share(of("limit"), of("used"), of("remaining")).and_then(Percent::from_percent);
    report.add_used(id, used, FIELD, |reading| {
        let reading = reading.scope(Scope::surface(FREE_MODELS));
        reading.length(Period::Day.length()).resets_at(Period::Day.end(now))
    });
}

fn credits(data: &Object<'_>, report: &mut ReportBuilder) -> Field<Credits> {
    let parts = balance(data).and_then(|balance| Ok(spending(data)?.or(balance)));
    credits_or_skip(parts, "data", report)
}

/// The key's spending and limit. A null limit means that the key has no limit.
fn spending(data: &Object<'_>) -> Result<Credits, Unreadable> {
    let amount = |name| decimal(data.get(name)).into_result();
    let mut credits = Credits::default();
    let Some(limit) = data.get("limit") else { return Ok(credits) };
    credits.unlimited = Some(limit.is_null());
    let limit = amount("limit")?;
    let used = match (limit, amount("limit_remaining")?) {
        (Some(limit), Some(remaining)) => Some(limit.minus(remaining).ok_or(Unreadable)?),
        (Some(_), None) => match Period::of(data) {
            Some(period) => amount(period.usage())?,
            None => None,
        },
        (None, _) => amount(Period::Month.usage())?,
    };
    credits.limit = limit.map(dollars);
    credits.used = used.map(dollars);
    Ok(credits)
}

fn balance(data: &Object<'_>) -> Result<Credits, Unreadable> {
    let amount = |name| decimal(data.get(name)).into_result();
    let mut credits = Credits::default();
    if let (Some(total), Some(used)) = (amount("total_credits")?, amount("total_usage")?) {
        credits.balance = Some(dollars(total.minus(used).ok_or(Unreadable)?));
    }
    Ok(credits)
}

fn dollars(amount: Decimal) -> quota_core::model::Money {
    amount.rounded(DIGITS).money(CURRENCY)
}

#[cfg(test)]
mod tests;
