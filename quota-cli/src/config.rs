//! The configuration: the accounts, where their logins are, and the rules for refreshing and choosing them.
//! `file` is its TOML form, `check` validates it, `error` describes what is wrong, and `update` changes the file.

mod check;
mod defined_providers;
mod edit;
mod error;
mod file;
mod hooks;
mod login;
mod old_accounts;
mod routing;
#[cfg(test)]
pub(crate) mod schema;
mod spanned;
mod update;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use quota::accounts::{AccountConfig, AccountLimits, AccountsConfig, RoutingPolicy};
use quota::http::Provider;
use quota::{AccountId, Policy, ProviderId};
use quota_journal::Hook;
use url::Url;

use crate::exit::{CliError, Exit};
use crate::hint;
use crate::input;
use crate::sanitize::sanitize;
use crate::token_like::masked;

pub(crate) use self::check::{check_account_name, check_login, check_path, login_in_dir, validate_url};
pub(crate) use self::defined_providers::DefinedProviders;
pub(crate) use self::edit::new_account;
pub(crate) use self::error::nearest;
pub(crate) use self::login::{KeyringItem, LoginSource, Program, is_variable};
use self::old_accounts::OldAccounts;
pub(crate) use self::old_accounts::{accounts_file, login_of, plain_limits, unusable};
pub(crate) use self::update::{Change, lock, path, update};

/// The JSON Schema of the file, which the tests generate and compare.
pub(crate) const SCHEMA: &str = include_str!("../../docs/config.schema.json");

/// The loaded configuration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    pub(crate) policy: Policy,
    pub(crate) routing: RoutingPolicy,
    /// Whether the user has set `when_unknown`.
    pub(crate) when_unknown_is_set: bool,
    /// The settings of providers, by their ids. Read them with [`provider`](Self::provider).
    pub(crate) providers: BTreeMap<&'static str, ProviderSettings>,
    /// The providers that the configuration defines.
    pub(crate) defined_providers: DefinedProviders,
    /// The keys of the policy that the user has set. The others have the defaults of the provider.
    pub(crate) policy_keys: BTreeSet<String>,
    /// All accounts in order, the main one first. Includes the disabled ones.
    pub(crate) accounts: Vec<AccountSettings>,
    pub(crate) hooks: Vec<Hook>,
    /// The configuration file; `None` without one.
    pub(crate) path: Option<PathBuf>,
    /// Accounts of an unconverted `accounts.json` whose kind of login is unknown.
    pub(crate) unusable: Vec<AccountId>,
    /// The variables with the tokens of accounts that [`retain`](Self::retain) removed.
    pub(crate) other_token_variables: Vec<String>,
}

/// The settings of a provider.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ProviderSettings {
    pub(crate) base_url: Option<Url>,
    pub(crate) user_agent: Option<String>,
    /// Headers in place of the provider's own values.
    pub(crate) headers: BTreeMap<String, String>,
    /// The client with which the user logs in.
    pub(crate) oauth: Option<OAuthSettings>,
}

/// The user's OAuth client at a provider.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OAuthSettings {
    pub(crate) client_id: String,
    pub(crate) authorize_url: Url,
    pub(crate) token_url: Url,
    pub(crate) scopes: Vec<String>,
    /// `None` for a loopback address with any port.
    pub(crate) redirect_url: Option<Url>,
}

/// The settings of an account.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AccountSettings {
    pub(crate) id: AccountId,
    pub(crate) login: LoginSource,
    pub(crate) base_url: Option<Url>,
    /// Headers of its requests, such as the organization of a team plan.
    pub(crate) headers: BTreeMap<String, String>,
    /// Query parameters of its requests.
    pub(crate) query: BTreeMap<String, String>,
    /// Whether the account is shown, but neither refreshed nor used.
    pub(crate) disabled: bool,
    pub(crate) limits: AccountLimits,
    pub(crate) origin: Origin,
}

/// Where an account is defined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Not in a file: it is the default account, Claude Code's login.
    Default,
    /// In this line of the configuration.
    Configured { line: usize },
    /// In the `accounts.json` of an earlier version, until a command converts it.
    OldFile,
}

impl AccountSettings {
    pub(crate) fn new(id: AccountId, login: LoginSource) -> Self {
        let (limits, origin) = (AccountLimits::none(), Origin::Default);
        let (headers, query) = (BTreeMap::new(), BTreeMap::new());
        Self { id, login, base_url: None, headers, query, disabled: false, limits, origin }
    }

    /// Whether it is the default account, which no file defines.
    pub(crate) fn is_default(&self) -> bool {
        self.origin == Origin::Default
    }

    /// The headers and the query parameters of its requests, as one text; `None` without any. Requests of one login that differ in them may
    /// read different limits.
    pub(crate) fn scope(&self) -> Option<String> {
        let headers =
            self.headers.iter().map(|(name, value)| [&name.to_ascii_lowercase(), ": ", value].concat());
        let query = self.query.iter().map(|(name, value)| [name, "=", value].concat());
        let parts: Vec<_> = headers.chain(query).collect();
        (!parts.is_empty()).then(|| parts.join("\n"))
    }

    /// Whether both accounts use the same login.
    pub(crate) fn shares_login_with(&self, other: &Self) -> bool {
        match (&self.login, &other.login) {
            (LoginSource::Own, LoginSource::Own) => self.id == other.id,
            (LoginSource::Keyring(item), LoginSource::Keyring(of_other)) => {
                item.service == of_other.service && item.user_for(&self.id) == of_other.user_for(&other.id)
            }
            (login, of_other) => login == of_other,
        }
    }
}

impl Config {
    /// The configuration without a file: one account, Claude Code's login.
    pub(crate) fn default_account() -> Self {
        let id = AccountId::new(quota::anthropic::ANTHROPIC, "main").expect("the name is valid");
        Self { accounts: vec![AccountSettings::new(id, LoginSource::ClaudeCode)], ..Self::empty() }
    }

    /// The default settings without an account.
    fn empty() -> Self {
        Self {
            policy: Policy::default(),
            routing: RoutingPolicy::default(),
            when_unknown_is_set: false,
            providers: BTreeMap::new(),
            defined_providers: DefinedProviders::default(),
            policy_keys: BTreeSet::new(),
            accounts: Vec::new(),
            hooks: Vec::new(),
            path: None,
            unusable: Vec::new(),
            other_token_variables: Vec::new(),
        }
    }

    /// Loads the named file or the default one. Without a file, the configuration is Claude Code's login, even if that does not exist.
    ///
    /// # Errors
    ///
    /// [`CliError`] if the file cannot be used or has no account.
    pub(crate) fn load(named: Option<&Path>) -> Result<Self, CliError> {
        let config = Self::load_allow_empty(named)?;
        config.check_not_empty()?;
        Ok(config)
    }

    /// Checks that there is an account.
    ///
    /// # Errors
    ///
    /// [`CliError`] if there is none.
    pub(crate) fn check_not_empty(&self) -> Result<(), CliError> {
        if !self.accounts.is_empty() {
            return Ok(());
        }
        let why = format!(
            "no account is configured; add [[accounts]] with id = \"anthropic/main\", or run `{}`, or remove the file to use Claude Code's \
             login",
            hint::command_without_store("accounts add")
        );
        Err(CliError::new(Exit::Config, format!("{}: {why}", self.display_path())))
    }

    /// Like `load`, but allows a file without accounts.
    ///
    /// # Errors
    ///
    /// [`CliError`] if the file cannot be used.
    pub(crate) fn load_allow_empty(named: Option<&Path>) -> Result<Self, CliError> {
        let old = OldAccounts::load()?;
        // A broken symlink is an error: an unreadable configuration is not a missing one.
        let default = || default_path().filter(|path| path.symlink_metadata().is_ok());
        let config = match named.map(Path::to_owned).or_else(default) {
            Some(path) => {
                let old_ids = old.as_ref().map(OldAccounts::ids).unwrap_or_default();
                Self::of_bytes(&path, &input::read_trusted(&path)?, &old_ids)?
            }
            None if old.as_ref().is_some_and(OldAccounts::adds_accounts) => Self::empty(),
            None => Self::default_account(),
        };
        Ok(match old {
            Some(old) => config.join(&old, named.is_some()),
            None => config,
        })
    }

    /// Whether this is the default account, because no account is defined.
    pub(crate) fn is_default(&self) -> bool {
        self.accounts.iter().any(|account| account.origin == Origin::Default)
    }

    /// The first account that is not disabled.
    ///
    /// # Errors
    ///
    /// [`CliError`] if all are disabled.
    pub(crate) fn first(&self) -> Result<&AccountSettings, CliError> {
        let enabled = self.accounts.iter().find(|account| !account.disabled);
        enabled.ok_or_else(|| all_disabled(self.accounts.iter().map(|account| &account.id)))
    }

    /// The account of this name: `anthropic/main`, or `main` if only one account has this name.
    ///
    /// # Errors
    ///
    /// [`CliError`] if there is none, or more than one.
    pub(crate) fn account(&self, name: &str) -> Result<&AccountSettings, CliError> {
        if name.is_empty() {
            let names = self.accounts.iter().map(|one| one.id.as_str()).collect::<Vec<_>>().join(", ");
            let why =
                format!("the account name is empty; is an environment variable unset? (known: {names})");
            return Err(CliError::new(Exit::Usage, why));
        }
        let names = || self.accounts.iter().map(|one| one.id.as_str());
        // The provider may have another name, such as codex/main for openai/main.
        let id =
            name.parse().ok().and_then(|id| self.defined_providers.canonical(&id).ok()).map(|(id, _)| id);
        let is_named = |one: &&AccountSettings| {
            one.id.as_str() == name || one.id.name() == name || Some(&one.id) == id.as_ref()
        };
        let mut found = self.accounts.iter().filter(is_named);
        let why = match (found.next(), found.next()) {
            (Some(account), None) => return Ok(account),
            (Some(one), Some(other)) => {
                format!("the account name {name} is ambiguous: {} or {}", one.id, other.id)
            }
            // Compare with full names first, and then with names without a provider.
            (None, _) => match nearest(name, names()).or_else(|| self.nearest_name(name)) {
                Some(near) => format!("unknown account {}; did you mean {near}?", sanitize(masked(name))),
                None => format!(
                    "unknown account {} (known: {})",
                    sanitize(masked(name)),
                    names().collect::<Vec<_>>().join(", ")
                ),
            },
        };
        Err(CliError::new(Exit::Usage, why))
    }

    /// Keeps only the named accounts, or all if `names` is empty.
    ///
    /// # Errors
    ///
    /// [`CliError`] if a name matches no account, or several.
    pub(crate) fn retain(&mut self, names: &[String]) -> Result<(), CliError> {
        if names.is_empty() {
            return Ok(());
        }
        let selected = names.iter().map(|name| self.account(name).map(|account| account.id.clone()));
        let selected = selected.collect::<Result<HashSet<_>, _>>()?;
        self.other_token_variables = self.token_variables();
        self.accounts.retain(|account| selected.contains(&account.id));
        Ok(())
    }

    /// The account with the most similar name, ignoring providers.
    fn nearest_name(&self, name: &str) -> Option<&str> {
        let near = nearest(name, self.accounts.iter().map(|one| one.id.name()))?;
        self.accounts.iter().find(|one| one.id.name() == near).map(|one| one.id.as_str())
    }

    /// Parses the configuration at `path`. Its hooks may also name the accounts in `also`.
    ///
    /// # Errors
    ///
    /// [`CliError`] if it is invalid, with the position, the cause and what to do.
    fn of_bytes(path: &Path, bytes: &[u8], also: &[AccountId]) -> Result<Self, CliError> {
        let name = input::display_name(path);
        let invalid = |line: String| CliError::new(Exit::Config, line);
        let Ok(text) = std::str::from_utf8(bytes) else {
            return Err(invalid(format!("{name}: not UTF-8 text; save it as UTF-8")));
        };
        // Paths in it are relative to its directory.
        let directory = path.parent().unwrap_or(Path::new(""));
        let config =
            Self::parse(text, directory, also).map_err(|error| invalid(error.message(&name, text)))?;
        Ok(Self { path: Some(path.to_owned()), ..config })
    }

    fn parse(text: &str, directory: &Path, also: &[AccountId]) -> Result<Self, error::ConfigError> {
        check::config(file::read(text)?, text, directory, also)
    }

    /// The accounts as the router's configuration.
    pub(crate) fn routed(&self) -> AccountsConfig {
        let routed = |account: &AccountSettings| {
            let one = AccountConfig::new(account.id.clone()).disabled(account.disabled);
            one.limits(account.limits.clone())
        };
        self.accounts.iter().map(routed).collect()
    }

    /// The path of the file, for messages.
    pub(crate) fn display_path(&self) -> String {
        self.path.as_deref().map_or_else(String::new, input::display_name)
    }
}

impl Config {
    /// The settings of a provider.
    pub(crate) fn provider(&self, id: &ProviderId) -> &ProviderSettings {
        static DEFAULT: ProviderSettings =
            ProviderSettings { base_url: None, user_agent: None, headers: BTreeMap::new(), oauth: None };
        self.providers.get(id.as_str()).unwrap_or(&DEFAULT)
    }

    /// The providers of the accounts, each once.
    pub(crate) fn used_providers(&self) -> impl Iterator<Item = &'static Provider> {
        let ids: BTreeSet<_> = self.accounts.iter().map(|account| account.id.provider().as_str()).collect();
        ids.into_iter().filter_map(|id| self.defined_providers.find(id)).collect::<Vec<_>>().into_iter()
    }

    /// The policy of a provider's accounts: the provider's defaults, unless the user has set the keys.
    pub(crate) fn policy_of(&self, id: &ProviderId) -> Policy {
        self.with_defaults_of(id, self.policy.clone())
    }

    /// This policy with the provider's defaults in place of the keys that the user has not set.
    pub(crate) fn with_defaults_of(&self, id: &ProviderId, mut policy: Policy) -> Policy {
        let Some(provider) = self.defined_providers.find(id.as_str()) else { return policy };
        let (default, own) = (Policy::default(), provider.policy(Policy::default()));
        // Each key with its former name.
        let is_set = |names: [&str; 2]| names.iter().any(|name| self.policy_keys.contains(*name));
        if own.max_age != default.max_age && !is_set(["max_age", "freshness"]) {
            policy.max_age = own.max_age;
        }
        if own.min_call_interval != default.min_call_interval && !is_set(["min_call_interval", "gap"]) {
            policy.min_call_interval = own.min_call_interval;
        }
        if own.cooldown != default.cooldown && !is_set(["cooldown", "quiet"]) {
            policy.cooldown = own.cooldown;
        }
        if own.budget != default.budget && !is_set(["budget", "budget"]) {
            policy.budget = own.budget;
        }
        policy
    }

    /// The environment variables with the tokens of all accounts, including those that [`retain`](Self::retain) removed.
    pub(crate) fn token_variables(&self) -> Vec<String> {
        let own = self.accounts.iter().filter_map(|account| account.login.variable());
        own.map(ToOwned::to_owned).chain(self.other_token_variables.iter().cloned()).collect()
    }
}

/// The error of a command whose accounts are all disabled.
pub(crate) fn all_disabled<'a>(accounts: impl IntoIterator<Item = &'a AccountId>) -> CliError {
    CliError::new(Exit::NoAccount, all_disabled_text(accounts))
}

/// The text of that error.
pub(crate) fn all_disabled_text<'a>(accounts: impl IntoIterator<Item = &'a AccountId>) -> String {
    let mut accounts = accounts.into_iter();
    match (accounts.next(), accounts.next()) {
        (None, _) => "no account is configured".to_owned(),
        (Some(only), None) => format!("{only} is disabled; enable it with: {}", enable(only)),
        (Some(first), Some(_)) => format!("all accounts are disabled; enable one with: {}", enable(first)),
    }
}

/// The command that enables an account.
pub(crate) fn enable(account: &AccountId) -> String {
    hint::command_without_store(&format!("accounts enable {account}"))
}

/// The command that clears an account's hold or replaces its damaged record.
pub(crate) fn clear_hold(account: &AccountId) -> String {
    hint::command(&format!("accounts clear-hold {account}"))
}

/// The default configuration file; `None` without a home directory.
pub(crate) fn default_path() -> Option<PathBuf> {
    Some(directory("XDG_CONFIG_HOME", &[".config"])?.join("quota").join("config.toml"))
}

/// The directory in a variable, or else this one below the home directory. `None` without a home directory.
pub(crate) fn directory(name: &str, below_home: &[&str]) -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // The XDG specification says to ignore a relative path.
    let named = variable(name).filter(|path| path.is_absolute());
    let home = || variable("HOME").or_else(|| variable("USERPROFILE")).filter(|home| home.is_absolute());
    named.or_else(|| Some(home()?.join(below_home.iter().collect::<PathBuf>())))
}

#[cfg(test)]
mod tests;
