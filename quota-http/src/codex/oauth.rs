//! Configures the token exchange for Codex. The exchange itself is in `crate::oauth`.

use jiff::Timestamp;
use quota_core::model::OwnerId;
use quota_core::provider::token_claims;
use serde_json::{Map, Value};

use super::OPENAI;
use crate::lenient::{from_epoch, number, text};
use crate::oauth::{Encoding, OAuthRefresherBuilder, ProviderConfig};

/// Starts building a refresher for Codex logins that were created with this client id.
///
/// The refresher sends requests to `https://auth.openai.com/oauth/token`. There is no default client id, because the
/// existing one belongs to Codex. Only the user can decide to use it.
///
/// ```
/// use quota_core::provider::TokenRefresher;
///
/// let refresher = quota_http::codex::refresher("my-client-id").build()?;
/// assert_eq!(refresher.provider().as_str(), "openai");
/// # Ok::<(), quota_http::BuildError>(())
/// ```
pub fn refresher(client_id: impl Into<String>) -> OAuthRefresherBuilder {
    OAuthRefresherBuilder::new(CONFIG, OPENAI, client_id.into())
}

pub(crate) const CONFIG: ProviderConfig = ProviderConfig {
    encoding: Encoding::Json,
    base_url: "https://auth.openai.com",
    path: "oauth/token",
    scope: Some("openid profile email"),
    error,
    owner_id: account,
    token_expiry,
};

/// The error code: either a string, or the `code` of an object.
fn error(body: &Value) -> Option<&str> {
    let error = body.get("error")?;
    error.as_str().or_else(|| error.get("code")?.as_str())
}

fn account(response: &Map<String, Value>) -> Option<OwnerId> {
    let claims = token_claims(response.get("id_token")?.as_str()?)?;
    let auth = claims.get("https://api.openai.com/auth")?;
    text(auth.get("chatgpt_account_id")).ok().map(OwnerId::new)
}

fn token_expiry(access_token: &str) -> Option<Timestamp> {
    from_epoch(number(token_claims(access_token)?.get("exp")).ok()?)
}
