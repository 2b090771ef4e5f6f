//! The TOML form of the configuration: its keys and their types, each with its position in the text.
//! `check` validates it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use quota::{AccountId, Policy};
use serde::Deserialize;
use toml::{Spanned, Value};

use super::error::ConfigError;
use super::routing::Routing;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConfigFile {
    pub(super) policy: Option<Spanned<Policy>>,
    #[serde(default)]
    pub(super) routing: Routing,
    #[serde(default)]
    pub(super) providers: BTreeMap<Spanned<String>, ProviderTable>,
    #[serde(default)]
    pub(super) accounts: Vec<Spanned<AccountTable>>,
    #[serde(default)]
    pub(super) hooks: Vec<Spanned<HookTable>>,
}

/// The settings of a provider.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProviderTable {
    pub(super) base_url: Option<Spanned<String>>,
    pub(super) user_agent: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) headers: BTreeMap<Spanned<String>, Spanned<String>>,
}

/// The settings of an account.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AccountTable {
    pub(super) id: Spanned<AccountId>,
    pub(super) claude_config_dir: Option<Spanned<PathBuf>>,
    pub(super) login_dir: Option<Spanned<PathBuf>>,
    pub(super) token_env: Option<Spanned<String>>,
    pub(super) token_file: Option<Spanned<PathBuf>>,
    pub(super) token_command: Option<Spanned<Vec<String>>>,
    pub(super) keyring: Option<Spanned<KeyringTable>>,
    pub(super) base_url: Option<Spanned<String>>,
    pub(super) min_remaining: Option<Spanned<Value>>,
    pub(super) killswitch: Option<Spanned<Value>>,
    #[serde(default)]
    pub(super) disabled: bool,
}

/// The item of the keyring with the token of an account.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyringTable {
    pub(super) service: Spanned<String>,
    pub(super) user: Option<Spanned<String>>,
}

/// A hook.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HookTable {
    pub(super) on: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) accounts: Vec<Spanned<AccountId>>,
    #[serde(default)]
    pub(super) windows: Vec<String>,
    #[serde(default)]
    pub(super) thresholds: Vec<Spanned<f64>>,
    pub(super) run: Option<Spanned<Vec<String>>>,
    pub(super) post: Option<Spanned<String>>,
    pub(super) timeout: Option<Spanned<String>>,
}

/// Reads the text of a configuration.
///
/// # Errors
///
/// [`ConfigError`] if it is not TOML, or has an unknown key or value.
pub(super) fn read(text: &str) -> Result<ConfigFile, ConfigError> {
    toml::from_str(text).map_err(|error| ConfigError::of_toml(&error))
}
