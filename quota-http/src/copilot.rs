//! GitHub Copilot: the monthly quotas of a user. Paid plans have `quota_snapshots`, the free plan has counts.

mod usage;
mod write;

use quota_core::Credential;
use quota_core::provider::ProgramLogin;

pub use usage::parse_usage;

use crate::command_environment::CommandEnvironment;
use crate::provider::{OwnLogin, Provider};
use crate::request::UsageRequest;
use crate::usage_endpoint::UsageEndpoint;

/// GitHub Copilot: the quotas of a user, with the login of the editor plugins.
pub static PROVIDER: Provider = Provider::new("copilot", "GitHub Copilot", request, parse_usage)
    .aliases(&["github-copilot"])
    .base_url("https://api.github.com")
    .private_endpoint()
    .usage_endpoint(&ENDPOINT)
    .login(OwnLogin::File(LOGIN))
    .token_variables(&["COPILOT_GITHUB_TOKEN"])
    .command_environment(COPILOT);

static ENDPOINT: UsageEndpoint = UsageEndpoint::new("/copilot_internal/user", write::usage, write::failure)
    .personal(&[
        "analytics_tracking_id",
        "assigned_date",
        "login",
        "organization_list",
        "organization_login_list",
    ])
    .with_other_uses();

/// The login of the editor plugins. Its keys are hosts, some with the id of an application.
///
/// The token of another host, such as a GitHub Enterprise host, must not be sent to github.com.
const LOGIN: ProgramLogin = ProgramLogin::new(
    "the Copilot plugin",
    "vim '+Copilot setup'",
    ".config/github-copilot",
    &["apps.json", "hosts.json"],
)
.dir_variable_below("XDG_CONFIG_HOME", "github-copilot")
.token(&["/github.com/oauth_token", "/github.com:*/oauth_token"])
.account_id(&["/github.com/user", "/github.com:*/user"]);

/// Copilot CLI has its own login and does not read that of the editor plugins. It prefers its own variable to those of
/// the GitHub CLI, so `quota run` keeps the latter. The removed variables select another provider or host.
const COPILOT: CommandEnvironment =
    CommandEnvironment::new().token("COPILOT_GITHUB_TOKEN", &[]).require_token().remove(&[
        "COPILOT_PROVIDER_API_KEY",
        "COPILOT_PROVIDER_BASE_URL",
        "COPILOT_PROVIDER_BEARER_TOKEN",
        "COPILOT_PROVIDER_TYPE",
        "GH_HOST",
    ]);

fn request(credential: &Credential) -> UsageRequest {
    UsageRequest::get("copilot_internal/user")
        .authorization("token", &credential.secret)
        .header("editor-version", concat!("quota/", env!("CARGO_PKG_VERSION")))
        .header("x-github-api-version", "2025-04-01")
}
