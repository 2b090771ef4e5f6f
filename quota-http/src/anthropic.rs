//! Anthropic: the fetcher for its usage endpoint, and parsers for its responses, headers and Claude Code's files.
//! `quota-core` decides when to call, and with which credential.

mod headers;
mod limits;
mod local;
mod money;
mod oauth;
mod profile;
mod response;
mod usage;
mod windows;

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use quota_core::model::OwnerId;
use quota_core::{AccountId, Clock, Credential, FetchError, ProviderId, Secret, UsageFetcher, UsageReport};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use url::Url;

pub use headers::{ParsedHeaders, parse_headers};
pub use local::{CachedUsage, parse_claude_json, parse_rate_limit_event, parse_statusline};
#[cfg(test)]
pub(crate) use oauth::CONFIG;
pub use oauth::refresher;
pub use profile::{Profile, parse_profile};
pub use response::AnthropicResponseParser;
pub(crate) use response::RULES;
pub use usage::parse_usage;

use crate::classify::{self, classify, header};
use crate::endpoint::{BuildError, endpoint};
use crate::lenient::is_short_text;
use crate::transport::{HttpResponse, Transport, TransportSettings};

/// The provider of Claude: `anthropic`.
pub const ANTHROPIC: ProviderId = ProviderId::from_static("anthropic");

/// The response header with the owner of the account.
const ORGANIZATION: &str = "anthropic-organization-id";

/// Fetches the usage of a Claude subscription, with the token of an OAuth login.
///
/// Each call sends one request to `{base}/api/oauth/usage`. Creating the fetcher neither connects nor loads certificates. The
/// token is sent only to the base URL: redirects are not followed.
///
/// A credential that expired more than a minute ago is not sent; the minute allows for clocks that differ. The result is
/// [`FetchError::NotLoggedIn`], because only the program that owns the login can renew it.
///
/// [`Anthropic::new`] has the default settings; see the [crate's documentation](crate) for an example.
pub struct Anthropic {
    transport: Transport,
    clock: Clock,
    usage_url: Url,
    usage_urls: HashMap<AccountId, Url>,
}

impl Anthropic {
    /// The base URL of Anthropic's API.
    pub const BASE_URL: &str = "https://api.anthropic.com";

    /// An expired credential is still sent for this long, because clocks differ.
    const EXPIRY_SLACK: Duration = Duration::from_secs(60);

    /// Creates a fetcher with the default settings.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build().expect("the default settings are valid")
    }

    /// Starts building a fetcher with other settings.
    pub fn builder() -> AnthropicBuilder {
        AnthropicBuilder {
            base_url: None,
            base_urls: HashMap::new(),
            transport: TransportSettings::default(),
            clock: Clock::system(),
        }
    }

    fn parse(&self, account: &AccountId, response: &HttpResponse) -> Result<UsageReport, FetchError> {
        if let Some(error) = classify(response.status, &response.headers, &response.body, self.clock.now()) {
            return Err(error);
        }
        let malformed = |reason: String| classify::malformed(&response.headers, &response.body, reason);
        let parsed = parse_usage(&response.body).map_err(|error| malformed(error.to_string()))?;
        if parsed.usage.is_empty() {
            return Err(malformed("no window could be parsed".into()));
        }
        if !parsed.skipped.is_empty() {
            tracing::debug!(%account, skipped = ?parsed.skipped, "skipped fields of the response");
        }
        let organization =
            header(&response.headers, ORGANIZATION).filter(|id| !id.is_empty() && is_short_text(id));
        Ok(parsed.usage.owner_id(organization.map(OwnerId::new)))
    }
}

#[async_trait]
impl UsageFetcher for Anthropic {
    fn provider(&self) -> ProviderId {
        ANTHROPIC
    }

    async fn fetch(&self, account: &AccountId, credential: &Credential) -> Result<UsageReport, FetchError> {
        if *account.provider() != ANTHROPIC {
            // Never send another provider's token to Anthropic.
            return Err(FetchError::not_logged_in("not an account of anthropic"));
        }
        reject_expired(credential, self.clock.now())?;
        let headers = request_headers(&credential.secret)?;
        let url = self.usage_urls.get(account).unwrap_or(&self.usage_url);
        let response = self.transport.get(url.clone(), headers).await?;
        self.parse(account, &response)
    }
}

impl Default for Anthropic {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Anthropic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Anthropic").field("usage_url", &self.usage_url.as_str()).finish_non_exhaustive()
    }
}

fn reject_expired(credential: &Credential, now: Timestamp) -> Result<(), FetchError> {
    let age = credential.expires_at.map(|expired| now.duration_since(expired));
    if age.is_some_and(|age| Duration::try_from(age).is_ok_and(|age| age > Anthropic::EXPIRY_SLACK)) {
        return Err(FetchError::not_logged_in(
            "the access token expired; start the program that owns the login, or log in again",
        ));
    }
    Ok(())
}

fn request_headers(token: &Secret) -> Result<HeaderMap, FetchError> {
    let token = token.expose().trim();
    let bearer = HeaderValue::from_str(&format!("Bearer {token}")).ok().filter(|_| !token.is_empty());
    let mut bearer = bearer
        .ok_or_else(|| FetchError::not_logged_in("the access token is empty or invalid; log in again"))?;
    bearer.set_sensitive(true);
    Ok(HeaderMap::from_iter([
        (AUTHORIZATION, bearer),
        (ACCEPT, HeaderValue::from_static("application/json")),
        (HeaderName::from_static("anthropic-beta"), HeaderValue::from_static("oauth-2025-04-20")),
    ]))
}

/// The settings of an [`Anthropic`] fetcher.
#[derive(Clone)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct AnthropicBuilder {
    base_url: Option<Url>,
    base_urls: HashMap<AccountId, Url>,
    transport: TransportSettings,
    clock: Clock,
}

impl AnthropicBuilder {
    /// Sends requests here instead of to [`Anthropic::BASE_URL`]. A path in the URL is a prefix of the endpoint's path.
    pub fn base_url(mut self, url: Url) -> Self {
        self.base_url = Some(url);
        self
    }

    /// Sends the requests of this account here.
    pub fn base_url_for(mut self, account: AccountId, url: Url) -> Self {
        self.base_urls.insert(account, url);
        self
    }

    /// Sets the `User-Agent` (default: `quota/<version>`). The provider may count calls per user agent.
    pub fn user_agent(mut self, text: impl Into<String>) -> Self {
        self.transport.user_agent = Some(text.into());
        self
    }

    /// The timeout of one call, from connecting to the end of the response (default: 10 seconds).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.transport.timeout = Some(timeout);
        self
    }

    /// Uses this HTTP client, with its TLS, proxies, redirects and retries.
    ///
    /// Disable redirects in that client. A response from another host is rejected, but only after the request was sent there.
    pub fn client(mut self, client: reqwest::Client) -> Self {
        self.transport.client = Some(client);
        self
    }

    /// Sets the clock for the expiry of credentials. It also turns a date in `Retry-After` into a delay.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Builds the fetcher, without connecting.
    ///
    /// # Errors
    ///
    /// [`BuildError`] if a base URL, the user agent or the timeout is invalid.
    pub fn build(self) -> Result<Anthropic, BuildError> {
        const USAGE: [&str; 3] = ["api", "oauth", "usage"];
        let default = || Url::parse(Anthropic::BASE_URL).expect("the default is a valid URL");
        let usage_url = endpoint(&self.base_url.unwrap_or_else(default), &USAGE)?;
        let mut usage_urls = HashMap::new();
        for (account, base) in self.base_urls {
            if *account.provider() != ANTHROPIC {
                return Err(BuildError::ForeignAccount { account, provider: ANTHROPIC });
            }
            usage_urls.insert(account, endpoint(&base, &USAGE)?);
        }
        Ok(Anthropic { transport: self.transport.build()?, clock: self.clock, usage_url, usage_urls })
    }
}

impl fmt::Debug for AnthropicBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Omit the URLs: they may contain a password until `build` has validated them.
        f.debug_struct("AnthropicBuilder").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_of_the_headers_hides_the_token() {
        let headers = request_headers(&Secret::new("sk-ant-oat01-made-up")).unwrap();

        assert!(!format!("{headers:?}").contains("made-up"));
    }
}
