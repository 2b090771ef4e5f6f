//! Messages: requests, and the rate-limit headers of their responses. `usage` has the responses of the usage endpoint.

use serde::Deserialize;
use serde_json::json;

use super::Reply;
use crate::account_sim::{self, UsageState};
use crate::clock::{SimClock, SimTime};
use crate::script::{ExtraUsage, Kind, Window};
use crate::window_sim::WindowLevel;

/// The fields of a message request that the simulator uses.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub(crate) struct MessageRequest {
    /// The cost in percent of a five-hour window.
    pub(crate) cost: f64,
    pub(crate) model: String,
}

impl Default for MessageRequest {
    fn default() -> Self {
        Self { cost: 0.1, model: String::new() }
    }
}

impl MessageRequest {
    /// Parses a body. An empty body is the default request.
    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        if body.is_empty() {
            return Some(Self::default());
        }
        serde_json::from_slice::<Self>(body)
            .ok()
            .filter(|request| (0.0..=1_000_000.0).contains(&request.cost))
    }
}

/// Writes the response to a successful message.
pub(crate) fn done(request: &MessageRequest, usage: &UsageState, clock: &SimClock) -> Reply {
    let body = json!({
        "id": "msg_sim",
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": [{ "type": "text", "text": "This is a simulation." }],
        "stop_reason": "end_turn",
        "usage": { "input_tokens": 1, "output_tokens": 4 },
    });
    with_limits(Reply::json(&body), request, usage, clock, MessageStatus::Done)
}

/// Writes the 429 for a full window.
pub(crate) fn rejected(request: &MessageRequest, usage: &UsageState, clock: &SimClock) -> Reply {
    let message = "This request would exceed your account's rate limit. Please try again later.";
    let reply = Reply::error(429, "rate_limit_error", message);
    let reply = match representative(request, usage).and_then(|(_, level)| level.resets) {
        Some(resets) => reply.retry_after(clock.real_until(resets)),
        None => reply,
    };
    with_limits(reply, request, usage, clock, MessageStatus::Rejected)
}

/// Whether the message succeeded. The windows alone do not show this.
#[derive(Clone, Copy)]
enum MessageStatus {
    Done,
    Rejected,
}

/// The representative window: the fullest window in which the request counts. If two are full, the one that resets
/// later.
fn representative<'a>(request: &MessageRequest, usage: &'a UsageState) -> Option<&'a (Window, WindowLevel)> {
    usage
        .windows
        .iter()
        .filter(|(window, _)| account_sim::is_for(window, &request.model))
        .max_by(|(_, one), (_, other)| full(one).total_cmp(&full(other)).then(one.resets.cmp(&other.resets)))
}

fn full(level: &WindowLevel) -> f64 {
    level.used.min(100.0)
}

fn with_limits(
    reply: Reply,
    request: &MessageRequest,
    usage: &UsageState,
    clock: &SimClock,
    status: MessageStatus,
) -> Reply {
    let mut reply = reply.header("anthropic-ratelimit-unified-fallback-percentage", "0.5");
    let mut has_model_window = false;
    for (window, level) in &usage.windows {
        // The windows of all models share one header name, so only the first is sent.
        if window.model.is_some() && std::mem::replace(&mut has_model_window, true) {
            continue;
        }
        reply = window_headers(reply, window, level, clock);
    }
    if let Some((window, level)) = representative(request, usage) {
        reply = reply
            .header("anthropic-ratelimit-unified-status", overall(status, level))
            .header("anthropic-ratelimit-unified-representative-claim", names(window).claim);
        if let Some(resets) = level.resets {
            reply = reply.header("anthropic-ratelimit-unified-reset", epoch(resets, clock));
        }
    }
    overage_headers(reply, usage.extra_usage.as_ref())
}

fn window_headers(reply: Reply, window: &Window, level: &WindowLevel, clock: &SimClock) -> Reply {
    let name = |last: &str| format!("anthropic-ratelimit-unified-{}-{last}", names(window).short);
    let mut reply = reply
        .header(name("status"), status(level))
        .header(name("utilization"), ((level.used * 100.0).round() / 10_000.0).to_string());
    if let Some(resets) = level.resets {
        reply = reply.header(name("reset"), epoch(resets, clock));
    }
    if status(level) != ALLOWED {
        reply = reply.header(name("surpassed-threshold"), if level.used >= 100.0 { "1.0" } else { "0.9" });
    }
    reply
}

fn overage_headers(reply: Reply, extra: Option<&ExtraUsage>) -> Reply {
    let name = |last: &str| format!("anthropic-ratelimit-unified-overage-{last}");
    let reason = match extra {
        Some(extra) if extra.limit_minor.is_some_and(|limit| extra.used_minor >= limit) => "out_of_credits",
        Some(extra) if extra.enabled => return reply.header(name("status"), ALLOWED),
        _ => "org_level_disabled",
    };
    reply.header(name("status"), REJECTED).header(name("disabled-reason"), reason)
}

const ALLOWED: &str = "allowed";
const WARNING: &str = "allowed_warning";
const REJECTED: &str = "rejected";

fn status(level: &WindowLevel) -> &'static str {
    match level.used {
        used if used >= 100.0 => REJECTED,
        used if used >= 90.0 => WARNING,
        _ => ALLOWED,
    }
}

/// A message that fills a window is itself allowed.
fn overall(message: MessageStatus, level: &WindowLevel) -> &'static str {
    match (message, status(level)) {
        (MessageStatus::Rejected, _) => REJECTED,
        (MessageStatus::Done, REJECTED) => WARNING,
        (MessageStatus::Done, status) => status,
    }
}

/// The names of a window in headers.
struct Names {
    short: &'static str,
    claim: &'static str,
}

fn names(window: &Window) -> Names {
    match (window.id, &window.model) {
        (Kind::FiveHour, _) => Names { short: "5h", claim: "five_hour" },
        (Kind::SevenDay, None) => Names { short: "7d", claim: "seven_day" },
        (Kind::SevenDay, Some(_)) => Names { short: "7d_oi", claim: "seven_day_overage_included" },
    }
}

fn epoch(at: SimTime, clock: &SimClock) -> String {
    clock.wall(at).as_second().to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use axum::response::IntoResponse;
    use jiff::Timestamp;

    use super::*;
    use crate::account_sim::{AccountSim, MessageResult};
    use crate::script::Account;

    /// The unified headers of the response to a message by `model`, without their common prefix.
    fn headers(windows: impl IntoIterator<Item = Window>, model: &str) -> BTreeMap<String, String> {
        let clock = SimClock::start(Some(Timestamp::constant(1_790_000_000, 0)), 1.0);
        let request = MessageRequest { cost: 0.5, model: model.to_owned() };
        let mut running = AccountSim::new(Account::new("main").windows(windows));
        let reply = match running.message(SimTime::START, request.cost, &request.model) {
            MessageResult::Done(usage) => done(&request, &usage, &clock),
            MessageResult::Rejected { usage, .. } => rejected(&request, &usage, &clock),
            other => panic!("unexpected result: {other:?}"),
        };
        let response = reply.into_response();
        let text = |(name, value): (&axum::http::HeaderName, &axum::http::HeaderValue)| {
            let name = name.as_str().trim_start_matches("anthropic-ratelimit-unified-");
            (name.to_owned(), value.to_str().unwrap().to_owned())
        };
        response.headers().iter().map(text).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn headers_have_the_providers_format() {
        let windows = [
            Window::five_hour().used(92.0),
            Window::seven_day().used(40.0),
            Window::model("Fable").used(101.0),
        ];

        insta::assert_json_snapshot!(headers(windows, "claude-other-5"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_later_reset_of_two_full_windows_counts() {
        let windows = [Window::seven_day().used(100.0), Window::five_hour().used(104.0)];

        let headers = headers(windows, "");

        assert_eq!(headers["representative-claim"], "seven_day");
        assert_eq!(headers["retry-after"], (7 * 24 * 3600).to_string());
    }

    #[tokio::test(start_paused = true)]
    async fn a_model_window_limits_only_that_model() {
        let windows = || [Window::seven_day().used(10.0), Window::model("Fable").used(100.0)];

        assert_eq!(headers(windows(), "claude-fable-5")["status"], "rejected");
        assert_eq!(headers(windows(), "claude-other-5")["status"], "allowed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_fills_a_window_is_allowed() {
        let headers = headers([Window::five_hour().used(99.9)], "");

        assert_eq!(
            (headers["status"].as_str(), headers["5h-status"].as_str()),
            ("allowed_warning", "rejected")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn overage_headers_have_the_disabled_reason() {
        let overage = |extra: Option<ExtraUsage>| {
            let response = overage_headers(Reply::json(&json!({})), extra.as_ref()).into_response();
            let reason =
                response.headers().get("anthropic-ratelimit-unified-overage-disabled-reason").cloned();
            reason.map(|reason| reason.to_str().unwrap().to_owned())
        };

        assert_eq!(overage(None).as_deref(), Some("org_level_disabled"));
        assert_eq!(
            overage(Some(ExtraUsage::new(5, None).enabled(false))).as_deref(),
            Some("org_level_disabled")
        );
        assert_eq!(overage(Some(ExtraUsage::new(5, 5))).as_deref(), Some("out_of_credits"));
        assert_eq!(overage(Some(ExtraUsage::new(4, 5))), None);
    }

    #[test]
    fn an_invalid_cost_is_rejected() {
        for bad in [r#"{"cost":-1}"#, r#"{"cost":1e300}"#, r#"{"cost":"a"}"#, "[", "3"] {
            assert!(MessageRequest::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_request_without_a_cost_costs_a_tenth_of_a_percent() {
        assert_eq!(MessageRequest::parse(b"").unwrap().cost, 0.1);
        assert_eq!(MessageRequest::parse(b"{\"max_tokens\":1}").unwrap().cost, 0.1);
    }
}
