//! What answers of the token endpoints mean, by bytes alone.

use proptest::prelude::*;

use super::*;
use crate::{anthropic, codex};

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn refused(status: u16, body: &str) -> ExchangeError {
    refusal(&anthropic::DIALECT, status, body.as_bytes())
}

fn refused_by_codex(status: u16, body: &str) -> ExchangeError {
    refusal(&codex::DIALECT, status, body.as_bytes())
}

fn read(body: &str) -> Result<Tokens, ExchangeError> {
    tokens(&anthropic::DIALECT, body.as_bytes(), now())
}

#[test]
fn a_grant_that_is_not_accepted_is_dead() {
    for status in [400, 401, 403] {
        let error = refused(status, r#"{"error":"invalid_grant","error_description":"n33dle"}"#);

        assert!(matches!(error, ExchangeError::Dead { .. }), "{status} {error:?}");
        assert!(!format!("{error:?}").contains("n33dle"));
    }
}

#[test]
fn the_words_of_codex_for_a_dead_login_are_known_in_both_forms() {
    for word in ["refresh_token_expired", "refresh_token_reused", "refresh_token_invalidated"] {
        for body in [format!(r#"{{"error":"{word}"}}"#), format!(r#"{{"error":{{"code":"{word}"}}}}"#)] {
            let error = refused_by_codex(401, &body);

            assert!(matches!(error, ExchangeError::Dead { .. }), "{body} {error:?}");
        }
    }
}

#[test]
fn a_client_that_is_not_known_ends_no_login() {
    for (status, word) in [(401, "invalid_client"), (400, "unauthorized_client"), (400, "invalid_request")] {
        let error = refused(status, &format!(r#"{{"error":"{word}"}}"#));

        assert!(matches!(error, ExchangeError::Systemic { .. }), "{word} {error:?}");
    }
}

#[test]
fn an_answer_that_is_broken_throttled_or_unknown_ends_no_login() {
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
        let error = refused(status, body);

        assert!(error.is_transient(), "{status} {body} {error:?}");
    }
}

#[test]
fn a_good_answer_gives_both_tokens_and_how_long_they_live() {
    let body = r#"{"access_token":"a-2","refresh_token":"r-2","expires_in":28800,"scope":"one two",
        "account":{"uuid":"u","email_address":"me@example.com"},"organization":{"uuid":"org-1"}}"#;

    let tokens = read(body).unwrap();

    assert_eq!(tokens.access_token.expose(), "a-2");
    assert_eq!(tokens.refresh_token.unwrap().expose(), "r-2");
    assert_eq!(tokens.lives, Some(Duration::from_secs(28_800)));
    assert_eq!(tokens.identity, Some(Identity::new("org-1")));
}

#[test]
fn what_is_not_said_is_not_known() {
    for body in [
        r#"{"access_token":"a"}"#,
        r#"{"access_token":"a","refresh_token":null,"expires_in":null,"organization":null}"#,
        r#"{"access_token":"a","refresh_token":"","expires_in":"soon","organization":"org"}"#,
        r#"{"access_token":"a","expires_in":-1}"#,
        r#"{"access_token":"a","expires_in":0}"#,
        r#"{"access_token":"a","expires_in":1e300}"#,
    ] {
        let tokens = read(body).unwrap();

        assert!(tokens.refresh_token.is_none() && tokens.lives.is_none(), "{body}");
        assert_eq!(tokens.identity, None, "{body}");
    }
}

#[test]
fn a_good_status_without_a_token_may_pass() {
    for body in ["", "<html>", "[]", "{}", r#"{"access_token":""}"#, r#"{"access_token":["n33dle"]}"#] {
        let error = read(body).unwrap_err();

        assert!(error.is_transient() && !format!("{error:?}").contains("n33dle"), "{body} {error:?}");
    }
}

#[test]
fn a_token_that_no_header_can_carry_is_not_taken() {
    assert!(read(r#"{"access_token":"a\nb"}"#).is_err());
    assert!(read(r#"{"access_token":"a","refresh_token":"r\u0000"}"#).is_err());
}

#[test]
fn codex_says_in_its_tokens_whose_they_are_and_when_they_end() {
    // printf '{"https://api.openai.com/auth":{"chatgpt_account_id":"acc-1"}}' | basenc --base64url -w0
    let id = "e30.eyJodHRwczovL2FwaS5vcGVuYWkuY29tL2F1dGgiOnsiY2hhdGdwdF9hY2NvdW50X2lkIjoiYWNjLTEifX0.s";
    // printf '{"exp":1800003600}' | basenc --base64url
    let access = "e30.eyJleHAiOjE4MDAwMDM2MDB9.s";
    let body = format!(r#"{{"access_token":"{access}","id_token":"{id}"}}"#);

    let tokens = tokens(&codex::DIALECT, body.as_bytes(), now()).unwrap();

    assert_eq!(tokens.identity, Some(Identity::new("acc-1")));
    assert_eq!(tokens.lives, Some(Duration::from_secs(3600)));
}

proptest! {
    #[test]
    fn no_answer_breaks_a_reader(status in 0_u16..=999, body in any::<Vec<u8>>()) {
        for dialect in [anthropic::DIALECT, codex::DIALECT] {
            let _ = refusal(&dialect, status, &body);
            let _ = tokens(&dialect, &body, now());
        }
    }
}
