//! GitHub Copilot: the response of its user endpoint. Its quotas are monthly, regardless of the length of a window.

use serde_json::{Value, json};

use super::{Dialect, Reply, percent};
use crate::account_sim::UsageState;
use crate::clock::SimClock;
use crate::script::Account;

pub(crate) static DIALECT: Dialect = Dialect {
    provider: "copilot",
    method: "GET",
    path: "/copilot_internal/user",
    default_plan: "individual_pro",
    owner_header: None,
    check: |_, _| Ok(()),
    body,
    failure: Reply::error,
};

fn body(usage: &UsageState, account: &Account, clock: &SimClock) -> Value {
    const ENTITLEMENT: i64 = 1500;
    let main = usage.of_account().last();
    let premium = main.map(|(_, level)| {
        let remaining = ENTITLEMENT as f64 * (100.0 - percent(level)) / 100.0;
        json!({
            "quota_id": "premium_interactions",
            "entitlement": ENTITLEMENT,
            "remaining": remaining.floor() as i64,
            "quota_remaining": (remaining * 100.0).round() / 100.0,
            "percent_remaining": (100.0 - percent(level)).max(0.0),
            "unlimited": false,
            "overage_permitted": false,
            "overage_count": 0,
        })
    });
    let resets = main.and_then(|(_, level)| level.resets).map(|resets| clock.wall(resets).to_string());
    json!({
        "login": account.name(),
        "copilot_plan": super::plan(account, &DIALECT),
        "quota_reset_date_utc": resets,
        "quota_snapshots": {
            "chat": { "quota_id": "chat", "entitlement": 0, "remaining": 0, "unlimited": true },
            "premium_interactions": premium,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn usage_has_the_format_of_copilot() {
        insta::assert_json_snapshot!(super::super::sample(&DIALECT));
    }
}
