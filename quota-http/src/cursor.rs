//! Cursor: the included usage of a billing cycle, and the spending beyond it. Amounts are in cents.

mod saved;
mod usage;

use quota_core::Credential;
use quota_core::provider::ProgramLogin;
use serde_json::json;

pub use usage::parse_usage;

use crate::command_environment::CommandEnvironment;
use crate::provider::{OwnLogin, Provider};
use crate::request::UsageRequest;

/// Cursor: the usage of the current billing cycle, with the login of its command line program.
pub static PROVIDER: Provider = Provider::new("cursor", "Cursor", request, parse_usage)
    .base_url("https://api2.cursor.sh")
    .private_endpoint()
    .login(OwnLogin::File(LOGIN))
    .command_environment(CommandEnvironment::new().remove(&["CURSOR_API_KEY"]))
    .saved_documents(saved::parse);

/// The login of the command line program. The editor keeps its login in a database, which quota does not read.
const LOGIN: ProgramLogin =
    ProgramLogin::new("Cursor", "cursor-agent login", ".config/cursor", &["auth.json"])
        .dir_variable_below("XDG_CONFIG_HOME", "cursor")
        .token(&["/accessToken"])
        .account_id(&["/accessToken#/sub"])
        .expires_at(&["/accessToken#/exp"]);

fn request(credential: &Credential) -> UsageRequest {
    UsageRequest::post("aiserver.v1.DashboardService/GetCurrentPeriodUsage", &json!({}))
        .bearer(&credential.secret)
        .header("connect-protocol-version", "1")
}
