//! Exchanging a refresh token: the request, and what an answer means (RFC 6749, section 5).
//! How a provider words it is in its own module; when to exchange, and where tokens are kept, is not known here.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use quota_core::{Clock, ExchangeError, Identity, ProviderId, Secret, SecretBuffer, TokenRefresher, Tokens};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use secrecy::zeroize::Zeroizing;
use serde::Serialize;
use serde_json::{Map, Value};
use url::Url;

use crate::classify::{header, is_blocked_by_cloudflare};
use crate::endpoint::{BuildError, endpoint};
use crate::lenient::number;
use crate::transport::{Answer, Transport, TransportSettings};
use quota_core::retry_after;

/// How one provider exchanges tokens.
#[derive(Clone, Copy)]
pub(crate) struct Dialect {
    pub(crate) provider: ProviderIdOf,
    pub(crate) base_url: &'static str,
    pub(crate) path: &'static [&'static str],
    /// What is sent beside the token and the client id.
    pub(crate) scope: Option<&'static str>,
    /// The provider's word for what went wrong, in an answer that is an error.
    pub(crate) error: fn(&Value) -> Option<&str>,
    /// Whose login an answer says it is.
    pub(crate) identity: fn(&Map<String, Value>) -> Option<Identity>,
    /// When the access token ends by its own word, where the answer does not say.
    pub(crate) ends: fn(&str) -> Option<Timestamp>,
}

/// A function, because a [`ProviderId`] is not `Copy`.
pub(crate) type ProviderIdOf = fn() -> ProviderId;

/// Exchanges the refresh tokens of a provider's logins, over OAuth.
///
/// It asks once per call: no retry, no wait, no redirect. The tokens go to the base URL and nowhere else, and are in no
/// error, no log and no `Debug`; nor is any part of an answer.
///
/// Begun by [`anthropic::refresher`](crate::anthropic::refresher) or [`codex::refresher`](crate::codex::refresher).
pub struct OAuthRefresher {
    dialect: Dialect,
    client_id: String,
    transport: Transport,
    clock: Clock,
    url: Url,
}

#[async_trait]
impl TokenRefresher for OAuthRefresher {
    fn provider(&self) -> ProviderId {
        (self.dialect.provider)()
    }

    async fn exchange(&self, refresh_token: &Secret) -> Result<Tokens, ExchangeError> {
        let headers = HeaderMap::from_iter([
            (ACCEPT, HeaderValue::from_static("application/json")),
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        ]);
        let sent = self.transport.post(self.url.clone(), headers, self.body(refresh_token)).await;
        let answer = sent.map_err(|error| ExchangeError::transient(error.report()).because(error))?;
        let Answer { status, headers, body } = answer;
        let now = self.clock.now();
        if !(200..300).contains(&status) {
            let wait = retry_after(|name| header(&headers, name), Some(now));
            if is_blocked_by_cloudflare(|name| header(&headers, name)) && matches!(status, 400..=403 | 503) {
                let why = format!("Cloudflare blocked the request (status {status})");
                return Err(ExchangeError::transient(why).after(wait));
            }
            return Err(refusal(&self.dialect, status, &body).after(wait));
        }
        tokens(&self.dialect, &body, now)
    }
}

impl OAuthRefresher {
    fn body(&self, refresh_token: &Secret) -> SecretBuffer {
        let form = Form {
            client_id: &self.client_id,
            grant_type: "refresh_token",
            refresh_token: refresh_token.expose(),
            scope: self.dialect.scope,
        };
        let mut body = SecretBuffer::default();
        serde_json::to_writer(&mut body, &form).expect("it has only text keys, and memory takes all of it");
        body
    }
}

/// What is asked for (RFC 6749, section 6).
#[derive(Serialize)]
struct Form<'a> {
    client_id: &'a str,
    grant_type: &'a str,
    refresh_token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
}

impl fmt::Debug for OAuthRefresher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuthRefresher").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

/// What an answer means that gives no tokens.
fn refusal(dialect: &Dialect, status: u16, body: &[u8]) -> ExchangeError {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    // Throttled or broken, whatever else it says.
    let word = (dialect.error)(&body).filter(|_| status != 429 && status < 500);
    match word {
        Some("invalid_grant") => ExchangeError::dead("its refresh token is not accepted any more"),
        Some("refresh_token_expired") => ExchangeError::dead("its refresh token has expired"),
        Some("refresh_token_reused") => ExchangeError::dead("its refresh token was used by another program"),
        Some("refresh_token_invalidated") => ExchangeError::dead("it was ended elsewhere"),
        Some("invalid_client" | "unauthorized_client") => {
            ExchangeError::systemic("the provider does not know the client id, check client_id")
        }
        Some("unsupported_grant_type" | "invalid_scope" | "invalid_request") => {
            ExchangeError::systemic("the provider does not understand the request, update this program")
        }
        _ => ExchangeError::transient(match status {
            429 => "the provider asked to slow down".to_owned(),
            300..=399 => "it answered with a redirect, which is not followed; check base_url".to_owned(),
            404 => "the token endpoint was not found; check base_url".to_owned(),
            status => format!("the provider answered with status {status}"),
        }),
    }
}

/// Reads a good answer.
fn tokens(dialect: &Dialect, body: &[u8], now: Timestamp) -> Result<Tokens, ExchangeError> {
    let not_understood = |what: &str| ExchangeError::transient(format!("the answer has {what}"));
    let Ok(Value::Object(mut answer)) = serde_json::from_slice(body) else {
        return Err(not_understood("no JSON object"));
    };
    let access = token(answer.remove("access_token")).map_err(|Damaged| not_understood("a damaged token"))?;
    let access = access.ok_or_else(|| not_understood("no access token"))?;
    let refresh =
        token(answer.remove("refresh_token")).map_err(|Damaged| not_understood("a damaged token"))?;
    let said =
        number(answer.get("expires_in")).known().and_then(|span| Duration::try_from_secs_f64(span).ok());
    let lives = said.filter(|span| !span.is_zero()).or_else(|| {
        let ends = (dialect.ends)(access.expose())?;
        Duration::try_from(ends.duration_since(now)).ok()
    });
    let identity = (dialect.identity)(&answer);
    answer.into_iter().for_each(|(_, value)| wipe(value));
    Ok(Tokens::new(access).refresh_token(refresh).lives(lives).identity(identity))
}

/// A token stands there and cannot be one.
#[derive(Debug)]
struct Damaged;

/// Takes a token, if there is one.
fn token(field: Option<Value>) -> Result<Option<Secret>, Damaged> {
    match field {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) if text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(Some(Secret::new(text)))
        }
        Some(other) => {
            wipe(other);
            Err(Damaged)
        }
    }
}

/// An answer may hold tokens that are not asked for.
fn wipe(value: Value) {
    if let Value::String(text) = value {
        drop(Zeroizing::new(text));
    }
}

/// The settings of an [`OAuthRefresher`].
#[derive(Clone)]
#[must_use = "nothing is built before `build`"]
pub struct OAuthRefresherBuilder {
    dialect: Dialect,
    client_id: String,
    base_url: Option<Url>,
    transport: TransportSettings,
    clock: Clock,
}

impl OAuthRefresherBuilder {
    pub(crate) fn new(dialect: Dialect, client_id: String) -> Self {
        Self {
            dialect,
            client_id,
            base_url: None,
            transport: TransportSettings::default(),
            clock: Clock::system(),
        }
    }

    /// Asks here instead of where the provider serves its tokens; a path in it stays in front of the endpoint's own.
    pub fn base_url(mut self, url: Url) -> Self {
        self.base_url = Some(url);
        self
    }

    /// Says who asks, instead of `quota/<version>`.
    pub fn user_agent(mut self, text: impl Into<String>) -> Self {
        self.transport.user_agent = Some(text.into());
        self
    }

    /// How long one call may take, from the connection to the end of the answer. Ten seconds.
    pub fn timeout(mut self, span: Duration) -> Self {
        self.transport.timeout = Some(span);
        self
    }

    /// Sends through this client instead of one of our own. Give it no redirects and no retries: a refresh token that is
    /// sent twice may end its login.
    pub fn client(mut self, client: reqwest::Client) -> Self {
        self.transport.client = Some(client);
        self
    }

    /// Asks this clock how far off a date to wait for is.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Builds the refresher. It connects to nothing.
    ///
    /// # Errors
    ///
    /// [`BuildError`] if the client id, the base URL, the user agent or the time-out cannot be used.
    pub fn build(self) -> Result<OAuthRefresher, BuildError> {
        let client_id = self.client_id.trim().to_owned();
        if client_id.is_empty() || !client_id.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BuildError::ClientId);
        }
        let default = || Url::parse(self.dialect.base_url).expect("the default is a URL");
        let url = endpoint(&self.base_url.unwrap_or_else(default), self.dialect.path)?;
        let transport = self.transport.build()?;
        Ok(OAuthRefresher { dialect: self.dialect, client_id, transport, clock: self.clock, url })
    }
}

impl fmt::Debug for OAuthRefresherBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the URL: until `build` has looked, there may be a password in it.
        f.debug_struct("OAuthRefresherBuilder").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
