//! The response to a provider's client: the body, and the headers that state its age. `usage` handles the requests.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use jiff::Timestamp;
use quota::http::{KnownUsage, LastResponse, UsageEndpoint};
use quota::manager::StaleReason;
use quota::record::{Hold, HoldReason};
use quota::{AccountUsage, Freshness, QuotaError, Snapshot};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// How long a written body is reused. Its countdowns are in whole seconds.
const REUSE: Duration = Duration::from_secs(1);
/// When a client may try again, if no time is known.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// The longest wait that a response requests from a client.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// A written body, and the readings from which it was written.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) body: Bytes,
    pub(crate) etag: HeaderValue,
    /// The time of the oldest reading.
    oldest: Timestamp,
    /// When a window ends, which makes the body outdated.
    expires_at: Option<Timestamp>,
    written_at: Timestamp,
    snapshot: Snapshot,
    response: Option<Arc<LastResponse>>,
}

impl Written {
    /// Writes the known usage; `None` if no usage is known.
    pub(crate) fn of(
        usage: &AccountUsage,
        endpoint: &UsageEndpoint,
        response: Option<Arc<LastResponse>>,
        is_personal: bool,
        max_age: Duration,
    ) -> Option<Self> {
        let (snapshot, now) = (usage.snapshot(), usage.now());
        let is_young = |response: &&Arc<LastResponse>| age(response.received_at(), now) < max_age;
        let last = response.as_ref().filter(is_young);
        let known =
            KnownUsage::of(snapshot, now, usage.max_age(), max_age).last_response(last.map(|last| &**last));
        if known.is_empty() {
            return None;
        }
        let mut fields = endpoint.usage(&known);
        if !is_personal {
            endpoint.remove_personal(&mut fields);
        }
        let oldest = known.windows.iter().map(|window| window.observed_at()).min();
        let body = serde_json::to_vec(&fields).expect("an object has only texts as keys");
        Some(Self {
            body: body.into(),
            etag: etag(fields, endpoint.countdown_fields()),
            oldest: oldest.or(snapshot.complete_at()).unwrap_or(now),
            expires_at: known.expires_at(),
            written_at: now,
            snapshot: snapshot.clone(),
            response,
        })
    }

    /// Whether writing it now would give the same body.
    pub(crate) fn holds(&self, usage: &AccountUsage, response: Option<&Arc<LastResponse>>) -> bool {
        let now = usage.now();
        let is_young = self.written_at <= now && age(self.written_at, now) < REUSE;
        let is_same_response = match (&self.response, response) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        is_young
            && self.expires_at.is_none_or(|at| now < at)
            && is_same_response
            && self.snapshot == *usage.snapshot()
    }

    /// The age of the oldest reading.
    pub(crate) fn age(&self, now: Timestamp) -> Duration {
        age(self.oldest, now)
    }

    /// Why the body is stale; `None` if it is fresh.
    pub(crate) fn stale_reason(&self, usage: &AccountUsage) -> Option<StaleReason> {
        match usage.freshness() {
            Freshness::Stale { reason, .. } => Some(reason),
            // A window of one model may be older than the others.
            _ if self.age(usage.now()) >= usage.max_age() => Some(StaleReason::Aged),
            _ => None,
        }
    }

    /// How long a client may use the body, counted from the oldest reading.
    pub(crate) fn lifetime(&self, usage: &AccountUsage) -> Duration {
        let until_end = self.expires_at.map_or(Duration::MAX, |end| age(self.oldest, end));
        usage.max_age().min(until_end)
    }
}

fn age(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(at)).unwrap_or_default()
}

/// A weak validator: bodies that differ only in a countdown have the same validator.
fn etag(fields: Map<String, Value>, countdowns: &[&str]) -> HeaderValue {
    let mut value = Value::Object(fields);
    remove(&mut value, countdowns);
    let hash = Sha256::digest(value.to_string());
    let bits = u64::from_be_bytes(*hash.first_chunk().expect("a SHA-256 digest has 32 bytes"));
    HeaderValue::try_from(format!("W/\"{bits:016x}\"")).expect("it has only printable characters")
}

fn remove(value: &mut Value, names: &[&str]) {
    match value {
        Value::Object(fields) if !names.is_empty() => {
            fields.retain(|name, _| !names.contains(&&**name));
            fields.values_mut().for_each(|value| remove(value, names));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| remove(value, names)),
        _ => {}
    }
}

/// Why the response contains no usage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Duration,
    pub(crate) message: String,
}

/// When the next call is possible, as far as is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NextCall<'a> {
    pub(crate) hold: Option<&'a Hold>,
    pub(crate) next_attempt_at: Option<Timestamp>,
    pub(crate) now: Timestamp,
}

impl Failure {
    /// The error for an account that has no readings younger than `max_age`.
    pub(crate) fn of(usage: &AccountUsage, error: Option<&QuotaError>, max_age: Duration) -> Self {
        let hold = usage.hold();
        let why = match (&hold, error, usage.last_failure()) {
            (Some(hold), _, _) => hold.reason.to_string(),
            (None, Some(error), _) => error.cause(),
            (None, None, Some(failure)) => failure.message.clone(),
            (None, None, None) => "it was not read yet".to_owned(),
        };
        let next =
            NextCall { hold: hold.as_ref(), next_attempt_at: usage.next_attempt_at(), now: usage.now() };
        let message = format!("no usage from the last {} s is known: {why}", max_age.as_secs());
        let (status, retry_after) = (next.status(), next.retry_after());
        Self { status, retry_after, message }
    }
}

impl NextCall<'_> {
    /// 429 if the provider or the budget limits the calls, otherwise 503.
    fn status(&self) -> StatusCode {
        use HoldReason::{BudgetExhausted, ProviderRateLimited, RateLimited};
        match self.hold.map(|hold| &hold.reason) {
            Some(RateLimited | ProviderRateLimited | BudgetExhausted) => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The time until the next call, in whole seconds: a client that waits that long is never early.
    fn retry_after(&self) -> Duration {
        let hold = self.hold.map(|hold| hold.until);
        let Some(at) = self.next_attempt_at.or(hold).filter(|at| *at > self.now) else { return RETRY_AFTER };
        if at == Timestamp::MAX {
            // Only a new login ends the wait.
            return RETRY_AFTER.saturating_mul(6);
        }
        let wait = age(self.now, at);
        let whole = Duration::from_secs(wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
        whole.min(MAX_RETRY_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(millisecond: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + millisecond).unwrap()
    }

    fn next(until: Option<Timestamp>) -> u64 {
        NextCall { hold: None, next_attempt_at: until, now: at(0) }.retry_after().as_secs()
    }

    #[test]
    fn a_client_that_waits_as_asked_is_never_early() {
        assert_eq!((next(Some(at(1))), next(Some(at(2000))), next(Some(at(2001)))), (1, 2, 3));
    }

    #[test]
    fn without_a_known_time_the_wait_is_short() {
        assert_eq!((next(None), next(Some(at(0))), next(Some(Timestamp::MAX))), (10, 10, 60));
    }

    #[test]
    fn the_wait_is_at_most_a_day() {
        assert_eq!(next(Some(at(90_000_000_000))), 24 * 3600);
    }

    #[test]
    fn a_countdown_does_not_change_the_validator() {
        let tag = |used: u64, left: u64| {
            let body = json!({ "a": [{ "left": left, "used": used }] });
            etag(body.as_object().unwrap().clone(), &["left"])
        };

        assert_eq!(tag(1, 10), tag(1, 9));
        assert_ne!(tag(1, 10), tag(2, 10));
    }
}
