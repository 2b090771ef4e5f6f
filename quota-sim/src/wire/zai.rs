//! z.ai: the response of its quota endpoint. It has no per-model windows.

use serde_json::{Value, json};

use super::{Dialect, failure, percent};
use crate::account_sim::UsageState;
use crate::clock::SimClock;
use crate::script::Account;

pub(crate) static DIALECT: Dialect = Dialect {
    provider: "zai",
    method: "GET",
    path: "/api/monitor/usage/quota/limit",
    default_plan: "Pro",
    owner_header: None,
    check: |_, _| Ok(()),
    body,
    failure: failure::zai,
};

fn body(usage: &UsageState, account: &Account, clock: &SimClock) -> Value {
    const WEEK: u64 = 7 * 24 * 3600;
    let limits = usage.of_account().map(|(window, level)| {
        // The unit is a code: 6 is a week, and 3 an hour.
        let seconds = window.full_length().as_secs();
        let (unit, number) = match seconds % WEEK {
            0 => (6, seconds / WEEK),
            _ => (3, seconds / 3600),
        };
        let mut limit =
            json!({ "type": "TOKENS_LIMIT", "unit": unit, "number": number, "percentage": percent(level) });
        // A window without usage has no reset.
        if let Some(resets) = level.resets {
            limit["nextResetTime"] = json!(clock.wall(resets).as_millisecond());
        }
        limit
    });
    let limits: Vec<_> = limits.collect();
    let plan = super::plan(account, &DIALECT);
    json!({ "code": 200, "msg": "success", "success": true, "data": { "planName": plan, "limits": limits } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn usage_has_the_format_of_zai() {
        insta::assert_json_snapshot!(super::super::sample(&DIALECT));
    }
}
