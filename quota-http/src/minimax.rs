//! MiniMax: the usage of its coding and token plans. In China, set the base URL to `https://api.minimaxi.com`.

mod write;

use std::time::Duration;

use crate::json::{Object, Value};
use jiff::Timestamp;
use quota_core::model::{Credits, Scope};
use quota_core::provider::ProgramLogin;
use quota_core::{Credential, Percent, WindowId};

use crate::command_environment::CommandEnvironment;
use crate::lenient::{Field, decimal, number, text, used_share};
use crate::parsed::{ParseError, Parsed};
use crate::provider::{OwnLogin, Provider};
use crate::report::{ReportBuilder, has_error, json_object, text_or_skip, unwrapped};
use crate::request::UsageRequest;
use crate::usage_endpoint::UsageEndpoint;
use crate::window_length::Period;

/// MiniMax: the remaining quota of a plan, with an API key or the login of its program.
pub static PROVIDER: Provider = Provider::new("minimax", "MiniMax", request, parse_usage)
    .base_url("https://api.minimax.io")
    .private_endpoint()
    .usage_endpoint(&ENDPOINT)
    .login(OwnLogin::File(LOGIN))
    .token_variables(&["MINIMAX_CODING_API_KEY", "MINIMAX_API_KEY"])
    .command_environment(
        CommandEnvironment::new()
            .token("MINIMAX_API_KEY", &["MINIMAX_CODING_API_KEY"])
            .base_url("MINIMAX_BASE_URL")
            .remove(&["MINIMAX_REGION"]),
    );

static ENDPOINT: UsageEndpoint = UsageEndpoint::new("/v1/token_plan/remains", write::usage, write::failure)
    .countdowns(&["remains_time", "weekly_remains_time"]);

/// The login of MiniMax's program: the first file has a browser login, the second an API key.
const LOGIN: ProgramLogin =
    ProgramLogin::new("the MiniMax CLI", "mmx auth login", ".mmx", &["credentials.json", "config.json"])
        .token(&["/access_token", "/api_key"])
        .expires_at(&["/expires_at"]);

/// The unit of the balance. It is not a currency.
const UNIT: &str = "points";

fn request(credential: &Credential) -> UsageRequest {
    UsageRequest::get("v1/token_plan/remains").bearer(&credential.secret)
}

/// Parses the response of the endpoint for the remaining quota.
///
/// ```
/// use jiff::Timestamp;
/// use quota_core::WindowId;
/// use quota_http::minimax::parse_usage;
///
/// let body = br#"{ "model_remains": [{
///     "model_name": "general", "start_time": 1780279200000, "end_time": 1780297200000,
///     "current_interval_remaining_percent": 96
/// }] }"#;
/// let parsed = parse_usage(body, Timestamp::UNIX_EPOCH)?;
///
/// assert_eq!(parsed.usage.windows[0].id, WindowId::five_hour());
/// assert_eq!(parsed.usage.windows[0].used.as_f64(), 4.0);
/// # Ok::<(), quota_http::ParseError>(())
/// ```
///
/// # Errors
///
/// [`ParseError`] if the body is not a JSON object, is an error response, or has no list of models.
pub fn parse_usage(body: &[u8], _now: Timestamp) -> Result<Parsed, ParseError> {
    let root = json_object(body)?;
    check(&root)?;
    let (data, path) = unwrapped(&root);
    let rows = data.get("model_remains").and_then(Value::as_array).ok_or(ParseError::NoUsage)?;
    let mut report = ReportBuilder::default();
    for (at, row) in rows.iter().enumerate().filter(|(_, row)| !row.is_null()) {
        add_model(row, &format!("{path}model_remains[{at}]"), &mut report);
    }
    let plan = text_or_skip(data, "current_subscribe_title", path, &mut report);
    let balance = decimal(data.get("points_balance"));
    if balance == Field::Unreadable {
        report.skip(format!("{path}points_balance"), "its amount is invalid");
    }
    let known = ["base_resp", "current_subscribe_title", "data", "model_remains", "points_balance"];
    report.skip_unknown(data, &known, path);
    if !path.is_empty() {
        report.skip_unknown(&root, &["base_resp", "data"], "");
    }
    let mut parsed = report.build(balance.map(|balance| {
        let mut credits = Credits::default();
        credits.balance = Some(balance.money(UNIT));
        credits
    }))?;
    parsed.usage.plan = plan;
    Ok(parsed)
}

/// Returns the error of a response whose status is 200 although it failed.
fn check(root: &Object<'_>) -> Result<(), ParseError> {
    if has_error(root) {
        return Err(ParseError::ErrorResponse { kind: None });
    }
    let code = root.get("base_resp").map(|base| number(base.get("status_code")));
    match code.and_then(Field::ok).filter(|code| *code != 0.0) {
        None => Ok(()),
        // The codes for "not logged in" and "invalid key".
        Some(1004.0 | 2049.0) => Err(ParseError::Unauthorized),
        // The codes for too many requests, and too many tokens in a minute.
        Some(1002.0 | 1039.0) => Err(ParseError::RateLimited),
        Some(_) => Err(ParseError::ErrorResponse { kind: None }),
    }
}

/// The status of a window that the plan does not include.
const NOT_INCLUDED: f64 = 3.0;

/// The fields of one of the two windows of a model.
struct WindowFields {
    remaining_percent: &'static str,
    total: &'static str,
    /// On plans without percentages, this is the remaining amount, despite its name.
    remaining: &'static str,
    status: &'static str,
    starts_at: &'static str,
    ends_at: &'static str,
    /// Not a reading: the end states the same time.
    ends_in: &'static str,
    /// Not a reading: the percentage already includes it.
    boost: &'static str,
}

const WINDOWS: [WindowFields; 2] = [
    WindowFields {
        remaining_percent: "current_interval_remaining_percent",
        total: "current_interval_total_count",
        remaining: "current_interval_usage_count",
        status: "current_interval_status",
        starts_at: "start_time",
        ends_at: "end_time",
        ends_in: "remains_time",
        boost: "interval_boost_permille",
    },
    WindowFields {
        remaining_percent: "current_weekly_remaining_percent",
        total: "current_weekly_total_count",
        remaining: "current_weekly_usage_count",
        status: "current_weekly_status",
        starts_at: "weekly_start_time",
        ends_at: "weekly_end_time",
        ends_in: "weekly_remains_time",
        boost: "weekly_boost_permille",
    },
];

impl WindowFields {
    fn names(&self) -> [&'static str; 8] {
        let Self { remaining_percent, total, remaining, status, starts_at, ends_at, ends_in, boost } = self;
        [remaining_percent, total, remaining, status, starts_at, ends_at, ends_in, boost]
    }

    /// The period, and the id of the account-wide window with its length.
    fn period(&self, row: &Object<'_>) -> Option<(Period, WindowId)> {
        let period = Period::of(row.get(self.starts_at), row.get(self.ends_at));
        // MiniMax starts its five-hour intervals at midnight, so the last one of a day has four hours.
        const LAST_OF_A_DAY: Duration = Duration::from_secs(4 * 3600);
        let is_last = period.length == Some(LAST_OF_A_DAY);
        Some((period, if is_last { WindowId::five_hour() } else { period.window()? }))
    }

    /// The used share, in percent.
    fn used(&self, row: &Object<'_>) -> Field<f64> {
        let of = |name| number(row.get(name));
        match of(self.remaining_percent) {
            Field::Absent => used_share(of(self.total), Field::Absent, of(self.remaining)),
            remaining => remaining.map(|remaining| 100.0 - remaining),
        }
    }
}

/// The scope of a model's rows.
enum Counted {
    Account,
    Model(String),
    /// Media of one kind, such as `video`.
    Surface(String),
}

impl Counted {
    fn of(name: &str) -> Self {
        match name.to_ascii_lowercase() {
            // Older plans use this name for all their text models.
            lower if lower == "general" || lower == "minimax-m*" => Self::Account,
            lower if lower.starts_with("minimax-m") => Self::Model(name.to_owned()),
            lower => Self::Surface(lower),
        }
    }

    fn window(&self, whole: &WindowId) -> Option<WindowId> {
        match self {
            Self::Account => Some(whole.clone()),
            Self::Model(model) => whole.for_model(model).ok(),
            Self::Surface(surface) => WindowId::new(&format!("{whole}_{surface}")).ok(),
        }
    }

    fn scope(&self) -> Option<Scope> {
        match self {
            Self::Account => None,
            Self::Model(model) => Some(Scope::model(model)),
            Self::Surface(surface) => Some(Scope::surface(surface)),
        }
    }
}

/// Adds the two windows of a model.
fn add_model(row: &Value<'_>, path: &str, report: &mut ReportBuilder) {
    let Some(fields) = row.as_object() else { return report.mark_unnamed(path, "not an object") };
    let Field::Present(name) = text(fields.get("model_name")) else {
        return report.mark_unnamed(path, "it names no model");
    };
    let counted = Counted::of(name);
    for window in &WINDOWS {
        let path = format!("{path}.{}", window.remaining_percent.trim_end_matches("_remaining_percent"));
        // This status means that the plan does not include the window. For the row `general`, some clients show it as
        // unlimited. The provider documents neither, but in both cases there is no limit.
        if number(fields.get(window.status)) == Field::Present(NOT_INCLUDED) {
            continue;
        }
        if !window.names().iter().any(|name| fields.contains_key(name)) {
            continue;
        }
        let named = window.period(fields).and_then(|(period, id)| Some((period, counted.window(&id)?)));
        let Some((period, id)) = named else {
            report.mark_unnamed(path, "its length is unclear");
            continue;
        };
        report.add_used(id, window.used(fields).and_then(Percent::from_percent), path, |reading| {
            period.complete(reading).scope(counted.scope())
        });
    }
    let known = WINDOWS.iter().flat_map(WindowFields::names).chain(["model_name"]).collect::<Vec<_>>();
    report.skip_unknown(fields, &known, &format!("{path}."));
}

#[cfg(test)]
mod tests;
