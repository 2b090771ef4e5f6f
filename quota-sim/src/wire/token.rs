//! The token endpoint: requests and responses.
//! `tokens` decides the result.

use std::time::Duration;

use serde_json::{Value, json};

use super::Reply;
use crate::clock::SimClock;
use crate::script::Account;
use crate::tokens::IssuedTokens;

/// The only valid client id.
const CLIENT: &str = "sim-client";

/// Parses the refresh token from a request. The error is the response.
pub(crate) fn parse_request(body: &[u8]) -> Result<String, Reply> {
    let form: Value = serde_json::from_slice(body).unwrap_or_default();
    let field = |name: &str| form.get(name).and_then(Value::as_str);
    let Some(grant_type) = field("grant_type") else {
        return Err(error(400, "invalid_request"));
    };
    if grant_type != "refresh_token" {
        return Err(error(400, "unsupported_grant_type"));
    }
    if field("client_id") != Some(CLIENT) {
        return Err(error(401, "invalid_client"));
    }
    field("refresh_token").map(str::to_owned).ok_or_else(|| error(400, "invalid_request"))
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

/// The error of an invalid refresh token.
pub(crate) fn invalid_grant() -> Reply {
    error(400, "invalid_grant")
}

fn error(status: u16, word: &str) -> Reply {
    Reply { status, ..Reply::json(&json!({ "error": word })) }
}
