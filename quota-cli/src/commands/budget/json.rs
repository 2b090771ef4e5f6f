//! The JSON of `quota budget`: a shape with a number, described in docs/budget-json.md.

use quota::record::{Hold, HoldReason};
use serde::Serialize;

use super::CallBudget;
use crate::format::{LocalTime, rfc3339};
use crate::view::json;

const VERSION: u32 = 1;

/// The whole document, with a line break at its end.
pub(super) fn render(all: &[CallBudget], local: &LocalTime) -> String {
    json::accounts(VERSION, all.iter().map(AccountJson::of).collect(), local)
}

#[derive(Serialize)]
struct AccountJson<'a> {
    account: &'a str,
    made: usize,
    allowed: u32,
    reserve: u32,
    left: usize,
    callers: Vec<CallerJson<'a>>,
    held: Option<HeldJson>,
    held_in_background: Option<HeldJson>,
}

#[derive(Serialize)]
struct CallerJson<'a> {
    name: Option<&'a str>,
    made: usize,
    last_at: String,
}

#[derive(Serialize)]
struct HeldJson {
    until: String,
    why: HoldReason,
}

impl<'a> AccountJson<'a> {
    fn of(budget: &'a CallBudget) -> Self {
        let held = |hold: &Option<Hold>| {
            hold.as_ref().map(|hold| HeldJson { until: rfc3339(hold.until), why: hold.reason })
        };
        let callers = budget.callers.iter().map(|caller| CallerJson {
            name: Some(&*caller.name).filter(|name| !name.is_empty()),
            made: caller.calls,
            last_at: rfc3339(caller.last),
        });
        Self {
            account: budget.account.as_str(),
            made: budget.calls,
            allowed: budget.allowed,
            reserve: budget.reserve,
            left: budget.left(),
            callers: callers.collect(),
            held: held(&budget.next),
            held_in_background: held(&budget.next_in_background),
        }
    }
}
