//! xAI Grok: the shared credits of a subscription, with the login of Grok Build. The endpoint is that of its command line program.

mod write;

use crate::json::{Object, Value};
use jiff::Timestamp;
use quota_core::model::{Credits, Scope};
use quota_core::provider::ProgramLogin;
use quota_core::{Credential, Percent, WindowId};

use crate::command_environment::CommandEnvironment;
use crate::lenient::{Field, Unreadable, decimal, number, text, timestamp};
use crate::parsed::{ParseError, Parsed};
use crate::provider::{OwnLogin, Provider};
use crate::report::{ReportBuilder, credits_or_skip, has_error, json_object, text_or_skip};
use crate::request::UsageRequest;
use crate::usage_endpoint::UsageEndpoint;
use crate::window_length::Period;

/// xAI Grok: the credits of a subscription.
///
/// Several public clients report that the endpoint rejects requests without the header `X-XAI-Token-Auth`. Its value names a program, so
/// this provider sends none. If calls are rejected, set the header: `FetcherBuilder::header`, or `[providers.xai.headers]` in the
/// configuration of the program.
pub static PROVIDER: Provider = Provider::new("xai", "xAI Grok", request, parse_usage)
    .aliases(&["grok"])
    .base_url("https://cli-chat-proxy.grok.com")
    .private_endpoint()
    .usage_endpoint(&ENDPOINT)
    .login(OwnLogin::File(LOGIN))
    .command_environment(GROK);

static ENDPOINT: UsageEndpoint =
    UsageEndpoint::new("/v1/billing", write::usage, write::failure).only_query("format=credits");

/// The window if the period is unknown.
const CREDIT_USAGE: &str = "credit_usage";

/// The login of a subscription. Grok stores it under the issuer's URL, usually with the application's id after it.
const LOGIN: ProgramLogin = ProgramLogin::new("Grok", "grok login", ".grok", &["auth.json"])
    .dir_variable("GROK_HOME")
    .token(&["/https:~1~1auth.x.ai::*/key", "/https:~1~1auth.x.ai/key"])
    .account_id(&["/https:~1~1auth.x.ai::*/team_id", "/https:~1~1auth.x.ai/team_id"])
    .user_id(&["/https:~1~1auth.x.ai::*/user_id", "/https:~1~1auth.x.ai/user_id"])
    .expires_at(&["/https:~1~1auth.x.ai::*/expires_at", "/https:~1~1auth.x.ai/expires_at"]);

/// The removed variables select an API key, which would be billed separately, or another host.
const GROK: CommandEnvironment = CommandEnvironment::new().dir("GROK_HOME", ".grok").remove(&[
    "GROK_API_KEY",
    "GROK_CLI_CHAT_PROXY_BASE_URL",
    "XAI_API_KEY",
]);

/// Fields that are not readings. They are neither parsed nor listed as skipped.
const KNOWN: [&str; 9] = [
    "billingPeriodEnd",
    "billingPeriodStart",
    "creditUsagePercent",
    "currentPeriod",
    "isUnifiedBillingUser",
    "onDemandCap",
    "onDemandUsed",
    "productUsage",
    "subscriptionTier",
];

fn request(credential: &Credential) -> UsageRequest {
    UsageRequest::get("v1/billing").query("format", "credits").bearer(&credential.secret)
}

/// Parses the response of the billing endpoint.
///
/// Credit usage becomes a window that is named by the length of the period, and the share of each product a window of
/// its surface. Without the period, the window is `credit_usage`. On-demand amounts are in the provider's units,
/// because it states no currency.
///
/// ```
/// use quota_core::{Percent, WindowId};
/// use quota_http::xai::parse_usage;
///
/// let body = br#"{ "config": { "creditUsagePercent": 12.5,
///     "currentPeriod": { "start": "2026-07-01T00:00:00Z", "end": "2026-07-08T00:00:00Z" } } }"#;
/// let parsed = parse_usage(body, "2026-07-01T12:00:00Z".parse()?)?;
///
/// let week = &parsed.usage.windows[0];
/// assert_eq!((&week.id, Some(week.used)), (&WindowId::seven_day(), Percent::from_percent(12.5)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`ParseError`] if the body is not a JSON object, is empty, or is an error response.
pub fn parse_usage(body: &[u8], _now: Timestamp) -> Result<Parsed, ParseError> {
    let root = json_object(body)?;
    let config = match root.get("config") {
        Some(Value::Object(config)) => config,
        _ if has_error(&root) => {
            return Err(ParseError::ErrorResponse { kind: None });
        }
        _ => return Err(ParseError::NoUsage),
    };
    let mut report = ReportBuilder::default();
    let period = CreditPeriod::of(config);
    let used = number(config.get("creditUsagePercent"));
    period.add(None, used, "config.creditUsagePercent".to_owned(), &mut report);
    products(config, &period, &mut report);
    report.skip_unknown(&root, &["config", "subscriptionTier"], "");
    report.skip_unknown(config, &KNOWN, "config.");
    let plan = text_or_skip(&root, "subscriptionTier", "", &mut report)
        .or_else(|| text_or_skip(config, "subscriptionTier", "config.", &mut report));
    let credits = credits_or_skip(on_demand(config), "config.onDemandUsed", &mut report);
    let mut parsed = report.build(credits)?;
    parsed.usage.plan = plan;
    Ok(parsed)
}

/// The period of the credits, and how its windows are named.
struct CreditPeriod {
    id: WindowId,
    period: Period,
}

impl CreditPeriod {
    fn of(config: &Object<'_>) -> Self {
        let current = config.get("currentPeriod").filter(|current| !current.is_null());
        let field = |name| current.and_then(|current| current.get(name));
        let mut period = Period::of(field("start"), field("end"));
        if current.is_none() {
            // The billing period may differ from the limit's period, such as a month with a weekly limit.
            period.resets_at = timestamp(config.get("billingPeriodEnd"));
        }
        let named = period.window().or_else(|| match text(field("type")).ok()?.rsplit('_').next()? {
            "WEEKLY" => Some(WindowId::seven_day()),
            "MONTHLY" => Some(WindowId::monthly()),
            _ => None,
        });
        let id = named.unwrap_or_else(|| WindowId::new(CREDIT_USAGE).expect("a constant name is valid"));
        Self { id, period }
    }

    /// Adds the window of a product, or of all credits. A missing usage is unknown, even though the format omits zeros.
    fn add(&self, product: Option<&str>, used: Field<f64>, field: String, report: &mut ReportBuilder) {
        let id = match product {
            None => Ok(self.id.clone()),
            Some(product) => WindowId::new(&format!("{}_{}", self.id, product.to_lowercase())),
        };
        let Ok(id) = id else { return report.mark_unnamed(field, "not a valid window name") };
        let scope = product.map(Scope::surface);
        report.add_used(id, used.and_then(Percent::from_percent), field, |reading| {
            self.period.complete(reading.scope(scope))
        });
    }
}

fn products(config: &Object<'_>, period: &CreditPeriod, report: &mut ReportBuilder) {
    let rows = match config.get("productUsage") {
        None | Some(Value::Null) => return,
        Some(Value::Array(rows)) => rows,
        Some(_) => return report.mark_unnamed("config.productUsage", "not a list"),
    };
    for (at, row) in rows.iter().enumerate().filter(|(_, row)| !row.is_null()) {
        let field = format!("config.productUsage[{at}]");
        match text(row.get("product")) {
            Field::Present(product) => {
                period.add(Some(product), number(row.get("usagePercent")), field, report);
            }
            _ => report.mark_unnamed(field, "it has no name"),
        }
    }
}

/// The spending beyond the subscription, and its limit.
fn on_demand(config: &Object<'_>) -> Result<Credits, Unreadable> {
    let amount = |name: &str| {
        let amount = decimal(config.get(name).and_then(|amount| amount.get("val"))).into_result()?;
        Ok(amount.map(|amount| amount.rounded(2).money("credits")))
    };
    let mut credits = Credits::default();
    credits.limit = amount("onDemandCap")?;
    credits.used = amount("onDemandUsed")?;
    Ok(credits)
}

#[cfg(test)]
mod tests;
