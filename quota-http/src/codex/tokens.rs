//! How OpenAI exchanges the tokens of Codex.
//! Sending, and what an answer means, is in `oauth`.

use jiff::Timestamp;
use quota_core::Identity;
use serde_json::{Map, Value};

use super::OPENAI;
use crate::jwt;
use crate::lenient::{epoch, number, text};
use crate::oauth::{Dialect, OAuthRefresherBuilder};

/// Begins a refresher of the logins of Codex, for those that were made with this client id.
///
/// It asks `https://auth.openai.com/oauth/token`. There is no client id by default: the one that is in use belongs to Codex,
/// and to ask by another program's is for the user to decide.
///
/// ```
/// use quota_core::TokenRefresher;
///
/// let refresher = quota_http::codex::refresher("my-client-id").build()?;
/// assert_eq!(refresher.provider().as_str(), "openai");
/// # Ok::<(), quota_http::BuildError>(())
/// ```
pub fn refresher(client_id: impl Into<String>) -> OAuthRefresherBuilder {
    OAuthRefresherBuilder::new(DIALECT, client_id.into())
}

pub(crate) const DIALECT: Dialect = Dialect {
    provider: || OPENAI,
    base_url: "https://auth.openai.com",
    path: &["oauth", "token"],
    scope: Some("openid profile email"),
    error,
    identity: account,
    ends,
};

/// The word for an error: a text, or the code of an object.
fn error(body: &Value) -> Option<&str> {
    let error = body.get("error")?;
    error.as_str().or_else(|| error.get("code")?.as_str())
}

fn account(answer: &Map<String, Value>) -> Option<Identity> {
    let claims = jwt::claims(answer.get("id_token")?.as_str()?)?;
    let auth = claims.get("https://api.openai.com/auth")?;
    text(auth.get("chatgpt_account_id")).known().map(Identity::new)
}

fn ends(access_token: &str) -> Option<Timestamp> {
    epoch(number(jwt::claims(access_token)?.get("exp")).known()?)
}
