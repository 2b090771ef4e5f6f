//! `quota accounts add`: adds an account to the configuration.
//! It writes where the login is, and never a token.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use quota::accounts::{AccountLimits, Limits};
use quota::anthropic::ANTHROPIC;
use quota::http::Provider;
use quota::model::CredentialFingerprint;
use quota::record::{LastFailureKind, Record};
use quota::store::find_record_key;
use quota::{AccountId, Clock, Credential, Percent, ProviderId};

use super::{confirm, limits_warning};
use crate::cli::{AddArgs, GlobalOptions};
use crate::config::{self, AccountSettings, Change, Config, KeyringItem, LoginSource, Origin};
use crate::exit::{CliError, Exit};
use crate::sanitize::sanitize;
use crate::{context, detected_logins, io_cause, scope, store, term};

/// Adds the account.
pub(super) fn run(options: &AddArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    let account = account(options, &Config::load_allow_empty(global.config.as_deref())?)?;
    let (id, login) = (&account.id, &account.login);
    let named = global.config.as_deref();
    scope::run(async |scope| {
        // A signal also ends a running token command.
        scope.listen()?;
        let default_login = DefaultLogin::find(named).await?;
        let config = config::update(named, |config| {
            let mut accounts = default_login.existing(config, &account);
            check_unique(config, &accounts, &account)?;
            let at = if options.first { 0 } else { accounts.len() };
            accounts.insert(at, account.clone());
            Ok(Change { accounts: Some(accounts), answer: config.clone() })
        });
        let config = config.await?;
        let credential = context::credential_source(login, &config).credential(id).await;
        confirm(&[format!("added {id}: {}", login.describe())])?;
        if let Some(warning) = limits_warning(&account) {
            term::eprint(&format!("quota: {warning}\n"));
        }
        let problem = match credential {
            Ok(credential) => {
                let known = cached_missing_scope(&config, global, id, credential.login.fingerprint).await;
                known.or_else(|| without_usage(id.provider(), login, &credential).map(str::to_owned))
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(problem) = problem {
            term::eprint(&format!("quota: {id}: {}\n", sanitize(&problem)));
        }
        Ok(Exit::Success)
    })
}

/// A warning about the limits of a token, derived from its prefix before the provider rejects the first call. Only a
/// login of the provider's program can read usage.
fn without_usage(
    provider: &ProviderId,
    login: &LoginSource,
    credential: &Credential,
) -> Option<&'static str> {
    if login.program().is_some() {
        return None;
    }
    let token = credential.secret.expose();
    match provider.as_str() {
        "anthropic" if token.starts_with("sk-ant-api") => Some(
            "this is an API key, which can send requests but has no usage; for usage, add the login of Claude Code with --claude-config-dir",
        ),
        "anthropic" if token.starts_with("sk-ant-oat") => Some(
            "a token of `claude setup-token` can send requests, and `quota run` passes it, but it may not read usage; quota then learns \
             its usage only from response headers and Claude Code's statusline. For usage, add the login of Claude Code with \
             --claude-config-dir",
        ),
        "openai" if token.starts_with("sk-") => Some(
            "this is an API key, which can send requests but has no usage; for usage, add the login of Codex with --login-dir",
        ),
        _ => None,
    }
}

/// The stored failure that this credential lacks the scope to read usage, from the record of any account. `None` if the store cannot be
/// read. It makes no provider calls.
async fn cached_missing_scope(
    config: &Config,
    global: &GlobalOptions,
    id: &AccountId,
    fingerprint: Option<CredentialFingerprint>,
) -> Option<String> {
    let (fingerprint, store, clock) =
        (fingerprint?, store::open(global.store.as_deref()).ok()?.store, Clock::system());
    let message = async |id: &AccountId| {
        let read = async {
            let key = find_record_key(&*store, id).await?;
            store.read(&key).await
        };
        let read = clock.bounded(STORE_TIMEOUT, read).await?.ok()?;
        let record = Record::decode(&read.document?.body).ok()?;
        let failure = record.last_failure()?;
        let is_same =
            failure.kind == LastFailureKind::MissingScope && failure.fingerprint == Some(fingerprint);
        is_same.then(|| failure.message.clone())
    };
    let ids = config.accounts.iter().map(|account| &account.id).chain([id]);
    join_all(ids.map(message)).await.into_iter().flatten().next()
}

/// The time limit for each read of the store.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether the default account has Claude Code's login. If so, adding an account must also write the default account to
/// the file.
pub(super) struct DefaultLogin {
    is_found: bool,
}

impl DefaultLogin {
    /// Searches for the login if no account is configured.
    pub(super) async fn find(named: Option<&Path>) -> Result<Self, CliError> {
        let is_default = Config::load_allow_empty(named)?.is_default();
        Ok(Self { is_found: is_default && detected_logins::find_claude_code().await.is_ok() })
    }

    /// The accounts to keep when `new` is added. The default account is kept only if its login exists and `new` is
    /// another account.
    pub(super) fn existing(&self, config: &Config, new: &AccountSettings) -> Vec<AccountSettings> {
        let is_itself = |account: &AccountSettings| account.id == new.id && account.shares_login_with(new);
        let is_other = |account: &&AccountSettings| {
            account.origin != Origin::Default || (self.is_found && !is_itself(account))
        };
        config.accounts.iter().filter(is_other).cloned().collect()
    }
}

/// The settings of the account.
fn account(options: &AddArgs, config: &Config) -> Result<AccountSettings, CliError> {
    let (id, provider) = id(&options.name, config)?;
    let mut account = AccountSettings::new(id, login(options, provider)?);
    let limit = |percent: Option<f64>| percent.and_then(Percent::from_percent).map(Limits::of);
    let mut limits = AccountLimits::none();
    (limits.min_remaining, limits.killswitch) = (limit(options.min_remaining), limit(options.killswitch));
    account.limits = limits;
    if let Some(text) = &options.base_url {
        account.base_url =
            Some(config::validate_url(text).map_err(|why| usage(format!("--base-url: {why}")))?);
    }
    Ok(account)
}

/// The account's id; the provider is optional.
pub(super) fn id(name: &str, config: &Config) -> Result<(AccountId, &'static Provider), CliError> {
    config::check_account_name(name).map_err(usage)?;
    let id = if name.contains('/') { name.parse() } else { AccountId::new(ANTHROPIC, name) };
    let id = id.map_err(|error| usage(error.to_string()))?;
    config.defined_providers.canonical(&id).map_err(usage)
}

fn login(options: &AddArgs, provider: &'static Provider) -> Result<LoginSource, CliError> {
    Ok(if let Some(dir) = &options.claude_config_dir {
        config::login_in_dir("claude_config_dir", provider, absolute(dir)?).map_err(usage)?
    } else if let Some(dir) = &options.login_dir {
        config::login_in_dir("login_dir", provider, absolute(dir)?).map_err(usage)?
    } else if let Some(name) = &options.token_env {
        if !config::is_variable(name) {
            let why = "--token-env expects the name of an environment variable, such as QUOTA_WORK; never pass the token itself";
            return Err(usage(why));
        }
        LoginSource::TokenEnv(name.clone())
    } else if let Some(path) = &options.token_file {
        LoginSource::TokenFile(absolute(path)?)
    } else if let Some(words) = &options.token_command {
        let login = LoginSource::TokenCommand(words.clone());
        config::check_login(&login).map_err(usage)?;
        login.absolute()
    } else if let Some(service) = &options.keyring {
        let item = KeyringItem { service: service.clone(), user: options.keyring_user.clone() };
        let login = LoginSource::Keyring(item);
        config::check_login(&login).map_err(usage)?;
        login
    } else {
        LoginSource::default_of(provider).ok_or_else(|| {
            usage(format!(
                "{} has no default login; set --token-env, --token-file, --token-command or --keyring",
                provider.name()
            ))
        })?
    })
}

/// Makes a path absolute. A leading `~` is kept, because the home directory may move.
fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    config::check_path(&path.to_string_lossy()).map_err(usage)?;
    if path.starts_with("~") {
        return Ok(path.to_owned());
    }
    std::path::absolute(path)
        .map_err(|error| usage(format!("{}: {}", path.display(), io_cause::plain(&error))))
}

/// Checks that no other account has the name or the login. Two names for one login would count its usage twice.
fn check_unique(config: &Config, others: &[AccountSettings], new: &AccountSettings) -> Result<(), CliError> {
    let id = &new.id;
    if let Some(account) = others.iter().find(|account| account.id == *id) {
        let location = match account.origin {
            Origin::Configured { line } => format!("{}:{line}", config.display_path()),
            _ => account.login.describe(),
        };
        return Err(usage(format!("{id} already exists ({location}); choose another name")));
    }
    let Some(same) = others.iter().find(|account| account.shares_login_with(new)) else { return Ok(()) };
    Err(usage(format!(
        "{} already uses this login ({}); set another login for {id}: --login-dir, --token-env, --token-file, \
         --token-command or --keyring",
        same.id,
        new.login.describe()
    )))
}

fn usage(why: impl Into<String>) -> CliError {
    CliError::new(Exit::Usage, why)
}
