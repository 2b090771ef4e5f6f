//! What OpenAI says on the ordinary answers of Codex: usage in headers, and why a request was turned away.
//! Reading the headers themselves is in `headers`; what follows is decided by whoever routes.

use jiff::Timestamp;
use quota_core::{
    Failure, FailureKind, Percent, ProviderId, Scope, Seen, Traffic, TrafficReader, Usage, plausible_reset,
};
use serde_json::Value;

use super::OPENAI;
use super::headers::{self, Found, Slot};
use crate::classify::is_blocked_by_cloudflare;
use crate::lenient::{moment, number};
use quota_core::{retry_after, wait_of_seconds};

/// Reads the answers of Codex to ordinary requests.
///
/// - A window is known by its length, not by the slot it stands in; a slot of zeros is no window.
/// - A 429 that says `usage_limit_reached` is a spent quota, until the moment it names; where another limit than the
///   account's is named as the active one, only that limit's models are out. Any other 429 is a pause.
///
/// ```
/// use quota_core::{FailureKind, Traffic, TrafficReader};
/// use quota_http::codex::CodexTraffic;
///
/// let body = br#"{"error":{"type":"usage_limit_reached","resets_in_seconds":600}}"#;
/// let seen = CodexTraffic.read(&Traffic::new(429, &[], "2026-01-01T12:00:00Z".parse()?).body(body));
///
/// let failure = seen.failure.unwrap();
/// assert_eq!(failure.kind, FailureKind::QuotaSpent);
/// assert_eq!(failure.resets_at, Some("2026-01-01T12:10:00Z".parse()?));
/// # Ok::<(), jiff::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct CodexTraffic;

impl TrafficReader for CodexTraffic {
    fn provider(&self) -> ProviderId {
        OPENAI
    }

    fn read(&self, answer: &Traffic<'_>) -> Seen {
        let pairs = answer.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let found = headers::read(pairs, answer.now);
        if !found.ignored.is_empty() {
            tracing::debug!(ignored = ?found.ignored, "headers left out");
        }
        let header = |name: &str| {
            let named = answer.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            named.map(|(_, value)| value.as_str())
        };
        let failure = failure(answer, &found, is_blocked_by_cloudflare(header))
            .map(|failure| failure.retry_after(retry_after(header, Some(answer.now))));
        Seen::new(Usage::from_headers(found.windows()), failure)
    }
}

fn failure(answer: &Traffic<'_>, found: &Found, is_blocked: bool) -> Option<Failure> {
    let by_status = Failure::of_status(answer.status)?;
    if is_blocked && matches!(answer.status, 401 | 403) {
        // Cloudflare answered, not the provider: nothing is known of the login.
        return Some(Failure::new(FailureKind::Overloaded));
    }
    if answer.status != 429 {
        return Some(by_status);
    }
    let body: Value = serde_json::from_slice(answer.body).unwrap_or_default();
    // A frame of a WebSocket wraps the body in one of its own.
    let error = body.get("error").or_else(|| body.get("body")?.get("error"));
    let word = error.and_then(|error| error.get("type")?.as_str());
    // The body may have been kept only in part.
    let is_spent = word == Some("usage_limit_reached")
        || (error.is_none() && String::from_utf8_lossy(answer.body).contains("\"usage_limit_reached\""));
    if !is_spent {
        return Some(by_status);
    }
    let scope = found.limit.clone().map(Scope::model);
    let slots = if scope.is_some() { &found.of_limit } else { &found.slots };
    let full = slots.iter().filter(|slot| slot.used >= Percent::FULL);
    // Of several full ones the last to begin anew is what is waited for.
    let full: Option<&Slot> = full.max_by_key(|slot| slot.resets_at);
    let told = error.and_then(|error| reset(error, answer.now));
    let spent = Failure::new(FailureKind::QuotaSpent).scope(scope);
    let spent = spent.window(full.and_then(|slot| Some(slot.window.as_ref()?.0.clone())));
    Some(spent.resets_at(told.or_else(|| full?.resets_at)))
}

/// When the body says that the quota is there again.
fn reset(error: &Value, now: Timestamp) -> Option<Timestamp> {
    let plausible = |at| plausible_reset(at, None, now);
    moment(error.get("resets_at")).and_then(plausible).or_else(|| {
        let seconds = number(error.get("resets_in_seconds")).known()?;
        now.checked_add(wait_of_seconds(seconds, Some(now))?).ok().and_then(plausible)
    })
}

#[cfg(test)]
mod tests;
