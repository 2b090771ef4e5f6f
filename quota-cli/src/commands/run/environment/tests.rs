//! What a command finds in its environment, for each place a login can be in.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use super::*;
use crate::config::AccountSettings;

const TOKEN_TEXT: &str = "sk-ant-oat01-made-up";

fn config(logins: &[(&str, LoginSource)]) -> Config {
    let account =
        |(name, login): &(&str, LoginSource)| AccountSettings::new(name.parse().unwrap(), login.clone());
    Config { accounts: logins.iter().map(account).collect(), ..Config::default_account() }
}

/// The environment after the changes for the first of these accounts, of one that has everything.
fn changed(logins: &[(&str, LoginSource)]) -> BTreeMap<String, String> {
    changed_by(&config(logins), None)
}

/// The same of a configuration, where requests have these headers.
fn changed_by(config: &Config, headers: Option<&str>) -> BTreeMap<String, String> {
    let names = [TOKEN, DIRECTORY, BASE_URL, HEADERS, URL_VARIABLE, "WORK", "SPARE", "PATH"];
    let names = names.into_iter().chain(OVERRIDES).chain(OTHER_TOKENS);
    let mut environment: BTreeMap<String, String> =
        names.map(|name| (name.to_owned(), "before".to_owned())).collect();
    let credential = Credential::new(Secret::new(TOKEN_TEXT));
    for change in of(config, &config.accounts[0].id, Some(&credential), headers) {
        match change {
            Change::Set(name, value) => {
                let value: &OsStr = value.as_ref();
                environment.insert(name.to_owned(), value.to_str().unwrap().to_owned())
            }
            Change::Remove(name) => environment.remove(&name),
        };
    }
    environment
}

fn of_account(login: LoginSource) -> BTreeMap<String, String> {
    changed(&[
        ("anthropic/main", login),
        ("anthropic/work", LoginSource::TokenEnv("WORK".into())),
        ("anthropic/strange", LoginSource::TokenEnv("a=b".into())),
    ])
}

#[test]
fn a_token_takes_the_place_of_every_other_login() {
    let sources = [
        LoginSource::TokenEnv("SPARE".into()),
        LoginSource::TokenFile("/run/token".into()),
        LoginSource::TokenCommand(vec!["pass".into()]),
    ];
    for source in sources {
        let environment = of_account(source);

        assert_eq!(environment[TOKEN], TOKEN_TEXT);
        assert_eq!(environment[ACCOUNT], "anthropic/main");
        assert_eq!(environment[DIRECTORY], "before", "its settings are its user's");
        for gone in ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "WORK"] {
            assert!(!environment.contains_key(gone), "{gone}");
        }
    }
}

#[test]
fn a_directory_of_its_own_is_named_and_no_token_is_in_its_way() {
    let environment = of_account(LoginSource::ClaudeConfigDir("/home/me/.claude-work".into()));

    assert_eq!(environment[DIRECTORY], "/home/me/.claude-work");
    assert!(!environment.contains_key(TOKEN));
}

#[test]
fn the_login_of_claude_code_stays_where_it_was_found() {
    let environment = of_account(LoginSource::ClaudeCode);

    assert_eq!((&*environment[TOKEN], &*environment[DIRECTORY]), ("before", "before"));
    assert!(!environment.contains_key("ANTHROPIC_API_KEY"));
}

#[test]
fn a_variable_that_two_accounts_share_is_left_to_the_one() {
    let shared = LoginSource::TokenEnv("WORK".into());
    let environment = changed(&[("anthropic/a", shared.clone()), ("anthropic/b", shared)]);

    assert_eq!(environment["WORK"], "before");
}

#[test]
fn no_token_is_in_what_is_shown_of_a_change() {
    let config = config(&[("anthropic/main", LoginSource::TokenFile("/run/token".into()))]);
    let credential = Credential::new(Secret::new(TOKEN_TEXT));

    let changes = of(&config, &config.accounts[0].id, Some(&credential), None);

    assert!(!format!("{changes:?}").contains("oat01"), "{changes:?}");
}

#[test]
fn nothing_that_names_another_login_provider_or_host_is_left() {
    for login in [
        LoginSource::ClaudeCode,
        LoginSource::ClaudeConfigDir("/home/me/.claude-work".into()),
        LoginSource::TokenFile("/run/token".into()),
    ] {
        let environment = of_account(login);

        let left: Vec<_> = OVERRIDES.iter().filter(|name| environment.contains_key(**name)).collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(!environment.contains_key(BASE_URL), "the account is at its provider");
        assert_eq!(environment["PATH"], "before");
    }
}

#[test]
fn the_url_of_the_store_is_not_passed_on() {
    assert!(!of_account(LoginSource::ClaudeCode).contains_key(URL_VARIABLE));
}

#[test]
fn the_base_url_is_that_of_the_account_or_else_of_its_provider() {
    let mut config = config(&[("anthropic/main", LoginSource::ClaudeCode)]);
    config.anthropic.base_url = Some("https://everyone.example.com/".parse().unwrap());
    assert_eq!(changed_by(&config, None)[BASE_URL], "https://everyone.example.com");

    config.accounts[0].base_url = Some("https://proxy.example.com/claude".parse().unwrap());
    assert_eq!(changed_by(&config, None)[BASE_URL], "https://proxy.example.com/claude");
}

#[test]
fn headers_are_passed_on_unless_one_of_them_is_a_login() {
    let config = config(&[("anthropic/main", LoginSource::ClaudeCode)]);

    assert_eq!(changed_by(&config, Some("X-Team: a\nX-Trace: b"))[HEADERS], "before");
    for login in ["X-Team: a\nAuthorization: Bearer x", "x-api-key: x"] {
        assert!(!changed_by(&config, Some(login)).contains_key(HEADERS), "{login}");
    }
}

#[test]
fn a_directory_leaves_no_form_of_a_token_in_its_way() {
    let environment = of_account(LoginSource::ClaudeConfigDir("/home/me/.claude-work".into()));

    assert!(OTHER_TOKENS.iter().all(|name| !environment.contains_key(*name)));
}
