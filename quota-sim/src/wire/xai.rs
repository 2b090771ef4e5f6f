//! xAI Grok: the response of its billing endpoint. The longest window is the period of the credits.

use serde_json::{Value, json};

use super::{Dialect, percent};
use crate::account_sim::UsageState;
use crate::clock::SimClock;
use crate::script::Account;

pub(crate) static DIALECT: Dialect = Dialect {
    provider: "xai",
    method: "GET",
    path: "/v1/billing",
    default_plan: "SuperGrok",
    owner_header: None,
    check: |_, _| Ok(()),
    body,
};

fn body(usage: &UsageState, account: &Account, clock: &SimClock) -> Value {
    let Some((window, level)) = usage.of_account().last() else { return json!({}) };
    let end = level.resets.map(|resets| clock.wall(resets));
    json!({
        "subscriptionTier": super::plan(account, &DIALECT),
        "config": {
            "creditUsagePercent": percent(level),
            "currentPeriod": {
                "type": "USAGE_PERIOD_TYPE_WEEKLY",
                "start": end.map(|end| (end - window.full_length()).to_string()),
                "end": end.map(|end| end.to_string()),
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn usage_has_the_format_of_xai() {
        insta::assert_json_snapshot!(super::super::sample(&DIALECT));
    }
}
