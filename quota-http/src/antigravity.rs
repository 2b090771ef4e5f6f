//! Antigravity: the quotas of its model groups. This module also parses a saved list of models.
//!
//! For some accounts, set the base URL to another host, `https://cloudcode-pa.googleapis.com`.

use std::time::Duration;

use jiff::Timestamp;
use quota_core::model::Scope;
use quota_core::provider::ProgramLogin;
use quota_core::{Credential, Percent, WindowId, WindowReading};
use serde_json::json;

use crate::json::{Object, Value};

use crate::command_environment::CommandEnvironment;
use crate::gemini::{model_window, object};
use crate::lenient::{Field, flag, number, text, timestamp};
use crate::parsed::{ParseError, Parsed};
use crate::provider::{OwnLogin, Provider};
use crate::report::ReportBuilder;
use crate::request::UsageRequest;
use crate::saved::SavedDocument;

/// Antigravity: the quota of each group of models, with the login of its command line program.
pub static PROVIDER: Provider = Provider::new("antigravity", "Antigravity", request, parse_usage)
    .base_url("https://daily-cloudcode-pa.googleapis.com")
    .private_endpoint()
    .login(OwnLogin::File(LOGIN))
    .command_environment(CommandEnvironment::new())
    .saved_documents(parse_saved);

/// The login file of Antigravity's command line program. Tokens of other programs are rejected.
const LOGIN: ProgramLogin =
    ProgramLogin::new("the Antigravity CLI", "agy", ".gemini/antigravity-cli", &["antigravity-oauth-token"])
        .token(&["/token/access_token"])
        .account_id(&["/id_token#/sub"])
        .expires_at(&["/token/expiry"]);

fn request(credential: &Credential) -> UsageRequest {
    UsageRequest::post("v1internal:retrieveUserQuotaSummary", &json!({})).bearer(&credential.secret)
}

/// Parses the response of the endpoint for the quota summary.
///
/// ```
/// use jiff::Timestamp;
/// use quota_http::antigravity::parse_usage;
///
/// let body = br#"{ "groups": [{ "displayName": "Gemini Models", "buckets": [
///     { "bucketId": "gemini-weekly", "window": "weekly", "remainingFraction": 0.75 }
/// ] }] }"#;
/// let parsed = parse_usage(body, Timestamp::UNIX_EPOCH)?;
///
/// let window = &parsed.usage.windows[0];
/// assert_eq!((window.id.as_str(), window.used.as_f64()), ("seven_day/gemini", 25.0));
/// # Ok::<(), quota_http::ParseError>(())
/// ```
///
/// # Errors
///
/// [`ParseError`] if the body is not a JSON object, is an error response, or has no list of groups.
pub fn parse_usage(body: &[u8], _now: Timestamp) -> Result<Parsed, ParseError> {
    let root = object(body)?;
    let (summary, path) = match root.get("response").and_then(Value::as_object) {
        Some(response) => (response, "response."),
        None => (&root, ""),
    };
    let groups = summary.get("groups").and_then(Value::as_array).ok_or(ParseError::NoUsage)?;
    let mut report = ReportBuilder::default();
    for (at, group) in groups.iter().enumerate().filter(|(_, group)| !group.is_null()) {
        let path = format!("{path}groups[{at}]");
        let Some(fields) = group.as_object() else {
            report.mark_unnamed(path, "not an object");
            continue;
        };
        let name = text(fields.get("displayName")).ok();
        match fields.get("buckets") {
            None | Some(Value::Null) => {}
            Some(Value::Array(buckets)) => {
                for (at, bucket) in buckets.iter().enumerate() {
                    add_bucket(bucket, name, &format!("{path}.buckets[{at}]"), &mut report);
                }
            }
            Some(_) => report.mark_unnamed(format!("{path}.buckets"), "not a list"),
        }
        report.skip_unknown(fields, &["buckets", "description", "displayName"], &format!("{path}."));
    }
    report.skip_unknown(summary, &["description", "groups", "response"], path);
    if !path.is_empty() {
        report.skip_unknown(&root, &["response"], "");
    }
    report.build(Field::Absent)
}

/// Adds one bucket, such as `{"bucketId": "gemini-5h", "window": "5h", "remainingFraction": 0.5, "resetTime": …}`.
fn add_bucket(bucket: &Value<'_>, group: Option<&str>, path: &str, report: &mut ReportBuilder) {
    let (Some(fields), Field::Present(bucket_id)) = (bucket.as_object(), text(bucket.get("bucketId"))) else {
        return report.mark_unnamed(path, "it has no name");
    };
    if flag(fields.get("disabled")) == Field::Present(true) {
        return report.skip(path, "it is disabled");
    }
    let known = [
        "bucketId",
        "description",
        "disabled",
        "displayName",
        "remaining",
        "remainingFraction",
        "resetTime",
        "window",
    ];
    report.skip_unknown(fields, &known, &format!("{path}."));
    let family = bucket_id.split_once('-').map_or(bucket_id, |(family, _)| family);
    // The names of Gemini models contain `gemini`. No single name matches all models of another group.
    let scope = match family {
        "gemini" => Scope::model("Gemini"),
        family => Scope::surface(group.unwrap_or(family)),
    };
    let length = text(fields.get("window")).ok().and_then(length);
    let length = length.or_else(|| length_of_suffix(bucket_id));
    let (whole, length) = length.unzip();
    let id = match (whole, family) {
        (Some(whole), "gemini") => whole.for_model("Gemini").ok(),
        (Some(whole), family) => WindowId::new(&format!("{whole}_{family}")).ok(),
        // The parser must not guess a length.
        (None, _) => WindowId::new(bucket_id).ok(),
    };
    let Some(id) = id else { return report.mark_unnamed(path, "not a valid window name") };
    let used = remaining(fields).and_then(|left| Percent::from_fraction(1.0 - left));
    report.add_used(id, used, path, |reading| {
        let reading = reading.length(length).scope(scope);
        reading.resets_at(timestamp(fields.get("resetTime")))
    });
}

/// The account-wide window that a bucket names, and its length.
fn length(window: &str) -> Option<(WindowId, Duration)> {
    const HOUR: u64 = 3600;
    match window {
        "5h" => Some((WindowId::five_hour(), Duration::from_secs(5 * HOUR))),
        "weekly" => Some((WindowId::seven_day(), Duration::from_secs(7 * 24 * HOUR))),
        _ => None,
    }
}

fn length_of_suffix(bucket_id: &str) -> Option<(WindowId, Duration)> {
    length(bucket_id.rsplit_once('-')?.1)
}

/// The remaining fraction: a number, an object with it, or an object that names its content.
fn remaining(bucket: &Object<'_>) -> Field<f64> {
    let remaining = bucket.get("remaining");
    let fraction = remaining.and_then(|remaining| match remaining.get("case").and_then(Value::as_str) {
        Some("remainingFraction") => remaining.get("value"),
        _ => remaining.get("remainingFraction"),
    });
    match number(bucket.get("remainingFraction")) {
        Field::Absent => number(fraction),
        fraction => fraction,
    }
}

/// Parses a saved document: the quota summary, or the list of models.
fn parse_saved(document: &[u8], now: Timestamp) -> Result<SavedDocument, ParseError> {
    let root = object(document)?;
    match root.get("models").and_then(Value::as_object) {
        Some(models) => Ok(SavedDocument::new("models", of_models(models)?)),
        None => Ok(SavedDocument::new("usage", parse_usage(document, now)?)),
    }
}

/// Parts of the names of models that only assist the editor, although some of them have a limit with a reset.
const HELPERS: [&str; 3] = ["chat_", "complet", "tab_"];

/// Parses the list of models. If a model has several limits, the one with the least left counts, and among equal ones
/// the one that resets last. A model whose limits have no reset only assists the editor, unless it is used up.
fn of_models(models: &Object<'_>) -> Result<Parsed, ParseError> {
    let mut report = ReportBuilder::default();
    for (model, value) in models.iter() {
        let path = format!("models.{model}");
        let lower = model.to_ascii_lowercase();
        if HELPERS.iter().any(|helper| lower.contains(helper)) {
            report.skip(path, "a helper model of the editor");
            continue;
        }
        let Some(id) = model_window(model) else {
            report.mark_unnamed(path, "not a valid window name");
            continue;
        };
        let tiers = value.get("quotaInfoByTier").and_then(Value::as_object);
        let limits =
            value.get("quotaInfo").into_iter().chain(tiers.into_iter().flat_map(|tiers| tiers.values()));
        let limits: Vec<_> = limits
            .filter(|limit| !limit.is_null())
            .map(|limit| (used(limit), timestamp(limit.get("resetTime"))))
            .collect();
        let readable = limits.iter().filter_map(|(used, reset)| Some((used.clone().ok()?, *reset)));
        match readable.max() {
            Some((used, None)) if used < Percent::FULL => report.skip(path, "a helper model of the editor"),
            Some((used, reset)) => {
                let reading = WindowReading::new(id, used).scope(Scope::model(model));
                report.add(reading.resets_at(reset), path);
            }
            None if limits.is_empty() => report.skip(path, "it has no limit"),
            None => report.mark_unreadable(id, path, "it has no usage"),
        }
    }
    report.build(Field::Absent)
}

/// The used share of a model's limit. An exhausted one may lack its remaining fraction.
fn used(limit: &Value<'_>) -> Field<Percent> {
    let used = crate::gemini::used(limit);
    let is_exhausted = flag(limit.get("isExhausted")) == Field::Present(true);
    if used == Field::Absent && is_exhausted { Field::Present(Percent::FULL) } else { used }
}

#[cfg(test)]
mod tests;
