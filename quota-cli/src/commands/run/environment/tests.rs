//! The environment of a command, for each kind of login.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use quota::http::{PROVIDERS, find_provider};

use super::*;
use crate::config::{AccountSettings, Program, ProviderSettings};

const TOKEN_TEXT: &str = "sk-ant-oat01-made-up";
const TOKEN: &str = "CLAUDE_CODE_OAUTH_TOKEN";
const DIRECTORY: &str = "CLAUDE_CONFIG_DIR";
const BASE_URL: &str = "ANTHROPIC_BASE_URL";
const HEADERS: &str = "ANTHROPIC_CUSTOM_HEADERS";

fn claude_code() -> CommandEnvironment {
    *find_provider("anthropic").unwrap().environment().unwrap()
}

fn config(logins: &[(&str, LoginSource)]) -> Config {
    let account =
        |(name, login): &(&str, LoginSource)| AccountSettings::new(name.parse().unwrap(), login.clone());
    Config { accounts: logins.iter().map(account).collect(), ..Config::default_account() }
}

/// A full environment after the changes for the first of these accounts.
fn changed(logins: &[(&str, LoginSource)]) -> BTreeMap<String, String> {
    changed_by(&config(logins), None)
}

/// A full environment after the changes for the first account, with these request headers.
fn changed_by(config: &Config, headers: Option<&str>) -> BTreeMap<String, String> {
    let names = [TOKEN, DIRECTORY, BASE_URL, HEADERS, URL_VARIABLE, "WORK", "SPARE", "PATH"];
    let program = claude_code();
    let names = names.into_iter().chain(["CODEX_HOME", "OPENAI_API_KEY"]);
    let names = names.chain(program.remove.iter().copied()).chain(program.other_tokens.iter().copied());
    let mut environment: BTreeMap<String, String> =
        names.map(|name| (name.to_owned(), "before".to_owned())).collect();
    let credential = Credential::new(Secret::new(TOKEN_TEXT));
    let variable = |name: &str| headers.filter(|_| name == HEADERS).map(str::to_owned);
    for change in of(config, &config.accounts[0].id, Some(&credential), variable).unwrap() {
        match change {
            EnvironmentChange::Set(name, value) => {
                let value: &OsStr = value.as_ref();
                environment.insert(name.to_owned(), value.to_str().unwrap().to_owned())
            }
            EnvironmentChange::Remove(name) => environment.remove(&name),
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
fn a_token_replaces_every_other_login() {
    let sources = [
        LoginSource::TokenEnv("SPARE".into()),
        LoginSource::TokenFile("/run/token".into()),
        LoginSource::TokenCommand(vec!["pass".into()]),
    ];
    for source in sources {
        let environment = of_account(source);

        assert_eq!(environment[TOKEN], TOKEN_TEXT);
        assert_eq!(environment[ACCOUNT], "anthropic/main");
        assert_eq!(environment[DIRECTORY], "before", "the user's settings are kept");
        for removed in ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "WORK"] {
            assert!(!environment.contains_key(removed), "{removed}");
        }
    }
}

#[test]
fn an_own_directory_is_set_and_tokens_are_removed() {
    let environment = of_account(LoginSource::ClaudeConfigDir("/home/me/.claude-work".into()));

    assert_eq!(environment[DIRECTORY], "/home/me/.claude-work");
    assert!(!environment.contains_key(TOKEN));
}

#[test]
fn the_login_of_claude_code_is_unchanged() {
    let environment = of_account(LoginSource::ClaudeCode);

    assert_eq!((&*environment[TOKEN], &*environment[DIRECTORY]), ("before", "before"));
    assert!(!environment.contains_key("ANTHROPIC_API_KEY"));
}

#[test]
fn a_variable_that_two_accounts_share_is_not_removed() {
    let shared = LoginSource::TokenEnv("WORK".into());
    let environment = changed(&[("anthropic/a", shared.clone()), ("anthropic/b", shared)]);

    assert_eq!(environment["WORK"], "before");
}

#[test]
fn debug_output_of_a_change_contains_no_token() {
    let config = config(&[("anthropic/main", LoginSource::TokenFile("/run/token".into()))]);
    let credential = Credential::new(Secret::new(TOKEN_TEXT));

    let changes = of(&config, &config.accounts[0].id, Some(&credential), |_| None).unwrap();

    assert!(!format!("{changes:?}").contains("oat01"), "{changes:?}");
}

#[test]
fn variables_for_another_login_provider_or_host_are_removed() {
    for login in [
        LoginSource::ClaudeCode,
        LoginSource::ClaudeConfigDir("/home/me/.claude-work".into()),
        LoginSource::TokenFile("/run/token".into()),
    ] {
        let environment = of_account(login);

        let left: Vec<_> =
            claude_code().remove.iter().filter(|name| environment.contains_key(**name)).collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(!environment.contains_key(BASE_URL), "the account has no base URL");
        assert_eq!(environment["PATH"], "before");
    }
}

#[test]
fn the_url_of_the_store_is_not_passed_on() {
    assert!(!of_account(LoginSource::ClaudeCode).contains_key(URL_VARIABLE));
}

#[test]
fn the_base_url_is_the_accounts_or_else_its_providers() {
    let mut config = config(&[("anthropic/main", LoginSource::ClaudeCode)]);
    let base_url = Some("https://provider.example.com/".parse().unwrap());
    config.providers.insert("anthropic", ProviderSettings { base_url, ..ProviderSettings::default() });
    assert_eq!(changed_by(&config, None)[BASE_URL], "https://provider.example.com");

    config.accounts[0].base_url = Some("https://proxy.example.com/claude".parse().unwrap());
    assert_eq!(changed_by(&config, None)[BASE_URL], "https://proxy.example.com/claude");
}

#[test]
fn headers_are_passed_on_unless_they_contain_a_login() {
    let config = config(&[("anthropic/main", LoginSource::ClaudeCode)]);

    assert_eq!(changed_by(&config, Some("X-Team: a\nX-Trace: b"))[HEADERS], "before");
    for login in ["X-Team: a\nAuthorization: Bearer x", "x-api-key: x"] {
        assert!(!changed_by(&config, Some(login)).contains_key(HEADERS), "{login}");
    }
}

#[test]
fn an_own_directory_removes_all_token_variables() {
    let environment = of_account(LoginSource::ClaudeConfigDir("/home/me/.claude-work".into()));

    assert!(claude_code().other_tokens.iter().all(|name| !environment.contains_key(*name)));
}

fn codex() -> Program {
    Program::of(find_provider("codex").unwrap()).unwrap()
}

#[test]
fn codex_gets_its_folder_and_no_api_key() {
    let environment =
        changed(&[("openai/work", LoginSource::ProgramDir(codex(), "/home/me/.codex-work".into()))]);

    assert_eq!(environment["CODEX_HOME"], "/home/me/.codex-work");
    assert!(!environment.contains_key("OPENAI_API_KEY"));
    assert_eq!(environment["ANTHROPIC_API_KEY"], "before", "another provider's variables are kept");
}

#[test]
fn the_default_login_of_codex_is_unchanged() {
    let environment = changed(&[("openai/main", LoginSource::Program(codex()))]);

    assert_eq!(environment["CODEX_HOME"], "before");
}

#[test]
fn a_token_for_a_program_that_takes_none_is_an_error() {
    let config = config(&[("openai/main", LoginSource::TokenEnv("SPARE".into()))]);
    let credential = Credential::new(Secret::new(TOKEN_TEXT));

    let error = of(&config, &config.accounts[0].id, Some(&credential), |_| None).unwrap_err();

    assert!(error.to_string().ends_with("set login_dir"), "{error}");
}

#[test]
fn a_login_that_the_program_cannot_get_is_an_error() {
    let cursor = Program::of(find_provider("cursor").unwrap()).unwrap();
    let logins = [LoginSource::ProgramDir(cursor, "/other".into()), LoginSource::TokenEnv("SPARE".into())];
    for login in logins {
        let config = config(&[("cursor/main", login)]);
        let credential = Credential::new(Secret::new(TOKEN_TEXT));

        let error = of(&config, &config.accounts[0].id, Some(&credential), |_| None).unwrap_err();

        assert!(error.to_string().ends_with("from its environment"), "{error}");
    }
}

#[test]
fn a_program_without_a_folder_variable_gets_the_token() {
    let minimax = Program::of(find_provider("minimax").unwrap()).unwrap();

    let environment = changed(&[("minimax/work", LoginSource::ProgramDir(minimax, "/work/.mmx".into()))]);

    assert_eq!(environment["MINIMAX_API_KEY"], TOKEN_TEXT);
}

fn program(provider: &str) -> LoginSource {
    LoginSource::Program(Program::of(find_provider(provider).unwrap()).unwrap())
}

/// What happens to a variable in the environment of the first account: set to the token, removed, or unchanged.
fn change_of(variable: &str, logins: &[(&str, LoginSource)]) -> Option<&'static str> {
    let config = config(logins);
    let credential = Credential::new(Secret::new(TOKEN_TEXT));
    let changes = of(&config, &config.accounts[0].id, Some(&credential), |_| None).unwrap();
    changes.iter().rev().find_map(|change| match change {
        EnvironmentChange::Set(name, Value::Secret(_)) if *name == variable => Some("token"),
        EnvironmentChange::Remove(name) if name == variable => Some("removed"),
        _ => None,
    })
}

#[test]
fn a_token_in_the_environment_does_not_replace_a_login_in_a_file() {
    for (provider, variable) in [("kimi", "KIMI_API_KEY"), ("minimax", "MINIMAX_API_KEY")] {
        let (main, other) = (format!("{provider}/main"), format!("{provider}/token"));
        let alone = [(&*main, program(provider))];
        let both = [alone[0].clone(), (&*other, LoginSource::TokenEnv(variable.into()))];

        assert_eq!(change_of(variable, &alone), Some("removed"));
        assert_eq!(change_of(variable, &both), Some("removed"));
    }
}

#[test]
fn copilot_gets_the_token_of_the_editors_login() {
    let logins = [
        ("copilot/main", program("copilot")),
        ("copilot/token", LoginSource::TokenEnv("COPILOT_GITHUB_TOKEN".into())),
    ];

    assert_eq!(change_of("COPILOT_GITHUB_TOKEN", &logins), Some("token"));
}

#[test]
fn every_program_gets_the_token_or_is_rejected() {
    for provider in PROVIDERS {
        let id = format!("{}/main", provider.id_str());
        let config = config(&[(&*id, LoginSource::TokenFile("/run/token".into()))]);
        let credential = Credential::new(Secret::new(TOKEN_TEXT));

        let changes = of(&config, &config.accounts[0].id, Some(&credential), |_| None);

        let is_set =
            |change: &EnvironmentChange| matches!(change, EnvironmentChange::Set(_, Value::Secret(_)));
        assert!(changes.is_err() || changes.unwrap().iter().any(is_set), "{id}");
    }
}
