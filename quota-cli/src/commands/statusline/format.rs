//! The line as a user writes it: text with placeholders.
//! The lines that are there already are in `preset`.

use std::fmt::Write as _;
use std::time::Duration;

use quota::{Percent, Used};

use super::Line;
use crate::config::nearest;
use crate::exit::{CliError, Exit};
use crate::format::{self, between};
use crate::sanitize::sanitize;
use crate::term::Screen;
use crate::view::account::{AccountView, ViewFreshness, WindowView};
use crate::view::account_text::money;
use crate::view::bar;
use crate::view::reason::Reason;

/// A line with places to be filled.
#[derive(Debug, PartialEq)]
pub(super) struct Format(Vec<Piece>);

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Text(String),
    Of(What),
    Window(String, Field),
}

/// What stands for itself.
#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    Account,
    Plan,
    State,
    Stale,
    Reason,
    Age,
    Model,
    Dir,
    Cost,
}

/// What is said of a window.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Field {
    Used,
    Left,
    Bar,
    ResetsIn,
    ResetsAt,
    Certainty,
}

const WHATS: [(&str, What); 9] = [
    ("account", What::Account),
    ("plan", What::Plan),
    ("state", What::State),
    ("stale", What::Stale),
    ("reason", What::Reason),
    ("age", What::Age),
    ("model", What::Model),
    ("dir", What::Dir),
    ("cost", What::Cost),
];

const FIELDS: [(&str, Field); 6] = [
    ("used", Field::Used),
    ("left", Field::Left),
    ("bar", Field::Bar),
    ("resets_in", Field::ResetsIn),
    ("resets_at", Field::ResetsAt),
    ("certainty", Field::Certainty),
];

const BAR_WIDTH: usize = 10;

impl Format {
    /// Reads a format.
    ///
    /// # Errors
    ///
    /// [`CliError`] that says where it is broken, and what there is.
    pub(super) fn parse(text: &str) -> Result<Self, CliError> {
        let broken = |at: usize, why: String| {
            let column = text[..at].chars().count() + 1;
            CliError::new(Exit::Usage, format!("--format, character {column}: {why}"))
        };
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text.char_indices().peekable();
        while let Some((at, c)) = rest.next() {
            match c {
                '{' | '}' if rest.next_if(|(_, next)| *next == c).is_some() => plain.push(c),
                '}' => return Err(broken(at, "} without a {; for the character itself write }}".into())),
                '{' => {
                    let inside = &text[at + 1..];
                    let Some(end) = inside.find(['{', '}']).filter(|end| inside[*end..].starts_with('}'))
                    else {
                        return Err(broken(at, "{ without a }; for the character itself write {{".into()));
                    };
                    let name = &inside[..end];
                    if !plain.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut plain)));
                    }
                    pieces.push(placeholder(name).map_err(|why| broken(at, why))?);
                    while rest.next_if(|(next, _)| *next <= at + 1 + end).is_some() {}
                }
                _ => plain.push(c),
            }
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }

    /// Whether the time of day is told.
    pub(super) fn has_clock(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Window(_, Field::ResetsAt)))
    }

    /// The line, filled.
    pub(super) fn fill(&self, line: &Line<'_>) -> String {
        let mut text = String::new();
        let broken = broken(line);
        if line.account.is_none() && broken.is_some() {
            // A line of nothing but question marks would not say why.
            return broken.unwrap_or_default();
        }
        for piece in &self.0 {
            match piece {
                Piece::Text(plain) => text.push_str(plain),
                Piece::Of(what) => text.push_str(&told(*what, line)),
                Piece::Window(id, field) => {
                    let mut windows = line.account.iter().flat_map(|account| &account.windows);
                    let window = windows.find(|window| window.id == *id);
                    text.push_str(&told_of(window, *field, line));
                }
            }
        }
        if let Some(broken) = broken {
            let _ = write!(text, " · {broken}");
        }
        // One line, and nothing that moves a cursor: neither from a provider nor from a shell's quoting.
        sanitize(&text)
    }
}

fn placeholder(name: &str) -> Result<Piece, String> {
    if let Some((_, what)) = WHATS.iter().find(|(known, _)| *known == name) {
        return Ok(Piece::Of(*what));
    }
    // A window of any name may come; only what is asked of it is known.
    if let Some((window, field)) = name.rsplit_once('.')
        && !window.is_empty()
    {
        if let Some((_, field)) = FIELDS.iter().find(|(known, _)| *known == field) {
            return Ok(Piece::Window(window.to_owned(), *field));
        }
        let fields = || FIELDS.iter().map(|(name, _)| *name);
        return Err(match nearest(field, fields()) {
            Some(near) => format!("no placeholder {{{name}}}; did you mean {{{window}.{near}}}?"),
            None => format!("no placeholder {{{name}}}; of a window there is {}", list(fields())),
        });
    }
    let whats = || WHATS.iter().map(|(name, _)| *name);
    Err(match nearest(name, whats()) {
        Some(near) => format!("no placeholder {{{name}}}; did you mean {{{near}}}?"),
        None => format!(
            "no placeholder {{{name}}}; there is {}, and of a window such as five_hour.used: {}",
            list(whats()),
            list(FIELDS.iter().map(|(name, _)| *name))
        ),
    })
}

fn list<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.collect::<Vec<_>>().join(", ")
}

fn told(what: What, line: &Line<'_>) -> String {
    let or_empty = |text: Option<&String>| text.cloned().unwrap_or_default();
    let account = line.account;
    match what {
        What::Account => account.map(|account| account.id.as_str().to_owned()).unwrap_or_default(),
        What::Plan => or_empty(account.and_then(|account| account.plan.as_ref())),
        What::State => if is_fresh(line) { "fresh" } else { "stale" }.to_owned(),
        What::Stale => account.and_then(stale).unwrap_or_default(),
        What::Reason => reason(line).map(Reason::text).unwrap_or_default().to_owned(),
        What::Age => account.and_then(|account| account.age).map(short).unwrap_or_else(|| "?".to_owned()),
        What::Model => or_empty(line.session.model.as_ref()),
        What::Dir => or_empty(line.session.dir.as_ref()),
        What::Cost => line.session.cost.map(|cost| format!("${cost:.2}")).unwrap_or_default(),
    }
}

fn is_fresh(line: &Line<'_>) -> bool {
    line.account.is_some_and(|account| account.state == ViewFreshness::Fresh)
}

/// Why the line has no numbers, or old ones, or only those of its session.
pub(super) fn reason(line: &Line<'_>) -> Option<Reason> {
    line.broken.or_else(|| line.account.and_then(|account| account.reason))
}

/// How a line says that the configuration or the store cannot be used. It says whose trouble it is, because all else may be
/// missing.
pub(super) fn broken(line: &Line<'_>) -> Option<String> {
    line.broken.map(|reason| format!("quota: {}", reason.text()))
}

fn told_of(window: Option<&WindowView>, field: Field, line: &Line<'_>) -> String {
    let unknown = || "?".to_owned();
    let Some(window) = window else { return unknown() };
    let reset = window.resets_at.filter(|reset| *reset > line.local.now);
    match field {
        Field::Used => used(window.used),
        Field::Left => left(window.used),
        Field::Bar => bar::bar(window.used, None, BAR_WIDTH, Screen::DEFAULT),
        Field::ResetsIn => reset.map(|reset| short(between(line.local.now, reset))).unwrap_or_else(unknown),
        Field::ResetsAt => reset.map(|reset| line.local.time_of_day(reset)).unwrap_or_else(unknown),
        Field::Certainty => window.used.certainty().to_owned(),
    }
}

/// How a line says that numbers are old, or why there are none; `None` if they are fresh.
pub(super) fn stale(account: &AccountView) -> Option<String> {
    match (account.state, account.age) {
        (ViewFreshness::Fresh, _) => None,
        (ViewFreshness::Stale { .. }, Some(age)) => Some(format!("stale {}", short(age))),
        (ViewFreshness::Stale { .. }, None) => {
            Some(account.reason.map_or("no data", Reason::text).to_owned())
        }
    }
}

/// What a line shows of an account that the provider reports without windows: its credits, if it has any. `None` where there are
/// windows, or nothing was ever read.
pub(super) fn without_windows(account: &AccountView) -> Option<String> {
    let is_read = account.windows.is_empty() && account.age.is_some();
    let credits = || account.credits.as_ref().and_then(money);
    is_read.then(|| credits().unwrap_or_else(|| Reason::NoWindows.text().to_owned()))
}

/// `62%`, `≥62%` for a lower bound, `?` if nothing is known.
pub(super) fn used(used: Used) -> String {
    let mut text = String::new();
    match used {
        Used::Exact(percent) => text.push_str(&percent_of(percent)),
        Used::AtLeast(percent) => {
            let _ = write!(text, "≥{}", percent_of(percent));
        }
        _ => text.push('?'),
    }
    text
}

/// The same turned around: of a lower bound of what is used, at most the rest is left.
fn left(used: Used) -> String {
    let rest = |percent: Percent| {
        percent_of(Percent::from_basis_points(
            Percent::FULL.basis_points().saturating_sub(percent.basis_points()),
        ))
    };
    match used {
        Used::Exact(percent) => rest(percent),
        Used::AtLeast(percent) => format!("≤{}", rest(percent)),
        _ => "?".to_owned(),
    }
}

fn percent_of(percent: Percent) -> String {
    format::percent(percent).replace(' ', "")
}

/// A span without room between: `45s`, `12min`, `2h10min`.
pub(super) fn short(span: Duration) -> String {
    format::duration(span).replace(' ', "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::statusline::preset::tests::{line_of, with_line};

    fn flaw(text: &str) -> String {
        Format::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn every_placeholder_is_filled() {
        let format = Format::parse(
            "{account}|{plan}|{state}|{stale}{reason}|{age}|{model}|{dir}|{cost}|{five_hour.used}|{five_hour.left}|{five_hour.bar}|\
             {five_hour.resets_in}|{five_hour.resets_at}|{five_hour.certainty}|{{}}",
        )
        .unwrap();

        let text = with_line(|line| format.fill(line));

        assert_eq!(
            text,
            "anthropic/main|max 20x|fresh||12s|Opus|/src|$1.25|62.5%|37.5%|━━━━━━────|2h10min|14:05|exact|{}"
        );
    }

    #[test]
    fn a_lower_bound_and_what_is_not_known_say_so() {
        let of = |used_at| with_line(|line| (used(used_at), left(used_at), line.local.now).0);

        assert_eq!(of(Used::AtLeast(Percent::from_basis_points(6250))), "≥62.5%");
        assert_eq!(left(Used::AtLeast(Percent::from_basis_points(6250))), "≤37.5%");
        assert_eq!((of(Used::Unknown), left(Used::Unknown)), ("?".to_owned(), "?".to_owned()));
        assert_eq!(left(Used::Exact(Percent::from_basis_points(10_100))), "0%");
    }

    #[test]
    fn a_window_that_is_not_there_is_not_known() {
        let format = Format::parse("{monthly.used} {seven_day/sonnet.resets_in}").unwrap();

        assert_eq!(with_line(|line| format.fill(line)), "? ?");
    }

    #[test]
    fn what_comes_from_elsewhere_cannot_control_the_terminal() {
        let format = Format::parse("{model} {dir}\u{1b}[2J").unwrap();

        let text = line_of("\u{1b}]0;x\u{7}", "a\nb", |line| format.fill(line));

        assert_eq!(text, "?]0;x? a?b?[2J");
    }

    #[test]
    fn a_broken_format_is_told_with_its_place_and_what_there_is() {
        assert_eq!(
            flaw("ü {five_hour.usd}"),
            "--format, character 3: no placeholder {five_hour.usd}; did you mean {five_hour.used}?"
        );
        assert_eq!(flaw("{modle}"), "--format, character 1: no placeholder {modle}; did you mean {model}?");
        assert!(flaw("{}").contains("there is account, plan, state"));
        assert!(flaw("{five_hour.}").contains("of a window there is used, left, bar"));
        assert!(flaw("{.used}").contains("no placeholder"));
        assert!(flaw("5h {five_hour.used").starts_with("--format, character 4: { without a }"));
        assert!(flaw("{a{b}").starts_with("--format, character 1: { without a }"));
        assert!(flaw("100}").starts_with("--format, character 4: } without a {"));
    }
}
