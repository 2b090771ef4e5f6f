//! The TOML form of the configuration: its keys and their types, each with its position in the text.
//! `check` validates it, and `docs/config.schema.json` describes it for editors.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use quota::http::Method;
use quota::http::shape::{CreditsShape, Path, Text, WindowShape};
use quota::{AccountId, Policy};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Value;
use toml::de::{DeTable, DeValue};

use super::error::ConfigError;
use super::routing::Routing;
use super::spanned::Spanned;

/// The event kinds that can start a hook.
pub(super) const EVENT_KINDS: [&str; 8] =
    ["failing", "held", "hold_ended", "login_changed", "refreshed", "reset", "threshold", "throttled"];

/// The configuration of `quota`: its accounts, where their logins are, and the rules for refreshing and choosing them.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct ConfigFile {
    /// When accounts are refreshed.
    pub(super) policy: Option<Spanned<Policy>>,
    /// Which account is preferred.
    #[serde(default)]
    pub(super) routing: Routing,
    /// Settings of providers, and definitions of new ones.
    #[serde(default)]
    pub(super) providers: ProviderTables,
    /// The accounts in order, the main one first.
    #[serde(default)]
    pub(super) accounts: Vec<Spanned<AccountTable>>,
    /// The commands and requests that run for events.
    #[serde(default)]
    pub(super) hooks: Vec<Spanned<HookTable>>,
    /// The keys of `policy` as the user wrote them.
    #[serde(skip)]
    pub(super) policy_keys: BTreeSet<String>,
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct ProviderTable {
    /// The id of the provider. Only in `[[providers]]`.
    pub(super) id: Option<Spanned<String>>,
    /// The display name.
    pub(super) name: Option<String>,
    /// The URL of the usage endpoint.
    pub(super) url: Option<Spanned<String>>,
    /// The method of the request.
    #[serde(default)]
    pub(super) method: Method,
    /// The JSON body of a POST.
    pub(super) body: Option<Spanned<serde_json::Value>>,
    /// The header with the token. Default: `authorization`.
    pub(super) token_header: Option<Spanned<String>>,
    /// The text before the token. Default: `Bearer ` for `authorization`, otherwise nothing.
    pub(super) token_prefix: Option<Spanned<String>>,
    /// Whether the token may be sent unencrypted to another machine.
    #[serde(default)]
    pub(super) allow_http: bool,
    /// Where the windows are in the response.
    #[serde(default)]
    pub(super) windows: Vec<WindowShape>,
    /// Where the credits are in the response.
    pub(super) credits: Option<CreditsShape>,
    /// The plan of the account.
    pub(super) plan: Option<Text>,
    /// The owner of the account.
    pub(super) owner: Option<Path>,
    /// If there is a value here, the response is an error even if its status is 200.
    pub(super) error: Option<Path>,
    /// The address in place of the provider's own, such as a proxy.
    pub(super) base_url: Option<Spanned<String>>,
    /// The `User-Agent` of requests.
    pub(super) user_agent: Option<Spanned<String>>,
    /// Headers in place of the provider's own values. Never a token.
    #[serde(default)]
    pub(super) headers: BTreeMap<Spanned<String>, Spanned<String>>,
    /// The client with which `quota accounts login` logs in.
    pub(super) oauth: Option<OAuthTable>,
}

/// The user's OAuth client at a provider.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct OAuthTable {
    /// The id of the client.
    pub(super) client_id: Spanned<String>,
    /// The page on which the user authorizes the client.
    pub(super) authorize_url: Spanned<String>,
    /// The endpoint that issues tokens.
    pub(super) token_url: Spanned<String>,
    /// The permissions that the tokens grant.
    #[serde(default)]
    pub(super) scopes: Vec<String>,
    /// The registered redirect. Default: a loopback address with any port.
    pub(super) redirect_url: Option<Spanned<String>>,
}

/// An account and the location of its login. By default, it has the login of the provider's own program.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct AccountTable {
    /// The provider and a name, such as `anthropic/main`.
    #[cfg_attr(test, schemars(with = "String"))]
    pub(super) id: Spanned<AccountId>,
    /// A `CLAUDE_CONFIG_DIR` of Claude Code, such as `~/.claude-work`.
    pub(super) claude_config_dir: Option<Spanned<PathBuf>>,
    /// Another folder of the provider's own program, such as `~/.codex-work`.
    pub(super) login_dir: Option<Spanned<PathBuf>>,
    /// The environment variable with the token.
    pub(super) token_env: Option<Spanned<String>>,
    /// The file with the token, with mode 600. A path is relative to this file.
    pub(super) token_file: Option<Spanned<PathBuf>>,
    /// The program that prints the token, and its arguments.
    pub(super) token_command: Option<Spanned<Vec<String>>>,
    /// The item of the keyring with the token.
    pub(super) keyring: Option<Spanned<KeyringTable>>,
    /// Whether `quota accounts login` created the login.
    pub(super) own_login: Option<Spanned<bool>>,
    /// The address in place of the provider's own, such as a proxy.
    pub(super) base_url: Option<Spanned<String>>,
    /// Headers of its requests, such as the organization of a team plan. Never a token.
    #[serde(default)]
    pub(super) headers: BTreeMap<Spanned<String>, Spanned<String>>,
    /// Query parameters of its requests, such as `type = "2"` for a team plan of z.ai. Never a token.
    #[serde(default)]
    pub(super) query: BTreeMap<Spanned<String>, Spanned<String>>,
    /// The percentage below which other accounts are preferred, for all windows or for each.
    #[cfg_attr(test, schemars(with = "Option<super::routing::LimitsSchema>"))]
    pub(super) min_remaining: Option<Spanned<Value>>,
    /// The percentage below which the account is never used, for all windows or for each.
    #[cfg_attr(test, schemars(with = "Option<super::routing::LimitsSchema>"))]
    pub(super) killswitch: Option<Spanned<Value>>,
    /// Whether the account is listed, but neither refreshed nor used.
    #[serde(default)]
    pub(super) disabled: bool,
}

/// The item of the keyring with the token of an account.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct KeyringTable {
    /// The service of the item.
    pub(super) service: Spanned<String>,
    /// The user of the item. Default: the id of the account.
    pub(super) user: Option<Spanned<String>>,
}

/// A program or a request that runs for an event.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(extend("oneOf" = [{ "required": ["run"] }, { "required": ["post"] }])))]
#[serde(deny_unknown_fields)]
pub(super) struct HookTable {
    /// The kinds of events.
    #[cfg_attr(test, schemars(length(min = 1), extend("items" = { "type": "string", "enum": EVENT_KINDS })))]
    pub(super) on: Vec<Spanned<String>>,
    /// The accounts. Default: all.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    pub(super) accounts: Vec<Spanned<AccountId>>,
    /// The windows, such as `five_hour`. Default: all.
    #[serde(default)]
    pub(super) windows: Vec<String>,
    /// Thresholds in percent, in addition to the default ones.
    #[serde(default)]
    #[cfg_attr(test, schemars(inner(range(max = 1000))))]
    pub(super) thresholds: Vec<Spanned<f64>>,
    /// The program and its arguments.
    #[cfg_attr(test, schemars(length(min = 1)))]
    pub(super) run: Option<Spanned<Vec<String>>>,
    /// The URL that gets a POST.
    #[cfg_attr(test, schemars(extend("pattern" = "^https?://")))]
    pub(super) post: Option<Spanned<String>>,
    /// The timeout, at most one minute, such as `10s`.
    pub(super) timeout: Option<Spanned<String>>,
}

/// Reads the text of a configuration.
///
/// # Errors
///
/// [`ConfigError`] if it is not TOML, or has an unknown key or value.
pub(super) fn read(text: &str) -> Result<ConfigFile, ConfigError> {
    let read = || -> Result<ConfigFile, toml::de::Error> {
        let table = DeTable::parse(text)?;
        let policy = table.get_ref().get("policy").map(toml::Spanned::get_ref).and_then(DeValue::as_table);
        let policy_keys = policy.into_iter().flat_map(|policy| policy.keys());
        let policy_keys = policy_keys.map(|key| key.get_ref().to_string()).collect();
        let file = ConfigFile::deserialize(toml::de::Deserializer::from(table))?;
        Ok(ConfigFile { policy_keys, ..file })
    };
    read().map_err(|error| ConfigError::of_toml(&error))
}

#[cfg(test)]
impl schemars::JsonSchema for ProviderTables {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ProviderTables".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let table = generator.subschema_for::<ProviderTable>();
        schemars::json_schema!({
            "description": "Tables such as `[providers.anthropic]`, or `[[providers]]` with an `id` each.",
            "anyOf": [
                { "type": "object", "additionalProperties": { "allOf": [table, { "properties": { "id": false } }] } },
                { "type": "array", "items": { "allOf": [table, { "required": ["id"] }] } },
            ],
        })
    }
}
