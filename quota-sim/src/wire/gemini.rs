//! Gemini CLI: the responses of its two endpoints. The buckets of a model are the windows of an account. The bucket
//! with the least left counts.

use serde_json::{Value, json};

use super::{Dialect, Reply, failure, percent};
use crate::account_sim::UsageState;
use crate::clock::SimClock;
use crate::script::Account;

pub(crate) static DIALECT: Dialect = Dialect {
    provider: "gemini",
    method: "POST",
    path: "/v1internal:retrieveUserQuota",
    default_plan: "standard-tier",
    owner_header: None,
    check: |_, _| Ok(()),
    body,
    failure: failure::google,
};

/// The endpoint that names the project of an account. A client needs it for the request to the usage endpoint.
pub(crate) const PROJECT_PATH: &str = "/v1internal:loadCodeAssist";

/// Writes the project of an account.
pub(crate) fn project(account: &Account) -> Reply {
    Reply::json(&json!({
        "cloudaicompanionProject": account.organization(),
        "currentTier": { "id": super::plan(account, &DIALECT) },
    }))
}

fn body(usage: &UsageState, _: &Account, clock: &SimClock) -> Value {
    let buckets = usage.windows.iter().map(|(window, level)| {
        json!({
            "modelId": window.model.as_deref().unwrap_or("gemini-sim-pro"),
            "remainingFraction": 1.0 - percent(level) / 100.0,
            "resetTime": level.resets.map(|resets| clock.wall(resets).to_string()),
            "tokenType": "REQUESTS",
        })
    });
    json!({ "buckets": buckets.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn usage_has_the_format_of_gemini() {
        insta::assert_json_snapshot!(super::super::sample(&DIALECT));
    }
}
