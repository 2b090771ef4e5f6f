//! LiteLLM: the response of its key endpoint, for a key with a budget but without a user or team.

use serde_json::{Value, json};

use super::{Dialect, Reply, percent};
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
    failure: Reply::error,
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
            "budget_duration": main.map(|(window, _)| duration(window.full_length().as_secs())),
            "budget_reset_at": main.and_then(|(_, level)| level.resets).map(|at| clock.wall(at).to_string()),
            "user_id": null,
            "team_id": null,
        },
    })
}

/// A duration in the largest unit that divides it.
fn duration(seconds: u64) -> String {
    let units = [(24 * 3600, "d"), (3600, "h"), (60, "m")];
    let unit = units.into_iter().find(|(unit, _)| seconds.is_multiple_of(*unit));
    let (length, name) = unit.unwrap_or((1, "s"));
    format!("{}{name}", seconds / length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn usage_has_the_format_of_litellm() {
        insta::assert_json_snapshot!(super::super::sample(&DIALECT));
    }
}
