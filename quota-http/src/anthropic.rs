//! Anthropic: asking its usage endpoint, and reading what it says there, in headers, and through Claude Code.
//! Where tokens come from is a [`CredentialSource`]'s business; when to ask is decided in `quota-core`.

mod headers;
mod limits;
mod local;
mod money;
mod profile;
mod tokens;
mod traffic;
mod usage;
mod windows;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use quota_core::{
    AccountId, Clock, Credential, CredentialSource, FetchError, Identity, Login, Mark, ProviderId,
    RequestProgress, Secret, Usage, UsageFetcher,
};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use url::Url;

pub use headers::{ParsedHeaders, parse_headers};
pub use local::{CachedUsage, parse_claude_json, parse_rate_limit_event, parse_statusline};
pub use profile::{Profile, parse_profile};
#[cfg(test)]
pub(crate) use tokens::DIALECT;
pub use tokens::refresher;
pub use traffic::AnthropicTraffic;
pub use usage::parse_usage;

use crate::classify::{classify, header, not_understood};
use crate::endpoint::{BuildError, endpoint};
use crate::lenient::is_word;
use crate::transport::{Answer, Transport, TransportSettings};

/// The provider of Claude: `anthropic`.
pub const ANTHROPIC: ProviderId = ProviderId::from_static("anthropic");

/// The header in which Anthropic says whose answer it is.
const ORGANIZATION: &str = "anthropic-organization-id";

/// Asks Anthropic how much of a subscription is used, with the token of an OAuth login.
///
/// It asks `{base}/api/oauth/usage` once per call, and reads the credential anew each time. Nothing is connected and no
/// certificate is loaded before the first call. The token goes to the base URL and nowhere else: redirects are not
/// followed.
///
/// A credential that says it expired is not sent once it has been so for a minute (clocks differ): the answer is
/// [`FetchError::NotLoggedIn`], for nothing but its owner's program can renew it.
///
/// Built by [`Anthropic::builder`]; see the [crate's documentation](crate) for an example.
pub struct Anthropic {
    source: Arc<dyn CredentialSource>,
    transport: Transport,
    clock: Clock,
    usage_url: Url,
    usage_urls: HashMap<AccountId, Url>,
    /// The credential that the last call of each account was made with.
    sent: Mutex<HashMap<AccountId, Option<Mark>>>,
}

impl Anthropic {
    /// Where Anthropic serves its API.
    pub const BASE_URL: &str = "https://api.anthropic.com";

    /// How long an expired credential is still tried, for clocks differ.
    const EXPIRY_SLACK: Duration = Duration::from_secs(60);

    /// Begins a fetcher that takes its credentials from `source`.
    pub fn builder(source: Arc<dyn CredentialSource>) -> AnthropicBuilder {
        AnthropicBuilder {
            source,
            base_url: None,
            base_urls: HashMap::new(),
            transport: TransportSettings::default(),
            clock: Clock::system(),
        }
    }

    async fn credential(&self, account: &AccountId) -> Result<Credential, FetchError> {
        if *account.provider() != ANTHROPIC {
            // Another provider's token must not reach this one.
            return Err(FetchError::not_logged_in("not an account of anthropic"));
        }
        Ok(self.source.credential(account).await?)
    }

    fn read(&self, account: &AccountId, answer: &Answer) -> Result<Usage, FetchError> {
        if let Some(error) = classify(answer.status, &answer.headers, &answer.body, self.clock.now()) {
            return Err(error);
        }
        let malformed = |why: String| not_understood(&answer.headers, &answer.body, why);
        let parsed = parse_usage(&answer.body).map_err(|error| malformed(error.to_string()))?;
        if parsed.usage.is_empty() {
            return Err(malformed("no window in it could be read".into()));
        }
        if !parsed.ignored.is_empty() {
            tracing::debug!(%account, ignored = ?parsed.ignored, "parts of the answer left out");
        }
        let organization = header(&answer.headers, ORGANIZATION).filter(|id| !id.is_empty() && is_word(id));
        Ok(parsed.usage.identity(organization.map(Identity::new)))
    }
}

#[async_trait]
impl UsageFetcher for Anthropic {
    fn provider(&self) -> ProviderId {
        ANTHROPIC
    }

    async fn fetch(&self, account: &AccountId) -> Result<Usage, FetchError> {
        self.fetch_tracked(account, &RequestProgress::default()).await
    }

    async fn fetch_tracked(
        &self,
        account: &AccountId,
        progress: &RequestProgress,
    ) -> Result<Usage, FetchError> {
        let credential = self.credential(account).await?;
        refuse_expired(&credential, self.clock.now())?;
        let headers = request_headers(&credential.secret)?;
        self.sent.lock().insert(account.clone(), credential.login.mark);
        let url = self.usage_urls.get(account).unwrap_or(&self.usage_url);
        progress.mark_sent();
        let answer = self.transport.get(url.clone(), headers).await?;
        Ok(self.read(account, &answer)?.lineage(credential.login.lineage).plan(credential.plan))
    }

    async fn login(&self, account: &AccountId) -> Result<Login, FetchError> {
        Ok(self.credential(account).await?.login)
    }

    /// Asks the source again; `true` if it has another credential than the one that was refused.
    async fn renew(&self, account: &AccountId) -> bool {
        let Some(refused) = self.sent.lock().get(account).copied() else { return false };
        self.source.renew(account, refused).await.is_ok_and(|credential| credential.login.mark != refused)
    }
}

impl fmt::Debug for Anthropic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Anthropic").field("usage_url", &self.usage_url.as_str()).finish_non_exhaustive()
    }
}

fn refuse_expired(credential: &Credential, now: Timestamp) -> Result<(), FetchError> {
    let age = credential.expires_at.map(|expired| now.duration_since(expired));
    if age.is_some_and(|age| Duration::try_from(age).is_ok_and(|age| age > Anthropic::EXPIRY_SLACK)) {
        return Err(FetchError::not_logged_in(
            "the access token expired; open the program that owns the login, or log in again",
        ));
    }
    Ok(())
}

fn request_headers(token: &Secret) -> Result<HeaderMap, FetchError> {
    let token = token.expose().trim();
    let bearer = HeaderValue::from_str(&format!("Bearer {token}")).ok().filter(|_| !token.is_empty());
    let mut bearer = bearer
        .ok_or_else(|| FetchError::not_logged_in("the access token is empty or damaged; log in again"))?;
    bearer.set_sensitive(true);
    Ok(HeaderMap::from_iter([
        (AUTHORIZATION, bearer),
        (ACCEPT, HeaderValue::from_static("application/json")),
        (HeaderName::from_static("anthropic-beta"), HeaderValue::from_static("oauth-2025-04-20")),
    ]))
}

/// The settings of an [`Anthropic`] fetcher.
#[derive(Clone)]
#[must_use = "nothing is built before `build`"]
pub struct AnthropicBuilder {
    source: Arc<dyn CredentialSource>,
    base_url: Option<Url>,
    base_urls: HashMap<AccountId, Url>,
    transport: TransportSettings,
    clock: Clock,
}

impl AnthropicBuilder {
    /// Asks here instead of [`Anthropic::BASE_URL`]; a path in it stays in front of the endpoint's own.
    pub fn base_url(mut self, url: Url) -> Self {
        self.base_url = Some(url);
        self
    }

    /// Asks here for this account only.
    pub fn base_url_for(mut self, account: AccountId, url: Url) -> Self {
        self.base_urls.insert(account, url);
        self
    }

    /// Says who asks, instead of `quota/<version>`. The provider may count calls per user agent.
    pub fn user_agent(mut self, text: impl Into<String>) -> Self {
        self.transport.user_agent = Some(text.into());
        self
    }

    /// How long one call may take, from the connection to the end of the answer. Ten seconds.
    pub fn timeout(mut self, span: Duration) -> Self {
        self.transport.timeout = Some(span);
        self
    }

    /// Sends through this client instead of one of our own.
    ///
    /// Its TLS, proxies, redirects and retries are then as it has them. Give it no redirects: an answer of another
    /// host is refused, but by then it has been asked.
    pub fn client(mut self, client: reqwest::Client) -> Self {
        self.transport.client = Some(client);
        self
    }

    /// Asks this clock whether credentials have expired, and how far off a date to wait for is.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Builds the fetcher. It connects to nothing.
    ///
    /// # Errors
    ///
    /// [`BuildError`] if a base URL, the user agent or the time-out cannot be used.
    pub fn build(self) -> Result<Anthropic, BuildError> {
        const USAGE: [&str; 3] = ["api", "oauth", "usage"];
        let default = || Url::parse(Anthropic::BASE_URL).expect("the default is a URL");
        let usage_url = endpoint(&self.base_url.unwrap_or_else(default), &USAGE)?;
        let mut usage_urls = HashMap::new();
        for (account, base) in self.base_urls {
            if *account.provider() != ANTHROPIC {
                return Err(BuildError::ForeignAccount { account, provider: ANTHROPIC });
            }
            usage_urls.insert(account, endpoint(&base, &USAGE)?);
        }
        Ok(Anthropic {
            source: self.source,
            transport: self.transport.build()?,
            clock: self.clock,
            usage_url,
            usage_urls,
            sent: Mutex::default(),
        })
    }
}

impl fmt::Debug for AnthropicBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the URLs: until `build` has looked, there may be a password in one.
        f.debug_struct("AnthropicBuilder").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_marked_as_one_that_must_not_be_shown() {
        let headers = request_headers(&Secret::new("sk-ant-oat01-made-up")).unwrap();

        assert!(!format!("{headers:?}").contains("made-up"));
    }
}
