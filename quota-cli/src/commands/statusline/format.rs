//! The user's `--format`: text with placeholders.

use std::fmt::Write as _;
use std::time::Duration;

use quota::{Percent, Used};

use super::LineData;
use crate::config::nearest;
use crate::exit::{CliError, Exit};
use crate::format::{self, between};
use crate::sanitize::sanitize;
use crate::view::account::{AccountView, ViewFreshness, WindowView};
use crate::view::account_text::money;
use crate::view::bar;
use crate::view::reason::Reason;

/// A parsed format.
#[derive(Debug, PartialEq)]
pub(super) struct Format(Vec<Piece>);

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Text(String),
    Field(Field),
    Window(String, WindowField),
}

/// A placeholder for the account or the session.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Field {
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

/// A placeholder for a window, such as `five_hour.used`.
#[derive(Debug, Clone, Copy, PartialEq)]
enum WindowField {
    Used,
    Left,
    Bar,
    ResetsIn,
    ResetsAt,
    Certainty,
}

const FIELDS: [(&str, Field); 9] = [
    ("account", Field::Account),
    ("plan", Field::Plan),
    ("state", Field::State),
    ("stale", Field::Stale),
    ("reason", Field::Reason),
    ("age", Field::Age),
    ("model", Field::Model),
    ("dir", Field::Dir),
    ("cost", Field::Cost),
];

const WINDOW_FIELDS: [(&str, WindowField); 6] = [
    ("used", WindowField::Used),
    ("left", WindowField::Left),
    ("bar", WindowField::Bar),
    ("resets_in", WindowField::ResetsIn),
    ("resets_at", WindowField::ResetsAt),
    ("certainty", WindowField::Certainty),
];

const BAR_WIDTH: usize = 10;

impl Format {
    /// Parses a format.
    ///
    /// # Errors
    ///
    /// [`CliError`] with the position of the error and the valid placeholders.
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
                '}' => return Err(broken(at, "} without {; write }} for a literal }".into())),
                '{' => {
                    let inside = &text[at + 1..];
                    let Some(end) = inside.find(['{', '}']).filter(|end| inside[*end..].starts_with('}'))
                    else {
                        return Err(broken(at, "{ without }; write {{ for a literal {".into()));
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

    /// Whether the line shows a time of day.
    pub(super) fn has_clock(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Window(_, WindowField::ResetsAt)))
    }

    /// Renders the line.
    pub(super) fn render(&self, line: &LineData<'_>) -> String {
        let mut text = String::new();
        let broken = broken(line);
        if line.account.is_none() && broken.is_some() {
            // Without readings, the user's format would print only question marks.
            return broken.unwrap_or_default();
        }
        for piece in &self.0 {
            match piece {
                Piece::Text(plain) => text.push_str(plain),
                Piece::Field(field) => text.push_str(&value(*field, line)),
                Piece::Window(id, field) => {
                    let mut windows = line.account.iter().flat_map(|account| &account.windows);
                    let window = windows.find(|window| window.id == *id);
                    text.push_str(&window_value(window, *field, line));
                }
            }
        }
        if let Some(broken) = broken {
            let _ = write!(text, " · {broken}");
        }
        // Text from a provider or the format itself must not add line breaks or escape sequences.
        sanitize(&text)
    }
}

fn placeholder(name: &str) -> Result<Piece, String> {
    if let Some((_, field)) = FIELDS.iter().find(|(field_name, _)| *field_name == name) {
        return Ok(Piece::Field(*field));
    }
    // A provider may add windows, so only the field is checked.
    if let Some((window, field)) = name.rsplit_once('.')
        && !window.is_empty()
    {
        if let Some((_, field)) = WINDOW_FIELDS.iter().find(|(field_name, _)| *field_name == field) {
            return Ok(Piece::Window(window.to_owned(), *field));
        }
        let fields = || WINDOW_FIELDS.iter().map(|(name, _)| *name);
        return Err(match nearest(field, fields()) {
            Some(near) => format!("no placeholder {{{name}}}; did you mean {{{window}.{near}}}?"),
            None => format!("no placeholder {{{name}}}; a window has {}", list(fields())),
        });
    }
    let names = || FIELDS.iter().map(|(name, _)| *name);
    Err(match nearest(name, names()) {
        Some(near) => format!("no placeholder {{{name}}}; did you mean {{{near}}}?"),
        None => format!(
            "no placeholder {{{name}}}; expected one of: {}, or a window's field such as five_hour.used: {}",
            list(names()),
            list(WINDOW_FIELDS.iter().map(|(name, _)| *name))
        ),
    })
}

fn list<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.collect::<Vec<_>>().join(", ")
}

fn value(field: Field, line: &LineData<'_>) -> String {
    let or_empty = |text: Option<&String>| text.cloned().unwrap_or_default();
    let account = line.account;
    match field {
        Field::Account => account.map(|account| account.id.as_str().to_owned()).unwrap_or_default(),
        Field::Plan => or_empty(account.and_then(|account| account.plan.as_ref())),
        Field::State => if is_fresh(line) { "fresh" } else { "stale" }.to_owned(),
        Field::Stale => account.and_then(stale).unwrap_or_default(),
        Field::Reason => reason(line).map(Reason::text).unwrap_or_default().to_owned(),
        Field::Age => account.and_then(|account| account.age).map(short).unwrap_or_else(|| "?".to_owned()),
        Field::Model => or_empty(line.session.model.as_ref()),
        Field::Dir => or_empty(line.session.dir.as_ref()),
        Field::Cost => line.session.cost.map(|cost| format!("${cost:.2}")).unwrap_or_default(),
    }
}

fn is_fresh(line: &LineData<'_>) -> bool {
    line.account.is_some_and(|account| account.state == ViewFreshness::Fresh)
}

/// Why the line has no readings, stale readings, or only the session's own.
pub(super) fn reason(line: &LineData<'_>) -> Option<Reason> {
    line.broken.or_else(|| line.account.and_then(|account| account.reason))
}

/// The text for an unusable configuration or store. It names the program, because the line may contain nothing else.
pub(super) fn broken(line: &LineData<'_>) -> Option<String> {
    line.broken.map(|reason| format!("quota: {}", reason.text()))
}

fn window_value(window: Option<&WindowView>, field: WindowField, line: &LineData<'_>) -> String {
    let unknown = || "?".to_owned();
    let Some(window) = window else { return unknown() };
    let reset = window.resets_at.filter(|reset| *reset > line.local.now);
    match field {
        WindowField::Used => used_of(window),
        WindowField::Left if window.is_unlimited => UNLIMITED.to_owned(),
        WindowField::Left => left(window.used),
        WindowField::Bar => bar::bar(window.used, None, BAR_WIDTH).text(),
        WindowField::ResetsIn => {
            reset.map(|reset| short(between(line.local.now, reset))).unwrap_or_else(unknown)
        }
        WindowField::ResetsAt => reset.map(|reset| line.local.time_of_day(reset)).unwrap_or_else(unknown),
        WindowField::Certainty => window.used.certainty().to_owned(),
    }
}

/// The text for stale readings, or the reason why there are none; `None` if they are fresh.
pub(super) fn stale(account: &AccountView) -> Option<String> {
    match (account.state, account.age) {
        (ViewFreshness::Fresh, _) => None,
        (ViewFreshness::Stale { .. }, Some(age)) => Some(format!("stale {}", short(age))),
        (ViewFreshness::Stale { .. }, None) => {
            Some(account.reason.map_or("no data", Reason::text).to_owned())
        }
    }
}

/// The text for an account without windows: its credits, or `no windows`. `None` if it has windows or was never refreshed.
pub(super) fn without_windows(account: &AccountView) -> Option<String> {
    let is_refreshed = account.windows.is_empty() && account.age.is_some();
    let credits = || account.credits.as_ref().and_then(money);
    is_refreshed.then(|| credits().unwrap_or_else(|| Reason::NoWindows.text().to_owned()))
}

/// The usage of a window: a percentage, or `unlimited`.
pub(super) fn used_of(window: &WindowView) -> String {
    if window.is_unlimited { UNLIMITED.to_owned() } else { used(window.used) }
}

/// The text for a window without a limit, which has no percentage.
const UNLIMITED: &str = "unlimited";

/// `62%`, `≥62%` for a lower bound, `?` if the usage is unknown.
fn used(used: Used) -> String {
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

/// The remaining percentage: `38%`, or `≤38%` if the usage is a lower bound.
fn left(used: Used) -> String {
    let remaining = |percent: Percent| {
        percent_of(Percent::from_basis_points(
            Percent::FULL.basis_points().saturating_sub(percent.basis_points()),
        ))
    };
    match used {
        Used::Exact(percent) => remaining(percent),
        Used::AtLeast(percent) => format!("≤{}", remaining(percent)),
        _ => "?".to_owned(),
    }
}

fn percent_of(percent: Percent) -> String {
    format::percent(percent).replace(' ', "")
}

/// A duration without spaces: `45s`, `12min`, `2h10min`.
pub(super) fn short(duration: Duration) -> String {
    format::duration(duration).replace(' ', "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::statusline::preset::tests::{line_of, with_line};

    fn error(text: &str) -> String {
        Format::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn every_placeholder_is_filled() {
        let format = Format::parse(
            "{account}|{plan}|{state}|{stale}{reason}|{age}|{model}|{dir}|{cost}|{five_hour.used}|{five_hour.left}|{five_hour.bar}|\
             {five_hour.resets_in}|{five_hour.resets_at}|{five_hour.certainty}|{{}}",
        )
        .unwrap();

        let text = with_line(|line| format.render(line));

        assert_eq!(
            text,
            "anthropic/main|max 20x|fresh||12s|Opus|/src|$1.25|62.5%|37.5%|━━━━━━────|2h10min|14:05|exact|{}"
        );
    }

    #[test]
    fn lower_bounds_and_unknown_use_are_marked() {
        let of = |used_at| with_line(|line| (used(used_at), left(used_at), line.local.now).0);

        assert_eq!(of(Used::AtLeast(Percent::from_basis_points(6250))), "≥62.5%");
        assert_eq!(left(Used::AtLeast(Percent::from_basis_points(6250))), "≤37.5%");
        assert_eq!((of(Used::Unknown), left(Used::Unknown)), ("?".to_owned(), "?".to_owned()));
        assert_eq!(left(Used::Exact(Percent::from_basis_points(10_100))), "0%");
    }

    #[test]
    fn an_unlimited_window_has_no_percentage() {
        let none = Used::Exact(Percent::ZERO);
        let window =
            WindowView { is_unlimited: true, ..crate::view::fixtures::window("monthly", none, None) };

        let of = |field| with_line(|line| window_value(Some(&window), field, line));

        assert_eq!([of(WindowField::Used), of(WindowField::Left)], ["unlimited", "unlimited"]);
    }

    #[test]
    fn a_missing_window_is_unknown() {
        let format = Format::parse("{monthly.used} {seven_day/sonnet.resets_in}").unwrap();

        assert_eq!(with_line(|line| format.render(line)), "? ?");
    }

    #[test]
    fn session_text_cannot_control_the_terminal() {
        let format = Format::parse("{model} {dir}\u{1b}[2J").unwrap();

        let text = line_of("\u{1b}]0;x\u{7}", "a\nb", |line| format.render(line));

        assert_eq!(text, "?]0;x? a?b?[2J");
    }

    #[test]
    fn a_format_error_states_its_position_and_the_placeholders() {
        assert_eq!(
            error("ü {five_hour.usd}"),
            "--format, character 3: no placeholder {five_hour.usd}; did you mean {five_hour.used}?"
        );
        assert_eq!(error("{modle}"), "--format, character 1: no placeholder {modle}; did you mean {model}?");
        assert!(error("{}").contains("expected one of: account, plan, state"));
        assert!(error("{five_hour.}").contains("a window has used, left, bar"));
        assert!(error("{.used}").contains("no placeholder"));
        assert!(error("5h {five_hour.used").starts_with("--format, character 4: { without }"));
        assert!(error("{a{b}").starts_with("--format, character 1: { without }"));
        assert!(error("100}").starts_with("--format, character 4: } without {"));
    }
}
