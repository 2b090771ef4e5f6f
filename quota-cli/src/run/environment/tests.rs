//! What a command finds in its environment, for each place a login can be in.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use super::*;

const TOKEN_TEXT: &str = "sk-ant-oat01-made-up";

fn config(logins: &[(&str, LoginSource)]) -> Config {
    let account =
        |(name, login): &(&str, LoginSource)| AccountSettings::new(name.parse().unwrap(), login.clone());
    Config { accounts: logins.iter().map(account).collect(), ..Config::of_claude_code() }
}

/// The environment after the changes for the first of these accounts, of one that has everything.
fn changed(logins: &[(&str, LoginSource)]) -> BTreeMap<String, String> {
    let names = ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", TOKEN, DIRECTORY, "WORK", "SPARE"];
    let mut environment: BTreeMap<String, String> =
        names.iter().map(|name| ((*name).to_owned(), "before".to_owned())).collect();
    let config = config(logins);
    let credential = Credential::new(Secret::new(TOKEN_TEXT));
    for change in of(&config, &config.accounts[0].id, Some(&credential)) {
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

    let changes = of(&config, &config.accounts[0].id, Some(&credential));

    assert!(!format!("{changes:?}").contains("oat01"), "{changes:?}");
}
