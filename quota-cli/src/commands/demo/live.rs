//! The output while a demo runs: at a terminal a display that is redrawn in place, otherwise one line per notable event.
//! The figures come from the manager, the counters and the ledger.

use std::collections::BTreeSet;
use std::time::Duration;

use quota::record::Hold;
use quota::{Account, AccountId, FetchError, Freshness, Used, WindowId};
use quota_sim::Ledger;

use super::counters::Counters;
use super::plan::Plan;
use crate::exit::CliError;
use crate::format::{self, thousands};
use crate::term::{self, Screen};
use crate::view::bar::{self, bar};
use crate::view::line::{self, Line, Style};
use crate::view::wrap::truncate;

/// A display with more accounts could scroll off the terminal.
const MOST_ACCOUNTS: usize = 12;
const MOST_NOTES: usize = 4;

/// The kind of output.
#[derive(Debug)]
pub(crate) struct Live {
    view: View,
    /// The number of lines on the screen.
    drawn: usize,
    notes: Vec<String>,
    failing: BTreeSet<AccountId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    /// A display on standard output.
    Display(Screen),
    /// A display on standard error, because a program reads standard output.
    StderrDisplay(Screen),
    /// Lines on standard output.
    Lines,
    /// No output.
    Nothing,
}

impl Live {
    /// Chooses the kind of output.
    pub(crate) fn new(json: bool) -> Self {
        let (stdout, stderr) = (Screen::stdout(), Screen::stderr());
        let view = match json {
            true if stderr.is_tty => View::StderrDisplay(stderr),
            true => View::Nothing,
            false if stdout.is_tty => View::Display(stdout),
            false => View::Lines,
        };
        Self { view, drawn: 0, notes: Vec::new(), failing: BTreeSet::new() }
    }

    /// Prints the plan.
    pub(crate) fn begin(&self, plan: &Plan) -> Result<(), CliError> {
        let width = match self.view {
            View::Display(screen) | View::StderrDisplay(screen) => Some(screen.width),
            View::Lines | View::Nothing => None,
        };
        self.write(&line::print(&introduction(plan, width), false))
    }

    /// Redraws the display.
    pub(crate) fn draw(
        &mut self,
        plan: &Plan,
        accounts: &[Account],
        counters: &Counters,
        ledger: &Ledger,
        elapsed: Duration,
    ) -> Result<(), CliError> {
        let (View::Display(screen) | View::StderrDisplay(screen)) = self.view else { return Ok(()) };
        let rows = |account| Row::of(account, ledger).lines(screen.width);
        let rows_each = accounts.first().map_or(1, |first| rows(first).len());
        let most = MOST_ACCOUNTS.min(screen.height.saturating_sub(MOST_NOTES + 5) / rows_each).max(1);
        let mut lines: Vec<_> = accounts.iter().take(most).flat_map(rows).collect();
        if let Some(more) = accounts.len().checked_sub(most).filter(|more| *more > 0) {
            lines.push(Line::plain(format!("and {more} more")));
        }
        let figures = format!(
            "{:.1} of {} s   {} reads   {} calls   {} without quota",
            elapsed.as_secs_f64(),
            plan.duration.as_secs(),
            thousands(counters.reads()),
            thousands(ledger.calls()),
            thousands(counters.naive_calls()),
        );
        // A line that wraps would take two lines, and a redraw would clear only one of them.
        let cut = |text: &str| truncate(text, screen.width);
        lines.extend([Line::default(), Line::plain(cut(&figures))]);
        lines.extend(self.notes.iter().map(|note| Line::new(Style::Dim, cut(note))));
        let up = if self.drawn > 0 { format!("\u{1b}[{}A\r\u{1b}[J", self.drawn) } else { String::new() };
        self.drawn = lines.len();
        self.write(&format!("{up}{}", screen.show(&lines)))
    }

    /// Notes that an account's call failed.
    pub(crate) fn failed(
        &mut self,
        account: &AccountId,
        error: &FetchError,
        hold: Option<&Hold>,
        elapsed: Duration,
    ) -> Result<(), CliError> {
        self.failing.insert(account.clone());
        let cause = match error {
            FetchError::Throttled { .. } => "rate limited".to_owned(),
            FetchError::Unauthorized => "login rejected".to_owned(),
            other => other.to_string(),
        };
        let duration = hold.map_or_else(String::new, |hold| {
            format!(" for {}", format::seconds(format::between(hold.since, hold.until)))
        });
        self.note(elapsed, &format!("{account}: {cause}, backing off{duration}"))
    }

    /// Notes the first success of an account after a failure.
    pub(crate) fn refreshed(&mut self, account: &AccountId, elapsed: Duration) -> Result<(), CliError> {
        if self.failing.remove(account) {
            self.note(elapsed, &format!("{account}: refreshed"))
        } else {
            Ok(())
        }
    }

    /// Ends the output, and leaves the last display on the screen.
    pub(crate) fn end(&mut self) -> Result<(), CliError> {
        self.write("\n")
    }

    fn note(&mut self, elapsed: Duration, text: &str) -> Result<(), CliError> {
        let note = format!("{:5.1} s  {text}", elapsed.as_secs_f64());
        if self.view == View::Lines {
            return self.write(&format!("{note}\n"));
        }
        if self.notes.len() == MOST_NOTES {
            self.notes.remove(0);
        }
        self.notes.push(note);
        Ok(())
    }

    fn write(&self, text: &str) -> Result<(), CliError> {
        match self.view {
            View::Display(_) | View::Lines => term::print(text),
            View::StderrDisplay(_) => {
                term::eprint(text);
                Ok(())
            }
            View::Nothing => Ok(()),
        }
    }
}

/// A description of the simulation, wrapped to `width`. Without a width, each fact is one line.
fn introduction(plan: &Plan, width: Option<usize>) -> Vec<Line> {
    let (seconds, minutes) = (plan.duration.as_secs(), plan.simulated_duration().as_secs() / 60);
    let fact = |indent, text: &str| match width {
        Some(width) => line::wrapped(Style::Plain, text, indent, width),
        None => vec![Line::plain(text).indented(indent)],
    };
    let who = format!(
        "{} read {} of a simulated provider through one manager.",
        format::pluralize(plan.consumers.into(), "consumer"),
        format::pluralize(plan.script.accounts().len() as u64, "account"),
    );
    let scale = format!(
        "Time is scaled: {minutes} min take {seconds} s, so a reading is fresh for {} instead of 5 min.",
        format::seconds(plan.policy.max_age),
    );
    let errors = plan.describe();
    [
        fact(0, &who),
        fact(0, &scale),
        vec![Line::default()],
        fact(0, "Provider errors:"),
        errors.iter().flat_map(|error| fact(2, error)).collect(),
        vec![Line::default()],
    ]
    .concat()
}

/// An account on the display.
struct Row {
    account: AccountId,
    used: Used,
    calls: u64,
    state: String,
    style: Style,
}

impl Row {
    fn of(account: &Account, ledger: &Ledger) -> Self {
        let usage = account.peek();
        let (state, style) = match usage.freshness() {
            Freshness::Stale { reason: why, .. } => (why.to_string(), Style::Warn),
            _ => ("fresh".to_owned(), Style::Good),
        };
        let used = usage.used(&WindowId::five_hour());
        let calls = ledger.account(account.id().name()).map_or(0, |one| one.calls);
        Self { account: account.id().clone(), used, calls, state, style }
    }

    /// One line, or two in a narrow terminal.
    fn lines(&self, width: usize) -> Vec<Line> {
        const NAME: usize = 22;
        const STATE: usize = "unsupported format".len();
        /// The width of everything but name, bar and state.
        const REST: usize = " ≥ 100.5 %  123 calls  ".len();
        let used = match self.used {
            Used::Exact(used) => format::percent(used),
            Used::AtLeast(used) => format!("≥ {}", format::percent(used)),
            _ => "unknown".to_owned(),
        };
        let name = self.account.as_str();
        let figures = format!(" {used:>9} {:>4} calls", self.calls);
        let Some(room) = width.checked_sub(NAME + REST + STATE) else {
            let name = truncate(name, width.saturating_sub(STATE + 2));
            return vec![
                Line::plain(format!("{name}  ")).with(self.style, self.state.clone()),
                Line::plain(truncate(&figures, width)),
            ];
        };
        let mut row = Line::plain(truncate(name, NAME)).padded(NAME);
        let bar_width = room.saturating_sub(1).min(30);
        if bar_width >= bar::NARROWEST {
            row.push(Style::Plain, " ");
            row.append(bar(self.used, None, bar_width));
        }
        vec![row.with(Style::Plain, format!("{figures}  ")).with(self.style, self.state.clone())]
    }
}

#[cfg(test)]
mod tests {
    use quota::Percent;

    use super::*;
    use crate::view::fixtures::assert_fits;

    #[test]
    fn the_introduction_fits_into_a_narrow_terminal() {
        let providers = [quota::http::find_provider("anthropic").unwrap()];
        let plan = Plan::new(&providers, 50, 1_000_000, 10, 7);

        for width in 20..=100 {
            assert_fits(&introduction(&plan, Some(width)), width);
        }
        assert_eq!(introduction(&plan, None).len(), 7);
    }

    #[test]
    fn a_row_fits_into_a_narrow_terminal() {
        let row = Row {
            account: "anthropic/fallback-49".parse().unwrap(),
            used: Used::AtLeast(Percent::from_percent(100.5).unwrap()),
            calls: 1234,
            state: "unsupported format".to_owned(),
            style: Style::Warn,
        };

        for width in 24..=120 {
            assert_fits(&row.lines(width), width);
        }
        assert_eq!(row.lines(44)[0].text(), "anthropic/fallback-49  unsupported format");
        assert_eq!(row.lines(80).len(), 1);
    }
}
