//! The manager that a configuration asks for: the one place where store, fetchers and policy come together.
//! What is asked of it is each command's own business.

use std::sync::Arc;

use quota::accounts::{ClaudeCode, CredentialSource, EnvVar, PerAccount, TokenFile};
use quota::anthropic::Anthropic;
use quota::{QuotaManager, QuotaStore};

use crate::config::{Config, LoginSource};
use crate::exit::{Exit, Failure};

/// The variable that names the store if the command line does not: a URL may hold a password, which others see there.
pub(crate) const STORE_VARIABLE: &str = "QUOTA_STORE";
/// Which store is used if nobody names one: this process alone.
const OWN_STORE: &str = "memory:";

/// The store that is named by the command line, or else by the environment.
///
/// # Errors
///
/// [`Failure`] if there is no such store.
pub(crate) fn store(named: Option<&str>) -> Result<Arc<dyn QuotaStore>, Failure> {
    let variable = std::env::var(STORE_VARIABLE).ok().filter(|url| !url.is_empty());
    let (what, url) = match (named, &variable) {
        (Some(url), _) => ("--store", url),
        (None, Some(url)) => (STORE_VARIABLE, &**url),
        (None, None) => ("the store", OWN_STORE),
    };
    // Only the error is shown, which never repeats the URL.
    quota::open_store(url).map_err(|error| Failure::new(Exit::Config, format!("{what}: {error}")))
}

/// Whether the store is this process's own, so that nothing is in it that another has left.
pub(crate) fn is_alone(named: Option<&str>) -> bool {
    let variable = std::env::var(STORE_VARIABLE).ok().filter(|url| !url.is_empty());
    named.or(variable.as_deref()).unwrap_or(OWN_STORE).starts_with("memory:")
}

/// Builds the manager, on the runtime this is called in. Nothing is asked yet.
///
/// # Errors
///
/// [`Failure`] if the settings contradict each other.
pub(crate) fn open(config: &Config, store: Arc<dyn QuotaStore>) -> Result<QuotaManager, Failure> {
    open_as(config, store, "quota status")
}

/// The same under another name in the list of calls that were made.
///
/// # Errors
///
/// [`Failure`] if the settings contradict each other.
pub(crate) fn open_as(
    config: &Config,
    store: Arc<dyn QuotaStore>,
    name: &str,
) -> Result<QuotaManager, Failure> {
    let broken = |why: String| Failure::new(Exit::Config, why);
    let manager = QuotaManager::builder_on(store).policy(config.policy.clone()).name(name);
    manager.fetcher(anthropic(config)?).build().map_err(|error| broken(error.to_string()))
}

fn anthropic(config: &Config) -> Result<Anthropic, Failure> {
    let logins = config
        .accounts
        .iter()
        .fold(PerAccount::new(), |logins, account| logins.with(account.id.clone(), source(&account.login)));
    let settings = &config.anthropic;
    let mut fetcher = Anthropic::builder(Arc::new(logins)).timeout(config.policy.fetch_timeout);
    if let Some(url) = &settings.base_url {
        fetcher = fetcher.base_url(url.clone());
    }
    if let Some(text) = &settings.user_agent {
        fetcher = fetcher.user_agent(text);
    }
    for account in &config.accounts {
        if let Some(url) = &account.base_url {
            fetcher = fetcher.base_url_for(account.id.clone(), url.clone());
        }
    }
    fetcher.build().map_err(|error| Failure::new(Exit::Config, error.to_string()))
}

fn source(login: &LoginSource) -> Arc<dyn CredentialSource> {
    match login {
        LoginSource::ClaudeCode => Arc::new(ClaudeCode::from_env()),
        LoginSource::ClaudeConfigDir(dir) => Arc::new(ClaudeCode::in_dir(dir)),
        LoginSource::TokenEnv(name) => Arc::new(EnvVar::new(name)),
        LoginSource::TokenFile(path) => Arc::new(TokenFile::new(path)),
    }
}
