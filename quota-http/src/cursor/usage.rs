//! Parses the usage of a billing cycle. The length of the cycle names its windows.

use crate::json::{Object, Value};
use jiff::Timestamp;
use quota_core::model::{Credits, Money, Scope};
use quota_core::{Percent, WindowId};

use crate::lenient::{Decimal, Field, Unreadable, decimal, flag, number, used_share};
use crate::parsed::{ParseError, Parsed};
use crate::report::{ReportBuilder, credits_or_skip, json_object};
use crate::window_length::Period;

const KNOWN: [&str; 10] = [
    "autoModelSelectedDisplayMessage",
    "billingCycleEnd",
    "billingCycleStart",
    "displayMessage",
    "displayThreshold",
    "enabled",
    "namedModelSelectedDisplayMessage",
    "planUsage",
    "spendLimitUsage",
    "autoBucketModels",
];

const KNOWN_OF_PLAN: [&str; 14] = [
    "apiLimit",
    "apiPercentUsed",
    "apiSpend",
    "autoLimit",
    "autoPercentUsed",
    "autoSpend",
    "bonusSpend",
    "bonusTooltip",
    "includedSpend",
    "limit",
    "remaining",
    "remainingBonus",
    "totalPercentUsed",
    "totalSpend",
];

/// Parses the response of the endpoint for the current period.
///
/// The included usage is the window of the cycle's length, such as `monthly`, and its two parts are windows of their
/// surfaces. Without the start of the cycle, the windows begin with `billing_cycle`. Spending beyond the included usage
/// becomes credits.
///
/// ```
/// use quota_core::{Percent, WindowId};
/// use quota_http::cursor::parse_usage;
///
/// let body = br#"{ "billingCycleStart": "1782864000000", "billingCycleEnd": "1785456000000",
///     "planUsage": { "limit": 2000, "remaining": 1500 }, "spendLimitUsage": { "individualLimit": 5000, "individualUsed": 250 } }"#;
/// let parsed = parse_usage(body, "2026-07-01T12:00:00Z".parse()?)?;
///
/// let month = &parsed.usage.windows[0];
/// assert_eq!((&month.id, Some(month.used)), (&WindowId::monthly(), Percent::from_percent(25.0)));
/// assert_eq!(parsed.usage.credits.unwrap().used.unwrap().to_string(), "2.50 USD");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`ParseError`] if the body is not a JSON object, is empty, or is an error response.
pub fn parse_usage(body: &[u8], _now: Timestamp) -> Result<Parsed, ParseError> {
    let root = json_object(body)?;
    // An error of the Connect protocol.
    if let Some(code) = root.get("code").and_then(Value::as_str) {
        return Err(match code {
            "unauthenticated" => ParseError::Unauthorized,
            "resource_exhausted" => ParseError::RateLimited,
            _ => ParseError::ErrorResponse { kind: None },
        });
    }
    let mut report = ReportBuilder::default();
    let cycle = Cycle::of(&root, "billingCycleStart", "billingCycleEnd", "billing_cycle");
    match root.get("planUsage") {
        None | Some(Value::Null) => {}
        Some(Value::Object(plan)) => {
            let of = |field: &str| number(plan.get(field));
            let share = match of("remaining") {
                Field::Absent => used_share(of("limit"), of("includedSpend"), Field::Absent),
                remaining => used_share(of("limit"), Field::Absent, remaining),
            };
            let total = match (of("totalPercentUsed"), share) {
                (Field::Present(percent), _) => Field::Present(percent),
                (_, Field::Present(share)) => Field::Present(share),
                (percent, _) => percent,
            };
            report.skip_unknown(plan, &KNOWN_OF_PLAN, "planUsage.");
            cycle.add("", None, total, "planUsage", &mut report);
            for (part, name) in [("auto", "autoPercentUsed"), ("api", "apiPercentUsed")] {
                if plan.get(name).is_some_and(|percent| !percent.is_null()) {
                    let field = format!("planUsage.{name}");
                    cycle.add(&format!("_{part}"), Some(Scope::surface(part)), of(name), field, &mut report);
                }
            }
        }
        Some(_) => report.mark_unnamed("planUsage", "not an object"),
    }
    report.skip_unknown(&root, &KNOWN, "");
    let credits = root.get("spendLimitUsage").filter(|spend| !spend.is_null());
    let credits = credits.map_or(Ok(Credits::default()), spend);
    let credits = credits_or_skip(credits, "spendLimitUsage", &mut report);
    report.build(credits)
}

/// A billing cycle, and how its windows are named.
pub(super) struct Cycle {
    id: WindowId,
    period: Period,
}

impl Cycle {
    /// Reads the cycle from two fields. Without its length, the windows have this name.
    pub(super) fn of(root: &Object<'_>, start: &str, end: &str, without_length: &'static str) -> Self {
        let period = Period::of(root.get(start), root.get(end));
        let named = period.window();
        let id = named.unwrap_or_else(|| WindowId::new(without_length).expect("a constant name is valid"));
        Self { id, period }
    }

    /// The id of a window of the period, with this suffix.
    pub(super) fn window(&self, suffix: &str) -> WindowId {
        WindowId::new(&format!("{}{suffix}", self.id)).expect("the suffix is short")
    }

    /// Adds a window of the period.
    pub(super) fn add(
        &self,
        suffix: &str,
        scope: Option<Scope>,
        used: Field<f64>,
        field: impl Into<String>,
        report: &mut ReportBuilder,
    ) {
        let id = self.window(suffix);
        report.add_used(id, used.and_then(Percent::from_percent), field, |reading| {
            self.period.complete(reading.scope(scope))
        });
    }
}

/// The user's spending beyond the included usage. A team's spending is shared, so it is not read.
fn spend(spend: &Value<'_>) -> Result<Credits, Unreadable> {
    let fields = spend.as_object().ok_or(Unreadable)?;
    let mut credits = Credits::default();
    credits.limit = cents(fields.get("individualLimit"))?;
    credits.used = match cents(fields.get("individualUsed"))? {
        Some(used) => Some(used),
        None => {
            let amount = |name| decimal(fields.get(name)).into_result();
            let parts = amount("individualLimit")?.zip(amount("individualRemaining")?);
            parts.map(|(limit, remaining)| limit.minus(remaining).map(money).ok_or(Unreadable)).transpose()?
        }
    };
    Ok(credits)
}

/// The spending beyond the included usage, as the dashboard reports it. If it is enabled, a null limit means that there
/// is no limit.
pub(super) fn on_demand(value: &Value<'_>) -> Result<Credits, Unreadable> {
    let fields = value.as_object().ok_or(Unreadable)?;
    let mut credits = Credits::default();
    credits.enabled = flag(fields.get("enabled")).into_result()?;
    credits.limit = cents(fields.get("limit"))?;
    credits.unlimited = match fields.get("limit") {
        Some(Value::Null) => (credits.enabled == Some(true)).then_some(true),
        limit => limit.map(|_| false),
    };
    credits.used = cents(fields.get("used"))?;
    Ok(credits)
}

fn cents(field: Option<&Value<'_>>) -> Result<Option<Money>, Unreadable> {
    Ok(decimal(field).into_result()?.map(money))
}

fn money(cents: Decimal) -> Money {
    Money::new(cents.rounded(0).units, "USD", 2)
}

#[cfg(test)]
mod tests;
