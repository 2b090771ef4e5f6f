//! The TOML form of the configuration: its keys and their types, each with its position in the text.
//! `check` validates it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use quota::http::Method;
use quota::http::shape::{CreditsShape, Path, Text, WindowShape};
use quota::{AccountId, Policy};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
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
    pub(super) providers: ProviderTables,
    #[serde(default)]
    pub(super) accounts: Vec<Spanned<AccountTable>>,
    #[serde(default)]
    pub(super) hooks: Vec<Spanned<HookTable>>,
}

/// The providers in the order of the text: tables such as `[providers.anthropic]`, or `[[providers]]` with an `id` each.
#[derive(Debug, Default)]
pub(super) struct ProviderTables(pub(super) Vec<(Spanned<String>, ProviderTable)>);

impl<'de> Deserialize<'de> for ProviderTables {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tables;
        impl<'de> Visitor<'de> for Tables {
            type Value = ProviderTables;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("tables of providers")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ProviderTables, A::Error> {
                let tables =
                    BTreeMap::<Spanned<String>, ProviderTable>::deserialize(MapAccessDeserializer::new(map))?;
                match tables.values().any(|table| table.id.is_some()) {
                    true => Err(A::Error::custom("remove `id`, because the name of the table is the id")),
                    false => Ok(ProviderTables(tables.into_iter().collect())),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<ProviderTables, A::Error> {
                let tables = Vec::<ProviderTable>::deserialize(SeqAccessDeserializer::new(list))?;
                let named = tables.into_iter().map(|mut table| match table.id.take() {
                    Some(id) => Ok((id, table)),
                    None => Err(A::Error::custom("missing field `id` of [[providers]]")),
                });
                Ok(ProviderTables(named.collect::<Result<_, _>>()?))
            }
        }
        deserializer.deserialize_any(Tables)
    }
}

/// The settings of a provider, and the definition of a new or changed one.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProviderTable {
    /// Only in `[[providers]]`.
    pub(super) id: Option<Spanned<String>>,
    pub(super) name: Option<String>,
    pub(super) url: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) method: Method,
    pub(super) body: Option<Spanned<serde_json::Value>>,
    pub(super) token_header: Option<Spanned<String>>,
    pub(super) token_prefix: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) allow_http: bool,
    #[serde(default)]
    pub(super) windows: Vec<WindowShape>,
    pub(super) credits: Option<CreditsShape>,
    pub(super) plan: Option<Text>,
    pub(super) owner: Option<Path>,
    pub(super) error: Option<Path>,
    pub(super) base_url: Option<Spanned<String>>,
    pub(super) user_agent: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) headers: BTreeMap<Spanned<String>, Spanned<String>>,
    pub(super) oauth: Option<OAuthTable>,
}

/// The user's OAuth client at a provider.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OAuthTable {
    pub(super) client_id: Spanned<String>,
    pub(super) authorize_url: Spanned<String>,
    pub(super) token_url: Spanned<String>,
    #[serde(default)]
    pub(super) scopes: Vec<String>,
    pub(super) redirect_url: Option<Spanned<String>>,
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
    pub(super) own_login: Option<Spanned<bool>>,
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
