//! The configuration of a command, and the manager for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use quota::credentials::{
    CommandToken, CredentialMap, EnvToken, Environment, FileToken, Keyring, ScopedLogin, TokenStore,
};
use quota::http::{Fetcher, FetcherBuilder, OAuthRefresher, Provider};
use quota::manager::QuotaManagerBuilder;
use quota::{AccountId, Credential, CredentialError, CredentialSource, MemoryStore, Policy, QuotaManager};
use quota_server::LastResponses;

use crate::config::{self, AccountSettings, Config, DefinedProviders, LoginSource, OAuthSettings};
use crate::exit::{CliError, Exit};
use crate::scope::CommandScope;
use crate::store::OpenedStore;
use crate::{detected_logins, term};

/// The timeout of a command, unless its arguments set another one.
pub(crate) const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// A timeout that is longer than any command's deadline.
const BEYOND_ANY_DEADLINE: Duration = Duration::from_secs(24 * 3600);
/// The maximum timeout of a token command.
const TOKEN_COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// Loads the named or default configuration, or uses Claude Code's login. If there is neither, prints that and returns
/// `None`.
///
/// # Errors
///
/// [`CliError`] if the configuration cannot be used.
pub(crate) async fn configuration(named: Option<&Path>) -> Result<Option<Config>, CliError> {
    let config = Config::load(named)?;
    if !config.is_default() {
        return Ok(Some(config));
    }
    match detected_logins::find_claude_code().await {
        Ok(()) => Ok(Some(config)),
        Err(searched) => {
            let unused = detected_logins::unused(&config).await;
            let path = config::default_path();
            term::eprint(&detected_logins::nothing_found(&searched, path.as_deref(), &unused));
            Ok(None)
        }
    }
}

/// Like [`configuration`], but returns a configuration without accounts if there is no login. Prints nothing.
///
/// # Errors
///
/// [`CliError`] if the configuration cannot be used.
pub(crate) async fn configuration_or_empty(named: Option<&Path>) -> Result<Config, CliError> {
    let mut config = Config::load_allow_empty(named)?;
    if config.is_default() && detected_logins::find_claude_code().await.is_err() {
        config.accounts.clear();
    }
    Ok(config)
}

/// The providers that the configuration defines. If the default file cannot be used, prints why and returns none: a command that
/// explains providers must not need a configuration.
///
/// # Errors
///
/// [`CliError`] if the named configuration cannot be used.
pub(crate) fn defined_providers(named: Option<&Path>) -> Result<DefinedProviders, CliError> {
    match Config::load_allow_empty(named) {
        Ok(config) => Ok(config.defined_providers),
        Err(error) if named.is_none() => {
            term::eprint(&format!("quota: {error}; only the providers that quota knows are used\n"));
            Ok(DefinedProviders::default())
        }
        Err(error) => Err(error),
    }
}

/// Checks that a command without a configuration does not use Claude Code while only other programs have logins. Without this check, the
/// command would report the missing login of Claude Code. With `--json`, the command prints its document, which has the reason.
///
/// # Errors
///
/// [`CliError`] that names those logins, and how to use them.
pub(crate) async fn offer_other_logins(config: &Config, is_json: bool) -> Result<(), CliError> {
    if is_json {
        return Ok(());
    }
    match detected_logins::unused_hint(config).await {
        Some(hint) => Err(CliError::new(Exit::Unavailable, hint)),
        None => Ok(()),
    }
}

/// Prints the logins that no account uses, if no account is configured and Claude Code has no login.
pub(crate) async fn print_unused_logins(config: &Config) {
    if let Some(hint) = detected_logins::unused_hint(config).await {
        term::eprint(&format!("quota: {hint}\n"));
    }
}

/// Builds a manager without providers, which only reads shared records. The credential sources state which login each account holds.
///
/// # Errors
///
/// [`CliError`] if the settings contradict each other.
pub(crate) fn open_read_only(config: &Config, store: &OpenedStore) -> Result<QuotaManager, CliError> {
    let builder =
        config.accounts.iter().fold(builder(config, store, "", store.policy(config)), |builder, account| {
            match login_source(&account.login, config) {
                Some(source) => builder.credentials_for(account.id.clone(), scoped(source, account)),
                None => builder,
            }
        });
    builder.build().map_err(invalid)
}

/// The source that states the login of an account; `None` if that would run a program. The account's alias in the store then states
/// the login.
fn login_source(login: &LoginSource, config: &Config) -> Option<Arc<dyn CredentialSource>> {
    match login {
        // An expired token is valid again after a renewal, which only a refresh may start.
        LoginSource::Own => None,
        // It reads the keychain there.
        LoginSource::ClaudeCode | LoginSource::ClaudeConfigDir(_) if cfg!(target_os = "macos") => None,
        LoginSource::ClaudeCode | LoginSource::ClaudeConfigDir(_) => Some(credential_source(login, config)),
        LoginSource::Program(_) | LoginSource::ProgramDir(..) => Some(credential_source(login, config)),
        LoginSource::TokenEnv(_)
        | LoginSource::TokenFile(_)
        | LoginSource::TokenCommand(_)
        | LoginSource::Keyring(_) => Some(Arc::new(StatesNoLogin)),
    }
}

/// The source of an account whose token states no login. The token itself is not needed.
#[derive(Debug)]
struct StatesNoLogin;

#[async_trait]
impl CredentialSource for StatesNoLogin {
    async fn credential(&self, _account: &AccountId) -> Result<Credential, CredentialError> {
        Ok(Credential::none())
    }
}

/// Builds the manager of a command on the current runtime. Its calls are counted under `name`.
///
/// The scope closes it. With a `timeout`, it makes no call that could take longer. It prints waits for other processes
/// to standard error.
///
/// # Errors
///
/// [`CliError`] if the settings contradict each other.
pub(crate) fn open_manager(
    scope: &CommandScope,
    config: &Config,
    store: &OpenedStore,
    name: &str,
    timeout: Option<Duration>,
) -> Result<QuotaManager, CliError> {
    let logins = renewing_logins(config, store)?;
    let manager = build(config, store, &logins, name, timeout)?;
    scope.own(&manager)?;
    scope.own_logins(&logins);
    scope.report_waits(&manager);
    Ok(manager)
}

/// Builds the manager of a full-screen program, without a timeout and without printed waits.
///
/// # Errors
///
/// As [`open_manager`].
pub(crate) fn open_manager_for_screen(
    scope: &CommandScope,
    config: &Config,
    store: &OpenedStore,
    name: &str,
) -> Result<QuotaManager, CliError> {
    let logins = renewing_logins(config, store)?;
    let manager = build(config, store, &logins, name, None)?;
    scope.own(&manager)?;
    scope.own_logins(&logins);
    Ok(manager)
}

/// Builds the manager of a server, whose responses are recorded. The server closes it.
///
/// # Errors
///
/// As [`open_manager`].
pub(crate) fn open_manager_for_server(
    config: &Config,
    store: &OpenedStore,
    logins: &TokenStore,
    name: &str,
    responses: &LastResponses,
) -> Result<QuotaManager, CliError> {
    let mut builder = builder(config, store, name, store.policy(config));
    let sources = Arc::new(credential_sources(config, logins));
    for provider in config.used_providers() {
        let fetcher = fetcher_builder(provider, config).on_response(responses.recorder());
        builder = builder.provider(fetcher.build().map_err(invalid)?, Arc::clone(&sources));
    }
    builder.build().map_err(invalid)
}

/// Builds a manager for accounts of any provider that a server adds while it runs. Nothing is stored.
///
/// # Errors
///
/// As [`open_manager`].
pub(crate) fn open_manager_in_memory(
    config: &Config,
    store: MemoryStore,
    name: &str,
    responses: &LastResponses,
) -> Result<QuotaManager, CliError> {
    let mut builder = QuotaManager::builder(store).policy(config.policy.clone()).name(name);
    for provider in config.defined_providers.all().filter(|provider| provider.endpoint().is_some()) {
        let fetcher = fetcher_builder(provider, config).on_response(responses.recorder());
        builder = builder.fetcher(fetcher.build().map_err(invalid)?);
        builder = builder.policy_for(provider.id(), config.policy_of(&provider.id()));
    }
    builder.build().map_err(invalid)
}

fn build(
    config: &Config,
    store: &OpenedStore,
    logins: &TokenStore,
    name: &str,
    timeout: Option<Duration>,
) -> Result<QuotaManager, CliError> {
    let mut policy = store.policy(config);
    if timeout.is_some() && policy.get_timeout == Policy::default().get_timeout {
        // The command waits until its deadline, because no refresh continues afterwards.
        policy.get_timeout = BEYOND_ANY_DEADLINE;
    }
    let mut builder = builder(config, store, name, policy);
    let sources = Arc::new(credential_sources(config, logins));
    for provider in config.used_providers() {
        builder = builder.provider(fetcher(provider, config)?, Arc::clone(&sources));
    }
    if let Some(timeout) = timeout {
        builder = builder.deadline(timeout);
    }
    builder.build().map_err(invalid)
}

fn builder(config: &Config, store: &OpenedStore, name: &str, policy: Policy) -> QuotaManagerBuilder {
    let builder = QuotaManager::builder(Arc::clone(&store.store)).policy(policy.clone()).name(name);
    config.used_providers().fold(builder, |builder, provider| {
        let own = config.with_defaults_of(&provider.id(), policy.clone());
        if own == policy { builder } else { builder.policy_for(provider.id(), own) }
    })
}

/// The fetcher of a provider, with the settings of the provider and of its accounts.
pub(crate) fn fetcher(provider: &'static Provider, config: &Config) -> Result<Fetcher, CliError> {
    fetcher_builder(provider, config).build().map_err(invalid)
}

fn fetcher_builder(provider: &'static Provider, config: &Config) -> FetcherBuilder {
    let settings = config.provider(&provider.id());
    let mut fetcher = Fetcher::builder(provider).timeout(config.policy.fetch_timeout);
    if let Some(url) = &settings.base_url {
        fetcher = fetcher.base_url(url.clone());
    }
    if let Some(text) = &settings.user_agent {
        fetcher = fetcher.user_agent(text);
    }
    for (name, value) in &settings.headers {
        fetcher = fetcher.header(name, value);
    }
    for account in config.accounts.iter().filter(|account| *account.id.provider() == provider.id()) {
        if let Some(url) = &account.base_url {
            fetcher = fetcher.base_url_for(account.id.clone(), url.clone());
        }
        for (name, value) in &account.headers {
            fetcher = fetcher.header_for(account.id.clone(), name, value);
        }
        for (name, value) in &account.query {
            fetcher = fetcher.query_for(account.id.clone(), name, value);
        }
    }
    fetcher
}

fn invalid(error: impl std::fmt::Display) -> CliError {
    CliError::new(Exit::Config, error.to_string())
}

/// The credential sources of all accounts. Those with a login of this program share `logins`.
pub(crate) fn credential_sources(config: &Config, logins: &TokenStore) -> CredentialMap {
    config.accounts.iter().fold(CredentialMap::new(), |sources, account| {
        let source = match account.login {
            LoginSource::Own => Arc::new(logins.clone()),
            _ => credential_source(&account.login, config),
        };
        sources.with(account.id.clone(), scoped(source, account))
    })
}

/// The source of an account's record. Accounts whose requests differ have a record each, also with one login.
pub(crate) fn account_source(account: &AccountSettings, config: &Config) -> Arc<dyn CredentialSource> {
    scoped(credential_source(&account.login, config), account)
}

fn scoped(source: Arc<dyn CredentialSource>, account: &AccountSettings) -> Arc<dyn CredentialSource> {
    match account.scope() {
        Some(scope) => Arc::new(ScopedLogin::new(source, scope)),
        None => source,
    }
}

/// The logins of this program, which are renewed with the clients of the configuration. The lease for renewals is in the store, unless
/// that is the default file. The caller closes it before the command ends, because an interrupted renewal may lose its login.
///
/// # Errors
///
/// [`CliError`] if a client cannot be used.
pub(crate) fn renewing_logins(config: &Config, store: &OpenedStore) -> Result<TokenStore, CliError> {
    let mut logins = TokenStore::builder(logins_path()).login_hint("quota accounts login");
    // The lock of the logins file excludes all processes that use the default store. Unlike a lease, it ends with a killed process.
    if !store.is_default() {
        logins = logins.store(Arc::clone(&store.store));
    }
    let is_used = |provider: &Provider| {
        let mut accounts = config.accounts.iter().filter(|account| account.login == LoginSource::Own);
        accounts.any(|account| *account.id.provider() == provider.id())
    };
    // Create the client only now, because other commands do not need it.
    for provider in config.used_providers().filter(|provider| is_used(provider)) {
        if let Some(oauth) = &config.provider(&provider.id()).oauth {
            logins = logins.refresher(Arc::new(refresher(provider, oauth)?));
        }
    }
    Ok(logins.build())
}

/// The same logins, read-only.
pub(crate) fn stored_logins() -> TokenStore {
    TokenStore::builder(logins_path()).login_hint("quota accounts login").build()
}

/// The path is empty without a home directory, and then no login can be read.
fn logins_path() -> PathBuf {
    TokenStore::default_path(&Environment::process()).unwrap_or_default()
}

/// The configured client, which exchanges codes and refresh tokens.
///
/// # Errors
///
/// [`CliError`] if it cannot be used.
pub(crate) fn refresher(
    provider: &'static Provider,
    oauth: &OAuthSettings,
) -> Result<OAuthRefresher, CliError> {
    provider.refresher_at(oauth.token_url.clone(), &oauth.client_id).build().map_err(invalid)
}

/// The timeout of a token command. It is shorter than the timeout of the call, so that the error names the command and not the
/// provider.
fn token_command_timeout(config: &Config) -> Duration {
    TOKEN_COMMAND_TIMEOUT.min(config.policy.fetch_timeout.mul_f64(0.75))
}

/// The credential source of an account of this configuration. A token command does not get the tokens of other accounts.
pub(crate) fn credential_source(login: &LoginSource, config: &Config) -> Arc<dyn CredentialSource> {
    match login {
        LoginSource::ClaudeCode => Arc::new(detected_logins::claude_code(None)),
        LoginSource::ClaudeConfigDir(dir) => Arc::new(detected_logins::claude_code(Some(dir))),
        LoginSource::Program(program) => Arc::new(program.login_file(None)),
        LoginSource::ProgramDir(program, dir) => Arc::new(program.login_file(Some(dir))),
        LoginSource::TokenEnv(name) => Arc::new(EnvToken::new(name)),
        LoginSource::TokenFile(path) => Arc::new(FileToken::new(path)),
        LoginSource::TokenCommand(words) => {
            let (program, arguments) =
                words.split_first().map_or(("", &[][..]), |(program, rest)| (program, rest));
            let command = CommandToken::new(program).timeout(token_command_timeout(config));
            let command = arguments.iter().fold(command, CommandToken::arg);
            Arc::new(config.token_variables().into_iter().fold(command, CommandToken::hide))
        }
        LoginSource::Own => Arc::new(stored_logins()),
        LoginSource::Keyring(item) => {
            let keyring = Keyring::new(&item.service);
            Arc::new(item.user.iter().fold(keyring, Keyring::user))
        }
    }
}
