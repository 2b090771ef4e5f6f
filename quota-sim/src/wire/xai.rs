//! xAI Grok: the response of its billing endpoint. The longest window is the period of the credits.

use serde_json::{Value, json};

use super::{Dialect, Reply, percent};
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
    failure: Reply::error,
};

fn body(usage: &UsageState, account: &Account, clock: &SimClock) -> Value {
    let Some((window, level)) = usage.of_account().last() else { return json!({}) };
    const DAY: u64 = 24 * 3600;
    let kind = match window.full_length().as_secs() / DAY {
        7 => "WEEKLY",
        28..=31 => "MONTHLY",
        _ => "UNSPECIFIED",
    };
    let end = level.resets.map(|resets| clock.wall(resets));
    json!({
        "subscriptionTier": super::plan(account, &DIALECT),
        "config": {
            "creditUsagePercent": percent(level),
            "currentPeriod": {
                "type": format!("USAGE_PERIOD_TYPE_{kind}"),
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
