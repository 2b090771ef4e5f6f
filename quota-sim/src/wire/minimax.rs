//! MiniMax: the response of its remaining quota endpoint. It has no per-model windows.

use serde_json::{Value, json};

use super::{Dialect, failure, percent};
use crate::account_sim::UsageState;
use crate::clock::SimClock;
use crate::script::{Account, Kind};

pub(crate) static DIALECT: Dialect = Dialect {
    provider: "minimax",
    method: "GET",
    path: "/v1/token_plan/remains",
    default_plan: "Token Plan Plus",
    owner_header: None,
    check: |_, _| Ok(()),
    body,
    failure: failure::minimax,
};

/// The status of a window that the plan does not include.
const NOT_INCLUDED: u8 = 3;

fn body(usage: &UsageState, account: &Account, clock: &SimClock) -> Value {
    let mut row = json!({ "model_name": "general" });
    for (kind, window_name, time_prefix) in
        [(Kind::FiveHour, "interval", ""), (Kind::SevenDay, "weekly", "weekly_")]
    {
        let Some((window, level)) = usage.of_account().find(|(window, _)| window.id == kind) else {
            row[format!("current_{window_name}_status")] = json!(NOT_INCLUDED);
            continue;
        };
        let length = window.full_length();
        // Its windows have fixed times, even without usage.
        let resets = level.resets.unwrap_or_else(|| clock.now() + length);
        let end = clock.wall(resets).as_millisecond();
        let length = i64::try_from(length.as_millis()).unwrap_or(i64::MAX);
        row[format!("{time_prefix}start_time")] = json!(end.saturating_sub(length));
        row[format!("{time_prefix}end_time")] = json!(end);
        row[format!("current_{window_name}_status")] = json!(1);
        row[format!("current_{window_name}_remaining_percent")] = json!(100.0 - percent(level));
    }
    json!({
        "base_resp": { "status_code": 0, "status_msg": "success" },
        "data": { "current_subscribe_title": super::plan(account, &DIALECT), "model_remains": [row] },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn usage_has_the_format_of_minimax() {
        insta::assert_json_snapshot!(super::super::sample(&DIALECT));
    }
}
