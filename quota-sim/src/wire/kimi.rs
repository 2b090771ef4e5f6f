//! Kimi Code: the response of its usage endpoint. It has no per-model windows.

use serde_json::{Value, json};

use super::{Dialect, Reply, percent};
use crate::account_sim::UsageState;
use crate::clock::SimClock;
use crate::script::{Account, Kind};
use crate::window_sim::WindowLevel;

pub(crate) static DIALECT: Dialect = Dialect {
    provider: "kimi",
    method: "GET",
    path: "/coding/v1/usages",
    default_plan: "LEVEL_INTERMEDIATE",
    owner_header: None,
    check: |_, _| Ok(()),
    body,
    failure: Reply::error,
};

fn body(usage: &UsageState, account: &Account, clock: &SimClock) -> Value {
    let of_kind = |kind| usage.of_account().filter(move |(window, _)| window.id == kind);
    let limits = of_kind(Kind::FiveHour).map(|(window, level)| {
        let minutes = window.full_length().as_secs() / 60;
        json!({
            "window": { "duration": minutes, "timeUnit": "TIME_UNIT_MINUTE" },
            "detail": detail(*level, clock),
        })
    });
    json!({
        "user": {
            "userId": account.organization(),
            "membership": { "level": super::plan(account, &DIALECT) },
        },
        "usage": of_kind(Kind::SevenDay).next().map(|(_, level)| detail(*level, clock)),
        "limits": limits.collect::<Vec<_>>(),
    })
}

/// The amounts are strings.
fn detail(level: WindowLevel, clock: &SimClock) -> Value {
    const LIMIT: i64 = 10_000;
    let used = (percent(&level) * 100.0).round();
    json!({
        "limit": LIMIT.to_string(),
        "used": used.to_string(),
        "remaining": (LIMIT as f64 - used).max(0.0).to_string(),
        "resetTime": level.resets.map(|resets| clock.wall(resets).to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn usage_has_the_format_of_kimi() {
        insta::assert_json_snapshot!(super::super::sample(&DIALECT));
    }
}
