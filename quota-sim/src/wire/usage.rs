//! Anthropic: the responses of the usage and profile endpoints. `message` has the headers of messages.

use std::time::Duration;

use axum::http::HeaderMap;
use jiff::fmt::temporal::DateTimePrinter;
use jiff::tz::Offset;
use serde_json::{Value, json};

use super::{Dialect, Reply, WriteFailure};
use crate::account_sim::{Decision, Fault, UsageState};
use crate::budget::Throttle;
use crate::clock::{SimClock, SimTime};
use crate::script::{Account, ExtraUsage, Kind, Window};
use crate::window_sim::WindowLevel;

/// The size of a body that is too large for clients to read completely.
const HUGE: usize = 2 * 1024 * 1024;

pub(crate) static DIALECT: Dialect = Dialect {
    provider: "anthropic",
    method: "GET",
    path: "/api/oauth/usage",
    default_plan: "claude_max",
    owner_header: Some("anthropic-organization-id"),
    check,
    body,
    failure: Reply::error,
};

fn check(headers: &HeaderMap, _: &Account) -> Result<(), Reply> {
    let betas = headers.get_all("anthropic-beta").iter().filter_map(|value| value.to_str().ok());
    match betas.flat_map(|value| value.split(',')).any(|beta| beta.trim() == "oauth-2025-04-20") {
        true => Ok(()),
        false => {
            let message = "OAuth needs the header anthropic-beta: oauth-2025-04-20";
            Err(Reply::error(400, "invalid_request_error", message))
        }
    }
}

/// Writes the response to a call to the usage endpoint of the account's provider.
pub(crate) fn usage(decision: &Decision, account: &Account, clock: &SimClock) -> Reply {
    let dialect = super::dialect(account);
    let body = |usage| (dialect.body)(usage, account, clock);
    match decision {
        Decision::Usage(usage) => Reply::json(&body(usage)),
        Decision::Huge(usage) => Reply::text("application/json", huge(body(usage))),
        Decision::Garbage(usage) => Reply::text("application/json", cut_off(&body(usage))),
        Decision::Throttled(throttle) => throttled(*throttle, clock, dialect.failure),
        Decision::Fault(fault) => faulty(*fault, dialect.failure),
    }
}

/// Writes the owner of an account.
pub(crate) fn profile(account: &Account) -> Reply {
    let (name, plan) = (account.name(), super::plan(account, &DIALECT));
    Reply::json(&json!({
        "account": {
            "uuid": format!("sim-account-{name}"),
            "email": format!("{name}@sim.invalid"),
            "has_claude_max": plan == "claude_max",
        },
        "organization": { "uuid": account.organization(), "organization_type": plan },
    }))
}

/// Writes a 429 that does not depend on usage.
pub(crate) fn throttled(throttle: Throttle, clock: &SimClock, write: WriteFailure) -> Reply {
    let reply = write(429, "rate_limit_error", "Rate limited. Please try again later.");
    match throttle {
        Throttle::Zero => reply.header("retry-after", "0"),
        Throttle::NoHeader => reply,
        // Send at least one second, because a deadline that passed during the delay must not become zero.
        Throttle::Until(until) => reply.retry_after(clock.real_until(until).max(Duration::from_secs(1))),
    }
}

/// Writes an error that does not depend on usage.
pub(crate) fn faulty(fault: Fault, write: WriteFailure) -> Reply {
    match fault {
        Fault::Unauthorized => super::expired(write),
        Fault::Forbidden => write(
            403,
            "permission_error",
            "OAuth authentication is currently not allowed for this organization.",
        ),
        Fault::Scope => {
            write(403, "permission_error", "OAuth token does not meet scope requirement user:profile")
        }
        Fault::Unavailable => write(503, "api_error", "Service unavailable"),
        Fault::Overloaded => write(529, "overloaded_error", "Overloaded"),
        Fault::Html => Reply::text(
            "text/html; charset=utf-8",
            "<!DOCTYPE html><html><head><title>One moment</title></head><body>Checking your browser.</body></html>",
        ),
        Fault::Empty => Reply::json(&json!({})),
    }
}

fn body(usage: &UsageState, _: &Account, clock: &SimClock) -> Value {
    let flat = |id: Kind| {
        let window = usage.windows.iter().find(|(window, _)| window.id == id && window.model.is_none());
        window.map(|(_, level)| {
            json!({
                "utilization": (level.used * 100.0).round() / 100.0,
                "resets_at": resets_at(level.resets, clock),
            })
        })
    };
    let binding = usage.windows.iter().enumerate().filter(|(_, (_, level))| level.used > 0.0);
    let binding = binding.max_by(|(_, (_, one)), (_, (_, other))| one.used.total_cmp(&other.used));
    let binding = binding.map(|(at, _)| at);
    let limits: Vec<_> = usage
        .windows
        .iter()
        .enumerate()
        .map(|(at, (window, level))| limit(window, *level, Some(at) == binding, clock))
        .collect();
    let mut body = json!({
        "five_hour": flat(Kind::FiveHour),
        "seven_day": flat(Kind::SevenDay),
        "seven_day_opus": null,
        "seven_day_sonnet": null,
        "limits": limits,
    });
    if let Some(extra) = &usage.extra_usage {
        body["extra_usage"] = extra_usage(extra);
    }
    body
}

fn limit(window: &Window, level: WindowLevel, binding: bool, clock: &SimClock) -> Value {
    let (kind, group) = match (window.id, &window.model) {
        (Kind::FiveHour, _) => ("session", "session"),
        (Kind::SevenDay, None) => ("weekly_all", "weekly"),
        (Kind::SevenDay, Some(_)) => ("weekly_scoped", "weekly"),
    };
    let severity = match level.used {
        used if used >= 90.0 => "critical",
        used if used >= 75.0 => "warning",
        _ => "normal",
    };
    let scope = window
        .model
        .as_ref()
        .map(|model| json!({ "model": { "id": null, "display_name": model }, "surface": null }));
    json!({
        "kind": kind,
        "group": group,
        "percent": level.used.round() as u64,
        "severity": severity,
        "resets_at": resets_at(level.resets, clock),
        "scope": scope,
        "is_active": binding,
    })
}

fn extra_usage(extra: &ExtraUsage) -> Value {
    let utilization = extra.limit_minor.filter(|limit| *limit > 0).map(|limit| {
        let share = extra.used_minor as f64 / limit as f64;
        (share * 10_000.0).round() / 100.0
    });
    json!({
        "is_enabled": extra.enabled,
        "monthly_limit": extra.limit_minor,
        "used_credits": extra.used_minor,
        "utilization": utilization,
        "currency": extra.currency,
        "decimal_places": 2,
        "disabled_reason": null,
    })
}

/// The format of the provider: microseconds, and `+00:00` for UTC.
fn resets_at(at: Option<SimTime>, clock: &SimClock) -> Option<String> {
    const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(6));
    at.map(|at| PRINTER.timestamp_with_offset_to_string(&clock.wall(at), Offset::UTC))
}

fn huge(mut body: Value) -> String {
    body["padding"] = " ".repeat(HUGE).into();
    body.to_string()
}

fn cut_off(body: &Value) -> String {
    let mut text = body.to_string();
    text.truncate(text.floor_char_boundary(text.len() / 2));
    text
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use jiff::Timestamp;

    use super::*;
    use crate::account_sim::AccountSim;

    fn clock() -> SimClock {
        SimClock::start(Some(Timestamp::constant(1_790_000_000, 282_668_000)), 1.0)
    }

    fn body_of(account: Account, clock: &SimClock) -> Value {
        let Ok(Decision::Usage(usage)) = AccountSim::new(account.clone()).usage_call(SimTime::START) else {
            panic!("the account answers with its usage")
        };
        body(&usage, &account, clock)
    }

    #[tokio::test(start_paused = true)]
    async fn usage_has_the_providers_format() {
        let account = Account::new("main")
            .windows([
                Window::five_hour(),
                Window::seven_day().used(57.126),
                Window::model("Fable").used(90.0),
            ])
            .extra_usage(ExtraUsage::new(2050, 4000).currency("EUR"));

        insta::assert_json_snapshot!(body_of(account, &clock()));
    }

    #[tokio::test(start_paused = true)]
    async fn one_of_two_full_windows_is_active() {
        let windows = [Window::five_hour().used(100.0), Window::seven_day().used(100.0)];

        let body = body_of(Account::new("main").windows(windows), &clock());

        assert_eq!([&body["limits"][0]["is_active"], &body["limits"][1]["is_active"]], [false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_passed_deadline_is_not_zero() {
        let response = throttled(Throttle::Until(SimTime::START), &clock(), Reply::error).into_response();

        assert_eq!(response.headers()["retry-after"], "1");
    }

    #[tokio::test(start_paused = true)]
    async fn extra_usage_without_a_limit_has_no_share() {
        let account = Account::new("main").extra_usage(ExtraUsage::new(5086, None));

        let body = body_of(account, &clock());

        assert_eq!(body["extra_usage"]["monthly_limit"], Value::Null);
        assert_eq!(body["extra_usage"]["utilization"], Value::Null);
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_without_extra_usage_omits_it() {
        assert_eq!(body_of(Account::new("main"), &clock()).get("extra_usage"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_profile_names_the_organization_and_the_plan() {
        let reply = profile(&Account::new("main").plan("claude_team"));

        let body: Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(
            body["organization"],
            json!({ "uuid": "sim-org-main", "organization_type": "claude_team" })
        );
    }
}
