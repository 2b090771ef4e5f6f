//! The manager that a configuration asks for: the one place where store, fetchers and policy come together.
//! What is asked of it is each command's own business.

use std::sync::Arc;

use quota::QuotaManager;
use quota::accounts::{ClaudeCode, CredentialSource, EnvVar, PerAccount, TokenFile};
use quota::anthropic::Anthropic;

use crate::config::{Config, LoginSource};
use crate::exit::{Exit, Failure};

/// Which store is used: this process alone.
const STORE: &str = "memory:";

/// Builds the manager, on the runtime this is called in. Nothing is asked yet.
///
/// # Errors
///
/// [`Failure`] if the settings contradict each other.
pub(crate) fn open(config: &Config) -> Result<QuotaManager, Failure> {
    let broken = |why: String| Failure::new(Exit::Config, why);
    let store = quota::open_store(STORE).map_err(|error| broken(error.to_string()))?;
    let manager = QuotaManager::builder_on(store).policy(config.policy.clone()).name("quota status");
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
