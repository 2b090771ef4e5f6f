//! Anthropic: the usage of Claude subscriptions. This module parses the usage endpoint, ordinary responses and their
//! headers, and the files of Claude Code.

mod headers;
mod limits;
mod local;
mod money;
mod oauth;
mod profile;
mod response;
mod saved;
mod usage;
mod windows;
mod write;

use jiff::Timestamp;
use quota_core::{Credential, ProviderId};

pub use headers::{ParsedHeaders, parse_headers};
pub use local::{CachedUsage, parse_claude_json, parse_rate_limit_event, parse_statusline};
pub(crate) use oauth::CONFIG;
pub use oauth::refresher;
pub use profile::{Profile, parse_profile};
pub use response::AnthropicResponseParser;
pub(crate) use response::RULES;
pub use usage::parse_usage;

use crate::command_environment::CommandEnvironment;
use crate::parsed::{ParseError, Parsed};
use crate::provider::{OwnLogin, Provider};
use crate::request::UsageRequest;
use crate::usage_endpoint::UsageEndpoint;

/// The provider of Claude: `anthropic`.
pub const ANTHROPIC: ProviderId = ProviderId::from_static("anthropic");

/// The response header with the owner of the account.
const ORGANIZATION: &str = "anthropic-organization-id";

/// Anthropic's usage endpoint, with the token of an OAuth login.
pub static PROVIDER: Provider = Provider::new("anthropic", "Anthropic", request, parse)
    .aliases(&["claude"])
    .base_url("https://api.anthropic.com")
    .private_endpoint()
    .usage_endpoint(&ENDPOINT)
    .owner_header(ORGANIZATION)
    .login(OwnLogin::ClaudeCode)
    .token_variables(&["ANTHROPIC_AUTH_TOKEN"])
    .command_environment(CLAUDE_CODE)
    .saved_documents(saved::parse)
    .response_rules(&RULES)
    .token_exchange(CONFIG);

/// The responses of the usage endpoint.
static ENDPOINT: UsageEndpoint = UsageEndpoint::new("/api/oauth/usage", write::usage, write::failure);

/// The variables of Claude Code, from <https://code.claude.com/docs/en/env-vars>.
const CLAUDE_CODE: CommandEnvironment = CommandEnvironment::new()
    .token(
        "CLAUDE_CODE_OAUTH_TOKEN",
        &[
            "CLAUDE_CODE_OAUTH_REFRESH_TOKEN",
            "CLAUDE_CODE_OAUTH_SCOPES",
            "CLAUDE_CODE_OAUTH_TOKEN_FILE_DESCRIPTOR",
        ],
    )
    .dir("CLAUDE_CONFIG_DIR", ".claude")
    .base_url("ANTHROPIC_BASE_URL")
    .headers("ANTHROPIC_CUSTOM_HEADERS")
    .remove(&[
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_AUTH_TOKEN",
        "ANTHROPIC_FEDERATION_RULE_ID",
        "ANTHROPIC_IDENTITY_TOKEN",
        "ANTHROPIC_IDENTITY_TOKEN_FILE",
        "ANTHROPIC_ORGANIZATION_ID",
        "ANTHROPIC_PROFILE",
        "ANTHROPIC_SERVICE_ACCOUNT_ID",
        "ANTHROPIC_UNIX_SOCKET",
        "ANTHROPIC_WORKSPACE_ID",
        "CLAUDE_CODE_API_BASE_URL",
        "CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR",
        "CLAUDE_CODE_USE_ANTHROPIC_AWS",
        "CLAUDE_CODE_USE_BEDROCK",
        "CLAUDE_CODE_USE_FOUNDRY",
        "CLAUDE_CODE_USE_MANTLE",
        "CLAUDE_CODE_USE_VERTEX",
    ]);

fn request(credential: &Credential) -> UsageRequest {
    UsageRequest::get("api/oauth/usage")
        .bearer(&credential.secret)
        .header("anthropic-beta", "oauth-2025-04-20")
}

fn parse(body: &[u8], _now: Timestamp) -> Result<Parsed, ParseError> {
    parse_usage(body)
}
