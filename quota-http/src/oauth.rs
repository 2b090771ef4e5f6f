//! Exchanges a refresh token: builds the request, and interprets the response (RFC 6749, section 5). `ProviderConfig` has the
//! differences between providers. Callers decide when to exchange, and store the tokens.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use quota_core::model::OwnerId;
use quota_core::provider::{TokenError, TokenRefresher, Tokens};
use quota_core::secret::SecretBuffer;
use quota_core::{Clock, ProviderId, Secret};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use secrecy::zeroize::Zeroizing;
use serde::Serialize;
use serde_json::{Map, Value};
use url::Url;

use crate::classify::{header, is_blocked_by_cloudflare};
use crate::endpoint::{BuildError, endpoint};
use crate::lenient::number;
use crate::transport::{HttpResponse, Transport, TransportSettings};
use quota_core::provider::retry_after;

/// The differences between the token endpoints of providers.
#[derive(Clone, Copy)]
pub(crate) struct ProviderConfig {
    pub(crate) provider: ProviderIdOf,
    pub(crate) base_url: &'static str,
    pub(crate) path: &'static str,
    /// The `scope` parameter of the request.
    pub(crate) scope: Option<&'static str>,
    /// Extracts the error code from an error response.
    pub(crate) error: fn(&Value) -> Option<&str>,
    /// Extracts the owner from a response.
    pub(crate) owner_id: fn(&Map<String, Value>) -> Option<OwnerId>,
    /// Extracts the expiry from the claims of the access token. It is used if the response has no `expires_in`.
    pub(crate) token_expiry: fn(&str) -> Option<Timestamp>,
}

/// A function, because a [`ProviderId`] is not `Copy`.
pub(crate) type ProviderIdOf = fn() -> ProviderId;

/// Exchanges the refresh tokens of a provider's logins, over OAuth.
///
/// Each call sends one request: no retries, no delays, no redirects. Tokens are sent only to the base URL. Errors, logs and
/// `Debug` contain neither tokens nor any part of a response.
///
/// Build it with [`Provider::refresher`](crate::Provider::refresher), [`anthropic::refresher`](crate::anthropic::refresher) or
/// [`codex::refresher`](crate::codex::refresher).
pub struct OAuthRefresher {
    config: ProviderConfig,
    client_id: String,
    transport: Transport,
    clock: Clock,
    url: Url,
}

#[async_trait]
impl TokenRefresher for OAuthRefresher {
    fn provider(&self) -> ProviderId {
        (self.config.provider)()
    }

    async fn refresh(&self, refresh_token: &Secret) -> Result<Tokens, TokenError> {
        let headers = HeaderMap::from_iter([
            (ACCEPT, HeaderValue::from_static("application/json")),
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        ]);
        let result = self.transport.post(self.url.clone(), headers, self.body(refresh_token)).await;
        let response = result.map_err(|error| TokenError::transient(error.report()).with_source(error))?;
        let HttpResponse { status, headers, body } = response;
        let now = self.clock.now();
        if !(200..300).contains(&status) {
            let wait = retry_after(|name| header(&headers, name), Some(now));
            if is_blocked_by_cloudflare(|name| header(&headers, name)) && matches!(status, 400..=403 | 503) {
                let reason = format!("Cloudflare blocked the request (status {status})");
                return Err(TokenError::transient(reason).with_retry_after(wait));
            }
            return Err(error_from_response(&self.config, status, &body).with_retry_after(wait));
        }
        parse_tokens(&self.config, &body, now)
    }
}

impl OAuthRefresher {
    fn body(&self, refresh_token: &Secret) -> SecretBuffer {
        let form = ExchangeRequest {
            client_id: &self.client_id,
            grant_type: "refresh_token",
            refresh_token: refresh_token.expose(),
            scope: self.config.scope,
        };
        let mut body = SecretBuffer::default();
        serde_json::to_writer(&mut body, &form)
            .expect("the keys are strings, and writing to memory cannot fail");
        body
    }
}

/// The request body (RFC 6749, section 6), as JSON.
#[derive(Serialize)]
struct ExchangeRequest<'a> {
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

/// Maps an error response to a [`TokenError`].
fn error_from_response(config: &ProviderConfig, status: u16, body: &[u8]) -> TokenError {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    // These statuses are transient, whatever error code they carry.
    let code = (config.error)(&body).filter(|_| status != 429 && status < 500);
    match code {
        Some("invalid_grant") => TokenError::invalid_grant("its refresh token is no longer accepted"),
        Some("refresh_token_expired") => TokenError::invalid_grant("its refresh token has expired"),
        Some("refresh_token_reused") => {
            TokenError::invalid_grant("its refresh token was used by another program")
        }
        Some("refresh_token_invalidated") => TokenError::invalid_grant("its refresh token was revoked"),
        Some("invalid_client" | "unauthorized_client") => {
            TokenError::invalid_client("the provider rejected the client id; check client_id")
        }
        Some("unsupported_grant_type" | "invalid_scope" | "invalid_request") => {
            TokenError::invalid_client("the provider rejected the request format; update this program")
        }
        _ => TokenError::transient(match status {
            429 => "rate limited (429)".to_owned(),
            300..=399 => "the provider sent a redirect, which is not followed; check base_url".to_owned(),
            404 => "the token endpoint was not found; check base_url".to_owned(),
            status => format!("unexpected status {status}"),
        }),
    }
}

/// Parses a successful response.
fn parse_tokens(config: &ProviderConfig, body: &[u8], now: Timestamp) -> Result<Tokens, TokenError> {
    let malformed = |what: &str| TokenError::transient(format!("the response has {what}"));
    let Ok(Value::Object(mut response)) = serde_json::from_slice(body) else {
        return Err(malformed("no JSON object"));
    };
    let access =
        token(response.remove("access_token")).map_err(|InvalidToken| malformed("an invalid token"))?;
    let access = access.ok_or_else(|| malformed("no access token"))?;
    let refresh =
        token(response.remove("refresh_token")).map_err(|InvalidToken| malformed("an invalid token"))?;
    let expires_in =
        number(response.get("expires_in")).ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let lives = expires_in.filter(|duration| !duration.is_zero()).or_else(|| {
        let expiry = (config.token_expiry)(access.expose())?;
        Duration::try_from(expiry.duration_since(now)).ok()
    });
    let owner_id = (config.owner_id)(&response);
    response.into_iter().for_each(|(_, value)| zeroize(value));
    Ok(Tokens::new(access).refresh_token(refresh).expires_in(lives).owner_id(owner_id))
}

/// The field has a value that cannot be a token.
#[derive(Debug)]
struct InvalidToken;

/// Converts a field into a token; `None` if it is absent or empty.
fn token(field: Option<Value>) -> Result<Option<Secret>, InvalidToken> {
    match field {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) if text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(Some(Secret::new(text)))
        }
        Some(other) => {
            zeroize(other);
            Err(InvalidToken)
        }
    }
}

/// Zeroizes a field that is not used, because it may also be a token.
fn zeroize(value: Value) {
    if let Value::String(text) = value {
        drop(Zeroizing::new(text));
    }
}

/// The settings of an [`OAuthRefresher`].
#[derive(Clone)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct OAuthRefresherBuilder {
    config: ProviderConfig,
    client_id: String,
    base_url: Option<Url>,
    transport: TransportSettings,
    clock: Clock,
}

impl OAuthRefresherBuilder {
    pub(crate) fn new(config: ProviderConfig, client_id: String) -> Self {
        Self {
            config,
            client_id,
            base_url: None,
            transport: TransportSettings::default(),
            clock: Clock::system(),
        }
    }

    /// Sends requests here instead of to the provider. A path in the URL is a prefix of the endpoint's path.
    pub fn base_url(mut self, url: Url) -> Self {
        self.base_url = Some(url);
        self
    }

    /// Sets the `User-Agent` (default: `quota/<version>`).
    pub fn user_agent(mut self, text: impl Into<String>) -> Self {
        self.transport.user_agent = Some(text.into());
        self
    }

    /// The timeout of one call, from connecting to the end of the response (default: 10 seconds).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.transport.timeout = Some(timeout);
        self
    }

    /// Uses this HTTP client. Disable its redirects and retries: sending a refresh token twice may revoke the login.
    pub fn client(mut self, client: reqwest::Client) -> Self {
        self.transport.client = Some(client);
        self
    }

    /// Sets the clock that turns a date in `Retry-After` into a delay.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Builds the refresher, without connecting.
    ///
    /// # Errors
    ///
    /// [`BuildError`] if the client id, the base URL, the user agent or the timeout is invalid.
    pub fn build(self) -> Result<OAuthRefresher, BuildError> {
        let client_id = self.client_id.trim().to_owned();
        if client_id.is_empty() || !client_id.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BuildError::ClientId);
        }
        let default = || Url::parse(self.config.base_url).expect("the default is a valid URL");
        let url = endpoint(&self.base_url.unwrap_or_else(default), self.config.path)?;
        let transport = self.transport.build()?;
        Ok(OAuthRefresher { config: self.config, client_id, transport, clock: self.clock, url })
    }
}

impl fmt::Debug for OAuthRefresherBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Omit the URL: it may contain a password until `build` has validated it.
        f.debug_struct("OAuthRefresherBuilder").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
