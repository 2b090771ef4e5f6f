//! The JSON of a decision, for `quota pick` (docs/pick-json.md) and `quota explain` (docs/explain-json.md). The version rises if a
//! field changes its meaning, but not for a new field.

use quota::accounts::Decision;
use serde::Serialize;

use super::json;
use crate::account_picker::exit_of;
use crate::exit::Exit;
use crate::token_like::masked;

/// The document of `quota pick`, on one line.
pub(crate) fn pick(decision: &Decision) -> String {
    let outcome = match exit_of(decision) {
        Exit::Success => "picked",
        Exit::Incomplete => "no_account_available",
        Exit::NoAccount => "all_accounts_disabled",
        _ => "unknown",
    };
    let document = PickJson { version: 3, outcome, decision };
    json::one_line(&document)
}

/// The document of `quota explain`, with a line break at its end.
pub(crate) fn explain(decision: &Decision, model: Option<&str>) -> String {
    let document = ExplainJson { version: 2, model: model.map(masked), decision };
    json::pretty(&document)
}

#[derive(Serialize)]
struct PickJson<'a> {
    version: u32,
    outcome: &'static str,
    #[serde(flatten)]
    decision: &'a Decision,
}

#[derive(Serialize)]
struct ExplainJson<'a> {
    version: u32,
    model: Option<&'a str>,
    #[serde(flatten)]
    decision: &'a Decision,
}
