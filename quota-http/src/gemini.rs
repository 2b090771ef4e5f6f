//! Gemini CLI: the quota of Gemini Code Assist. The first request finds the project of the account, and the second one
//! reads the quota of that project.

use std::collections::BTreeMap;

use jiff::Timestamp;
use quota_core::model::Scope;
use quota_core::provider::ProgramLogin;
use quota_core::{Credential, FetchError, Percent, WindowId, WindowReading};
use serde_json::json;

use crate::json::{Object, Value};

use crate::command_environment::CommandEnvironment;
use crate::lenient::{Field, number, text, timestamp};
use crate::parsed::{ParseError, Parsed};
use crate::provider::{OwnLogin, Provider, two_requests};
use crate::report::{ReportBuilder, json_object, text_or_skip};
use crate::request::UsageRequest;

/// Gemini CLI: the quota of each model, with the login of Gemini CLI.
pub static PROVIDER: Provider = Provider::new("gemini", "Gemini CLI", request, parse_usage)
    .aliases(&["gemini-cli"])
    .base_url("https://cloudcode-pa.googleapis.com")
    .private_endpoint()
    .second_request(quota_request)
    .default_policy(two_requests)
    .login(OwnLogin::File(LOGIN))
    .command_environment(GEMINI_CLI);

/// The login file of Gemini CLI. The variable replaces the home directory, so `login_dir` is the parent folder of
/// `.gemini`.
const LOGIN: ProgramLogin = ProgramLogin::new("Gemini CLI", "gemini", "", &[".gemini/oauth_creds.json"])
    .dir_variable("GEMINI_CLI_HOME")
    .token(&["/access_token"])
    .account_id(&["/id_token#/sub"])
    .expires_at(&["/expiry_date"]);

/// Each of the removed variables selects an API key, another login or another host.
const GEMINI_CLI: CommandEnvironment = CommandEnvironment::new().dir("GEMINI_CLI_HOME", "").remove(&[
    "CODE_ASSIST_ENDPOINT",
    "GEMINI_API_KEY",
    "GOOGLE_API_KEY",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_CLOUD_ACCESS_TOKEN",
    "GOOGLE_GEMINI_BASE_URL",
    "GOOGLE_GENAI_USE_VERTEXAI",
]);

/// Fields of the first response other than the plan.
const KNOWN_OF_PROJECT: [&str; 10] = [
    "allowedTiers",
    "cloudaicompanionProject",
    "codeAssistSettings",
    "currentTier",
    "gcpManaged",
    "ineligibleTiers",
    "manageSubscriptionUri",
    "paidTier",
    "releaseChannel",
    "upgradeSubscriptionUri",
];

fn request(credential: &Credential) -> UsageRequest {
    // quota is not one of the known editors.
    let metadata =
        json!({ "ideType": "IDE_UNSPECIFIED", "platform": "PLATFORM_UNSPECIFIED", "pluginType": "GEMINI" });
    UsageRequest::post("v1internal:loadCodeAssist", &json!({ "metadata": metadata }))
        .bearer(&credential.secret)
}

/// The request for the quota of the project that the first response names.
fn quota_request(credential: &Credential, first: &[u8]) -> Result<Option<UsageRequest>, FetchError> {
    let root = json_object(first)?;
    let project = root.get("cloudaicompanionProject");
    let project = project.map(|project| project.get("id").unwrap_or(project));
    match text(project) {
        Field::Present(project) => {
            let body = json!({ "project": project });
            Ok(Some(UsageRequest::post("v1internal:retrieveUserQuota", &body).bearer(&credential.secret)))
        }
        Field::Unreadable => Err(FetchError::malformed("the name of the project is not a short text")),
        Field::Absent if is_unsupported(&root) => Err(FetchError::forbidden(
            "Google moved the account to Antigravity; log in with Antigravity, and use the provider antigravity",
        )),
        Field::Absent => Err(FetchError::forbidden(
            "the account has no project of Gemini Code Assist; start `gemini` once, which creates it",
        )),
    }
}

/// Whether the response states that the account may no longer use Gemini CLI.
fn is_unsupported(root: &Object<'_>) -> bool {
    let tiers = root.get("ineligibleTiers").and_then(Value::as_array);
    let mut codes = tiers.into_iter().flatten().filter_map(|tier| tier.get("reasonCode")?.as_str());
    codes.any(|code| code == "UNSUPPORTED_CLIENT")
}

/// Parses the response of either request: the plan from the first, and the windows from the second.
///
/// The response does not state the length of the windows, and the parser must not guess one. So a window is named after
/// its model.
///
/// ```
/// use jiff::Timestamp;
/// use quota_http::gemini::parse_usage;
///
/// let body = br#"{ "buckets": [
///     { "modelId": "gemini-9-pro", "remainingFraction": 0.75, "resetTime": "2026-07-01T12:00:00Z" }
/// ] }"#;
/// let parsed = parse_usage(body, Timestamp::UNIX_EPOCH)?;
///
/// let window = &parsed.usage.windows[0];
/// assert_eq!((window.id.as_str(), window.used.as_f64()), ("quota/gemini-9-pro", 25.0));
/// # Ok::<(), quota_http::ParseError>(())
/// ```
///
/// # Errors
///
/// [`ParseError`] if the body is not a JSON object, is an error response, or has neither a plan nor windows.
pub fn parse_usage(body: &[u8], _now: Timestamp) -> Result<Parsed, ParseError> {
    let root = object(body)?;
    let mut report = ReportBuilder::default();
    if let Some(buckets) = root.get("buckets").filter(|buckets| !buckets.is_null()) {
        match buckets.as_array() {
            Some(buckets) => add_buckets(buckets, &mut report),
            None => report.mark_unnamed("buckets", "not a list"),
        }
        report.skip_unknown(&root, &["buckets"], "");
        return report.build(Field::Absent);
    }
    let Some(plan) = ["/paidTier/name", "/paidTier/id", "/currentTier/id"].into_iter().find_map(|at| {
        let (tier, field) = at[1..].split_once('/')?;
        text_or_skip(root.get(tier)?.as_object()?, field, &format!("{tier}."), &mut report)
    }) else {
        return Err(ParseError::NoUsage);
    };
    report.skip_unknown(&root, &KNOWN_OF_PROJECT, "");
    let mut parsed = report.build(Field::Absent)?;
    parsed.usage.plan = Some(plan);
    Ok(parsed)
}

/// Parses a JSON object that is neither empty nor an error response of Google.
pub(crate) fn object(body: &[u8]) -> Result<Object<'_>, ParseError> {
    let root = json_object(body)?;
    let Some(error) = root.get("error").filter(|error| !error.is_null()) else { return Ok(root) };
    let code = number(error.get("code")).ok();
    let status = error.get("status").and_then(Value::as_str);
    Err(match (code, status) {
        (Some(401.0), _) | (_, Some("UNAUTHENTICATED")) => ParseError::Unauthorized,
        (Some(429.0), _) | (_, Some("RESOURCE_EXHAUSTED")) => ParseError::RateLimited,
        _ => ParseError::ErrorResponse { kind: known_error(error) },
    })
}

/// The status of an error, or the reason in its details, if it is documented. An unknown one is not repeated.
fn known_error(error: &Value<'_>) -> Option<&'static str> {
    const KNOWN: [&str; 6] = [
        "INTERNAL",
        "INVALID_ARGUMENT",
        "MODEL_CAPACITY_EXHAUSTED",
        "PERMISSION_DENIED",
        "UNAVAILABLE",
        "UNSUPPORTED_CLIENT",
    ];
    let details = error.get("details").and_then(Value::as_array).into_iter().flatten();
    let names = error.get("status").into_iter().chain(details.filter_map(|detail| detail.get("reason")));
    names.filter_map(Value::as_str).find_map(|name| KNOWN.into_iter().find(|known| *known == name))
}

/// Adds the windows of the models. If a model has several buckets, the one with the least left counts.
fn add_buckets(buckets: &[Value<'_>], report: &mut ReportBuilder) {
    let mut emptiest = BTreeMap::<WindowId, (WindowReading, String)>::new();
    for (at, bucket) in buckets.iter().enumerate().filter(|(_, bucket)| !bucket.is_null()) {
        let path = format!("buckets[{at}]");
        let named = text(bucket.get("modelId")).ok().and_then(|model| Some((model_window(model)?, model)));
        let Some((id, model)) = named else {
            report.mark_unnamed(path, "it names no model");
            continue;
        };
        match used(bucket) {
            Field::Present(used) => {
                let reading = WindowReading::new(id.clone(), used)
                    .resets_at(timestamp(bucket.get("resetTime")))
                    .scope(Scope::model(model));
                // If two buckets are equal, the one that resets later counts.
                let is_emptier = emptiest.get(&id).is_none_or(|(other, _)| {
                    (reading.used, reading.resets_at) > (other.used, other.resets_at)
                });
                if is_emptier {
                    emptiest.insert(id, (reading, path.clone()));
                }
            }
            unknown => report.add_used(id, unknown, &path, |reading| reading),
        }
        let known = ["modelId", "remainingAmount", "remainingFraction", "resetTime", "tokenType"];
        if let Some(fields) = bucket.as_object() {
            report.skip_unknown(fields, &known, &format!("{path}."));
        }
    }
    for (reading, path) in emptiest.into_values() {
        report.add(reading, path);
    }
}

/// The window of a model whose length is unknown.
pub(crate) fn model_window(model: &str) -> Option<WindowId> {
    WindowId::new("quota").ok()?.for_model(model).ok()
}

/// The used share of a bucket, computed from its remaining fraction.
pub(crate) fn used(bucket: &Value<'_>) -> Field<Percent> {
    number(bucket.get("remainingFraction")).and_then(|left| Percent::from_fraction(1.0 - left))
}

#[cfg(test)]
mod tests;
