//! Parses scripts, and finds the position of an invalid part. `check` contains the rules.

use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::IgnoredAny;
use toml::Spanned;

use super::Script;
use super::check::{self, InvalidPart, Part};

/// Why a script is invalid.
///
/// ```
/// use quota_sim::Script;
///
/// let error = Script::from_toml("speed = 2\n\n[[accounts]]\nnaem = 'main'").unwrap_err();
/// assert_eq!((error.line(), error.column()), (Some(4), Some(1)));
/// assert!(error.to_string().starts_with("line 4, column 1: unknown field `naem`, expected one of `name`"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptError {
    reason: String,
    at: Option<(usize, usize)>,
}

impl ScriptError {
    /// The line of the text, counted from 1; `None` for a script in code.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.at.map(|(line, _)| line)
    }

    /// The column in characters, counted from 1; `None` for a script in code.
    #[must_use]
    pub fn column(&self) -> Option<usize> {
        self.at.map(|(_, column)| column)
    }
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.at {
            write!(f, "line {line}, column {column}: ")?;
        }
        f.write_str(&self.reason)
    }
}

impl std::error::Error for ScriptError {}

impl From<InvalidPart> for ScriptError {
    fn from(invalid: InvalidPart) -> Self {
        Self { reason: invalid.reason, at: None }
    }
}

pub(super) fn script(text: &str) -> Result<Script, ScriptError> {
    let script: Script = toml::from_str(text).map_err(|error| ScriptError {
        // Do not use the full text of the error: it repeats the line, which may contain a real token.
        reason: error.message().to_owned(),
        at: Some(position(text, error.span())),
    })?;
    match check::script(&script) {
        Ok(()) => Ok(script),
        Err(invalid) => {
            Err(ScriptError { at: Some(position(text, span_of(text, invalid.part))), ..invalid.into() })
        }
    }
}

/// A second parse of the same text, which yields the positions of its parts.
#[derive(Deserialize)]
struct Spans {
    speed: Option<Spanned<IgnoredAny>>,
    #[serde(default)]
    accounts: Vec<Spanned<AccountSpans>>,
}

#[derive(Deserialize)]
struct AccountSpans {
    #[serde(default)]
    windows: Vec<Spanned<IgnoredAny>>,
    #[serde(default)]
    answers: Vec<Spanned<IgnoredAny>>,
}

fn span_of(text: &str, part: Part) -> Option<Range<usize>> {
    let spans: Spans = toml::from_str(text).ok()?;
    let account = |at: usize| spans.accounts.get(at);
    match part {
        Part::Whole => None,
        Part::Speed => spans.speed.map(|place| place.span()),
        Part::Account(at) => account(at).map(Spanned::span),
        Part::Window(at, which) => account(at)?.get_ref().windows.get(which).map(Spanned::span),
        Part::Answer(at, which) => account(at)?.get_ref().answers.get(which).map(Spanned::span),
    }
}

/// The line and column, from 1, at which a span starts. Without a span, the start of the text.
fn position(text: &str, span: Option<Range<usize>>) -> (usize, usize) {
    let start = span.map_or(0, |span| text.floor_char_boundary(span.start));
    let before = &text[..start];
    let line = before.rfind('\n').map_or(0, |end| end + 1);
    (before.matches('\n').count() + 1, before[line..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Account, Answer, BudgetAnswer, ExtraUsage, Phase, Window};

    fn position_of(text: &str) -> (usize, usize) {
        Script::from_toml(text).unwrap_err().at.unwrap()
    }

    #[test]
    fn a_script_in_toml_equals_the_script_in_code() {
        let secs = std::time::Duration::from_secs;

        let script = Script::from_toml(
            r#"
            speed = 60

            [[accounts]]
            name = "main"
            token = "sim-main"
            organization = "org"
            plan = "claude_team"
            latency = "50ms"
            budget = "none"
            budget_answer = "deadline"
            extra_usage = { used_minor = 150, limit_minor = 2000, currency = "EUR", enabled = false }
            windows = [
                { id = "five_hour", used = 62.5, growth_per_hour = 20, length = "5m", resets_in = "1m 30s" },
                { id = "seven_day", model = "Fable", used = 18 },
            ]
            answers = [
                { from = "5s", until = "20s", answer = "throttle_until_end" },
                { on = "messages", answer = "overloaded" },
            ]

            [[accounts]]
            name = "spare"
            budget = 7
            "#,
        )
        .unwrap();

        let main = Account::new("main")
            .with_token("sim-main")
            .with_organization("org")
            .plan("claude_team")
            .latency(secs(1) / 20)
            .budget(None)
            .budget_answer(BudgetAnswer::Deadline)
            .extra_usage(ExtraUsage::new(150, 2000).currency("EUR").enabled(false))
            .windows([
                Window::five_hour().used(62.5).growth_per_hour(20.0).length(secs(300)).resets_in(secs(90)),
                Window::model("Fable").used(18.0),
            ])
            .answers([
                Phase::new(Answer::ThrottleUntilEnd).from(secs(5)).until(secs(20)),
                Phase::new(Answer::Overloaded).on_messages(),
            ]);
        assert_eq!(script, Script::new([main, Account::new("spare").budget(7)]).speed(60.0));
    }

    #[test]
    fn invalid_toml_has_a_position() {
        assert_eq!(position_of("[[accounts]]\nname = \n"), (2, 8));
    }

    #[test]
    fn an_unknown_key_has_a_position_and_lists_the_valid_ones() {
        let error = Script::from_toml(
            "[[accounts]]\nname = 'a'\n[[accounts.windows]]\n  id = 'five_hour'\n  usd = 3",
        )
        .unwrap_err();

        assert_eq!(error.at, Some((5, 3)));
        assert!(error.reason.contains("`used`"), "{error}");
    }

    #[test]
    fn an_unknown_answer_has_a_position_and_lists_the_valid_ones() {
        let error = Script::from_toml("[[accounts]]\nname = 'a'\n[[accounts.answers]]\nanswer = 'trottle'")
            .unwrap_err();

        assert_eq!(error.at, Some((4, 10)));
        assert!(error.reason.contains("`throttle_zero`"), "{error}");
    }

    #[test]
    fn an_invalid_budget_has_a_position() {
        assert_eq!(position_of("[[accounts]]\nname = 'a'\nbudget = 'lots'"), (3, 10));
        assert_eq!(position_of("[[accounts]]\nname = 'a'\nbudget = -1"), (3, 10));
    }

    #[test]
    fn a_contradiction_has_the_position_of_its_part() {
        let head = "[[accounts]]\nname = 'a'\n";

        assert_eq!(position_of(&format!("speed = 0\n{head}")), (1, 9));
        assert_eq!(position_of(&format!("{head}[[accounts]]\nname = 'a'")), (3, 1));
        assert_eq!(position_of(&format!("{head}windows = [{{ id = 'five_hour', used = -1 }}]")), (3, 12));
        assert_eq!(
            position_of(&format!("{head}[[accounts.answers]]\nfrom = '2s'\nuntil = '1s'\nanswer = 'ok'")),
            (3, 1)
        );
    }

    #[test]
    fn a_script_without_accounts_is_rejected_at_its_start() {
        assert_eq!(position_of(""), (1, 1));
        assert_eq!(position_of("accounts = []"), (1, 1));
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(position_of("[[accounts]]\nplan = 'äöü'\nname = 'é' 5"), (3, 12));
    }

    #[test]
    fn an_invalid_script_in_code_has_no_position() {
        let invalid = check::script(&Script::new([])).unwrap_err();

        assert_eq!(ScriptError::from(invalid).to_string(), "a script needs at least one account");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in r#"(\[\[accounts(\.windows|\.answers)?\]\]|name|speed|budget|=|"|'|-?[0-9]{1,20}|\pL|\n| )*"#) {
            let _ = Script::from_toml(&text);
        }
    }
}
