//! OpenRouter: the response of its key endpoint, for a key with a limit. It states that the key is an ordinary one,
//! which may not read the credits. The credits endpoint is not simulated; the real one would respond with 401 or 403.

use serde_json::{Value, json};

use super::{Dialect, Reply, percent};
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
    failure: Reply::error,
};

fn body(usage: &UsageState, account: &Account, _: &SimClock) -> Value {
    /// A limit of 100 makes each percent a dollar.
    const LIMIT: i64 = 100;
    const DAY: u64 = 24 * 3600;
    let main = usage.of_account().last();
    let used = main.map_or(0.0, |(_, level)| percent(level));
    // The shortest period that is not shorter than the window.
    let reset = main.map(|(window, _)| match window.full_length().as_secs() {
        seconds if seconds <= DAY => "daily",
        seconds if seconds <= 7 * DAY => "weekly",
        _ => "monthly",
    });
    json!({ "data": {
        "label": "sk-or-sim",
        "creator_user_id": account.organization(),
        "limit": LIMIT,
        "limit_remaining": ((LIMIT as f64 - used) * 100.0).round() / 100.0,
        "limit_reset": reset,
        "usage": used,
        "usage_daily": used,
        "usage_weekly": used,
        "usage_monthly": used,
        "is_free_tier": false,
        "is_management_key": false,
        "is_provisioning_key": false,
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
