//! Responses of the token endpoints, parsed from bytes.

use proptest::prelude::*;

use super::*;
use crate::{anthropic, codex};

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn error_from(status: u16, body: &str) -> TokenError {
    error_from_response(&anthropic::CONFIG, status, body.as_bytes())
}

fn codex_error_from(status: u16, body: &str) -> TokenError {
    error_from_response(&codex::CONFIG, status, body.as_bytes())
}

fn parse(body: &str) -> Result<Tokens, TokenError> {
    parse_tokens(&anthropic::CONFIG, body.as_bytes(), now())
}

#[test]
fn an_invalid_grant_ends_the_login() {
    for status in [400, 401, 403] {
        let error = error_from(status, r#"{"error":"invalid_grant","error_description":"n33dle"}"#);

        assert!(matches!(error, TokenError::InvalidGrant { .. }), "{status} {error:?}");
        assert!(!format!("{error:?}").contains("n33dle"));
    }
}

#[test]
fn codex_error_codes_for_ended_logins_are_recognized() {
    for code in ["refresh_token_expired", "refresh_token_reused", "refresh_token_invalidated"] {
        for body in [format!(r#"{{"error":"{code}"}}"#), format!(r#"{{"error":{{"code":"{code}"}}}}"#)] {
            let error = codex_error_from(401, &body);

            assert!(matches!(error, TokenError::InvalidGrant { .. }), "{body} {error:?}");
        }
    }
}

#[test]
fn an_invalid_client_does_not_end_the_login() {
    for (status, code) in [(401, "invalid_client"), (400, "unauthorized_client"), (400, "invalid_request")] {
        let error = error_from(status, &format!(r#"{{"error":"{code}"}}"#));

        assert!(matches!(error, TokenError::InvalidClient { .. }), "{code} {error:?}");
    }
}

#[test]
fn server_errors_and_unknown_codes_are_transient() {
    for (status, body) in [
        (500, r#"{"error":"invalid_grant"}"#),
        (429, r#"{"error":"invalid_grant"}"#),
        (503, "<html>"),
        (401, "{}"),
        (403, "<html>"),
        (400, r#"{"type":"error","error":{"type":"invalid_grant"}}"#),
        (400, r#"{"error":"something_new"}"#),
        (307, ""),
        (404, "null"),
    ] {
        let error = error_from(status, body);

        assert!(error.is_transient(), "{status} {body} {error:?}");
    }
}

#[test]
fn a_response_has_both_tokens_and_their_lifetime() {
    let body = r#"{"access_token":"a-2","refresh_token":"r-2","expires_in":28800,"scope":"one two",
        "account":{"uuid":"u","email_address":"me@example.com"},"organization":{"uuid":"org-1"}}"#;

    let tokens = parse(body).unwrap();

    assert_eq!(tokens.access_token.expose(), "a-2");
    assert_eq!(tokens.refresh_token.unwrap().expose(), "r-2");
    assert_eq!(tokens.expires_in, Some(Duration::from_secs(28_800)));
    assert_eq!(tokens.owner_id, Some(OwnerId::new("org-1")));
}

#[test]
fn missing_or_invalid_fields_are_none() {
    for body in [
        r#"{"access_token":"a"}"#,
        r#"{"access_token":"a","refresh_token":null,"expires_in":null,"organization":null}"#,
        r#"{"access_token":"a","refresh_token":"","expires_in":"soon","organization":"org"}"#,
        r#"{"access_token":"a","expires_in":-1}"#,
        r#"{"access_token":"a","expires_in":0}"#,
        r#"{"access_token":"a","expires_in":1e300}"#,
    ] {
        let tokens = parse(body).unwrap();

        assert!(tokens.refresh_token.is_none() && tokens.expires_in.is_none(), "{body}");
        assert_eq!(tokens.owner_id, None, "{body}");
    }
}

#[test]
fn a_2xx_without_a_token_is_transient() {
    for body in ["", "<html>", "[]", "{}", r#"{"access_token":""}"#, r#"{"access_token":["n33dle"]}"#] {
        let error = parse(body).unwrap_err();

        assert!(error.is_transient() && !format!("{error:?}").contains("n33dle"), "{body} {error:?}");
    }
}

#[test]
fn a_token_with_control_characters_is_rejected() {
    assert!(parse(r#"{"access_token":"a\nb"}"#).is_err());
    assert!(parse(r#"{"access_token":"a","refresh_token":"r\u0000"}"#).is_err());
}

#[test]
fn codex_tokens_contain_owner_and_expiry() {
    // printf '{"https://api.openai.com/auth":{"chatgpt_account_id":"acc-1"}}' | basenc --base64url -w0
    let id = "e30.eyJodHRwczovL2FwaS5vcGVuYWkuY29tL2F1dGgiOnsiY2hhdGdwdF9hY2NvdW50X2lkIjoiYWNjLTEifX0.s";
    // printf '{"exp":1800003600}' | basenc --base64url
    let access = "e30.eyJleHAiOjE4MDAwMDM2MDB9.s";
    let body = format!(r#"{{"access_token":"{access}","id_token":"{id}"}}"#);

    let tokens = parse_tokens(&codex::CONFIG, body.as_bytes(), now()).unwrap();

    assert_eq!(tokens.owner_id, Some(OwnerId::new("acc-1")));
    assert_eq!(tokens.expires_in, Some(Duration::from_secs(3600)));
}

proptest! {
    #[test]
    fn no_response_panics(status in 0_u16..=999, body in any::<Vec<u8>>()) {
        for config in [anthropic::CONFIG, codex::CONFIG] {
            let _ = error_from_response(&config, status, &body);
            let _ = parse_tokens(&config, &body, now());
        }
    }
}
