//! Exchanges a refresh token or an authorization code: builds the request, and interprets the response (RFC 6749, section 5). `ProviderConfig` has the
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
use serde::Serializer as _;
use serde_json::{Map, Value};
use url::{Url, form_urlencoded};

use crate::authorization::Authorization;
use crate::classify::{header, is_blocked_by_cloudflare};
use crate::endpoint::{BuildError, check_base, endpoint};
use crate::lenient::number;
use crate::transport::{HttpResponse, Transport, TransportSettings};
use quota_core::provider::retry_after;

/// The differences between the token endpoints of providers.
#[derive(Clone, Copy)]
pub(crate) struct ProviderConfig {
    /// The encoding of the request.
    pub(crate) encoding: Encoding,
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

/// How a token endpoint reads its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    /// The encoding of RFC 6749.
    Form,
}

/// A token endpoint of RFC 6749, at a URL that the user configures.
pub(crate) const STANDARD: ProviderConfig = ProviderConfig {
    encoding: Encoding::Form,
    base_url: "https://localhost",
    path: "",
    scope: None,
    error: |body| body.get("error")?.as_str(),
    owner_id: |_| None,
    token_expiry: |_| None,
};

/// Exchanges the refresh tokens of a provider's logins, over OAuth.
///
/// Each call sends one request, without retries, delays or redirects. Tokens are sent only to the base URL. Errors,
/// logs and `Debug` contain neither tokens nor any part of a response.
///
/// Build it with [`Provider::refresher`](crate::Provider::refresher), [`anthropic::refresher`](crate::anthropic::refresher) or
/// [`codex::refresher`](crate::codex::refresher).
pub struct OAuthRefresher {
    config: ProviderConfig,
    provider: ProviderId,
    client_id: String,
    transport: Transport,
    clock: Clock,
    url: Url,
}

#[async_trait]
impl TokenRefresher for OAuthRefresher {
    fn provider(&self) -> ProviderId {
        self.provider.clone()
    }

    async fn refresh(&self, refresh_token: &Secret) -> Result<Tokens, TokenError> {
        let scope = self.config.scope.map(|scope| ("scope", scope));
        let fields = [("grant_type", "refresh_token"), ("refresh_token", refresh_token.expose())];
        self.exchange(fields.into_iter().chain(scope)).await
    }
}

impl OAuthRefresher {
    /// Exchanges the code of an authorization once. The provider must have issued the code to the same client.
    ///
    /// Do not drop the future. The provider may already have consumed the code, and the tokens would be lost.
    ///
    /// # Errors
    ///
    /// [`TokenError::InvalidGrant`] if the provider does not accept the code. The other variants are those of
    /// [`refresh`](TokenRefresher::refresh).
    pub async fn exchange_code(
        &self,
        code: &Secret,
        authorization: &Authorization,
    ) -> Result<Tokens, TokenError> {
        let fields = [
            ("grant_type", "authorization_code"),
            ("code", code.expose()),
            ("redirect_uri", &authorization.redirect_url),
            ("code_verifier", authorization.verifier.expose()),
            // Some providers check it. The others ignore it (RFC 6749, section 3.2).
            ("state", &authorization.state),
        ];
        self.exchange(fields).await.map_err(|error| match error {
            TokenError::InvalidGrant { .. } => {
                TokenError::invalid_grant("the code is not accepted; it works once, for a few minutes")
            }
            other => other,
        })
    }

    /// Sends one request with these fields and the client id.
    async fn exchange<'a>(
        &'a self,
        fields: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Tokens, TokenError> {
        let content_type = match self.config.encoding {
            Encoding::Json => "application/json",
            Encoding::Form => "application/x-www-form-urlencoded",
        };
        let headers = HeaderMap::from_iter([
            (ACCEPT, HeaderValue::from_static("application/json")),
            (CONTENT_TYPE, HeaderValue::from_static(content_type)),
        ]);
        let body = self.body(fields);
        let result = self.transport.post(self.url.clone(), headers, body).await;
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

    fn body<'a>(&'a self, fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> SecretBuffer {
        let fields = std::iter::once(("client_id", &*self.client_id)).chain(fields);
        let mut body = SecretBuffer::default();
        match self.config.encoding {
            Encoding::Json => serde_json::Serializer::new(&mut body)
                .collect_map(fields)
                .expect("the keys are strings, and writing to memory cannot fail"),
            Encoding::Form => {
                for (name, value) in fields {
                    let separator = if body.is_empty() { "" } else { "&" };
                    let value =
                        Zeroizing::new(form_urlencoded::byte_serialize(value.as_bytes()).collect::<String>());
                    body.extend_from_slice(separator.as_bytes());
                    body.extend_from_slice(name.as_bytes());
                    body.extend_from_slice(b"=");
                    body.extend_from_slice(value.as_bytes());
                }
            }
        }
        body
    }
}

impl fmt::Debug for OAuthRefresher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuthRefresher").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

/// Maps an error response to a [`TokenError`].
fn error_from_response(config: &ProviderConfig, status: u16, body: &[u8]) -> TokenError {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    // These statuses are transient, regardless of their error code.
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

/// Zeroizes an unused field, because it may be a token too.
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
    provider: ProviderId,
    client_id: String,
    base_url: Option<Url>,
    token_url: Option<Url>,
    transport: TransportSettings,
    clock: Clock,
}

impl OAuthRefresherBuilder {
    pub(crate) fn new(config: ProviderConfig, provider: ProviderId, client_id: String) -> Self {
        Self {
            config,
            provider,
            client_id,
            base_url: None,
            token_url: None,
            transport: TransportSettings::default(),
            clock: Clock::system(),
        }
    }

    /// Sends requests here instead of to the provider. A path in the URL is a prefix of the endpoint's path.
    pub fn base_url(mut self, url: Url) -> Self {
        self.base_url = Some(url);
        self
    }

    /// Sends requests to exactly this URL, regardless of the base URL.
    pub fn token_url(mut self, url: Url) -> Self {
        self.token_url = Some(url);
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
        let url = match self.token_url {
            Some(url) => check_base(&url, false).map(|()| url)?,
            None => endpoint(&self.base_url.unwrap_or_else(default), self.config.path, false)?,
        };
        let (config, provider, clock) = (self.config, self.provider, self.clock);
        Ok(OAuthRefresher { config, provider, client_id, transport: self.transport.build()?, clock, url })
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
