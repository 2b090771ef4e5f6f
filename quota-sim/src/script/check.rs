//! Whether a script makes sense, beyond what its types say.
//! Where in a text a flaw stands is found by `parse`.

use std::collections::HashSet;
use std::time::Duration;

use super::window::Kind;
use super::{Account, Answer, Endpoint, Phase, Script, Window};

/// What is wrong, and with which part of the script.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub(super) part: Part,
    pub(super) why: String,
}

/// A part of a script; the numbers count from 0.
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

pub(crate) fn script(script: &Script) -> Result<(), Flaw> {
    let flaw = |part, why: &str| Err(Flaw { part, why: why.to_owned() });
    if !SPEEDS.contains(&script.speed) {
        return flaw(Part::Speed, "speed is from 0.001 to 1000000");
    }
    if script.accounts.is_empty() {
        return flaw(Part::Whole, "a script has at least one account");
    }
    let mut names = HashSet::new();
    let mut tokens = HashSet::new();
    for (at, one) in script.accounts.iter().enumerate() {
        account(one).or_else(|why| flaw(Part::Account(at), why))?;
        if !names.insert(one.env_name()) {
            return flaw(Part::Account(at), "another account has this name, or one that is written alike");
        }
        if !tokens.insert(one.token()) || !tokens.insert(one.refresh_token()) {
            return flaw(Part::Account(at), "another account has this token");
        }
        for (which, window) in one.windows.iter().enumerate() {
            window_after(window, &one.windows[..which]).or_else(|why| flaw(Part::Window(at, which), why))?;
        }
        for (which, answer) in one.answers.iter().enumerate() {
            phase(answer).or_else(|why| flaw(Part::Answer(at, which), why))?;
        }
    }
    Ok(())
}

fn account(account: &Account) -> Result<(), &'static str> {
    if !is_name(account.name()) {
        return Err("an account's name has 1 to 64 lower-case letters, digits, '-', '_' or '.'");
    }
    token(&account.token())?;
    token(&account.refresh_token())?;
    if !is_word(&account.organization()) {
        return Err("an organization has 1 to 128 letters, digits, '-', '_' or '.'");
    }
    Ok(())
}

/// The text is not repeated: it may contain a real token.
pub(crate) fn token(token: &str) -> Result<(), &'static str> {
    if token.starts_with("sim-") && is_word(token) {
        Ok(())
    } else {
        Err("a simulated token begins with sim- and has up to 128 letters, digits, '-', '_' or '.'")
    }
}

fn is_name(name: &str) -> bool {
    is_word(name) && name.len() <= 64 && !name.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// What can stand in a header, a shell's line and a TOML text as it is.
fn is_word(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn window_after(one: &Window, earlier: &[Window]) -> Result<(), &'static str> {
    window(one)?;
    if earlier.iter().any(|other| same(other, one)) {
        return Err("the account has this window already");
    }
    Ok(())
}

pub(crate) fn window(window: &Window) -> Result<(), &'static str> {
    if window.model.is_some() && window.id != Kind::SevenDay {
        return Err("a model has a seven_day window, no other");
    }
    if window.model.as_deref().is_some_and(|model| model.trim().is_empty()) {
        return Err("a model has a name");
    }
    if !PERCENTS.contains(&window.used) || !PERCENTS.contains(&window.fills_per_hour) {
        return Err("used and fills_per_hour are percentages, 0 or more");
    }
    if window.lasts() < SECOND {
        return Err("a window lasts at least a second");
    }
    if window.resets_in.is_some_and(|span| span.is_zero()) {
        return Err("resets_in is above zero");
    }
    Ok(())
}

/// Whether both are the same window of an account.
pub(crate) fn same(one: &Window, other: &Window) -> bool {
    one.id == other.id && one.model == other.model
}

fn phase(phase: &Phase) -> Result<(), &'static str> {
    match phase.until {
        Some(until) if until <= phase.from => Err("a phase ends after it begins"),
        None if phase.answer == Answer::ThrottleUntilEnd => Err("throttle_until_end needs an until"),
        _ if phase.on == Endpoint::Messages && !is_for_messages(phase.answer) => {
            Err("messages are answered by ok, the throttles, and errors with a status")
        }
        _ if phase.on == Endpoint::Token && !is_for_tokens(phase.answer) => {
            Err("tokens are answered by ok, hang, html, the throttles, unavailable and overloaded")
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

    fn why(account: Account) -> String {
        script(&Script::new([account])).unwrap_err().why
    }

    #[test]
    fn a_speed_that_is_no_number_is_refused() {
        let flaw = script(&Script::default().speed(f64::NAN)).unwrap_err();

        assert_eq!(flaw.part, Part::Speed);
    }

    #[test]
    fn a_token_that_could_be_a_real_one_is_refused_and_not_repeated() {
        let why = why(Account::new("main").with_token("sk-ant-oat01-abc"));

        assert!(why.starts_with("a simulated token begins with sim-"), "{why}");
        assert!(!why.contains("oat01"));
    }

    #[test]
    fn names_that_share_an_environment_variable_are_refused() {
        let flaw = script(&Script::new([Account::new("a-b"), Account::new("a_b")])).unwrap_err();

        assert_eq!(flaw.part, Part::Account(1));
    }

    #[test]
    fn two_accounts_with_one_token_are_refused() {
        let flaw = script(&Script::new([Account::new("a"), Account::new("b").with_token("sim-token-a")]))
            .unwrap_err();

        assert_eq!((flaw.part, flaw.why.as_str()), (Part::Account(1), "another account has this token"));
    }

    #[test]
    fn a_name_that_could_not_stand_in_a_config_is_refused() {
        for name in ["", "Main", "a b", "a\"", "a/b"] {
            assert!(why(Account::new(name)).starts_with("an account's name"), "{name}");
        }
    }

    #[test]
    fn an_organization_that_could_not_stand_in_a_header_is_refused() {
        assert!(why(Account::new("main").with_organization("a\r\nb")).starts_with("an organization"));
    }

    #[test]
    fn a_five_hour_window_of_a_model_is_refused() {
        let mut window = Window::five_hour();
        window.model = Some("Fable".to_owned());

        assert!(why(Account::new("main").windows([window])).starts_with("a model has a seven_day window"));
    }

    #[test]
    fn a_model_without_a_name_is_refused() {
        assert_eq!(why(Account::new("main").windows([Window::model(" ")])), "a model has a name");
    }

    #[test]
    fn a_window_that_is_there_twice_is_refused() {
        let windows = [Window::seven_day(), Window::model("A"), Window::seven_day()];

        let flaw = script(&Script::new([Account::new("main").windows(windows)])).unwrap_err();

        assert_eq!(flaw.part, Part::Window(0, 2));
    }

    #[test]
    fn numbers_that_are_no_percentages_are_refused() {
        for bad in [-1.0, f64::NAN, f64::INFINITY] {
            assert!(why(Account::new("main").windows([Window::five_hour().used(bad)])).starts_with("used"));
            let window = Window::five_hour().fills_per_hour(bad);
            assert!(why(Account::new("main").windows([window])).starts_with("used"));
        }
    }

    #[test]
    fn windows_without_a_length_are_refused() {
        let window = || Window::five_hour();

        assert!(why(Account::new("main").windows([window().length(Duration::ZERO)])).contains("a second"));
        assert!(
            why(Account::new("main").windows([window().resets_in(Duration::ZERO)])).contains("resets_in")
        );
    }

    #[test]
    fn a_phase_that_ends_before_it_begins_is_refused() {
        let phase = Phase::new(Answer::Hang).from(SECOND).until(SECOND);

        assert_eq!(why(Account::new("main").answers([phase])), "a phase ends after it begins");
    }

    #[test]
    fn a_countdown_without_an_end_is_refused() {
        let phase = Phase::new(Answer::ThrottleUntilEnd);

        assert_eq!(why(Account::new("main").answers([phase])), "throttle_until_end needs an until");
    }

    #[test]
    fn a_message_that_is_answered_with_half_a_body_is_refused() {
        let phase = Phase::new(Answer::Garbage).on_messages();

        assert!(why(Account::new("main").answers([phase])).starts_with("messages are answered by ok"));
    }
}
