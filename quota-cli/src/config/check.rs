//! Validates the values of a configuration. The first problem is the error.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

use quota::anthropic::{self, ANTHROPIC};
use quota::http::{Fetcher, FetcherBuilder};
use quota::{AccountId, ProviderId};
use toml::Spanned;
use url::Url;

use super::error::{ConfigError, Lines, nearest};
use super::file::{AccountTable, ConfigFile, ProviderTable};
use super::hooks;
use super::{AccountSettings, Config, LoginSource, Origin, ProviderSettings, routing};
use crate::token_like::looks_like_a_token;

/// The supported providers.
static PROVIDERS: [ProviderId; 1] = [ANTHROPIC];

pub(super) fn config(
    file: ConfigFile,
    text: &str,
    directory: &Path,
    also: &[AccountId],
) -> Result<Config, ConfigError> {
    let policy = match file.policy {
        None => quota::Policy::default(),
        Some(policy) => {
            policy.get_ref().validate().map_err(|error| ConfigError::at(policy.span(), error.to_string()))?;
            policy.into_inner()
        }
    };
    let anthropic = provider(file.providers.anthropic)?;
    let when_unknown_is_set = file.routing.when_unknown_is_set();
    let routing = file.routing.policy()?;
    let lines = Lines::of(text);
    let mut accounts = Vec::new();
    let mut defined = HashMap::new();
    let mut checked = None;
    for written in file.accounts {
        let span = written.get_ref().id.span();
        let line = lines.line(span.start);
        let mut settings = account(written.into_inner(), directory, &mut checked)?;
        settings.origin = Origin::Configured { line };
        if let Some(line) = defined.insert(settings.id.clone(), line) {
            let id = &settings.id;
            return Err(ConfigError::at(
                span,
                format!("{id} is defined twice, first on line {line}; rename one of them"),
            ));
        }
        accounts.push(settings);
    }
    let known = accounts.iter().map(|account| &account.id);
    let known: BTreeSet<_> = known.chain(also).collect();
    let hooks = file.hooks.into_iter().map(|written| hooks::hook(written, &known, directory));
    let hooks = hooks.collect::<Result<_, _>>()?;
    Ok(Config { policy, routing, when_unknown_is_set, anthropic, accounts, hooks, ..Config::empty() })
}

fn provider(provider: ProviderTable) -> Result<ProviderSettings, ConfigError> {
    let base_url = provider.base_url.map(base_url).transpose()?;
    let user_agent = match provider.user_agent {
        None => None,
        Some(text) => {
            Some(buildable(text.span(), probe().user_agent(text.get_ref())).map(|()| text.into_inner())?)
        }
    };
    Ok(ProviderSettings { base_url, user_agent })
}

fn account(
    account: AccountTable,
    directory: &Path,
    checked: &mut Option<(String, Url)>,
) -> Result<AccountSettings, ConfigError> {
    check_account_name(account.id.get_ref().as_str())
        .map_err(|what| ConfigError::at(account.id.span(), what))?;
    check_provider(account.id.get_ref()).map_err(|what| ConfigError::at(account.id.span(), what))?;
    for written in [&account.claude_config_dir, &account.token_file].into_iter().flatten() {
        check_path(&written.get_ref().to_string_lossy())
            .map_err(|what| ConfigError::at(written.span(), what))?;
    }
    if let Some(written) = &account.token_env {
        variable_of_login(written.get_ref()).map_err(|what| ConfigError::at(written.span(), what))?;
    }
    let absolute = |path: PathBuf| if path.starts_with("~") { path } else { directory.join(path) };
    let sources = [
        account
            .claude_config_dir
            .map(|dir| (dir.span(), LoginSource::ClaudeConfigDir(absolute(dir.into_inner())))),
        account.token_env.map(|name| (name.span(), LoginSource::TokenEnv(name.into_inner()))),
        account.token_file.map(|path| (path.span(), LoginSource::TokenFile(absolute(path.into_inner())))),
        account.token_command.map(|words| command(words, directory)).transpose()?,
    ];
    let mut sources: Vec<_> = sources.into_iter().flatten().collect();
    sources.sort_by_key(|(span, _)| span.start);
    if let [_, (second, _), ..] = &*sources {
        return Err(ConfigError::at(
            second.clone(),
            "set only one of claude_config_dir, token_env, token_file and token_command",
        ));
    }
    let login = sources.pop().map_or(LoginSource::ClaudeCode, |(_, login)| login);
    let base_url = account.base_url.map(|text| base_url_once(text, checked)).transpose()?;
    let limits = routing::of_account(account.min_remaining.as_ref(), account.killswitch.as_ref())?;
    let disabled = account.disabled;
    Ok(AccountSettings { base_url, disabled, limits, ..AccountSettings::new(account.id.into_inner(), login) })
}

/// Checks the path of a login.
///
/// # Errors
///
/// What to write instead. A text that looks like a token is not repeated.
pub(crate) fn check_path(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        Err("the path is empty")
    } else if looks_like_a_token(text) {
        Err(
            "do not put a token here; put it into a separate file (chmod 600) and write the path of that file",
        )
    } else {
        Ok(())
    }
}

/// Checks the name of a variable with a token.
///
/// # Errors
///
/// What to write instead. A text that looks like a token is not repeated.
pub(crate) fn variable_of_login(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        Err("the variable name is empty; write a name such as \"QUOTA_WORK\"")
    } else if looks_like_a_token(name) {
        Err(
            "do not put a token here; put it into an environment variable and write the name of that variable",
        )
    } else {
        Ok(())
    }
}

/// Checks a command that prints a token.
///
/// # Errors
///
/// What to write instead. A text that looks like a token is not repeated.
pub(crate) fn command_of_login(words: &[String]) -> Result<(), &'static str> {
    if words.first().is_none_or(String::is_empty) {
        Err("the program is missing; write it like token_command = [\"pass\", \"show\", \"claude\"]")
    } else if words.iter().any(|word| looks_like_a_token(word)) {
        Err("do not put a token here; put it into a separate file (chmod 600) and set token_file")
    } else {
        Ok(())
    }
}

/// Checks a login source without reading the login.
///
/// # Errors
///
/// What to write instead. A text that looks like a token is not repeated.
pub(crate) fn check_login(login: &LoginSource) -> Result<(), &'static str> {
    match login {
        LoginSource::ClaudeCode => Ok(()),
        LoginSource::ClaudeConfigDir(path) | LoginSource::TokenFile(path) => {
            check_path(&path.to_string_lossy())
        }
        LoginSource::TokenEnv(name) => variable_of_login(name),
        LoginSource::TokenCommand(words) => command_of_login(words),
    }
}

/// Checks the name of an account. A text that looks like a token is not repeated.
pub(crate) fn check_account_name(name: &str) -> Result<(), &'static str> {
    match looks_like_a_token(name) {
        true => Err("do not put a token here; use an account name such as anthropic/work"),
        false => Ok(()),
    }
}

fn command(
    words: Spanned<Vec<String>>,
    directory: &Path,
) -> Result<(Range<usize>, LoginSource), ConfigError> {
    let span = words.span();
    let mut words = words.into_inner();
    command_of_login(&words).map_err(|why| ConfigError::at(span.clone(), why))?;
    // A name without a slash is looked up in PATH. A path is relative to the configuration.
    if let Some(program) = words.first_mut().filter(|program| program.contains('/')) {
        *program = directory.join(&*program).display().to_string();
    }
    Ok((span, LoginSource::TokenCommand(words)))
}

/// Checks that the provider of an account is supported.
///
/// # Errors
///
/// What to write instead.
pub(crate) fn check_provider(id: &AccountId) -> Result<(), String> {
    let provider = id.provider();
    if PROVIDERS.contains(provider) {
        return Ok(());
    }
    let names = PROVIDERS.iter().map(ProviderId::as_str);
    let hint = match nearest(provider.as_str(), names.clone()) {
        Some(nearest) => format!("; did you mean {nearest}/{}?", id.name()),
        None => format!(" (known: {})", names.collect::<Vec<_>>().join(", ")),
    };
    Err(format!("unknown provider {provider}{hint}"))
}

fn base_url(text: Spanned<String>) -> Result<Url, ConfigError> {
    validate_url(text.get_ref()).map_err(|what| ConfigError::at(text.span(), what))
}

/// Parses a base URL that a token may be sent to.
///
/// # Errors
///
/// The problem. The text is not repeated, because it may hold a password.
pub(crate) fn validate_url(text: &str) -> Result<Url, String> {
    if looks_like_a_token(text) {
        return Err("do not put a token into a URL, because a URL is not secret".to_owned());
    }
    let url = Url::parse(text)
        .map_err(|error| format!("not a URL ({error}); write it like \"https://proxy.example.com\""))?;
    match probe().base_url(url.clone()).build() {
        Ok(_) => Ok(url),
        Err(error) => Err(error.to_string()),
    }
}

/// Parses a base URL. For consecutive accounts with the same URL, it is checked once.
fn base_url_once(text: Spanned<String>, checked: &mut Option<(String, Url)>) -> Result<Url, ConfigError> {
    if let Some((_, url)) = checked.as_ref().filter(|(known, _)| known == text.get_ref()) {
        return Ok(url.clone());
    }
    let known = text.get_ref().clone();
    let (_, url) = checked.insert((known, base_url(text)?));
    Ok(url.clone())
}

/// Builds a fetcher that is never used, because the fetcher checks its own settings.
fn probe() -> FetcherBuilder {
    Fetcher::builder(&anthropic::PROVIDER)
}

fn buildable(span: Range<usize>, builder: FetcherBuilder) -> Result<(), ConfigError> {
    builder.build().map(drop).map_err(|error| ConfigError::at(span, error.to_string()))
}
