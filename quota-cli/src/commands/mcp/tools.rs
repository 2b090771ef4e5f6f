//! The tools: their names, descriptions and arguments, and the documents that they return. `waiting` runs `quota_wait`.

use std::time::Duration;

use quota::accounts::Decision;
use rmcp::handler::server::common::schema_for_type;
use rmcp::model::{ErrorData, JsonObject, Tool, ToolAnnotations};
use rmcp::schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::calls::{Calls, NAME};
use crate::account_picker::{self, AccountPicker};
use crate::account_query::{self, RefreshMode};
use crate::cli::{RequestArgs, Unknown};
use crate::config::Config;
use crate::exit::{CliError, Exit};
use crate::format::LocalTime;
use crate::journal;
use crate::scope::CommandScope;
use crate::view::{account_json, decision_json};

/// The maximum length of a name in the arguments.
const MAX_NAME: usize = 256;

/// A tool with its arguments.
#[derive(Debug)]
pub(super) enum ToolCall {
    Status(StatusParams),
    Pick(RequestArgs),
    Explain(RequestArgs),
    Wait(RequestArgs, Duration),
}

impl ToolCall {
    /// Reads the name and the arguments of a call.
    ///
    /// # Errors
    ///
    /// [`ErrorData`] for an unknown tool or invalid arguments.
    pub(super) fn parse(name: &str, arguments: JsonObject) -> Result<Self, ErrorData> {
        let of = |call| Ok(call);
        match name {
            "quota_status" => {
                parse_arguments::<StatusParams>(arguments).and_then(|params| of(Self::Status(params)))
            }
            "quota_pick" => {
                parse_arguments::<RequestParams>(arguments).and_then(|params| of(Self::Pick(params.into())))
            }
            "quota_explain" => parse_arguments::<RequestParams>(arguments)
                .and_then(|params| of(Self::Explain(params.into()))),
            "quota_wait" => {
                let WaitParams { model, session, unknown, max_wait_seconds } = parse_arguments(arguments)?;
                let request = RequestParams { model, session, unknown };
                let max_wait = max_wait_seconds.map_or(DEFAULT_MAX_WAIT, |seconds| seconds.0);
                of(Self::Wait(request.into(), Duration::from_secs(max_wait)))
            }
            _ => Err(invalid("there is no tool with this name; tools/list lists them")),
        }
    }
}

/// All tools.
pub(super) fn list() -> Vec<Tool> {
    vec![
        tool::<StatusParams>("quota_status", "Show quota usage", STATUS),
        tool::<RequestParams>("quota_pick", "Pick an account", PICK),
        tool::<RequestParams>("quota_explain", "Explain the choice", EXPLAIN),
        tool::<WaitParams>("quota_wait", "Wait for quota", WAIT),
    ]
}

const STATUS: &str = "\
Show how much quota is left in each LLM account. Call it to answer questions about usage, limits or resets, or before a long job. \
Returns one entry per account with its windows: used_percent (0 to 100; the part that is used, not what is left), certainty (exact, \
at_least, or unknown), resets_at and resets_in_seconds (when the window starts over), and the age of the reading in seconds. \
Stale readings are refreshed first, at most as often as the provider allows, so calling it often costs nothing and gains nothing. \
A null means unknown, never zero.";

const PICK: &str = "\
Choose the account to use for the next request. Call it before work that may exhaust an account, or to switch accounts. Returns \
outcome: picked (account is its name), no_account_available (retry_after_seconds states when to try again; or call quota_wait), \
unknown (the usage is not known, or a person must log in), or all_accounts_disabled. The account is not reserved. Never use an \
account that was not picked.";

const EXPLAIN: &str = "\
Show which account quota_pick would choose, and for each other account why it is not used: eligibility, reason, window, retry_at, \
with all its windows. Call it if the choice is surprising, or if no account is available. It does not store a choice.";

const WAIT: &str = "\
Wait until an account has quota left, and then choose it as quota_pick does. Call it in place of a loop of quota_pick calls. Many \
waiting agents are released one after the other, so that they do not exhaust the account together. Returns the document of \
quota_pick with waited_seconds. After max_wait_seconds the outcome is still no_account_available or unknown; call it again to \
continue. Sends progress notifications if the request has a progress token. Many clients end a call after 60 seconds without a \
result, so set a longer wait only if the client allows it.";

fn tool<Params: JsonSchema + 'static>(name: &'static str, title: &str, description: &'static str) -> Tool {
    // The tool may call a provider, and changes no data of the client.
    let annotations = ToolAnnotations::with_title(title).read_only(true).idempotent(true).open_world(true);
    Tool::new(name, description, schema_for_type::<Params>()).with_title(title).with_annotations(annotations)
}

/// Arguments of quota_status.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "rmcp::schemars")]
pub(super) struct StatusParams {
    /// Show only these accounts, such as ["anthropic/main", "work"]. Without it, all accounts are shown.
    #[schemars(length(max = 100))]
    accounts: Option<Vec<Name>>,
    /// Refresh readings that are older than this many seconds. Without it, the configuration decides (usually 300).
    max_age_seconds: Option<u32>,
    /// If true, make no calls to providers, and show the cached readings.
    offline: Option<bool>,
}

/// Arguments of quota_pick and quota_explain.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "rmcp::schemars")]
struct RequestParams {
    /// The model that the work will use, such as "claude-opus-4-5". Windows that count only other models are then ignored.
    model: Option<Name>,
    /// A stable name of this conversation. With `mode` sticky_balanced, a session keeps its account.
    session: Option<Name>,
    /// Whether an account whose usage is unknown may be chosen. Without it, the configuration decides (usually deny).
    unknown: Option<UnknownParam>,
}

/// Arguments of quota_wait.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "rmcp::schemars")]
struct WaitParams {
    /// The model that the work will use, such as "claude-opus-4-5". Windows that count only other models are then ignored.
    model: Option<Name>,
    /// A stable name of this conversation. With `mode` sticky_balanced, a session keeps its account.
    session: Option<Name>,
    /// Whether an account whose usage is unknown may be chosen. Without it, the configuration decides (usually deny).
    unknown: Option<UnknownParam>,
    /// How long to wait at most, in seconds, up to a day. The default is 50.
    max_wait_seconds: Option<Seconds>,
}

/// The default wait: shorter than the timeout of common clients.
const DEFAULT_MAX_WAIT: u64 = 50;
/// The longest wait.
const MAX_WAIT: u64 = 24 * 3600;

/// A name of at most [`MAX_NAME`] bytes, which is not empty.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(crate = "rmcp::schemars", inline)]
struct Name(#[schemars(length(min = 1, max = 256))] String);

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.len() {
            1..=MAX_NAME => Ok(Self(text)),
            _ => Err(format!("a name must have 1 to {MAX_NAME} characters")),
        }
    }
}

/// A wait of at most [`MAX_WAIT`].
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(try_from = "u64")]
#[schemars(crate = "rmcp::schemars", inline)]
struct Seconds(#[schemars(range(max = 86_400))] u64);

impl TryFrom<u64> for Seconds {
    type Error = String;

    fn try_from(seconds: u64) -> Result<Self, String> {
        if seconds <= MAX_WAIT { Ok(Self(seconds)) } else { Err(format!("a wait is at most {MAX_WAIT} s")) }
    }
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(crate = "rmcp::schemars", inline)]
enum UnknownParam {
    Allow,
    Deny,
}

impl From<RequestParams> for RequestArgs {
    fn from(params: RequestParams) -> Self {
        Self {
            model: params.model.map(|name| name.0),
            session: params.session.map(|name| name.0),
            unknown: params.unknown.map(|unknown| match unknown {
                UnknownParam::Allow => Unknown::Allow,
                UnknownParam::Deny => Unknown::Deny,
            }),
        }
    }
}

fn parse_arguments<Params: DeserializeOwned>(arguments: JsonObject) -> Result<Params, ErrorData> {
    serde_json::from_value(Value::Object(arguments))
        .map_err(|error| invalid(&format!("the arguments are invalid: {error}")))
}

/// An error in a request. The text may repeat a value from the client, so tokens in it are masked.
fn invalid(text: &str) -> ErrorData {
    ErrorData::invalid_params(CliError::new(Exit::Usage, text).to_string(), None)
}

/// The document of `quota status --json`.
pub(super) async fn status(
    calls: &Calls,
    scope: &CommandScope,
    params: StatusParams,
) -> Result<String, CliError> {
    let mode = match params.max_age_seconds {
        _ if params.offline == Some(true) => RefreshMode::Offline,
        Some(seconds) => RefreshMode::MaxAge(Duration::from_secs(seconds.into())),
        None => RefreshMode::IfStale,
    };
    let mut config = calls.accounts().await?;
    let names: Vec<_> = params.accounts.into_iter().flatten().map(|name| name.0).collect();
    config.retain(&names)?;
    calls.store.check(&config).await?;
    let accounts = account_query::query_all(scope, &config, &calls.store, NAME, mode, None).await?;
    let document = account_json::render(&accounts, &LocalTime::now());
    journal::update_and_save_problems(&config, calls.store.store.as_ref()).await;
    Ok(document)
}

/// The document of `quota explain --json`.
pub(super) async fn explain(
    calls: &Calls,
    cancelled: &CancellationToken,
    request: &RequestArgs,
) -> Result<String, CliError> {
    let (decision, _) = decide(calls, cancelled, request, Purpose::Explain).await?;
    Ok(decision_json::explain(&decision, request.model.as_deref()))
}

/// The purpose of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The client will use the account, so its session keeps it.
    Pick,
    /// Nothing is stored.
    Explain,
}

/// Makes the decision of `quota pick` or `quota explain`, after the same refreshes.
///
/// # Errors
///
/// [`CliError`] if the configuration or the store cannot be used, or the call is cancelled.
pub(super) async fn decide(
    calls: &Calls,
    cancelled: &CancellationToken,
    request: &RequestArgs,
    purpose: Purpose,
) -> Result<(Decision, Config), CliError> {
    calls
        .run(cancelled, async |scope| {
            let config = calls.config()?;
            let picker = AccountPicker::open(scope, &config, &calls.store, Some(NAME), request).await?;
            let decision = match purpose {
                Purpose::Pick => {
                    picker.route().await.map_or_else(|decision| decision, |(_, decision)| decision)
                }
                Purpose::Explain => picker.decide().await,
            };
            if picker.close(account_picker::SHUTDOWN_TIMEOUT).await {
                journal::update_and_save_problems(&config, calls.store.store.as_ref()).await;
            }
            Ok((decision, config))
        })
        .await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(name: &str, arguments: Value) -> Result<ToolCall, String> {
        let Value::Object(arguments) = arguments else { panic!("not an object") };
        ToolCall::parse(name, arguments).map_err(|error| error.message.into_owned())
    }

    #[test]
    fn each_listed_tool_is_called_without_arguments() {
        for tool in list() {
            assert!(parse(&tool.name, json!({})).is_ok(), "{}", tool.name);
        }
    }

    #[test]
    fn a_wait_has_a_default_and_a_maximum() {
        let wait = |arguments| match parse("quota_wait", arguments) {
            Ok(ToolCall::Wait(_, wait)) => Ok(wait.as_secs()),
            other => Err(format!("{other:?}")),
        };

        assert_eq!(wait(json!({})), Ok(50));
        assert_eq!(wait(json!({ "max_wait_seconds": 86_400 })), Ok(86_400));
        for bad in [json!(86_401), json!(-1), json!(1.5), json!("9")] {
            assert!(wait(json!({ "max_wait_seconds": bad })).is_err());
        }
    }

    #[test]
    fn wrong_arguments_are_invalid_and_tokens_are_masked() {
        for arguments in [
            json!({ "modle": "x" }),
            json!({ "model": 5 }),
            json!({ "model": "" }),
            json!({ "model": "x".repeat(MAX_NAME + 1) }),
            json!({ "unknown": "sk-ant-oat01-SECRET-SECRET" }),
        ] {
            let error = parse("quota_pick", arguments).unwrap_err();

            assert!(error.starts_with("the arguments are invalid: "), "{error}");
            assert!(!error.contains("SECRET"), "{error}");
        }
        assert!(parse("quota_delete", json!({})).is_err());
    }

    #[test]
    fn the_schemas_reject_unknown_arguments_and_describe_the_known_ones() {
        for tool in list() {
            let schema = tool.schema_as_json_value();

            assert_eq!(schema["additionalProperties"], false, "{schema}");
            assert_eq!(schema["required"], Value::Null, "{schema}");
            for (name, property) in schema["properties"].as_object().unwrap() {
                assert!(property["description"].as_str().is_some_and(|text| text.ends_with('.')), "{name}");
            }
        }
    }
}
