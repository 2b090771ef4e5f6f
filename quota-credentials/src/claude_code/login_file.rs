//! Parses the login that Claude Code stores in a file or in the keychain. It never reads the refresh token.

use jiff::Timestamp;
use quota_core::Credential;
use secrecy::zeroize::Zeroizing;
use serde::Deserialize;
use serde_json::Value;
use serde_json::error::Category;

use crate::token;
use quota_core::file;

/// Why the content is not a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ParseError {
    /// It is empty.
    Empty,
    /// It is not JSON, perhaps because Claude Code is writing it.
    Malformed,
    /// The login has no token. Claude Code leaves such a login behind when it loses a race to renew it.
    MissingToken,
    /// It is other JSON, or contains only logins of other services.
    UnknownFormat,
}

#[derive(Deserialize)]
struct Stored {
    #[serde(default, rename = "claudeAiOauth")]
    login: Option<Login>,
}

/// Only the token is required. The other fields may have any type, and unexpected values are ignored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Login {
    access_token: Option<String>,
    #[serde(default)]
    expires_at: Value,
    #[serde(default)]
    subscription_type: Value,
    #[serde(default)]
    rate_limit_tier: Value,
}

/// Parses a login.
pub(super) fn parse(contents: &[u8]) -> Result<Credential, ParseError> {
    let contents = file::strip_bom(contents).trim_ascii();
    if contents.is_empty() {
        return Err(ParseError::Empty);
    }
    // The error of the parser may quote the content.
    let stored: Stored = serde_json::from_slice(contents).map_err(|error| match error.classify() {
        Category::Data => ParseError::UnknownFormat,
        Category::Syntax | Category::Eof | Category::Io => ParseError::Malformed,
    })?;
    let login = stored.login.ok_or(ParseError::UnknownFormat)?;
    let text = Zeroizing::new(login.access_token.unwrap_or_default());
    let Ok(Some(credential)) = token::parse(text.as_bytes()) else { return Err(ParseError::MissingToken) };
    Ok(credential
        .expires_at(timestamp(&login.expires_at))
        .plan(plan(&login.subscription_type, &login.rate_limit_tier)))
}

/// Parses a timestamp in milliseconds since 1970. Numbers that would mean a time before September 2001 are in seconds.
fn timestamp(value: &Value) -> Option<Timestamp> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    let ms = if number.abs() < 1e12 { number * 1000.0 } else { number };
    // The cast saturates. `Timestamp` then rejects such values as out of range.
    if ms.is_finite() { Timestamp::from_millisecond(ms as i64).ok() } else { None }
}

/// The plan in the provider's terms: `max` and `default_claude_max_20x` give "max 20x".
fn plan(subscription: &Value, tier: &Value) -> Option<String> {
    let subscription = short_text(subscription);
    let tier = short_text(tier).map(|tier| {
        let tier = tier.strip_prefix("default_").unwrap_or(tier);
        tier.strip_prefix("claude_").unwrap_or(tier).replace('_', " ")
    });
    // A claude.ai login without another tier has the tier "ai".
    let tier = tier.filter(|tier| tier != "ai");
    match (subscription, tier) {
        (None, tier) => tier,
        (Some(subscription), None) => Some(subscription.to_owned()),
        (Some(subscription), Some(tier)) if tier.split(' ').next() == Some(subscription) => Some(tier),
        (Some(subscription), Some(tier)) => Some(format!("{subscription} {tier}")),
    }
}

/// A short text that is safe to display. Other values are not plan names.
fn short_text(value: &Value) -> Option<&str> {
    let text = value.as_str()?.trim();
    let is_safe = !text.is_empty() && text.len() <= 48 && !text.contains(char::is_control);
    is_safe.then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parse_login(login: Value) -> Result<Credential, ParseError> {
        parse(json!({ "claudeAiOauth": login }).to_string().as_bytes())
    }

    fn error_of(contents: &str) -> ParseError {
        parse(contents.as_bytes()).unwrap_err()
    }

    fn plan_of(subscription: &str, tier: &str) -> Option<String> {
        plan(&json!(subscription), &json!(tier))
    }

    #[test]
    fn a_login_has_an_expiry_a_plan_and_a_fingerprint() {
        let credential = parse_login(json!({
            "accessToken": "sk-ant-oat01-abc",
            "refreshToken": "sk-ant-ort01-abc",
            "expiresAt": 1_893_456_000_000_i64,
            "refreshTokenExpiresAt": 1_900_000_000_000_i64,
            "scopes": ["user:inference", "user:profile"],
            "subscriptionType": "max",
            "rateLimitTier": "default_claude_max_20x",
        }))
        .unwrap();

        assert_eq!(credential.secret.expose(), "sk-ant-oat01-abc");
        assert_eq!(credential.expires_at, Some("2030-01-01T00:00:00Z".parse().unwrap()));
        assert_eq!(credential.plan.as_deref(), Some("max 20x"));
        assert_eq!(credential.login.fingerprint, Some(token::fingerprint(&credential.secret)));
    }

    #[test]
    fn a_token_alone_is_a_login() {
        let credential = parse_login(json!({ "accessToken": "sk-ant-oat01-abc" })).unwrap();

        assert_eq!((credential.expires_at, credential.plan), (None, None));
    }

    #[test]
    fn other_fields_may_have_any_type() {
        for odd in [json!(null), json!(true), json!([1]), json!({ "a": 1 }), json!("?"), json!("")] {
            let login = json!({
                "accessToken": "sk-ant-oat01-abc", "refreshToken": odd, "expiresAt": odd, "scopes": odd,
                "subscriptionType": odd, "rateLimitTier": odd, "refreshTokenExpiresAt": odd, "new": odd,
            });

            assert!(parse_login(login).is_ok(), "{odd}");
        }
    }

    #[test]
    fn a_login_without_a_token_is_an_error() {
        for token in [json!(""), json!(" "), json!(null)] {
            let login = json!({ "accessToken": token, "refreshToken": "", "expiresAt": 0 });

            assert_eq!(parse_login(login).unwrap_err(), ParseError::MissingToken);
        }
        assert_eq!(parse_login(json!({})).unwrap_err(), ParseError::MissingToken);
    }

    #[test]
    fn an_invalid_token_is_an_error() {
        assert_eq!(
            parse_login(json!({ "accessToken": "sk-ant\noat01" })).unwrap_err(),
            ParseError::MissingToken
        );
    }

    #[test]
    fn logins_of_other_services_are_ignored() {
        assert_eq!(
            error_of(r#"{ "mcpOAuth": { "plugin:a": { "accessToken": "abc" } } }"#),
            ParseError::UnknownFormat
        );
    }

    #[test]
    fn other_json_has_an_unknown_format() {
        for contents in [
            "{}",
            "[]",
            "null",
            "7",
            "\"sk-ant-oat01-abc\"",
            r#"{ "claudeAiOauth": null }"#,
            r#"{ "claudeAiOauth": "sk-ant-oat01-abc" }"#,
            r#"{ "claudeAiOauth": { "accessToken": 7 } }"#,
            r#"{ "accessToken": "sk-ant-oat01-abc" }"#,
        ] {
            assert_eq!(error_of(contents), ParseError::UnknownFormat, "{contents}");
        }
    }

    #[test]
    fn blank_content_is_empty() {
        for contents in ["", " \n", "\u{feff}"] {
            assert_eq!(error_of(contents), ParseError::Empty, "{contents:?}");
        }
    }

    #[test]
    fn a_truncated_login_is_malformed() {
        let whole =
            json!({ "claudeAiOauth": { "accessToken": "sk-ant-oat01-abc", "expiresAt": 1 } }).to_string();

        for end in 1..whole.len() {
            assert_eq!(error_of(&whole[..end]), ParseError::Malformed, "{end}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        let contents = "\u{feff}{\"claudeAiOauth\":{\"accessToken\":\"sk-ant-oat01-abc\"}}";

        assert!(parse(contents.as_bytes()).is_ok());
    }

    #[test]
    fn an_expiry_may_be_a_number_or_a_string() {
        for value in [json!(1_893_456_000_000_i64), json!(1_893_456_000_000.0), json!("1893456000000")] {
            assert_eq!(timestamp(&value).unwrap().as_second(), 1_893_456_000, "{value}");
        }
    }

    #[test]
    fn an_expiry_may_be_in_seconds() {
        assert_eq!(timestamp(&json!(1_893_456_000)).unwrap().as_second(), 1_893_456_000);
    }

    #[test]
    fn an_expiry_out_of_range_is_ignored() {
        for value in [json!(1e300), json!(u64::MAX), json!("inf"), json!("NaN"), json!(-1e300)] {
            assert_eq!(timestamp(&value), None, "{value}");
        }
    }

    #[test]
    fn a_tier_adds_the_size_of_the_plan() {
        assert_eq!(plan_of("max", "default_claude_max_20x").as_deref(), Some("max 20x"));
        assert_eq!(plan_of("team", "default_claude_max_5x").as_deref(), Some("team max 5x"));
    }

    #[test]
    fn the_default_tier_adds_nothing() {
        assert_eq!(plan_of("pro", "default_claude_ai").as_deref(), Some("pro"));
    }

    #[test]
    fn unknown_plans_are_displayed_unchanged() {
        assert_eq!(plan_of("galaxy", "default_raven").as_deref(), Some("galaxy raven"));
        assert_eq!(plan_of("", "special_offer").as_deref(), Some("special offer"));
    }

    #[test]
    fn a_plan_that_is_a_prefix_of_another_is_not_merged() {
        assert_eq!(plan_of("max", "default_claude_maxi").as_deref(), Some("max maxi"));
    }

    #[test]
    fn text_that_is_not_a_plan_name_is_ignored() {
        assert_eq!(plan_of("\u{1b}[31mmax", ""), None);
        assert_eq!(plan_of(&"x".repeat(49), ""), None);
    }

    proptest! {
        #[test]
        fn random_bytes_are_no_login(contents in any::<Vec<u8>>()) {
            prop_assert!(parse(&contents).is_err());
        }

        #[test]
        fn a_login_with_a_changed_byte_has_a_token_or_is_rejected(at in 0_usize..200, byte in any::<u8>()) {
            let mut contents = json!({ "claudeAiOauth": {
                "accessToken": "sk-ant-oat01-abc", "expiresAt": 1_893_456_000_000_i64, "subscriptionType": "max",
                "rateLimitTier": "default_claude_max_20x" } }).to_string().into_bytes();
            let at = at % contents.len();
            contents[at] = byte;

            if let Ok(login) = parse(&contents) {
                prop_assert!(!login.secret.expose().is_empty());
            }
        }

        #[test]
        fn an_expiry_is_a_number_or_its_text(number in any::<f64>(), text in any::<String>()) {
            prop_assert_eq!(timestamp(&json!(number)), timestamp(&json!(number.to_string())));
            prop_assert!(timestamp(&json!(text)).is_none() || text.trim().parse::<f64>().is_ok(), "{}", text);
        }
    }
}
