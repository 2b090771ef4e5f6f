//! OpenAI Codex: the response of its usage endpoint. Windows of a model are additional limits.

use axum::http::HeaderMap;
use serde_json::{Value, json};

use super::{Dialect, Reply};
use crate::account_sim::UsageState;
use crate::clock::{SimClock, SimTime};
use crate::script::{Account, ExtraUsage, Window};
use crate::window_sim::WindowLevel;

pub(crate) static DIALECT: Dialect = Dialect {
    provider: "openai",
    method: "GET",
    path: "/backend-api/wham/usage",
    default_plan: "plus",
    owner_header: None,
    check,
    body,
    failure: Reply::error,
};

/// The account id is optional. If it is sent, it must be that of the account.
fn check(headers: &HeaderMap, account: &Account) -> Result<(), Reply> {
    let id = headers.get("chatgpt-account-id").and_then(|id| id.to_str().ok());
    match id.is_none_or(|id| id == account.organization()) {
        true => Ok(()),
        false => Err(Reply::error(403, "forbidden", "The account id is not that of the token.")),
    }
}

fn body(usage: &UsageState, account: &Account, clock: &SimClock) -> Value {
    let of_model = |model: Option<&str>| {
        let windows = usage.windows.iter().filter(|(window, _)| window.model.as_deref() == model);
        limit(windows.collect(), clock)
    };
    let mut models: Vec<_> = usage.windows.iter().filter_map(|(window, _)| window.model.as_deref()).collect();
    models.dedup();
    let additional = models.into_iter().map(|model| {
        json!({ "limit_name": model, "metered_feature": "codex_sim", "rate_limit": of_model(Some(model)) })
    });
    let mut body = json!({
        "plan_type": super::plan(account, &DIALECT),
        "rate_limit": of_model(None),
        "additional_rate_limits": additional.collect::<Vec<_>>(),
        "code_review_rate_limit": null,
    });
    if let Some(extra) = &usage.extra_usage {
        body["credits"] = credits(extra);
    }
    body
}

fn limit(windows: Vec<&(Window, WindowLevel)>, clock: &SimClock) -> Value {
    let is_full = windows.iter().any(|(_, level)| level.used >= 100.0);
    let mut windows = windows.into_iter().map(|(window, level)| window_of(window, *level, clock));
    json!({
        "allowed": !is_full,
        "limit_reached": is_full,
        "primary_window": windows.next(),
        "secondary_window": windows.next(),
    })
}

fn window_of(window: &Window, level: WindowLevel, clock: &SimClock) -> Value {
    let length = window.full_length().as_secs();
    let at = |at: SimTime| clock.wall(at).as_second();
    let reset_at = level.resets.map(at);
    json!({
        "used_percent": (level.used * 100.0).round() / 100.0,
        "limit_window_seconds": length,
        "reset_after_seconds": level.resets.map(|resets| clock.real_until(resets).as_secs()),
        "reset_at": reset_at,
    })
}

fn credits(extra: &ExtraUsage) -> Value {
    let left = extra.limit_minor.map(|limit| limit.saturating_sub(extra.used_minor));
    json!({
        "has_credits": extra.enabled,
        "unlimited": extra.limit_minor.is_none(),
        "balance": left.map(|left| format!("{}.{:02}", left / 100, left % 100)),
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::account_sim::{AccountSim, Decision};

    #[tokio::test(start_paused = true)]
    async fn usage_has_the_format_of_codex() {
        let clock = SimClock::start(Some(Timestamp::constant(1_790_000_000, 0)), 1.0);
        let account = Account::new("main")
            .provider("openai")
            .windows([
                Window::five_hour().used(57.126),
                Window::seven_day().used(100.0),
                Window::model("Tiny").used(9.0),
            ])
            .extra_usage(ExtraUsage::new(2050, 4000));
        let Ok(Decision::Usage(usage)) = AccountSim::new(account.clone()).usage_call(SimTime::START) else {
            panic!("the account answers with its usage")
        };

        insta::assert_json_snapshot!(body(&usage, &account, &clock));
    }
}
