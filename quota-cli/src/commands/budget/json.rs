//! The versioned JSON of `quota budget`, which docs/budget-json.md describes.

use quota::record::{Hold, HoldReason};
use serde::Serialize;

use super::CallBudget;
use crate::format::{LocalTime, rfc3339};
use crate::view::json;

const VERSION: u32 = 2;

/// Renders the document with a final line break.
pub(super) fn render(all: &[CallBudget], local: &LocalTime) -> String {
    json::accounts(VERSION, all.iter().map(CallBudgetJson::of).collect(), local)
}

#[derive(Serialize)]
struct CallBudgetJson<'a> {
    account: &'a str,
    calls: usize,
    allowed: u32,
    reserve: u32,
    left: usize,
    callers: Vec<CallerJson<'a>>,
    hold: Option<BudgetHoldJson>,
    background_hold: Option<BudgetHoldJson>,
}

#[derive(Serialize)]
struct CallerJson<'a> {
    name: Option<&'a str>,
    calls: usize,
    last_at: String,
}

#[derive(Serialize)]
struct BudgetHoldJson {
    until: String,
    reason: HoldReason,
}

impl<'a> CallBudgetJson<'a> {
    fn of(budget: &'a CallBudget) -> Self {
        let hold = |hold: &Option<Hold>| {
            hold.as_ref().map(|hold| BudgetHoldJson { until: rfc3339(hold.until), reason: hold.reason })
        };
        let callers = budget.callers.iter().map(|caller| CallerJson {
            name: Some(&*caller.name).filter(|name| !name.is_empty()),
            calls: caller.calls,
            last_at: rfc3339(caller.last),
        });
        Self {
            account: budget.account.as_str(),
            calls: budget.calls,
            allowed: budget.allowed,
            reserve: budget.reserve,
            left: budget.left(),
            callers: callers.collect(),
            hold: hold(&budget.next),
            background_hold: hold(&budget.next_in_background),
        }
    }
}
