//! The authorization and token endpoints: requests and responses.
//! `tokens` decides the result.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use url::{Url, form_urlencoded};

use super::Reply;
use crate::clock::SimClock;
use crate::script::Account;
use crate::tokens::IssuedTokens;

/// The only valid client id.
const CLIENT: &str = "sim-client";

/// A request to the token endpoint.
#[derive(Debug)]
pub(crate) enum TokenRequest {
    /// Exchanges a refresh token.
    Refresh(String),
    /// Exchanges an authorization code.
    Code { code: String, redirect_uri: String, verifier: String },
}

/// A request to the authorization endpoint.
#[derive(Debug)]
pub(crate) struct AuthorizeRequest {
    /// The account to log in.
    pub(crate) login_hint: Option<String>,
    pub(crate) redirect_uri: Url,
    pub(crate) challenge: String,
    pub(crate) state: String,
}

impl AuthorizeRequest {
    /// Parses the query. The error is the response.
    pub(crate) fn parse(query: &str) -> Result<Self, Reply> {
        let fields: BTreeMap<_, _> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let field = |name: &str| fields.get(name).cloned();
        if field("client_id").as_deref() != Some(CLIENT) {
            return Err(error(401, "invalid_client"));
        }
        let is_code = field("response_type").as_deref() == Some("code");
        if !is_code || field("code_challenge_method").as_deref() != Some("S256") {
            return Err(error(400, "invalid_request"));
        }
        let redirect_uri = field("redirect_uri").and_then(|url| url.parse().ok());
        let (Some(redirect_uri), Some(challenge), Some(state)) =
            (redirect_uri, field("code_challenge"), field("state"))
        else {
            return Err(error(400, "invalid_request"));
        };
        Ok(Self { login_hint: field("login_hint"), redirect_uri, challenge, state })
    }
}

/// The redirect back to the client, with the code.
pub(crate) fn authorized(mut redirect_uri: Url, code: &str, state: &str) -> Reply {
    redirect_uri.query_pairs_mut().append_pair("code", code).append_pair("state", state);
    let page = Reply::text("text/plain; charset=utf-8", "authorized\n");
    Reply { status: 302, ..page.header("location", redirect_uri) }
}

/// Parses a request to the token endpoint, as JSON or as a form. The error is the response.
pub(crate) fn parse_request(body: &[u8]) -> Result<TokenRequest, Reply> {
    let fields: BTreeMap<String, Value> = serde_json::from_slice(body).unwrap_or_else(|_| {
        let fields = form_urlencoded::parse(body).into_owned();
        fields.map(|(name, value)| (name, Value::from(value))).collect()
    });
    let field = |name: &str| fields.get(name).and_then(Value::as_str);
    let Some(grant_type) = field("grant_type") else {
        return Err(error(400, "invalid_request"));
    };
    if !matches!(grant_type, "refresh_token" | "authorization_code") {
        return Err(error(400, "unsupported_grant_type"));
    }
    if field("client_id") != Some(CLIENT) {
        return Err(error(401, "invalid_client"));
    }
    let required = |name: &str| field(name).map(str::to_owned).ok_or_else(|| error(400, "invalid_request"));
    Ok(match grant_type {
        "refresh_token" => TokenRequest::Refresh(required("refresh_token")?),
        _ => TokenRequest::Code {
            code: required("code")?,
            redirect_uri: required("redirect_uri")?,
            verifier: required("code_verifier")?,
        },
    })
}

/// The response with new tokens.
pub(crate) fn issued(account: &Account, issued: &IssuedTokens, clock: &SimClock) -> Reply {
    let name = account.name();
    // Whole seconds, at least one.
    let expires_in = clock.real_until(issued.expires_at).max(Duration::from_secs(1)).as_secs();
    Reply::json(&json!({
        "token_type": "Bearer",
        "access_token": issued.access,
        "refresh_token": issued.refresh,
        "expires_in": expires_in,
        "scope": "user:profile user:inference",
        "account": { "uuid": format!("sim-account-{name}"), "email_address": format!("{name}@sim.invalid") },
        "organization": { "uuid": account.organization() },
    }))
}

/// The error of an invalid refresh token or code.
pub(crate) fn invalid_grant() -> Reply {
    error(400, "invalid_grant")
}

fn error(status: u16, word: &str) -> Reply {
    Reply { status, ..Reply::json(&json!({ "error": word })) }
}
