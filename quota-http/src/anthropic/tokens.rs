//! How Anthropic exchanges tokens.
//! Sending, and what an answer means, is in `oauth`.

use quota_core::Identity;
use serde_json::{Map, Value};

use super::ANTHROPIC;
use crate::lenient::text;
use crate::oauth::{Dialect, OAuthRefresherBuilder};

/// Begins a refresher of Anthropic's logins, for those that were made with this client id.
///
/// It asks `https://platform.claude.com/v1/oauth/token`. There is no client id by default: the ids that are in use belong to
/// programs, and to ask by another program's is for the user to decide.
///
/// ```
/// use quota_core::TokenRefresher;
///
/// let refresher = quota_http::anthropic::refresher("my-client-id").build()?;
/// assert_eq!(refresher.provider().as_str(), "anthropic");
/// # Ok::<(), quota_http::BuildError>(())
/// ```
pub fn refresher(client_id: impl Into<String>) -> OAuthRefresherBuilder {
    OAuthRefresherBuilder::new(DIALECT, client_id.into())
}

pub(crate) const DIALECT: Dialect = Dialect {
    provider: || ANTHROPIC,
    base_url: "https://platform.claude.com",
    path: &["v1", "oauth", "token"],
    scope: None,
    // At the root only: what is nested is the API's own form of error, and says nothing of the token.
    error: |body| body.get("error")?.as_str(),
    identity: organization,
    ends: |_| None,
};

fn organization(answer: &Map<String, Value>) -> Option<Identity> {
    text(answer.get("organization")?.get("uuid")).known().map(Identity::new)
}
