//! Parses the body of a rejected request, in the formats of Anthropic, OpenAI and Google. The formats share no error
//! codes, so the body alone identifies its format. Gateways may forward the bodies of any provider.

use std::time::Duration;

use jiff::Timestamp;
use quota_core::model::{Scope, plausible_reset};
use quota_core::provider::{Rejection, RejectionKind, ResponseMeta, retry_after};
use serde_json::Value;

use crate::classify::is_blocked_by_cloudflare;
use crate::generic_headers::parse_duration;
use crate::lenient::{after, is_short_text, number, parse_timestamp, timestamp};

/// Determines the rejection from the body, the status and the headers.
///
/// `None` if the status is not an error. A 401, 403 or 5xx never becomes an exhausted quota, because these statuses
/// have their own meaning.
pub(crate) fn rejection(response: &ResponseMeta<'_>) -> Option<Rejection> {
    let mut rejection = Rejection::of_status(response.status)?;
    let header = |name: &str| response.header(name);
    let mut body = FailureBody::default();
    if matches!(response.status, 401 | 403) && is_blocked_by_cloudflare(header) {
        // The response comes from Cloudflare, not from the provider, so the login may be valid.
        rejection.kind = RejectionKind::Overloaded;
    } else {
        body = FailureBody::read(response);
        match body.kind {
            Some(RejectionKind::QuotaExhausted) if matches!(response.status, 400 | 402 | 429) => {
                rejection.kind = RejectionKind::QuotaExhausted;
                rejection.resets_at = body.resets_at.and_then(|at| plausible_reset(at, None, response.now));
                rejection.scope = body.model.take().map(Scope::model);
            }
            Some(RejectionKind::Overloaded) => rejection.kind = RejectionKind::Overloaded,
            _ => {}
        }
    }
    let requested = retry_after(header, Some(response.now));
    let wait = requested.filter(|wait| !wait.is_zero()).or(body.wait).or(requested);
    Some(rejection.retry_after(wait))
}

/// The information in a body.
#[derive(Debug, Default, PartialEq)]
struct FailureBody {
    /// The reason, if it is more specific than the status.
    kind: Option<RejectionKind>,
    /// The requested wait.
    wait: Option<Duration>,
    /// The wait of `RetryInfo`.
    retry_delay: Option<Duration>,
    /// Whether a daily quota is exhausted.
    is_daily: bool,
    /// When the exhausted quota resets.
    resets_at: Option<Timestamp>,
    /// The only model that is exhausted.
    model: Option<String>,
}

/// The fields that state a reason.
const REASONS: [&str; 4] = ["type", "code", "status", "reason"];
/// The maximum number of bytes that are read of a body.
const MAX_BODY: usize = 64 * 1024;

impl FailureBody {
    /// Reads the body of a response. The result is empty if the body is not a known error, or is cut off before the
    /// reason.
    fn read(response: &ResponseMeta<'_>) -> Self {
        let body = &response.body[..response.body.len().min(MAX_BODY)];
        let Ok(document) = serde_json::from_slice::<Value>(body) else {
            return Self { kind: kind_of_text(body), ..Self::default() };
        };
        // Google's streams are arrays. A WebSocket frame wraps the body in another object.
        let document = document.get(0).unwrap_or(&document);
        let Some(error) = document.get("error").or_else(|| document.get("body")?.get("error")) else {
            return Self::default();
        };
        let words = REASONS.into_iter().filter_map(|key| error.get(key)?.as_str());
        let mut found = Self { kind: words.filter_map(kind_of_word).next(), ..Self::default() };
        found.resets_at = reset(error, response.now);
        for detail in error.get("details").and_then(Value::as_array).into_iter().flatten() {
            found.add_detail(detail, response.now);
        }
        // `RetryInfo` is the delay of the per-minute quota. A daily quota takes longer to reset.
        if found.is_daily {
            found.kind = Some(RejectionKind::QuotaExhausted);
        } else {
            found.wait = found.retry_delay.or(found.wait);
        }
        found
    }

    /// Adds one of Google's details: `ErrorInfo`, `RetryInfo` or `QuotaFailure` of google/rpc/error_details.proto.
    fn add_detail(&mut self, detail: &Value, now: Timestamp) {
        let kind = detail.get("@type").and_then(Value::as_str).unwrap_or_default();
        let text = |field: Option<&Value>| field.and_then(Value::as_str).map(str::to_owned);
        let model = |from: Option<&Value>| text(from?.get("model")).filter(|name| is_model(name));
        match kind.rsplit('.').next().unwrap_or_default() {
            "ErrorInfo" => {
                let metadata = detail.get("metadata");
                if let Some(kind) = detail.get("reason").and_then(Value::as_str).and_then(kind_of_word) {
                    self.kind = Some(kind);
                }
                self.model = self.model.take().or_else(|| model(metadata));
                let delay = text(metadata.and_then(|metadata| metadata.get("quotaResetDelay")));
                let delay = delay.and_then(|text| parse_duration(&text));
                let at = text(metadata.and_then(|metadata| metadata.get("quotaResetTimeStamp")));
                self.wait = self.wait.or(delay);
                let at = at.and_then(|text| parse_timestamp(&text));
                self.resets_at = self.resets_at.or(at).or_else(|| now.checked_add(delay?).ok());
            }
            "RetryInfo" => {
                let delay = text(detail.get("retryDelay")).and_then(|text| parse_duration(&text));
                self.retry_delay = delay.or(self.retry_delay);
            }
            "QuotaFailure" => {
                for violation in detail.get("violations").and_then(Value::as_array).into_iter().flatten() {
                    let quota = violation.get("quotaId").and_then(Value::as_str).unwrap_or_default();
                    if quota.contains("PerDay") {
                        self.is_daily = true;
                        self.model = self.model.take().or_else(|| model(violation.get("quotaDimensions")));
                    }
                }
            }
            _ => {}
        }
    }
}

/// The reason for a provider's error code, if it is more specific than the status.
fn kind_of_word(word: &str) -> Option<RejectionKind> {
    match word {
        // Anthropic, OpenAI, Google: the provider lacks capacity for all accounts.
        "overloaded_error" | "server_is_overloaded" | "MODEL_CAPACITY_EXHAUSTED" => {
            Some(RejectionKind::Overloaded)
        }
        // OpenAI and LiteLLM: a plan or a budget is used up.
        "usage_limit_reached" | "insufficient_quota" | "billing_hard_limit_reached" | "budget_exceeded" => {
            Some(RejectionKind::QuotaExhausted)
        }
        "QUOTA_EXHAUSTED" => Some(RejectionKind::QuotaExhausted),
        "RATE_LIMIT_EXCEEDED" => Some(RejectionKind::Throttled),
        _ => None,
    }
}

/// The reason in a body that was cut off or is not JSON: the first known error code in a field that states reasons.
fn kind_of_text(body: &[u8]) -> Option<RejectionKind> {
    let text = String::from_utf8_lossy(body);
    let parts: Vec<_> = text.split('"').collect();
    let fields = parts.windows(4).filter(|field| REASONS.contains(&field[0]) && field[1].trim() == ":");
    fields.map(|field| field[2]).find_map(kind_of_word)
}

/// The reset that OpenAI states in the body.
fn reset(error: &Value, now: Timestamp) -> Option<Timestamp> {
    let plausible = |at| plausible_reset(at, None, now);
    timestamp(error.get("resets_at"))
        .and_then(plausible)
        .or_else(|| after(number(error.get("resets_in_seconds")).ok()?, now))
}

fn is_model(name: &str) -> bool {
    is_short_text(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn read(status: u16, body: &str) -> Rejection {
        rejection(&ResponseMeta::new(status, &[], now()).body(body.as_bytes())).unwrap()
    }

    fn google(details: &str) -> Rejection {
        let body =
            format!(r#"{{"error":{{"code":429,"status":"RESOURCE_EXHAUSTED","details":[{details}]}}}}"#);
        read(429, &body)
    }

    const RETRY_INFO: &str = r#"{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"1.5s"}"#;

    fn error_info(reason: &str, metadata: &str) -> String {
        format!(
            r#"{{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"{reason}","metadata":{{{metadata}}}}}"#
        )
    }

    #[test]
    fn an_exceeded_rate_of_google_is_throttling_until_the_retry_delay() {
        let info = error_info("RATE_LIMIT_EXCEEDED", r#""model":"made-up","quotaResetDelay":"250.5ms""#);

        let without_retry_info = google(&info);
        let with = google(&format!("{info},{RETRY_INFO}"));

        assert_eq!((with.kind, with.scope), (RejectionKind::Throttled, None));
        assert_eq!(with.retry_after, Some(Duration::from_millis(1500)));
        assert_eq!(without_retry_info.retry_after, Some(Duration::from_micros(250_500)));
    }

    #[test]
    fn an_exhausted_quota_of_google_lasts_until_the_reset_of_its_model() {
        for metadata in [
            r#""model":"made-up","quotaResetDelay":"1h0m0.5s""#,
            r#""model":"made-up","quotaResetTimeStamp":"2027-01-15T09:00:00.5Z""#,
        ] {
            let rejection = google(&error_info("QUOTA_EXHAUSTED", metadata));

            assert_eq!(
                (rejection.kind, rejection.scope),
                (RejectionKind::QuotaExhausted, Some(Scope::model("made-up")))
            );
            let wait = rejection.resets_at.unwrap().duration_since(now());
            assert_eq!(wait.as_millis(), 3_600_500, "{metadata}");
        }
    }

    #[test]
    fn a_daily_quota_of_google_is_exhausted_despite_a_retry_delay() {
        let failure = r#"{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[
            {"quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier","quotaDimensions":{"model":"made-up"}}]}"#;

        let rejection = google(&format!("{failure},{RETRY_INFO}"));

        assert_eq!(
            (rejection.kind, rejection.scope),
            (RejectionKind::QuotaExhausted, Some(Scope::model("made-up")))
        );
    }

    #[test]
    fn a_daily_quota_of_google_ignores_the_retry_delay_in_any_order() {
        let failure = r#"{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[
            {"quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}"#;
        let info = error_info("RATE_LIMIT_EXCEEDED", "");
        let reset = error_info("RATE_LIMIT_EXCEEDED", r#""quotaResetDelay":"1h""#);

        for details in [
            format!("{failure},{RETRY_INFO}"),
            format!("{RETRY_INFO},{failure}"),
            format!("{failure},{info},{RETRY_INFO}"),
        ] {
            let rejection = google(&details);

            assert_eq!(
                (rejection.kind, rejection.retry_after),
                (RejectionKind::QuotaExhausted, None),
                "{details}"
            );
        }
        let rejection = google(&format!("{failure},{reset}"));
        assert_eq!(rejection.resets_at, now().checked_add(Duration::from_secs(3600)).ok());
    }

    #[test]
    fn a_wait_of_zero_in_the_header_does_not_hide_the_wait_in_the_body() {
        let headers = [("retry-after".to_owned(), "0".to_owned())];
        let body = format!(r#"{{"error":{{"details":[{RETRY_INFO}]}}}}"#);

        let rejection = rejection(&ResponseMeta::new(429, &headers, now()).body(body.as_bytes())).unwrap();

        assert_eq!(rejection.retry_after, Some(Duration::from_millis(1500)));
    }

    #[test]
    fn missing_capacity_is_overload_and_not_quota() {
        for status in [429, 503] {
            let details = error_info("MODEL_CAPACITY_EXHAUSTED", r#""model":"made-up""#);
            let body = format!(r#"{{"error":{{"code":503,"details":[{details},{RETRY_INFO}]}}}}"#);

            let rejection = read(status, &body);

            assert_eq!((rejection.kind, rejection.scope), (RejectionKind::Overloaded, None), "{status}");
            assert_eq!(rejection.retry_after, Some(Duration::from_millis(1500)));
        }
        assert_eq!(
            read(529, r#"{"type":"error","error":{"type":"overloaded_error"}}"#).kind,
            RejectionKind::Overloaded
        );
    }

    #[test]
    fn a_used_up_budget_of_openai_is_exhausted_quota() {
        for body in [
            r#"{"error":{"message":"m","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#,
            r#"{"error":{"message":"m","type":"invalid_request_error","code":"billing_hard_limit_reached"}}"#,
            r#"[{"error":{"type":"insufficient_quota"}}]"#,
        ] {
            assert_eq!(read(429, body).kind, RejectionKind::QuotaExhausted, "{body}");
        }
        let budget = r#"{"error":{"message":"m","type":"budget_exceeded","code":"400"}}"#;
        assert_eq!(read(400, budget).kind, RejectionKind::QuotaExhausted);
        let throttled = r#"{"error":{"message":"m","type":"tokens","code":"rate_limit_exceeded"}}"#;
        assert_eq!(read(429, throttled).kind, RejectionKind::Throttled);
    }

    #[test]
    fn the_header_has_precedence_over_the_wait_in_the_body() {
        let headers =
            [("retry-after-ms".to_owned(), "1200".to_owned()), ("retry-after".to_owned(), "2".to_owned())];
        let body = format!(r#"{{"error":{{"details":[{RETRY_INFO}]}}}}"#);

        let rejection = rejection(&ResponseMeta::new(429, &headers, now()).body(body.as_bytes())).unwrap();

        assert_eq!(rejection.retry_after, Some(Duration::from_millis(1200)));
    }

    #[test]
    fn an_error_status_keeps_its_meaning_despite_the_words_of_a_quota() {
        let body = r#"{"error":{"type":"usage_limit_reached","resets_in_seconds":9}}"#;

        for (status, kind) in [(401, RejectionKind::Unauthorized), (503, RejectionKind::Overloaded)] {
            let rejection = read(status, body);
            assert_eq!((rejection.kind, rejection.resets_at), (kind, None));
        }
    }

    #[test]
    fn a_body_that_is_cut_off_still_states_its_reason() {
        for (body, kind) in [
            (r#"{"type":"error","error":{"type":"overloaded_error","mes"#, RejectionKind::Overloaded),
            (r#"{"error":{"code":"insufficient_quota","mes"#, RejectionKind::QuotaExhausted),
            (r#"{"error":{"message":"overloaded_error"#, RejectionKind::Throttled),
        ] {
            assert_eq!(read(429, body).kind, kind, "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_body_panics_or_makes_a_success_a_failure(status in 0_u16..=999, body in any::<Vec<u8>>()) {
            let found = rejection(&ResponseMeta::new(status, &[], now()).body(&body));

            prop_assert_eq!(found.is_some(), status >= 400);
        }

        #[test]
        fn no_detail_panics(
            kind in "(ErrorInfo|RetryInfo|QuotaFailure|)",
            reason in "(QUOTA_EXHAUSTED|RATE_LIMIT_EXCEEDED|MODEL_CAPACITY_EXHAUSTED|[A-Z]{0,3})",
            delay in "-?[0-9]{0,20}(\\.[0-9]{0,10})?(h|m|s|ms|us|ns|)|.{0,8}",
        ) {
            let delay = Value::from(delay);
            let detail = serde_json::json!({
                "@type": format!("type.googleapis.com/google.rpc.{kind}"), "reason": reason, "retryDelay": delay,
                "metadata": { "quotaResetDelay": delay, "quotaResetTimeStamp": delay, "model": delay },
                "violations": [{ "quotaId": reason, "quotaDimensions": delay }, delay],
            });

            let _ = google(&detail.to_string());
        }
    }
}
