//! Antigravity: the response of its quota summary endpoint. The account's windows become those of the Gemini model
//! group.

use serde_json::{Value, json};

use super::{Dialect, failure, percent};
use crate::account_sim::UsageState;
use crate::clock::SimClock;
use crate::script::{Account, Kind};

pub(crate) static DIALECT: Dialect = Dialect {
    provider: "antigravity",
    method: "POST",
    path: "/v1internal:retrieveUserQuotaSummary",
    default_plan: "standard-tier",
    owner_header: None,
    check: |_, _| Ok(()),
    body,
    failure: failure::google,
};

fn body(usage: &UsageState, _: &Account, clock: &SimClock) -> Value {
    let buckets = usage.of_account().map(|(window, level)| {
        let length = match window.id {
            Kind::FiveHour => "5h",
            Kind::SevenDay => "weekly",
        };
        json!({
            "bucketId": format!("gemini-{length}"),
            "window": length,
            "remainingFraction": 1.0 - percent(level) / 100.0,
            "resetTime": level.resets.map(|resets| clock.wall(resets).to_string()),
        })
    });
    let buckets: Vec<_> = buckets.collect();
    json!({ "groups": [{ "displayName": "Gemini Models", "buckets": buckets }] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn usage_has_the_format_of_antigravity() {
        insta::assert_json_snapshot!(super::super::sample(&DIALECT));
    }
}
