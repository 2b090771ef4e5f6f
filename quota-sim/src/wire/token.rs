//! The exchange of refresh tokens: what is asked, and the answers.
//! What comes of one is decided in `grants`.

use std::time::Duration;

use serde_json::{Value, json};

use super::Reply;
use crate::clock::SimClock;
use crate::grants::Grant;
use crate::script::Account;

/// The client id that is known here.
const CLIENT: &str = "sim-client";

/// The refresh token that is to be exchanged, or the refusal.
pub(crate) fn asked(body: &[u8]) -> Result<String, Reply> {
    let form: Value = serde_json::from_slice(body).unwrap_or_default();
    let field = |name: &str| form.get(name).and_then(Value::as_str);
    let Some(grant_type) = field("grant_type") else {
        return Err(refused(400, "invalid_request"));
    };
    if grant_type != "refresh_token" {
        return Err(refused(400, "unsupported_grant_type"));
    }
    if field("client_id") != Some(CLIENT) {
        return Err(refused(401, "invalid_client"));
    }
    field("refresh_token").map(str::to_owned).ok_or_else(|| refused(400, "invalid_request"))
}

/// New tokens.
pub(crate) fn given(account: &Account, grant: &Grant, clock: &SimClock) -> Reply {
    let name = account.name();
    // Whole seconds, and at least one.
    let lives = clock.real_until(grant.ends).max(Duration::from_secs(1)).as_secs();
    Reply::json(&json!({
        "token_type": "Bearer",
        "access_token": grant.access,
        "refresh_token": grant.refresh,
        "expires_in": lives,
        "scope": "user:profile user:inference",
        "account": { "uuid": format!("sim-account-{name}"), "email_address": format!("{name}@sim.invalid") },
        "organization": { "uuid": account.organization() },
    }))
}

/// The token is good for nothing.
pub(crate) fn dead() -> Reply {
    refused(400, "invalid_grant")
}

fn refused(status: u16, word: &str) -> Reply {
    Reply { status, ..Reply::json(&json!({ "error": word })) }
}
