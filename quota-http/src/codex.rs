//! OpenAI Codex: the usage of ChatGPT subscriptions. This module parses the usage endpoint, ordinary responses, and the
//! session files of Codex.

mod headers;
mod money;
mod oauth;
mod response;
mod saved;
mod session;
mod usage;
mod write;

use quota_core::provider::{ProgramLogin, token_claims};
use quota_core::{Credential, ProviderId, Secret};

pub(crate) use oauth::CONFIG;
pub use oauth::refresher;
pub use response::CodexResponseParser;
use response::RULES;
pub use session::{parse_session, parse_session_start};
pub use usage::parse_usage;

use crate::command_environment::CommandEnvironment;
use crate::lenient::text;
use crate::provider::{OwnLogin, Provider};
use crate::request::UsageRequest;
use crate::usage_endpoint::UsageEndpoint;

/// The provider of Codex: `openai`.
pub const OPENAI: ProviderId = ProviderId::from_static("openai");

/// OpenAI Codex: the usage endpoint of ChatGPT subscriptions, with the login of Codex.
pub static PROVIDER: Provider = Provider::new("openai", "OpenAI Codex", request, parse_usage)
    .aliases(&["codex", "chatgpt"])
    .base_url("https://chatgpt.com")
    .private_endpoint()
    .usage_endpoint(&ENDPOINT)
    .login(OwnLogin::File(LOGIN))
    .command_environment(CODEX)
    .saved_documents(saved::parse)
    .response_rules(&RULES)
    .token_exchange(CONFIG);

/// The responses of the usage endpoint.
static ENDPOINT: UsageEndpoint = UsageEndpoint::new("/backend-api/wham/usage", write::usage, write::failure)
    .countdowns(&["reset_after_seconds"])
    .personal(&["account_id", "email", "user_id"]);

/// The login file of Codex. Older versions wrote the names in camel case.
///
/// The members of a workspace share its account id, but not its quota. So the login includes the user id.
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
    // Without the id, the provider reports the user's personal account instead of the workspace.
    match credential.account_id.as_deref() {
        Some(id) => request.header("chatgpt-account-id", id),
        None => match account_of_token(&credential.secret) {
            Some(id) => request.header("chatgpt-account-id", &id),
            None => request,
        },
    }
}

/// The account that the token names, for a login that consists only of a token.
fn account_of_token(token: &Secret) -> Option<String> {
    let claims = token_claims(token.expose().trim())?;
    let id = text(claims.get("https://api.openai.com/auth")?.get("chatgpt_account_id")).ok()?;
    Some(id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account_of(credential: &Credential) -> Option<String> {
        let value = request(credential).headers.remove("chatgpt-account-id")?;
        Some(value.to_str().unwrap().to_owned())
    }

    #[test]
    fn without_an_account_id_the_token_names_the_workspace() {
        // {"https://api.openai.com/auth":{"chatgpt_account_id":"made-up-id"}}
        let claims =
            "eyJodHRwczovL2FwaS5vcGVuYWkuY29tL2F1dGgiOnsiY2hhdGdwdF9hY2NvdW50X2lkIjoibWFkZS11cC1pZCJ9fQ";
        let mut credential = Credential::new(Secret::new(format!("e30.{claims}.sig")));
        assert_eq!(account_of(&credential).as_deref(), Some("made-up-id"));

        credential.account_id = Some("of-the-login".into());
        assert_eq!(account_of(&credential).as_deref(), Some("of-the-login"));
        assert_eq!(account_of(&Credential::new(Secret::new("sk-made-up"))), None);
    }
}
