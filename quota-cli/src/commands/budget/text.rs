//! `quota budget` as text.

use quota::record::Hold;

use super::CallBudget;
use crate::format::{self, LocalTime, between, pluralize};
use crate::sanitize::sanitize;
use crate::view::line::{self, Line, Style};
use crate::view::wrap::{self, padded, truncate};

/// Renders all accounts.
pub(super) fn lines(all: &[CallBudget], local: &LocalTime, width: usize) -> Vec<Line> {
    line::separated(all.iter().map(|budget| block(budget, local, width)))
}

fn block(budget: &CallBudget, local: &LocalTime, width: usize) -> Vec<Line> {
    let mut lines = vec![Line::new(Style::Strong, truncate(budget.account.as_str(), width))];
    let calls = pluralize(budget.calls as u64, "call");
    let style = if budget.left() == 0 { Style::Bad } else { Style::Plain };
    let sum = format!("{calls} in the last hour of {} allowed, {} left", budget.allowed, budget.left());
    lines.push(Line::new(style, sum).indented(2));
    if budget.reserve > 0 {
        lines.push(Line::plain(format!("  {} of them reserved for interactive callers", budget.reserve)));
    }
    let names: Vec<_> = budget
        .callers
        .iter()
        .map(|caller| if caller.name.is_empty() { "unnamed".to_owned() } else { sanitize(&caller.name) })
        .map(|name| truncate(&name, width.saturating_sub(30).max(12)))
        .collect();
    let width = names.iter().map(|name| wrap::width(name)).max().unwrap_or_default();
    for (caller, name) in budget.callers.iter().zip(&names) {
        let last = format::ago(between(caller.last, local.now));
        lines.push(Line::plain(format!("    {}  {:>3}  last {last}", padded(name, width), caller.calls)));
    }
    let (now, later) = (&budget.next, &budget.next_in_background);
    lines.push(next("  next call: ", now.as_ref(), local));
    if later.as_ref().map(|hold| hold.until) != now.as_ref().map(|hold| hold.until) {
        lines.push(next("  next background call: ", later.as_ref(), local));
    }
    lines
}

fn next(label: &str, hold: Option<&Hold>, local: &LocalTime) -> Line {
    let line = Line::plain(label);
    match hold {
        None => line.with(Style::Good, "now"),
        Some(hold) => {
            let wait = format::duration(between(local.now, hold.until));
            let at = local.time_of_day_with_seconds(hold.until);
            line.with(Style::Warn, format!("in {wait} ({at}): {}", hold.reason))
        }
    }
}
