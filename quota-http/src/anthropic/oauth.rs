//! Configures the token exchange for Anthropic. The exchange itself is in `crate::oauth`.

use quota_core::model::OwnerId;
use serde_json::{Map, Value};

use super::ANTHROPIC;
use crate::lenient::text;
use crate::oauth::{Encoding, OAuthRefresherBuilder, ProviderConfig};

/// Starts building a refresher for Anthropic logins that were created with this client id.
///
/// The refresher sends requests to `https://platform.claude.com/v1/oauth/token`. There is no default client id, because
/// the existing ids belong to other programs. Only the user can decide to use one of them.
///
/// ```
/// use quota_core::provider::TokenRefresher;
///
/// let refresher = quota_http::anthropic::refresher("my-client-id").build()?;
/// assert_eq!(refresher.provider().as_str(), "anthropic");
/// # Ok::<(), quota_http::BuildError>(())
/// ```
pub fn refresher(client_id: impl Into<String>) -> OAuthRefresherBuilder {
    OAuthRefresherBuilder::new(CONFIG, ANTHROPIC, client_id.into())
}

pub(crate) const CONFIG: ProviderConfig = ProviderConfig {
    encoding: Encoding::Json,
    base_url: "https://platform.claude.com",
    path: "v1/oauth/token",
    scope: None,
    // Accept only a string. An object is the error format of the API itself, and says nothing about the token.
    error: |body| body.get("error")?.as_str(),
    owner_id: organization,
    token_expiry: |_| None,
};

fn organization(response: &Map<String, Value>) -> Option<OwnerId> {
    text(response.get("organization")?.get("uuid")).ok().map(OwnerId::new)
}
