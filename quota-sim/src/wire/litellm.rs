//! LiteLLM: the response of its endpoint for a key, which has a budget and neither a user nor a team.

use serde_json::{Value, json};

use super::{Dialect, percent};
use crate::account_sim::UsageState;
use crate::clock::SimClock;
use crate::script::Account;

pub(crate) static DIALECT: Dialect = Dialect {
    provider: "litellm",
    method: "GET",
    path: "/key/info",
    default_plan: "",
    owner_header: None,
    check: |_, _| Ok(()),
    body,
};

fn body(usage: &UsageState, account: &Account, clock: &SimClock) -> Value {
    /// A budget of 100 makes each percent a dollar.
    const BUDGET: f64 = 100.0;
    let main = usage.of_account().last();
    json!({
        "key": "sim",
        "info": {
            "key_alias": account.name(),
            "spend": main.map_or(0.0, |(_, level)| percent(level)),
            "max_budget": main.map(|_| BUDGET),
            "budget_duration": main.map(|(window, _)| format!("{}m", window.full_length().as_secs() / 60)),
            "budget_reset_at": main.and_then(|(_, level)| level.resets).map(|at| clock.wall(at).to_string()),
            "user_id": null,
            "team_id": null,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn usage_has_the_format_of_litellm() {
        insta::assert_json_snapshot!(super::super::sample(&DIALECT));
    }
}
