//! Validates a script beyond its types. `parse` finds the position of an invalid part in the text.

use std::collections::HashSet;
use std::time::Duration;

use super::window::Kind;
use super::{Account, Answer, Endpoint, PROVIDERS, Phase, Script, Window};

/// An invalid part of a script, and the reason.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InvalidPart {
    pub(super) part: Part,
    pub(super) reason: String,
}

/// A part of a script. Indexes start at 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    Speed,
    Account(usize),
    Window(usize, usize),
    Answer(usize, usize),
}

const SPEEDS: std::ops::RangeInclusive<f64> = 0.001..=1_000_000.0;
const PERCENTS: std::ops::RangeInclusive<f64> = 0.0..=1_000_000.0;
const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn script(script: &Script) -> Result<(), InvalidPart> {
    let fail = |part, reason: &str| Err(InvalidPart { part, reason: reason.to_owned() });
    if !SPEEDS.contains(&script.speed) {
        return fail(Part::Speed, "speed must be from 0.001 to 1000000");
    }
    if script.accounts.is_empty() {
        return fail(Part::Whole, "a script needs at least one account");
    }
    let mut names = HashSet::new();
    let mut tokens = HashSet::new();
    for (at, one) in script.accounts.iter().enumerate() {
        account(one).or_else(|reason| fail(Part::Account(at), reason))?;
        if !names.insert(one.env_name()) {
            return fail(Part::Account(at), "another account has this name or a similar one");
        }
        if !tokens.insert(one.token()) || !tokens.insert(one.refresh_token()) {
            return fail(Part::Account(at), "another account has this token");
        }
        for (which, window) in one.windows.iter().enumerate() {
            window_after(window, &one.windows[..which])
                .or_else(|reason| fail(Part::Window(at, which), reason))?;
        }
        for (which, answer) in one.answers.iter().enumerate() {
            phase(answer).or_else(|reason| fail(Part::Answer(at, which), reason))?;
        }
    }
    Ok(())
}

fn account(account: &Account) -> Result<(), &'static str> {
    if !is_name(account.name()) {
        return Err("the name of an account must have 1 to 64 lower-case letters, digits, '-', '_' or '.'");
    }
    if !PROVIDERS.contains(&account.provider_name()) {
        return Err("the provider of an account is not one that can be simulated");
    }
    token(&account.token())?;
    token(&account.refresh_token())?;
    if !is_word(&account.organization()) {
        return Err("an organization must have 1 to 128 letters, digits, '-', '_' or '.'");
    }
    Ok(())
}

/// The error does not repeat the token, because it may be a real one.
pub(crate) fn token(token: &str) -> Result<(), &'static str> {
    if token.starts_with("sim-") && is_word(token) {
        Ok(())
    } else {
        Err("a simulated token must begin with sim- and have up to 128 letters, digits, '-', '_' or '.'")
    }
}

fn is_name(name: &str) -> bool {
    is_word(name) && name.len() <= 64 && !name.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// Whether a text needs no escaping in headers, shell commands and TOML.
fn is_word(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn window_after(one: &Window, earlier: &[Window]) -> Result<(), &'static str> {
    window(one)?;
    if earlier.iter().any(|other| same(other, one)) {
        return Err("the account already has this window");
    }
    Ok(())
}

pub(crate) fn window(window: &Window) -> Result<(), &'static str> {
    if window.model.is_some() && window.id != Kind::SevenDay {
        return Err("the window of a model must be seven_day");
    }
    if window.model.as_deref().is_some_and(|model| model.trim().is_empty()) {
        return Err("a model needs a name");
    }
    if !PERCENTS.contains(&window.used) || !PERCENTS.contains(&window.growth_per_hour) {
        return Err("used and growth_per_hour must be 0 or more");
    }
    if window.full_length() < SECOND {
        return Err("a window must last at least a second");
    }
    if window.resets_in.is_some_and(|wait| wait.is_zero()) {
        return Err("resets_in must be greater than zero");
    }
    Ok(())
}

/// Whether both settings are for the same window of an account.
pub(crate) fn same(one: &Window, other: &Window) -> bool {
    one.id == other.id && one.model == other.model
}

fn phase(phase: &Phase) -> Result<(), &'static str> {
    match phase.until {
        Some(until) if until <= phase.from => Err("a phase must end after it starts"),
        None if phase.answer == Answer::ThrottleUntilEnd => Err("throttle_until_end needs `until`"),
        _ if phase.on == Endpoint::Messages && !is_for_messages(phase.answer) => {
            Err("messages allow only ok, the throttles, and errors with a status")
        }
        _ if phase.on == Endpoint::Token && !is_for_tokens(phase.answer) => {
            Err("tokens allow only ok, hang, html, the throttles, unavailable and overloaded")
        }
        _ => Ok(()),
    }
}

fn is_for_tokens(answer: Answer) -> bool {
    match answer {
        Answer::Unauthorized | Answer::Forbidden | Answer::Scope => false,
        Answer::Hang | Answer::Html => true,
        answer => is_for_messages(answer),
    }
}

fn is_for_messages(answer: Answer) -> bool {
    match answer {
        Answer::Ok
        | Answer::ThrottleZero
        | Answer::ThrottleUntilEnd
        | Answer::ThrottleNoHeader
        | Answer::Unauthorized
        | Answer::Forbidden
        | Answer::Scope
        | Answer::Unavailable
        | Answer::Overloaded => true,
        Answer::Html | Answer::Empty | Answer::Garbage | Answer::Hang | Answer::Huge => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(account: Account) -> String {
        script(&Script::new([account])).unwrap_err().reason
    }

    #[test]
    fn a_speed_out_of_range_is_rejected() {
        let invalid = script(&Script::default().speed(f64::NAN)).unwrap_err();

        assert_eq!(invalid.part, Part::Speed);
    }

    #[test]
    fn a_token_without_the_prefix_is_rejected_and_not_repeated() {
        let reason = reason(Account::new("main").with_token("sk-ant-oat01-abc"));

        assert!(reason.starts_with("a simulated token must begin with sim-"), "{reason}");
        assert!(!reason.contains("oat01"));
    }

    #[test]
    fn names_with_the_same_environment_variable_are_rejected() {
        let invalid = script(&Script::new([Account::new("a-b"), Account::new("a_b")])).unwrap_err();

        assert_eq!(invalid.part, Part::Account(1));
    }

    #[test]
    fn two_accounts_with_one_token_are_rejected() {
        let invalid = script(&Script::new([Account::new("a"), Account::new("b").with_token("sim-token-a")]))
            .unwrap_err();

        assert_eq!(
            (invalid.part, invalid.reason.as_str()),
            (Part::Account(1), "another account has this token")
        );
    }

    #[test]
    fn a_name_that_needs_escaping_is_rejected() {
        for name in ["", "Main", "a b", "a\"", "a/b"] {
            assert!(reason(Account::new(name)).starts_with("the name of an account"), "{name}");
        }
    }

    #[test]
    fn an_organization_that_needs_escaping_is_rejected() {
        assert!(reason(Account::new("main").with_organization("a\r\nb")).starts_with("an organization"));
    }

    #[test]
    fn a_five_hour_window_of_a_model_is_rejected() {
        let mut window = Window::five_hour();
        window.model = Some("Fable".to_owned());

        assert!(reason(Account::new("main").windows([window])).starts_with("the window of a model"));
    }

    #[test]
    fn a_model_without_a_name_is_rejected() {
        assert_eq!(reason(Account::new("main").windows([Window::model(" ")])), "a model needs a name");
    }

    #[test]
    fn a_duplicate_window_is_rejected() {
        let windows = [Window::seven_day(), Window::model("A"), Window::seven_day()];

        let invalid = script(&Script::new([Account::new("main").windows(windows)])).unwrap_err();

        assert_eq!(invalid.part, Part::Window(0, 2));
    }

    #[test]
    fn negative_percentages_are_rejected() {
        for bad in [-1.0, f64::NAN, f64::INFINITY] {
            assert!(
                reason(Account::new("main").windows([Window::five_hour().used(bad)])).starts_with("used")
            );
            let window = Window::five_hour().growth_per_hour(bad);
            assert!(reason(Account::new("main").windows([window])).starts_with("used"));
        }
    }

    #[test]
    fn windows_without_a_length_are_rejected() {
        let window = || Window::five_hour();

        assert!(reason(Account::new("main").windows([window().length(Duration::ZERO)])).contains("a second"));
        assert!(
            reason(Account::new("main").windows([window().resets_in(Duration::ZERO)])).contains("resets_in")
        );
    }

    #[test]
    fn a_phase_that_ends_before_it_starts_is_rejected() {
        let phase = Phase::new(Answer::Hang).from(SECOND).until(SECOND);

        assert_eq!(reason(Account::new("main").answers([phase])), "a phase must end after it starts");
    }

    #[test]
    fn a_countdown_without_an_end_is_rejected() {
        let phase = Phase::new(Answer::ThrottleUntilEnd);

        assert_eq!(reason(Account::new("main").answers([phase])), "throttle_until_end needs `until`");
    }

    #[test]
    fn a_truncated_answer_to_messages_is_rejected() {
        let phase = Phase::new(Answer::Garbage).on_messages();

        assert!(reason(Account::new("main").answers([phase])).starts_with("messages allow only ok"));
    }
}
