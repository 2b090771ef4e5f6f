//! What Claude Code writes when somebody logs in, whether into a file or into the keychain.
//! Where it is found is not known here. The refresh token is not read at all.

use jiff::Timestamp;
use quota_core::Credential;
use secrecy::zeroize::Zeroizing;
use serde::Deserialize;
use serde_json::Value;
use serde_json::error::Category;

use crate::token;
use quota_core::file;

/// Why there is no login in what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// There is nothing at all.
    Empty,
    /// It is not JSON: damaged, or read while it was written.
    Damaged,
    /// There is a login, and its token was taken out: what a lost race to renew it leaves behind.
    Blank,
    /// It is JSON of somebody else, or holds only the logins of other services.
    Foreign,
}

#[derive(Deserialize)]
struct Stored {
    #[serde(default, rename = "claudeAiOauth")]
    login: Option<Login>,
}

/// Only the token must be there; what is said beside it may have any shape, and then says nothing.
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

/// Finds the login in what was read.
pub(super) fn parse(contents: &[u8]) -> Result<Credential, Flaw> {
    let contents = file::strip_bom(contents).trim_ascii();
    if contents.is_empty() {
        return Err(Flaw::Empty);
    }
    // The error itself is dropped: it may quote what it did not expect.
    let stored: Stored = serde_json::from_slice(contents).map_err(|error| match error.classify() {
        Category::Data => Flaw::Foreign,
        Category::Syntax | Category::Eof | Category::Io => Flaw::Damaged,
    })?;
    let login = stored.login.ok_or(Flaw::Foreign)?;
    let text = Zeroizing::new(login.access_token.unwrap_or_default());
    let Ok(Some(secret)) = token::take(&text) else { return Err(Flaw::Blank) };
    Ok(token::credential(secret)
        .expires_at(moment(&login.expires_at))
        .plan(plan(&login.subscription_type, &login.rate_limit_tier)))
}

/// A moment in milliseconds since 1970, or in seconds if it would otherwise lie before September 2001.
fn moment(value: &Value) -> Option<Timestamp> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    let ms = if number.abs() < 1e12 { number * 1000.0 } else { number };
    // A cast of what is too large, or not a number, ends at the ends of the range or at zero.
    if ms.is_finite() { Timestamp::from_millisecond(ms as i64).ok() } else { None }
}

/// The plan in the provider's own words: `max` and `default_claude_max_20x` are "max 20x".
fn plan(subscription: &Value, tier: &Value) -> Option<String> {
    let subscription = word(subscription);
    let tier = word(tier).map(|tier| {
        let tier = tier.strip_prefix("default_").unwrap_or(tier);
        tier.strip_prefix("claude_").unwrap_or(tier).replace('_', " ")
    });
    // The tier "ai" is that of every login with claude.ai which has no other.
    let tier = tier.filter(|tier| tier != "ai");
    match (subscription, tier) {
        (None, tier) => tier,
        (Some(subscription), None) => Some(subscription.to_owned()),
        (Some(subscription), Some(tier)) if tier.split(' ').next() == Some(subscription) => Some(tier),
        (Some(subscription), Some(tier)) => Some(format!("{subscription} {tier}")),
    }
}

/// A short text that can be shown; anything else is not the name of a plan.
fn word(value: &Value) -> Option<&str> {
    let text = value.as_str()?.trim();
    let is_shown = !text.is_empty() && text.len() <= 48 && !text.contains(char::is_control);
    is_shown.then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parsed(login: Value) -> Result<Credential, Flaw> {
        parse(json!({ "claudeAiOauth": login }).to_string().as_bytes())
    }

    fn flaw(contents: &str) -> Flaw {
        parse(contents.as_bytes()).unwrap_err()
    }

    fn plan_of(subscription: &str, tier: &str) -> Option<String> {
        plan(&json!(subscription), &json!(tier))
    }

    #[test]
    fn a_login_is_read_with_its_expiry_plan_and_mark() {
        let credential = parsed(json!({
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
        assert_eq!(credential.login.mark, Some(token::mark(&credential.secret)));
    }

    #[test]
    fn a_token_alone_is_a_login() {
        let credential = parsed(json!({ "accessToken": "sk-ant-oat01-abc" })).unwrap();

        assert_eq!((credential.expires_at, credential.plan), (None, None));
    }

    #[test]
    fn what_stands_beside_a_token_may_have_any_shape() {
        for odd in [json!(null), json!(true), json!([1]), json!({ "a": 1 }), json!("?"), json!("")] {
            let login = json!({
                "accessToken": "sk-ant-oat01-abc", "refreshToken": odd, "expiresAt": odd, "scopes": odd,
                "subscriptionType": odd, "rateLimitTier": odd, "refreshTokenExpiresAt": odd, "new": odd,
            });

            assert!(parsed(login).is_ok(), "{odd}");
        }
    }

    #[test]
    fn a_blanked_login_is_no_login() {
        for token in [json!(""), json!(" "), json!(null)] {
            let login = json!({ "accessToken": token, "refreshToken": "", "expiresAt": 0 });

            assert_eq!(parsed(login).unwrap_err(), Flaw::Blank);
        }
        assert_eq!(parsed(json!({})).unwrap_err(), Flaw::Blank);
    }

    #[test]
    fn a_token_that_no_header_can_carry_is_no_login() {
        assert_eq!(parsed(json!({ "accessToken": "sk-ant\noat01" })).unwrap_err(), Flaw::Blank);
    }

    #[test]
    fn logins_of_other_services_are_not_a_login() {
        assert_eq!(flaw(r#"{ "mcpOAuth": { "plugin:a": { "accessToken": "abc" } } }"#), Flaw::Foreign);
    }

    #[test]
    fn json_of_another_shape_is_foreign() {
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
            assert_eq!(flaw(contents), Flaw::Foreign, "{contents}");
        }
    }

    #[test]
    fn nothing_is_not_damage() {
        for contents in ["", " \n", "\u{feff}"] {
            assert_eq!(flaw(contents), Flaw::Empty, "{contents:?}");
        }
    }

    #[test]
    fn a_login_that_is_cut_short_anywhere_is_damaged() {
        let whole =
            json!({ "claudeAiOauth": { "accessToken": "sk-ant-oat01-abc", "expiresAt": 1 } }).to_string();

        for end in 1..whole.len() {
            assert_eq!(flaw(&whole[..end]), Flaw::Damaged, "{end}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        let contents = "\u{feff}{\"claudeAiOauth\":{\"accessToken\":\"sk-ant-oat01-abc\"}}";

        assert!(parse(contents.as_bytes()).is_ok());
    }

    #[test]
    fn an_expiry_may_be_a_number_or_a_text() {
        for value in [json!(1_893_456_000_000_i64), json!(1_893_456_000_000.0), json!("1893456000000")] {
            assert_eq!(moment(&value).unwrap().as_second(), 1_893_456_000, "{value}");
        }
    }

    #[test]
    fn an_expiry_in_seconds_is_told_by_its_size() {
        assert_eq!(moment(&json!(1_893_456_000)).unwrap().as_second(), 1_893_456_000);
    }

    #[test]
    fn an_expiry_beyond_the_end_of_time_is_unknown() {
        for value in [json!(1e300), json!(u64::MAX), json!("inf"), json!("NaN"), json!(-1e300)] {
            assert_eq!(moment(&value), None, "{value}");
        }
    }

    #[test]
    fn a_tier_says_how_large_a_plan_is() {
        assert_eq!(plan_of("max", "default_claude_max_20x").as_deref(), Some("max 20x"));
        assert_eq!(plan_of("team", "default_claude_max_5x").as_deref(), Some("team max 5x"));
    }

    #[test]
    fn a_tier_that_everybody_has_says_nothing() {
        assert_eq!(plan_of("pro", "default_claude_ai").as_deref(), Some("pro"));
    }

    #[test]
    fn words_nobody_knows_are_kept() {
        assert_eq!(plan_of("galaxy", "default_raven").as_deref(), Some("galaxy raven"));
        assert_eq!(plan_of("", "special_offer").as_deref(), Some("special offer"));
    }

    #[test]
    fn a_plan_that_begins_like_another_is_not_it() {
        assert_eq!(plan_of("max", "default_claude_maxi").as_deref(), Some("max maxi"));
    }

    #[test]
    fn a_text_that_is_no_name_of_a_plan_is_left_out() {
        assert_eq!(plan_of("\u{1b}[31mmax", ""), None);
        assert_eq!(plan_of(&"x".repeat(49), ""), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(contents in any::<Vec<u8>>()) {
            let _ = parse(&contents);
        }

        #[test]
        fn no_damage_to_a_login_panics(at in 0_usize..200, byte in any::<u8>()) {
            let mut contents = json!({ "claudeAiOauth": {
                "accessToken": "sk-ant-oat01-abc", "expiresAt": 1_893_456_000_000_i64, "subscriptionType": "max",
                "rateLimitTier": "default_claude_max_20x" } }).to_string().into_bytes();
            let at = at % contents.len();
            contents[at] = byte;

            let _ = parse(&contents);
        }

        #[test]
        fn no_expiry_panics(number in any::<f64>(), text in any::<String>()) {
            let _ = (moment(&json!(number)), moment(&json!(text)));
        }
    }
}
