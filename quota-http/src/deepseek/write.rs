//! Writes responses of DeepSeek's balance endpoint from the readings of an account.

use serde_json::{Map, Value, json};

use super::parse_usage;
use crate::usage_endpoint::{EndpointFailure, KnownUsage, amount_text};

/// The body of a successful response. A record stores only the total balance, and not how much of it was granted.
pub(super) fn usage(known: &KnownUsage<'_>) -> Map<String, Value> {
    if let Some(unchanged) = known.unchanged(parse_usage) {
        return unchanged;
    }
    let mut root = known.last_fields().cloned().unwrap_or_default();
    let balance = known.credits.and_then(|credits| credits.balance.as_ref());
    let rows =
        balance.map(|balance| json!({ "currency": balance.currency, "total_balance": amount_text(balance) }));
    root.insert("is_available".to_owned(), known.credits.and_then(|credits| credits.enabled).into());
    root.insert("balance_infos".to_owned(), rows.into_iter().collect());
    root
}

/// The body of an error response.
pub(super) fn failure(failure: &EndpointFailure<'_>) -> Value {
    let kind = match failure.status {
        401 => "authentication_error",
        429 => "rate_limit_error",
        400..500 => "invalid_request_error",
        _ => "server_error",
    };
    json!({ "error": { "message": failure.message, "type": kind, "param": null, "code": kind } })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;
    use quota_core::{Credential, Snapshot, UsageReport};

    use super::*;
    use crate::deepseek::PROVIDER;
    use crate::usage_endpoint::testing::written;

    fn now() -> Timestamp {
        Timestamp::from_second(1_783_000_000).unwrap()
    }

    fn write(snapshot: &Snapshot, last: Option<&Value>) -> Value {
        written(usage, snapshot, last, now(), 0)
    }

    fn parse(body: &Value) -> UsageReport {
        parse_usage(body.to_string().as_bytes(), now()).unwrap().usage
    }

    fn body(balance: &str) -> Value {
        let row = json!({ "currency": "CNY", "total_balance": balance, "granted_balance": "1.00", "topped_up_balance": "2.00" });
        json!({ "is_available": true, "balance_infos": [row] })
    }

    #[test]
    fn an_unchanged_response_is_passed_on() {
        let body = body("3.00");

        assert_eq!(write(&Snapshot::of(&parse(&body), now()), Some(&body)), body);
    }

    #[test]
    fn a_failure_is_an_error_response_for_the_parser() {
        for status in [401, 403, 429, 503] {
            let failure = EndpointFailure { status, message: "why", retry_after: None };
            let body = PROVIDER.endpoint().unwrap().failure(&failure);

            assert_eq!(body["error"]["message"], "why");
            assert!(parse_usage(body.to_string().as_bytes(), now()).is_err());
        }
    }

    #[test]
    fn the_path_is_that_of_the_request() {
        let request = PROVIDER.usage_request(&Credential::none());

        assert_eq!(PROVIDER.endpoint().unwrap().path(), format!("/{}", request.path));
    }

    proptest! {
        #[test]
        fn the_parser_reads_back_the_balance(cents in -100_000..100_000_000_i64, has_last in any::<bool>()) {
            let original = body(&format!("{}.{:02}", cents / 100, cents.abs() % 100));
            let last = body("3.00");

            let written = write(&Snapshot::of(&parse(&original), now()), has_last.then_some(&last));

            prop_assert_eq!(parse(&written).credits, parse(&original).credits);
        }
    }
}
