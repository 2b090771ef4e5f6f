//! OpenRouter: the response of its endpoint for a key, which has a weekly limit. The endpoint for the credits is missing, as for an
//! ordinary key.

use serde_json::{Value, json};

use super::{Dialect, percent};
use crate::account_sim::UsageState;
use crate::clock::SimClock;
use crate::script::Account;

pub(crate) static DIALECT: Dialect = Dialect {
    provider: "openrouter",
    method: "GET",
    path: "/api/v1/key",
    default_plan: "",
    owner_header: None,
    check: |_, _| Ok(()),
    body,
};

fn body(usage: &UsageState, account: &Account, _: &SimClock) -> Value {
    /// A limit of 100 makes each percent a dollar.
    const LIMIT: i64 = 100;
    let used = usage.of_account().last().map_or(0.0, |(_, level)| percent(level));
    json!({ "data": {
        "label": "sk-or-sim",
        "creator_user_id": account.organization(),
        "limit": LIMIT,
        "limit_remaining": ((LIMIT as f64 - used) * 100.0).round() / 100.0,
        "limit_reset": "weekly",
        "usage": used,
        "usage_weekly": used,
        "is_free_tier": false,
    } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn usage_has_the_format_of_openrouter() {
        insta::assert_json_snapshot!(super::super::sample(&DIALECT));
    }
}
