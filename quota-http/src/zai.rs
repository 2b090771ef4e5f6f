//! z.ai (GLM): the usage of its coding plans. A limit is named by its length, which the response states as a unit code
//! and a number.
//!
//! In China, set the base URL to `https://open.bigmodel.cn`. A team plan also needs the query `type=2` and the headers
//! `bigmodel-organization` and `bigmodel-project`; set them on the fetcher. The program `quota` has no setting for the
//! query, so it reads only personal plans.
//!
//! ```
//! use quota_http::{Fetcher, zai};
//!
//! let team = Fetcher::builder(&zai::PROVIDER)
//!     .base_url("https://open.bigmodel.cn".parse()?)
//!     .query("type", "2")
//!     .header("bigmodel-organization", "org-made-up")
//!     .header("bigmodel-project", "proj-made-up")
//!     .build()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod write;

use std::time::Duration;

use crate::json::{Object, Value};
use jiff::Timestamp;
use quota_core::model::Scope;
use quota_core::{Credential, Percent, WindowId};

use crate::command_environment::CommandEnvironment;
use crate::lenient::{Field, flag, number, text, timestamp, used_share};
use crate::parsed::{ParseError, Parsed};
use crate::provider::Provider;
use crate::report::{ReportBuilder, has_error, json_object, text_or_skip, unwrapped};
use crate::request::UsageRequest;
use crate::usage_endpoint::UsageEndpoint;
use crate::window_length::window_of_length;

/// z.ai: the quota of a coding plan, with an API key.
pub static PROVIDER: Provider = Provider::new("zai", "z.ai", request, parse_usage)
    .aliases(&["z.ai", "glm", "zhipu", "bigmodel"])
    .base_url("https://api.z.ai")
    .private_endpoint()
    .usage_endpoint(&ENDPOINT)
    .token_variables(&TOKENS)
    .command_environment(CommandEnvironment::new().token(TOKENS[0], &[TOKENS[1], TOKENS[2], TOKENS[3]]));

static ENDPOINT: UsageEndpoint =
    UsageEndpoint::new("/api/monitor/usage/quota/limit", write::usage, write::failure);

const TOKENS: [&str; 4] = ["ZAI_API_KEY", "Z_AI_API_KEY", "GLM_API_KEY", "ZHIPU_API_KEY"];

/// The fields around the data.
const ENVELOPE: [&str; 4] = ["code", "data", "msg", "success"];

/// The fields that may name the plan. The first one counts.
const PLANS: [&str; 5] = ["planName", "plan", "plan_type", "packageName", "level"];

fn request(credential: &Credential) -> UsageRequest {
    UsageRequest::get("api/monitor/usage/quota/limit").bearer(&credential.secret)
}

/// Parses the response of the quota endpoint.
///
/// ```
/// use jiff::Timestamp;
/// use quota_core::WindowId;
/// use quota_http::zai::parse_usage;
///
/// let body = br#"{ "code": 200, "success": true, "data": { "limits": [
///     { "type": "TOKENS_LIMIT", "unit": 6, "number": 1, "percentage": 9 }
/// ] } }"#;
/// let parsed = parse_usage(body, Timestamp::UNIX_EPOCH)?;
///
/// assert_eq!(parsed.usage.windows[0].id, WindowId::seven_day());
/// # Ok::<(), quota_http::ParseError>(())
/// ```
///
/// # Errors
///
/// [`ParseError`] if the body is not a JSON object, is an error response, or has no list of limits.
pub fn parse_usage(body: &[u8], _now: Timestamp) -> Result<Parsed, ParseError> {
    let root = json_object(body)?;
    check(&root)?;
    let (data, path) = unwrapped(&root);
    let limits = data.get("limits").and_then(Value::as_array).ok_or(ParseError::NoUsage)?;
    let mut report = ReportBuilder::default();
    for (at, limit) in limits.iter().enumerate().filter(|(_, limit)| !limit.is_null()) {
        add_limit(limit, format!("{path}limits[{at}]"), &mut report);
    }
    let known = [&ENVELOPE[..], &PLANS, &["limits"]].concat();
    report.skip_unknown(data, &known, path);
    if !path.is_empty() {
        report.skip_unknown(&root, &ENVELOPE, "");
    }
    let plan = PLANS.into_iter().find_map(|name| text_or_skip(data, name, path, &mut report));
    let mut parsed = report.build(Field::Absent)?;
    parsed.usage.plan = plan;
    Ok(parsed)
}

/// Returns the error of a response whose status is 200 although it failed.
fn check(root: &Object<'_>) -> Result<(), ParseError> {
    let code = number(root.get("code"));
    let failed = flag(root.get("success")) == Field::Present(false);
    // The codes are those of docs.z.ai. Some failures repeat an HTTP status.
    match code.ok().filter(|code| *code != 0.0 && *code != 200.0) {
        Some(code) if code == 401.0 || (1000.0..=1004.0).contains(&code) => Err(ParseError::Unauthorized),
        Some(code) if code == 429.0 || [1302.0, 1303.0, 1305.0].contains(&code) => {
            Err(ParseError::RateLimited)
        }
        Some(_) => Err(ParseError::ErrorResponse { kind: None }),
        None if failed || has_error(root) => Err(ParseError::ErrorResponse { kind: None }),
        None => Ok(()),
    }
}

/// Adds one limit, such as `{"type": "TOKENS_LIMIT", "unit": 3, "number": 5, "percentage": 25, "nextResetTime": …}`.
fn add_limit(limit: &Value<'_>, path: String, report: &mut ReportBuilder) {
    let Some(fields) = limit.as_object() else { return report.mark_unnamed(path, "not an object") };
    let Field::Present(kind) = text(fields.get("type")) else {
        return report.mark_unnamed(path, "it has no type");
    };
    // The limit on tools does not affect requests to models. A limit of unknown type must not affect them either.
    let surface = match kind {
        "TOKENS_LIMIT" | "CREDIT_LIMIT" => None,
        "TIME_LIMIT" => Some("tools".to_owned()),
        other => Some(other.to_ascii_lowercase()),
    };
    let named = name(fields);
    let (length, id) = match (named, &surface) {
        (Some((length, whole)), None) => (length, Some(whole)),
        (Some((length, whole)), Some(surface)) => (length, WindowId::new(&format!("{whole}_{surface}")).ok()),
        // Older plans state no length, and the parser must not guess one. Limits with unknown units stay separate
        // windows.
        (None, _) => (None, WindowId::new(&unnamed(kind, fields)).ok()),
    };
    let Some(id) = id else { return report.mark_unnamed(path, "not a valid window name") };
    let amount = |name| number(fields.get(name));
    let used = match amount("percentage") {
        Field::Present(used) => Field::Present(used),
        // `usage` is the limit.
        percentage => match used_share(amount("usage"), amount("currentValue"), amount("remaining")) {
            Field::Absent => percentage,
            share => share,
        },
    };
    report.skip_unknown(
        fields,
        &[
            "currentValue",
            "nextResetTime",
            "number",
            "percentage",
            "remaining",
            "type",
            "unit",
            "usage",
            "usageDetails",
        ],
        &format!("{path}."),
    );
    report.add_used(id, used.and_then(Percent::from_percent), path, |reading| {
        let reading = reading.length(length).resets_at(timestamp(fields.get("nextResetTime")));
        reading.scope(surface.map(Scope::surface))
    });
}

/// The name of a limit whose length is unknown: its type, and the number and the unit that it states.
fn unnamed(kind: &str, fields: &Object<'_>) -> String {
    let stated = |name| match fields.get(name)? {
        Value::Number(number) => Some(number.to_string()),
        field => text(Some(field)).ok().map(str::to_ascii_lowercase),
    };
    let kind = kind.to_ascii_lowercase();
    match (stated("number"), stated("unit")) {
        (Some(number), Some(unit)) => format!("{kind}_{number}_unit_{unit}"),
        (None, Some(unit)) => format!("{kind}_unit_{unit}"),
        (_, None) => kind,
    }
}

/// The length of a limit and the id of the account-wide window with that length. A month has no fixed length.
fn name(fields: &Object<'_>) -> Option<(Option<Duration>, WindowId)> {
    const HOUR: f64 = 3600.0;
    let unit = number(fields.get("unit")).ok()?;
    let count = number(fields.get("number")).ok().filter(|count| *count > 0.0)?;
    let seconds = match unit {
        1.0 => count * 24.0 * HOUR,
        3.0 => count * HOUR,
        5.0 if count == 1.0 => return Some((None, WindowId::monthly())),
        // A week is either one week or seven days.
        6.0 if count == 7.0 => 7.0 * 24.0 * HOUR,
        6.0 => count * 7.0 * 24.0 * HOUR,
        _ => return None,
    };
    let length = Duration::try_from_secs_f64(seconds).ok()?;
    Some((Some(length), window_of_length(length)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn parse(body: &Value) -> Parsed {
        parse_usage(body.to_string().as_bytes(), Timestamp::UNIX_EPOCH).unwrap()
    }

    fn of_limits(limits: &Value) -> Parsed {
        parse(&json!({ "code": 200, "success": true, "data": { "limits": limits } }))
    }

    fn readings(parsed: &Parsed) -> Vec<(&str, f64)> {
        parsed.usage.windows.iter().map(|window| (window.id.as_str(), window.used.as_f64())).collect()
    }

    fn error_of(body: &Value) -> ParseError {
        parse_usage(body.to_string().as_bytes(), Timestamp::UNIX_EPOCH).unwrap_err()
    }

    #[test]
    fn the_unit_names_a_window() {
        let parsed = of_limits(&json!([
            { "type": "TIME_LIMIT", "unit": 5, "number": 1, "percentage": 3 },
            { "type": "TOKENS_LIMIT", "unit": 6, "number": 7, "percentage": "41" },
            { "type": "TOKENS_LIMIT", "unit": 3, "number": 5, "percentage": 101.5, "nextResetTime": 1_790_000_000_000_i64 },
            { "type": "TOKENS_LIMIT", "unit": 1, "number": 1, "percentage": 7 },
        ]));

        let expected =
            [("1440_minutes", 7.0), ("five_hour", 101.5), ("monthly_tools", 3.0), ("seven_day", 41.0)];
        assert_eq!(readings(&parsed), expected);
        let five_hour = &parsed.usage.windows[1];
        assert_eq!(five_hour.length, Some(Duration::from_secs(18_000)));
        assert_eq!(five_hour.resets_at, Timestamp::from_second(1_790_000_000).ok());
        assert_eq!(parsed.skipped, []);
    }

    #[test]
    fn the_limit_of_tools_does_not_affect_models() {
        let parsed = of_limits(&json!([{ "type": "TIME_LIMIT", "unit": 5, "number": 1, "percentage": 100 }]));

        let scope = parsed.usage.windows[0].scope.clone().unwrap();
        assert!(!scope.applies_to(Some("glm-5")) && !scope.applies_to(None));
    }

    #[test]
    fn a_limit_without_a_unit_has_the_name_of_its_type() {
        let parsed = parse(&json!({ "limits": [{ "type": "TOKENS_LIMIT", "percentage": 2.0 }] }));

        assert_eq!(readings(&parsed), [("tokens_limit", 2.0)]);
        assert_eq!(parsed.usage.windows[0].length, None);
    }

    #[test]
    fn limits_with_unknown_units_are_windows_of_their_own() {
        let of_unit = |unit: Value, used: u8| json!({ "type": "TOKENS_LIMIT", "unit": unit, "number": 2, "percentage": used });
        let none = json!({ "type": "TOKENS_LIMIT", "unit": 8, "percentage": 4 });

        let parsed =
            of_limits(&json!([of_unit(json!(5), 1), of_unit(json!(9), 2), of_unit(json!("DAY"), 3), none]));

        let expected = [
            ("tokens_limit_2_unit_5", 1.0),
            ("tokens_limit_2_unit_9", 2.0),
            ("tokens_limit_2_unit_day", 3.0),
            ("tokens_limit_unit_8", 4.0),
        ];
        assert_eq!(readings(&parsed), expected);
    }

    #[test]
    fn without_a_percentage_the_amounts_count() {
        let of = |amounts: Value| {
            let mut limit = json!({ "type": "TOKENS_LIMIT", "unit": 3, "number": 5, "usage": 400 });
            limit.as_object_mut().unwrap().extend(amounts.as_object().unwrap().clone());
            readings(&of_limits(&json!([limit]))).first().map(|(_, used)| *used)
        };

        assert_eq!(of(json!({ "currentValue": 500 })), Some(125.0));
        assert_eq!(of(json!({ "remaining": "100" })), Some(75.0));
        assert_eq!(of(json!({ "percentage": 30, "currentValue": 500 })), Some(30.0));
        assert_eq!(of(json!({})), None);
    }

    #[test]
    fn an_unreadable_limit_leaves_the_others() {
        let parsed = of_limits(&json!([
            { "type": "TOKENS_LIMIT", "unit": 3, "number": 5, "percentage": "most" },
            { "type": "TOKENS_LIMIT", "unit": 6, "number": 1, "percentage": 9 },
        ]));

        assert_eq!(readings(&parsed), [("seven_day", 9.0)]);
        assert_eq!(parsed.skipped[0].field, "data.limits[0]");
    }

    #[test]
    fn unknown_fields_are_listed_and_the_plan_is_read() {
        let parsed = parse(&json!({ "code": 200, "new": 1, "data": {
            "planName": "Big", "mascot": 1,
            "limits": [{ "type": "CREDIT_LIMIT", "unit": 3, "number": 5, "percentage": 1, "color": 2 }],
        } }));

        let listed: Vec<_> = parsed.skipped.iter().map(|one| one.field.as_str()).collect();
        assert_eq!(listed, ["data.limits[0].color", "data.mascot", "new"]);
        assert_eq!(parsed.usage.plan.as_deref(), Some("Big"));
    }

    #[test]
    fn a_successful_status_may_contain_an_error() {
        let of = |code: Value| error_of(&json!({ "code": code, "msg": "n33dle", "success": false }));

        assert_eq!([of(json!(401)), of(json!("1001"))], [ParseError::Unauthorized, ParseError::Unauthorized]);
        assert_eq!(of(json!(1302)), ParseError::RateLimited);
        assert_eq!(of(json!(500)), ParseError::ErrorResponse { kind: None });
        assert_eq!(error_of(&json!({ "success": false })), ParseError::ErrorResponse { kind: None });
        assert_eq!(error_of(&json!({ "code": 200, "data": {} })), ParseError::NoUsage);
    }

    proptest! {
        #[test]
        fn there_are_never_more_windows_than_limits(
            limits in prop::collection::vec((0..9_u8, -3..9_i16, -10.0..2000.0_f64, "(TOKENS|TIME|CREDIT|NEW)_LIMIT"), 0..12),
        ) {
            let rows = limits.iter().map(|(unit, number, used, kind)| {
                json!({ "type": kind, "unit": unit, "number": number, "percentage": used })
            });
            let rows: Vec<_> = rows.chain([json!({ "type": "KEPT", "unit": 1, "number": 9, "percentage": 25 })]).collect();

            let parsed = of_limits(&json!(rows));

            prop_assert!(parsed.usage.windows.len() <= rows.len());
            let kept = parsed.usage.windows.iter().find(|window| window.id.as_str() == "12960_minutes_kept");
            prop_assert_eq!(kept.map(|window| window.used.as_f64()), Some(25.0));
        }
    }
}
