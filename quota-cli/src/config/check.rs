//! Whether a configuration makes sense, beyond what its types say.
//! The first thing that does not is told; see `flaw` for how.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

use quota::anthropic::{ANTHROPIC, Anthropic, AnthropicBuilder};
use quota::{AccountId, ProviderId};
use toml::Spanned;
use url::Url;

use super::error::{ConfigError, Lines, nearest};
use super::file::{Account, File, Provider};
use super::hooks;
use super::{AccountSettings, Config, LoginSource, Origin, ProviderSettings, routing};
use crate::token_like::looks_like_a_token;

/// The providers that can be asked.
static PROVIDERS: [ProviderId; 1] = [ANTHROPIC];

pub(super) fn config(
    file: File,
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
    let mut seen = HashMap::new();
    let mut checked = None;
    for written in file.accounts {
        let span = written.get_ref().id.span();
        let line = lines.line(span.start);
        let mut settings = account(written.into_inner(), directory, &mut checked)?;
        settings.origin = Origin::Configured { line };
        if let Some(line) = seen.insert(settings.id.clone(), line) {
            let id = &settings.id;
            return Err(ConfigError::at(
                span,
                format!("{id} is named twice, first in line {line}; give one of them another name"),
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

fn provider(provider: Provider) -> Result<ProviderSettings, ConfigError> {
    let base_url = provider.base_url.map(base_url).transpose()?;
    let user_agent = match provider.user_agent {
        None => None,
        Some(text) => {
            Some(buildable(text.span(), trial().user_agent(text.get_ref())).map(|()| text.into_inner())?)
        }
    };
    Ok(ProviderSettings { base_url, user_agent })
}

fn account(
    account: Account,
    directory: &Path,
    checked: &mut Option<(String, Url)>,
) -> Result<AccountSettings, ConfigError> {
    name_of_account(account.id.get_ref().as_str())
        .map_err(|what| ConfigError::at(account.id.span(), what))?;
    known_provider(account.id.get_ref()).map_err(|what| ConfigError::at(account.id.span(), what))?;
    for written in [&account.claude_config_dir, &account.token_file].into_iter().flatten() {
        path_of_login(&written.get_ref().to_string_lossy())
            .map_err(|what| ConfigError::at(written.span(), what))?;
    }
    if let Some(written) = &account.token_env {
        variable_of_login(written.get_ref()).map_err(|what| ConfigError::at(written.span(), what))?;
    }
    let found = |path: PathBuf| if path.starts_with("~") { path } else { directory.join(path) };
    let sources = [
        account
            .claude_config_dir
            .map(|dir| (dir.span(), LoginSource::ClaudeConfigDir(found(dir.into_inner())))),
        account.token_env.map(|name| (name.span(), LoginSource::TokenEnv(name.into_inner()))),
        account.token_file.map(|path| (path.span(), LoginSource::TokenFile(found(path.into_inner())))),
        account.token_command.map(|words| command(words, directory)).transpose()?,
    ];
    let mut sources: Vec<_> = sources.into_iter().flatten().collect();
    sources.sort_by_key(|(span, _)| span.start);
    if let [_, (second, _), ..] = &*sources {
        return Err(ConfigError::at(
            second.clone(),
            "a second place for the same login; keep one of claude_config_dir, token_env, token_file and token_command",
        ));
    }
    let login = sources.pop().map_or(LoginSource::ClaudeCode, |(_, login)| login);
    let base_url = account.base_url.map(|text| base_url_once(text, checked)).transpose()?;
    let limits = routing::of_account(account.min_remaining.as_ref(), account.killswitch.as_ref())?;
    let disabled = account.disabled;
    Ok(AccountSettings { base_url, disabled, limits, ..AccountSettings::new(account.id.into_inner(), login) })
}

/// Whether this is where a login may be.
///
/// # Errors
///
/// What to write instead. What looks like a token is not repeated.
pub(crate) fn path_of_login(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        Err("no place is named; write the path of it")
    } else if looks_like_a_token(text) {
        Err("a token in place of a path; put it into a file of its own, chmod 600, and name that here")
    } else {
        Ok(())
    }
}

/// Whether this names a variable that a token may be in.
///
/// # Errors
///
/// What to write instead. What looks like a token is not repeated.
pub(crate) fn variable_of_login(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        Err("no variable is named; write its name, such as \"QUOTA_WORK\"")
    } else if looks_like_a_token(name) {
        Err("a token in place of a variable; put it into an environment variable, and name that here")
    } else {
        Ok(())
    }
}

/// Whether these words may be the command that prints a token.
///
/// # Errors
///
/// What to write instead. What looks like a token is not repeated.
pub(crate) fn command_of_login(words: &[String]) -> Result<(), &'static str> {
    if words.first().is_none_or(String::is_empty) {
        Err("no program is named; write it like token_command = [\"pass\", \"show\", \"claude\"]")
    } else if words.iter().any(|word| looks_like_a_token(word)) {
        Err(
            "a token in place of a command; put it into a file of its own, chmod 600, and name that with token_file",
        )
    } else {
        Ok(())
    }
}

/// Whether a login may be where it is said to be, as far as its words tell.
///
/// # Errors
///
/// What to write instead. What looks like a token is not repeated.
pub(crate) fn place_of_login(login: &LoginSource) -> Result<(), &'static str> {
    match login {
        LoginSource::ClaudeCode => Ok(()),
        LoginSource::ClaudeConfigDir(path) | LoginSource::TokenFile(path) => {
            path_of_login(&path.to_string_lossy())
        }
        LoginSource::TokenEnv(name) => variable_of_login(name),
        LoginSource::TokenCommand(words) => command_of_login(words),
    }
}

/// Whether an account may be called so. What looks like a token is not repeated.
pub(crate) fn name_of_account(name: &str) -> Result<(), &'static str> {
    match looks_like_a_token(name) {
        true => Err("a token in place of an account's name; call it such as anthropic/work"),
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
    // A name alone is looked for where programs are; a path is seen from where the configuration lies.
    if let Some(program) = words.first_mut().filter(|program| program.contains('/')) {
        *program = directory.join(&*program).display().to_string();
    }
    Ok((span, LoginSource::TokenCommand(words)))
}

/// Whether the provider of an account can be asked.
///
/// # Errors
///
/// What to write instead.
pub(crate) fn known_provider(id: &AccountId) -> Result<(), String> {
    let asked = id.provider();
    if PROVIDERS.contains(asked) {
        return Ok(());
    }
    let names = PROVIDERS.iter().map(ProviderId::as_str);
    let advice = match nearest(asked.as_str(), names.clone()) {
        Some(nearest) => format!("did you mean {nearest}/{}?", id.name()),
        None => format!("there is: {}", names.collect::<Vec<_>>().join(", ")),
    };
    Err(format!("no provider {asked} is known here; {advice}"))
}

fn base_url(text: Spanned<String>) -> Result<Url, ConfigError> {
    usable_url(text.get_ref()).map_err(|what| ConfigError::at(text.span(), what))
}

/// A base URL that may be asked with a token.
///
/// # Errors
///
/// What is wrong with it. The text is not repeated: there may be a password in it.
pub(crate) fn usable_url(text: &str) -> Result<Url, String> {
    if looks_like_a_token(text) {
        return Err("a token in place of a URL, or in it; a URL is no secret".to_owned());
    }
    let url = Url::parse(text)
        .map_err(|error| format!("not a URL ({error}); write it like \"https://proxy.example.com\""))?;
    match trial().base_url(url.clone()).build() {
        Ok(_) => Ok(url),
        Err(error) => Err(error.to_string()),
    }
}

/// The same where many accounts have one address, one after the other: it is checked for the first of them.
fn base_url_once(text: Spanned<String>, checked: &mut Option<(String, Url)>) -> Result<Url, ConfigError> {
    if let Some((_, url)) = checked.as_ref().filter(|(known, _)| known == text.get_ref()) {
        return Ok(url.clone());
    }
    let known = text.get_ref().clone();
    let (_, url) = checked.insert((known, base_url(text)?));
    Ok(url.clone())
}

/// A fetcher that is never used: whether one can be built is the fetcher's own rule, and said in its own words.
fn trial() -> AnthropicBuilder {
    Anthropic::builder()
}

fn buildable(span: Range<usize>, builder: AnthropicBuilder) -> Result<(), ConfigError> {
    builder.build().map(drop).map_err(|error| ConfigError::at(span, error.to_string()))
}
