//! Ordinary traffic: what it asks, and the rate-limit headers on its answers.
//! The usage endpoint's own answers are in `usage`.

use serde::Deserialize;
use serde_json::json;

use super::Reply;
use crate::clock::{SimClock, SimTime};
use crate::meter::WindowLevel;
use crate::running::{self, UsageState};
use crate::script::{ExtraUsage, Kind, Window};

/// The part of a request for a message that matters here.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub(crate) struct Ask {
    /// How much of a five-hour window it uses, in percent.
    pub(crate) cost: f64,
    pub(crate) model: String,
}

impl Default for Ask {
    fn default() -> Self {
        Self { cost: 0.1, model: String::new() }
    }
}

impl Ask {
    /// Reads a body; none at all asks for the usual.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        if body.is_empty() {
            return Some(Self::default());
        }
        serde_json::from_slice::<Self>(body).ok().filter(|ask| (0.0..=1_000_000.0).contains(&ask.cost))
    }
}

/// Writes an answer to traffic that was done.
pub(crate) fn done(ask: &Ask, statement: &UsageState, clock: &SimClock) -> Reply {
    let body = json!({
        "id": "msg_sim",
        "type": "message",
        "role": "assistant",
        "model": ask.model,
        "content": [{ "type": "text", "text": "This is a simulation." }],
        "stop_reason": "end_turn",
        "usage": { "input_tokens": 1, "output_tokens": 4 },
    });
    with_limits(Reply::json(&body), ask, statement, clock, Verdict::Done)
}

/// Writes the 429 of a window that is full.
pub(crate) fn rejected(ask: &Ask, statement: &UsageState, clock: &SimClock) -> Reply {
    let message = "This request would exceed your account's rate limit. Please try again later.";
    let reply = Reply::error(429, "rate_limit_error", message);
    let reply = match representative(ask, statement).and_then(|(_, level)| level.resets) {
        Some(resets) => reply.retry_after(clock.real_until(resets)),
        None => reply,
    };
    with_limits(reply, ask, statement, clock, Verdict::Rejected)
}

/// What became of the request, whatever its windows say.
#[derive(Clone, Copy)]
enum Verdict {
    Done,
    Rejected,
}

/// The window that decides: the fullest of those the request counts in; of two full ones the one that resets later.
fn representative<'a>(ask: &Ask, statement: &'a UsageState) -> Option<&'a (Window, WindowLevel)> {
    statement
        .windows
        .iter()
        .filter(|(window, _)| running::is_for(window, &ask.model))
        .max_by(|(_, one), (_, other)| full(one).total_cmp(&full(other)).then(one.resets.cmp(&other.resets)))
}

fn full(level: &WindowLevel) -> f64 {
    level.used.min(100.0)
}

fn with_limits(reply: Reply, ask: &Ask, statement: &UsageState, clock: &SimClock, verdict: Verdict) -> Reply {
    let mut reply = reply.header("anthropic-ratelimit-unified-fallback-percentage", "0.5");
    let mut model_is_told = false;
    for (window, level) in &statement.windows {
        // There is one name for models' windows: of several, only the first has a place.
        if window.model.is_some() && std::mem::replace(&mut model_is_told, true) {
            continue;
        }
        reply = window_headers(reply, window, level, clock);
    }
    if let Some((window, level)) = representative(ask, statement) {
        reply = reply
            .header("anthropic-ratelimit-unified-status", overall(verdict, level))
            .header("anthropic-ratelimit-unified-representative-claim", names(window).claim);
        if let Some(resets) = level.resets {
            reply = reply.header("anthropic-ratelimit-unified-reset", epoch(resets, clock));
        }
    }
    overage_headers(reply, statement.extra_usage.as_ref())
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

/// What filled a window to the brim was itself allowed.
fn overall(verdict: Verdict, level: &WindowLevel) -> &'static str {
    match (verdict, status(level)) {
        (Verdict::Rejected, _) => REJECTED,
        (Verdict::Done, REJECTED) => WARNING,
        (Verdict::Done, status) => status,
    }
}

/// What a window is called in headers.
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

fn epoch(moment: SimTime, clock: &SimClock) -> String {
    clock.wall(moment).as_second().to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use axum::response::IntoResponse;
    use jiff::Timestamp;

    use super::*;
    use crate::running::{AccountSim, Outcome};
    use crate::script::Account;

    /// The unified headers on an answer to traffic by `model`, without their common beginning.
    fn headers(windows: impl IntoIterator<Item = Window>, model: &str) -> BTreeMap<String, String> {
        let clock = SimClock::start(Some(Timestamp::constant(1_790_000_000, 0)), 1.0);
        let ask = Ask { cost: 0.5, model: model.to_owned() };
        let mut running = AccountSim::new(Account::new("main").windows(windows));
        let reply = match running.spend(SimTime::START, ask.cost, &ask.model) {
            Outcome::Done(statement) => done(&ask, &statement, &clock),
            Outcome::Rejected { statement, .. } => rejected(&ask, &statement, &clock),
            refused => panic!("nothing stands in the way: {refused:?}"),
        };
        let response = reply.into_response();
        let text = |(name, value): (&axum::http::HeaderName, &axum::http::HeaderValue)| {
            let name = name.as_str().trim_start_matches("anthropic-ratelimit-unified-");
            (name.to_owned(), value.to_str().unwrap().to_owned())
        };
        response.headers().iter().map(text).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn headers_have_the_provider_s_shape() {
        let windows = [
            Window::five_hour().used(92.0),
            Window::seven_day().used(40.0),
            Window::model("Fable").used(101.0),
        ];

        insta::assert_json_snapshot!(headers(windows, "claude-other-5"));
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_full_windows_the_later_reset_counts() {
        let windows = [Window::seven_day().used(100.0), Window::five_hour().used(104.0)];

        let headers = headers(windows, "");

        assert_eq!(headers["representative-claim"], "seven_day");
        assert_eq!(headers["retry-after"], (7 * 24 * 3600).to_string());
    }

    #[tokio::test(start_paused = true)]
    async fn a_model_s_window_decides_for_that_model_only() {
        let windows = || [Window::seven_day().used(10.0), Window::model("Fable").used(100.0)];

        assert_eq!(headers(windows(), "claude-fable-5")["status"], "rejected");
        assert_eq!(headers(windows(), "claude-other-5")["status"], "allowed");
    }

    #[tokio::test(start_paused = true)]
    async fn what_fills_a_window_to_the_brim_is_itself_allowed() {
        let headers = headers([Window::five_hour().used(99.9)], "");

        assert_eq!(
            (headers["status"].as_str(), headers["5h-status"].as_str()),
            ("allowed_warning", "rejected")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn overage_tells_why_there_is_none() {
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
    fn a_cost_that_is_no_percentage_is_not_read() {
        for bad in [r#"{"cost":-1}"#, r#"{"cost":1e300}"#, r#"{"cost":"a"}"#, "[", "3"] {
            assert!(Ask::read(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_request_that_says_nothing_costs_a_tenth_of_a_percent() {
        assert_eq!(Ask::read(b"").unwrap().cost, 0.1);
        assert_eq!(Ask::read(b"{\"max_tokens\":1}").unwrap().cost, 0.1);
    }
}
