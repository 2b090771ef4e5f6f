//! OpenAI Codex: the usage of ChatGPT subscriptions. It has parsers for the usage endpoint and for ordinary responses.

mod headers;
mod money;
mod oauth;
mod response;
mod saved;
mod usage;

use quota_core::provider::ProgramLogin;
use quota_core::{Credential, ProviderId};

pub(crate) use oauth::CONFIG;
pub use oauth::refresher;
pub use response::CodexResponseParser;
use response::RULES;
pub use usage::parse_usage;

use crate::command_environment::CommandEnvironment;
use crate::provider::{OwnLogin, Provider};
use crate::request::UsageRequest;

/// The provider of Codex: `openai`.
pub const OPENAI: ProviderId = ProviderId::from_static("openai");

/// OpenAI Codex: the usage endpoint of ChatGPT subscriptions, with the login of Codex.
pub static PROVIDER: Provider = Provider::new("openai", "OpenAI Codex", request, parse_usage)
    .aliases(&["codex", "chatgpt"])
    .base_url("https://chatgpt.com")
    .private_endpoint()
    .login(OwnLogin::File(LOGIN))
    .command_environment(CODEX)
    .saved_documents(saved::parse)
    .response_rules(&RULES)
    .token_exchange(CONFIG);

/// The login file of Codex. Older versions wrote the names in camel case.
///
/// The members of a workspace share its account id, but not its quota. So the user id is a part of the login.
const LOGIN: ProgramLogin = ProgramLogin::new("Codex", "codex login", ".codex", &["auth.json"])
    .dir_variable("CODEX_HOME")
    .token(&["/tokens/access_token", "/tokens/accessToken"])
    .account_id(&[
        "/tokens/account_id",
        "/tokens/accountId",
        "/tokens/id_token#/https:~1~1api.openai.com~1auth/chatgpt_account_id",
        "/tokens/access_token#/https:~1~1api.openai.com~1auth/chatgpt_account_id",
    ])
    .user_id(&[
        "/tokens/id_token#/https:~1~1api.openai.com~1auth/chatgpt_user_id",
        "/tokens/access_token#/https:~1~1api.openai.com~1auth/chatgpt_user_id",
    ])
    .expires_at(&["/tokens/access_token#/exp", "/tokens/accessToken#/exp"]);

/// Codex reads its login only from its folder. The variables select an API key, which would be billed separately.
const CODEX: CommandEnvironment = CommandEnvironment::new().dir("CODEX_HOME", ".codex").remove(&[
    "CODEX_API_KEY",
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "OPENAI_ORGANIZATION",
    "OPENAI_PROJECT",
]);

fn request(credential: &Credential) -> UsageRequest {
    let request = UsageRequest::get("backend-api/wham/usage").bearer(&credential.secret);
    match &credential.account_id {
        // Without the id, the provider reports the user's personal account instead of the workspace.
        Some(id) => request.header("chatgpt-account-id", id),
        None => request,
    }
}
