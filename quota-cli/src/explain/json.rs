//! The JSON of `quota explain`, told in docs/explain-json.md.
//! A field that changes its meaning raises the number; a new one does not.

use serde::Serialize;

use crate::cli::RequestArgs;
use crate::format::{LocalTime, rfc3339, whole_seconds};
use crate::pick::json::ReasonJson;
use crate::router::Seen;
use crate::router::seen::Outcome;
use crate::token_like::masked;
use crate::view::account_json::WindowJson;

/// The whole document, with a line break at its end.
pub(super) fn render(seen: &Seen, request: &RequestArgs, local: &LocalTime) -> String {
    let accounts = seen.accounts.iter().map(|account| AccountJson {
        reason: ReasonJson::of(account),
        windows: account.windows.iter().map(|window| WindowJson::of(window, local)).collect(),
        not_refreshed: account.not_refreshed.as_deref(),
    });
    let document = Document {
        version: 1,
        now: rfc3339(seen.now),
        model: request.model.as_deref().map(masked),
        account: seen.chosen().map(|account| account.id.as_str()),
        waits_for: match seen.outcome {
            Outcome::Wait(at) => Some(seen.accounts[at].id.as_str()),
            _ => None,
        },
        retry_after_seconds: seen.retry_after.map(whole_seconds),
        accounts: accounts.collect(),
    };
    let mut text = serde_json::to_string_pretty(&document).expect("it has only text keys");
    text.push('\n');
    text
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    now: String,
    model: Option<&'a str>,
    account: Option<&'a str>,
    waits_for: Option<&'a str>,
    retry_after_seconds: Option<u64>,
    accounts: Vec<AccountJson<'a>>,
}

#[derive(Serialize)]
struct AccountJson<'a> {
    #[serde(flatten)]
    reason: ReasonJson<'a>,
    windows: Vec<WindowJson<'a>>,
    not_refreshed: Option<&'a str>,
}
