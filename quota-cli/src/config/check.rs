//! Validates the values of a configuration. The first problem is the error.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

use quota::AccountId;
use quota::http::{Fetcher, FetcherBuilder, OwnLogin, PROVIDERS, Provider};
use url::Url;

use super::defined_providers::{DefinedProviders, own_name, unknown_provider};
use super::error::{ConfigError, Lines};
use super::file::{AccountTable, ConfigFile, KeyringTable, OAuthTable, ProviderTable, ProviderTables};
use super::hooks;
use super::spanned::Spanned;
use super::{
    AccountSettings, Config, KeyringItem, LoginSource, OAuthSettings, Origin, ProviderSettings, routing,
};
use crate::token_like::looks_like_a_token;

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
    let (providers, defined_providers) = providers(file.providers)?;
    let when_unknown_is_set = file.routing.when_unknown_is_set();
    let routing = file.routing.policy()?;
    let lines = Lines::of(text);
    let mut accounts = Vec::new();
    let mut defined = HashMap::new();
    let mut checked = None;
    for written in file.accounts {
        let span = written.get_ref().id.span();
        let line = lines.line(span.start);
        let mut settings = account(written.into_inner(), directory, &defined_providers, &mut checked)?;
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
    let hooks = file.hooks.into_iter().map(|mut written| {
        for account in &mut written.get_mut().accounts {
            *account.get_mut() = own_name(account.get_ref());
        }
        hooks::hook(written, &known, directory)
    });
    let hooks = hooks.collect::<Result<_, _>>()?;
    Ok(Config {
        policy,
        policy_keys: file.policy_keys,
        routing,
        when_unknown_is_set,
        providers,
        defined_providers,
        accounts,
        hooks,
        ..Config::empty()
    })
}

fn providers(
    tables: ProviderTables,
) -> Result<(BTreeMap<&'static str, ProviderSettings>, DefinedProviders), ConfigError> {
    let mut providers = BTreeMap::new();
    let mut defined = DefinedProviders::default();
    for (name, mut table) in tables.0 {
        let span = name.span();
        defined.add(&name, &mut table)?;
        let Some(provider) = defined.find(name.get_ref()) else {
            return Err(ConfigError::at(span, unknown_provider(name.get_ref(), "")));
        };
        if providers.insert(provider.id_str(), settings(table)?).is_some() {
            let why =
                format!("{} has two tables; merge them into [providers.{}]", provider.name(), provider.id());
            return Err(ConfigError::at(span, why));
        }
    }
    Ok((providers, defined))
}

fn settings(table: ProviderTable) -> Result<ProviderSettings, ConfigError> {
    let base_url = table.base_url.map(base_url).transpose()?;
    let user_agent = match table.user_agent {
        None => None,
        Some(text) => {
            Some(buildable(text.span(), probe().user_agent(text.get_ref())).map(|()| text.into_inner())?)
        }
    };
    let headers = pairs(table.headers, |name, value| probe().header(name, value))?;
    let oauth = table.oauth.map(oauth).transpose()?;
    Ok(ProviderSettings { base_url, user_agent, headers, oauth })
}

/// Headers or query parameters, which must not be secrets.
fn pairs(
    written: BTreeMap<Spanned<String>, Spanned<String>>,
    add: impl Fn(&str, &str) -> FetcherBuilder,
) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut pairs = BTreeMap::new();
    for (name, value) in written {
        if looks_like_a_token(value.get_ref()) || is_name_of_a_secret(name.get_ref()) {
            let why = "do not put a token here; set token_env, token_file or token_command of the account";
            return Err(ConfigError::at(value.span(), why));
        }
        buildable(value.span(), add(name.get_ref(), value.get_ref()))?;
        pairs.insert(name.into_inner(), value.into_inner());
    }
    Ok(pairs)
}

/// Whether a header or a query parameter of this name is usually a credential.
fn is_name_of_a_secret(name: &str) -> bool {
    const PARTS: [&str; 7] = ["apikey", "auth", "authorization", "cookie", "password", "secret", "token"];
    let name = name.to_ascii_lowercase().replace('_', "-");
    name.split('-').any(|part| PARTS.contains(&part)) || name.ends_with("key")
}

/// The user's OAuth client. Its URLs must be encrypted, unless they are on this machine.
fn oauth(table: OAuthTable) -> Result<OAuthSettings, ConfigError> {
    let url = |text: &Spanned<String>| {
        Url::parse(text.get_ref()).map_err(|error| {
            let why = format!("not a URL ({error}); write it like \"https://auth.example.com/authorize\"");
            ConfigError::at(text.span(), why)
        })
    };
    let client = |token_url: Url, at: &Spanned<String>| {
        let client = PROVIDERS[0].refresher_at(token_url, table.client_id.get_ref()).build();
        client.map(drop).map_err(|error| ConfigError::at(at.span(), error.to_string()))
    };
    let (authorize_url, token_url) = (url(&table.authorize_url)?, url(&table.token_url)?);
    // The same rules as for the token endpoint; only this URL may have a query.
    let mut without_query = authorize_url.clone();
    without_query.set_query(None);
    client(without_query, &table.authorize_url)?;
    client(token_url.clone(), &table.token_url)?;
    let redirect_url = table.redirect_url.as_ref().map(url).transpose()?;
    let (client_id, scopes) = (table.client_id.into_inner(), table.scopes);
    Ok(OAuthSettings { client_id, authorize_url, token_url, scopes, redirect_url })
}

fn account(
    account: AccountTable,
    directory: &Path,
    providers: &DefinedProviders,
    checked: &mut Option<(String, Url)>,
) -> Result<AccountSettings, ConfigError> {
    check_account_name(account.id.get_ref().as_str())
        .map_err(|what| ConfigError::at(account.id.span(), what))?;
    let id = account.id.get_ref();
    let (id, provider) = providers.canonical(id).map_err(|what| ConfigError::at(account.id.span(), what))?;
    for written in [&account.claude_config_dir, &account.login_dir, &account.token_file].into_iter().flatten()
    {
        check_path(&written.get_ref().to_string_lossy())
            .map_err(|what| ConfigError::at(written.span(), what))?;
    }
    if let Some(written) = &account.token_env {
        variable_of_login(written.get_ref()).map_err(|what| ConfigError::at(written.span(), what))?;
    }
    let absolute = |path: PathBuf| if path.starts_with("~") { path } else { directory.join(path) };
    let in_dir = |key: &str, dir: Spanned<PathBuf>| {
        let span = dir.span();
        match login_in_dir(key, provider, absolute(dir.into_inner())) {
            Ok(login) => Ok((span, login)),
            Err(why) => Err(ConfigError::at(span, why)),
        }
    };
    let sources = [
        account.claude_config_dir.map(|dir| in_dir("claude_config_dir", dir)).transpose()?,
        account.login_dir.map(|dir| in_dir("login_dir", dir)).transpose()?,
        account.token_env.map(|name| (name.span(), LoginSource::TokenEnv(name.into_inner()))),
        account.token_file.map(|path| (path.span(), LoginSource::TokenFile(absolute(path.into_inner())))),
        account.token_command.map(|words| command(words, directory)).transpose()?,
        account.keyring.map(keyring).transpose()?,
        account.own_login.filter(|own| *own.get_ref()).map(|own| (own.span(), LoginSource::Own)),
    ];
    let mut sources: Vec<_> = sources.into_iter().flatten().collect();
    sources.sort_by_key(|(span, _)| span.start);
    if let [_, (second, _), ..] = &*sources {
        return Err(ConfigError::at(
            second.clone(),
            "set only one of claude_config_dir, login_dir, token_env, token_file, token_command, keyring and own_login",
        ));
    }
    let login = sources.pop().map(|(_, login)| login).or_else(|| LoginSource::default_of(provider));
    let Some(login) = login else {
        let why = format!("{} has no login; set token_env, token_file or token_command", id);
        return Err(ConfigError::at(account.id.span(), why));
    };
    let base_url = account.base_url.map(|text| base_url_once(text, checked)).transpose()?;
    let headers = pairs(account.headers, |name, value| probe().header(name, value))?;
    let query = pairs(account.query, |name, value| probe().query(name, value))?;
    let limits = routing::of_account(account.min_remaining.as_ref(), account.killswitch.as_ref())?;
    let disabled = account.disabled;
    Ok(AccountSettings { base_url, headers, query, disabled, limits, ..AccountSettings::new(id, login) })
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
        LoginSource::ClaudeCode | LoginSource::Program(_) | LoginSource::Own => Ok(()),
        LoginSource::ClaudeConfigDir(path)
        | LoginSource::ProgramDir(_, path)
        | LoginSource::TokenFile(path) => check_path(&path.to_string_lossy()),
        LoginSource::TokenEnv(name) => variable_of_login(name),
        LoginSource::TokenCommand(words) => command_of_login(words),
        LoginSource::Keyring(item) => {
            let mut names = std::iter::once(&item.service).chain(&item.user);
            names.try_for_each(|name| name_in_keyring(name))
        }
    }
}

/// Checks the service or the user of an item in the keyring.
fn name_in_keyring(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        Err("a name in the keyring is empty; write it like keyring = { service = \"quota\" }")
    } else if looks_like_a_token(name) {
        Err("do not put a token here; put it into the keyring and write the service and the user of its item")
    } else {
        Ok(())
    }
}

/// Checks the name of an account. A text that looks like a token is not repeated.
pub(crate) fn check_account_name(name: &str) -> Result<(), &'static str> {
    match looks_like_a_token(name) {
        true => Err("do not put a token here; use an account name such as anthropic/work"),
        false => Ok(()),
    }
}

fn keyring(item: Spanned<KeyringTable>) -> Result<(Range<usize>, LoginSource), ConfigError> {
    let (span, KeyringTable { service, user }) = (item.span(), item.into_inner());
    for name in std::iter::once(&service).chain(&user) {
        name_in_keyring(name.get_ref()).map_err(|why| ConfigError::at(name.span(), why))?;
    }
    let item = KeyringItem { service: service.into_inner(), user: user.map(Spanned::into_inner) };
    Ok((span, LoginSource::Keyring(item)))
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

/// The login of the provider's own program in this folder, which the setting `key` names.
///
/// # Errors
///
/// What to write instead, if the provider has no such program.
pub(crate) fn login_in_dir(
    key: &str,
    provider: &'static Provider,
    dir: PathBuf,
) -> Result<LoginSource, String> {
    let is_claude = matches!(provider.own_login(), Some(OwnLogin::ClaudeCode));
    if key == "claude_config_dir" && !is_claude {
        return Err(format!("claude_config_dir is for Anthropic; use login_dir for {}", provider.name()));
    }
    LoginSource::in_dir(provider, dir).ok_or_else(|| {
        format!("{} has no folder with a login; set token_env, token_file or token_command", provider.name())
    })
}

fn base_url(text: Spanned<String>) -> Result<Url, ConfigError> {
    validate_url(text.get_ref()).map_err(|what| ConfigError::at(text.span(), what))
}

/// Parses a base URL that a token may be sent to.
///
/// # Errors
///
/// The problem. The text is not repeated, because it may contain a password.
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
    Fetcher::builder(PROVIDERS[0])
}

fn buildable(span: Range<usize>, builder: FetcherBuilder) -> Result<(), ConfigError> {
    builder.build().map(drop).map_err(|error| ConfigError::at(span, error.to_string()))
}
