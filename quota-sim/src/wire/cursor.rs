//! Cursor: the response of its current period endpoint. The longest window is the billing cycle.

use serde_json::{Value, json};

use super::{Dialect, failure, percent};
use crate::account_sim::UsageState;
use crate::clock::SimClock;
use crate::script::Account;

pub(crate) static DIALECT: Dialect = Dialect {
    provider: "cursor",
    method: "POST",
    path: "/aiserver.v1.DashboardService/GetCurrentPeriodUsage",
    default_plan: "",
    owner_header: None,
    check: |_, _| Ok(()),
    body,
    failure: failure::connect,
};

fn body(usage: &UsageState, _: &Account, clock: &SimClock) -> Value {
    const LIMIT: i64 = 2000;
    let Some((window, level)) = usage.of_account().last() else { return json!({}) };
    let end = level.resets.map(|resets| clock.wall(resets));
    let start = end.map(|end| end - window.full_length());
    json!({
        "billingCycleStart": start.map(|at| at.as_millisecond().to_string()),
        "billingCycleEnd": end.map(|at| at.as_millisecond().to_string()),
        "planUsage": {
            "limit": LIMIT,
            "remaining": ((LIMIT as f64 * (100.0 - percent(level)) / 100.0).round() as i64).max(0),
            "totalPercentUsed": percent(level),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn usage_has_the_format_of_cursor() {
        insta::assert_json_snapshot!(super::super::sample(&DIALECT));
    }
}
