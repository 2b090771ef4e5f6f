//! The JSON of `quota pick`, told in docs/pick-json.md.
//! A field that changes its meaning raises the number; a new one does not.

use serde::Serialize;

use crate::exit::Exit;
use crate::format::{rfc3339, whole_seconds};
use crate::router::{Refusal, Seen, SeenAccount};

/// The whole document, in one line.
pub(super) fn render(seen: &Seen, refusal: Option<&Refusal>) -> String {
    let verdict = match refusal.map(|refusal| refusal.exit) {
        None => "picked",
        Some(Exit::Incomplete) => "no_room",
        Some(Exit::NoAccount) => "all_accounts_disabled",
        Some(_) => "unknown",
    };
    let document = Document {
        version: 1,
        now: rfc3339(seen.now),
        account: seen.chosen().map(|account| account.id.as_str()),
        verdict,
        retry_after_seconds: seen.retry_after.map(whole_seconds),
        accounts: seen.accounts.iter().map(ReasonJson::of).collect(),
    };
    serde_json::to_string(&document).expect("it has only text keys") + "\n"
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    now: String,
    account: Option<&'a str>,
    verdict: &'static str,
    retry_after_seconds: Option<u64>,
    accounts: Vec<ReasonJson<'a>>,
}

/// How an account stands, and why.
#[derive(Serialize)]
pub(crate) struct ReasonJson<'a> {
    account: &'a str,
    role: &'static str,
    standing: &'static str,
    rule: &'static str,
    window: Option<&'a str>,
    limit_percent: Option<f64>,
    until: Option<String>,
}

impl<'a> ReasonJson<'a> {
    pub(crate) fn of(account: &'a SeenAccount) -> Self {
        Self {
            account: account.id.as_str(),
            role: if account.is_main { "main" } else { "fallback" },
            standing: account.standing.as_str(),
            rule: account.rule.as_str(),
            window: account.window.as_ref().map(|window| &*window.id),
            limit_percent: account.limit.map(quota::Percent::as_f64),
            until: account.until.map(rfc3339),
        }
    }
}
