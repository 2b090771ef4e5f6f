//! Errors in the formats of the providers.

use serde_json::json;

use super::Reply;

/// Writes an error of a provider: its HTTP status, its kind as Anthropic names it, and its message.
pub(crate) type WriteFailure = fn(u16, &str, &str) -> Reply;

/// The format of the Connect protocol, which Cursor uses.
pub(super) fn connect(status: u16, _kind: &str, message: &str) -> Reply {
    let code = match status {
        400 => "invalid_argument",
        401 => "unauthenticated",
        403 => "permission_denied",
        429 => "resource_exhausted",
        _ => "unavailable",
    };
    Reply::json(&json!({ "code": code, "message": message })).with_status(status)
}

/// The format of Google's services.
pub(super) fn google(status: u16, _kind: &str, message: &str) -> Reply {
    let name = match status {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        429 => "RESOURCE_EXHAUSTED",
        _ => "UNAVAILABLE",
    };
    let error = json!({ "code": status, "message": message, "status": name });
    Reply::json(&json!({ "error": error })).with_status(status)
}

/// The format of z.ai, which states that a login is invalid, or that there are too many requests, in a successful response.
pub(super) fn zai(status: u16, _kind: &str, message: &str) -> Reply {
    let code = match status {
        401 => 1001,
        429 => 1302,
        other => other,
    };
    let reply = Reply::json(&json!({ "code": code, "msg": message, "success": false })).with_status(status);
    if code == status { reply } else { reply.sent_as_success() }
}

/// The format of MiniMax, which states the same failures in a successful response.
pub(super) fn minimax(status: u16, _kind: &str, message: &str) -> Reply {
    let (code, is_success) = match status {
        401 => (1004, true),
        429 => (1002, true),
        _ => (1000, false),
    };
    let base = json!({ "status_code": code, "status_msg": message });
    let reply = Reply::json(&json!({ "base_resp": base })).with_status(status);
    if is_success { reply.sent_as_success() } else { reply }
}
