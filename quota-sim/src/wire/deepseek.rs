//! DeepSeek: the response of its balance endpoint. The balance is the remaining extra usage.

use serde_json::{Value, json};

use super::{Dialect, Reply};
use crate::account_sim::UsageState;
use crate::clock::SimClock;
use crate::script::Account;

pub(crate) static DIALECT: Dialect = Dialect {
    provider: "deepseek",
    method: "GET",
    path: "/user/balance",
    default_plan: "",
    owner_header: None,
    check: |_, _| Ok(()),
    body,
    failure: Reply::error,
};

fn body(usage: &UsageState, _: &Account, _: &SimClock) -> Value {
    let extra = usage.extra_usage.as_ref();
    /// The balance of an account whose script states no limit.
    const BALANCE: u64 = 5000;
    let cents =
        extra.map_or(BALANCE, |extra| extra.limit_minor.unwrap_or(BALANCE).saturating_sub(extra.used_minor));
    let currency = extra.map_or("USD", |extra| &extra.currency);
    let balance = format!("{}.{:02}", cents / 100, cents % 100);
    json!({
        "is_available": cents > 0,
        "balance_infos": [{
            "currency": currency,
            "total_balance": &balance,
            "granted_balance": "0.00",
            "topped_up_balance": &balance,
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn usage_has_the_format_of_deepseek() {
        insta::assert_json_snapshot!(super::super::sample(&DIALECT));
    }
}
