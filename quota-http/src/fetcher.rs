//! The fetcher for all providers: it sends the requests that a `Provider` describes, and joins the parsed reports.
//! `quota-core` decides when to call it, and with which credential.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use quota_core::model::{Coverage, IgnoredField, OwnerId, Throttled};
use quota_core::provider::retry_after;
use quota_core::{AccountId, Clock, Credential, FetchError, ProviderId, UsageFetcher, UsageReport};
use reqwest::header::{
    AUTHORIZATION, CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
    USER_AGENT,
};
use url::Url;

use crate::classify::{self, classify, header};
use crate::endpoint::{BuildError, check_base, endpoint};
use crate::lenient::is_short_text;
use crate::parsed::{ParseError, Parsed};
use crate::provider::Provider;
use crate::request::UsageRequest;
use crate::transport::{HttpResponse, Transport, TransportSettings};

/// Fetches the usage of a provider's accounts.
///
/// Each call sends one request, or two for a provider that needs two. Creating the fetcher neither connects nor loads certificates.
/// The token is sent only to the base URL: redirects are not followed.
///
/// A credential that expired more than a minute ago is not sent. The minute allows for clock differences. The result is
/// then [`FetchError::NotLoggedIn`], because only the program that owns the login can renew it.
///
/// ```
/// use quota_http::{Fetcher, anthropic, codex};
///
/// let claude = Fetcher::new(&anthropic::PROVIDER);
/// let codex = Fetcher::builder(&codex::PROVIDER).user_agent("my-program/1.0").build()?;
/// # Ok::<(), quota_http::BuildError>(())
/// ```
pub struct Fetcher {
    provider: &'static Provider,
    transport: Transport,
    clock: Clock,
    base_url: Option<Url>,
    base_urls: HashMap<AccountId, Url>,
    headers: HeaderMap,
    query: Vec<(String, String)>,
    /// Headers and query parameters per account.
    of_accounts: HashMap<AccountId, (HeaderMap, Vec<(String, String)>)>,
    on_response: Option<OnResponse>,
}

/// Receives each parsed response of an account, with the credential of the request.
type OnResponse = Arc<dyn Fn(&AccountId, &Credential, &[u8]) + Send + Sync>;

/// Headers that no setting may replace: the credential, the user agent, and the framing of the request.
const RESERVED: [HeaderName; 6] =
    [AUTHORIZATION, CONTENT_LENGTH, COOKIE, HOST, TRANSFER_ENCODING, USER_AGENT];

/// An expired credential is still sent for this long, because clocks differ.
const EXPIRY_SLACK: Duration = Duration::from_secs(60);

impl Fetcher {
    /// Creates a fetcher with the default settings.
    #[must_use]
    pub fn new(provider: &'static Provider) -> Self {
        Self::builder(provider).build().expect("the default settings are valid")
    }

    /// Starts building a fetcher with other settings.
    pub fn builder(provider: &'static Provider) -> FetcherBuilder {
        FetcherBuilder {
            provider,
            base_url: None,
            base_urls: HashMap::new(),
            headers: Vec::new(),
            query: Vec::new(),
            of_accounts: HashMap::new(),
            transport: TransportSettings::default(),
            clock: Clock::system(),
            on_response: None,
        }
    }

    /// Sends a request.
    async fn send(&self, account: &AccountId, request: UsageRequest) -> Result<HttpResponse, FetchError> {
        let base = self.base_url(account)?;
        if let Some(error) = request.invalid {
            return Err(error);
        }
        let mut url = endpoint(base, &request.path, self.provider.allows_http())
            .map_err(|error| FetchError::malformed(error.to_string()))?;
        let own = self.of_accounts.get(account);
        let own_query = own.map_or(&[][..], |(_, query)| query);
        if !request.query.is_empty() || !self.query.is_empty() || !own_query.is_empty() {
            url.query_pairs_mut()
                .extend_pairs(&request.query)
                .extend_pairs(&self.query)
                .extend_pairs(own_query);
        }
        let mut headers = request.headers;
        headers.extend(self.headers.clone());
        headers.extend(own.map(|(headers, _)| headers.clone()).unwrap_or_default());
        let response = match request.body {
            None => self.transport.get(url, headers).await?,
            Some(body) => self.transport.post(url, headers, body).await?,
        };
        match classify(response.status, &response.headers, &response.body, self.clock.now()) {
            Some(error) => Err(error),
            None => Ok(response),
        }
    }

    /// Parses one response.
    fn parse(&self, response: &HttpResponse) -> Result<Parsed, FetchError> {
        let mut parsed =
            self.provider.parse(&response.body, self.clock.now()).map_err(|error| match error {
                ParseError::Unauthorized | ParseError::RateLimited => {
                    let wait = retry_after(|name| header(&response.headers, name), Some(self.clock.now()));
                    FetchError::from(error).with_retry_after(wait)
                }
                error => classify::malformed(&response.headers, &response.body, error.to_string()),
            })?;
        let owner = self.provider.owner_header.and_then(|name| header(&response.headers, name));
        if let Some(owner) = owner.filter(|id| is_short_text(id)) {
            parsed.usage.owner_id = Some(OwnerId::new(owner));
        }
        Ok(parsed)
    }

    fn base_url(&self, account: &AccountId) -> Result<&Url, FetchError> {
        self.base_urls.get(account).or(self.base_url.as_ref()).ok_or_else(|| {
            let reason = format!("{} has no default URL; set base_url for this account", self.provider.name);
            FetchError::not_logged_in(reason)
        })
    }
}

#[async_trait]
impl UsageFetcher for Fetcher {
    fn provider(&self) -> ProviderId {
        self.provider.id()
    }

    async fn fetch(&self, account: &AccountId, credential: &Credential) -> Result<UsageReport, FetchError> {
        if *account.provider() != self.provider.id() {
            // Never send another provider's token to this one.
            return Err(FetchError::not_logged_in(format!("not an account of {}", self.provider.id())));
        }
        reject_expired(credential, self.clock.now())?;
        let first = self.send(account, self.provider.usage_request(credential)).await?;
        let second = match self.provider.second {
            Some(second) => second(credential, &first.body)?,
            None => None,
        };
        let parsed = match second {
            None => self.parse(&first)?,
            Some(request) => {
                let is_optional = request.is_optional;
                match self.send(account, request).await {
                    Ok(second) => join(self.parse(&first), self.parse(&second))?,
                    Err(error) if is_optional => alone(self.parse(&first)?, error)?,
                    Err(error) => return Err(error),
                }
            }
        };
        if parsed.usage.is_empty() {
            let reason = "no usage could be parsed";
            return Err(classify::malformed(&first.headers, &first.body, reason));
        }
        if let Some(on_response) = &self.on_response {
            on_response(account, credential, &first.body);
        }
        if !parsed.skipped.is_empty() {
            tracing::debug!(%account, skipped = ?parsed.skipped, "skipped fields of the response");
        }
        let ignored = parsed.skipped.iter().map(|skipped| IgnoredField::new(&skipped.field, skipped.reason));
        Ok(parsed.usage.ignored(ignored))
    }
}

/// The report of the first response, if the optional second request failed. The cached credits and other windows are
/// kept, because the second response might have contained them.
fn alone(mut first: Parsed, error: FetchError) -> Result<Parsed, FetchError> {
    if first.usage.is_empty() {
        return Err(error);
    }
    tracing::debug!(%error, "the optional second request failed");
    if let FetchError::Throttled { retry_after, .. } = error {
        // The provider requests a wait. The resulting hold makes other processes wait too.
        first.usage.throttled = Some(Throttled::new(retry_after));
    }
    first.usage.coverage = Coverage::Reported;
    Ok(first)
}

/// Joins the reports of two responses. If one could not be parsed, the other one covers only its own content.
fn join(first: Result<Parsed, FetchError>, second: Result<Parsed, FetchError>) -> Result<Parsed, FetchError> {
    match (first, second) {
        (Ok(first), Ok(second)) => Ok(first.join(second)),
        (Ok(mut only), Err(FetchError::Malformed { .. }))
        | (Err(FetchError::Malformed { .. }), Ok(mut only))
            if !only.usage.is_empty() =>
        {
            only.usage.coverage = Coverage::Reported;
            only.skip("(response)", "one of two responses could not be parsed");
            Ok(only)
        }
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

fn reject_expired(credential: &Credential, now: Timestamp) -> Result<(), FetchError> {
    let age = credential.expires_at.map(|expired| now.duration_since(expired));
    if age.is_some_and(|age| Duration::try_from(age).is_ok_and(|age| age > EXPIRY_SLACK)) {
        return Err(FetchError::not_logged_in(
            "the access token expired; start the program that owns the login, or log in again",
        ));
    }
    Ok(())
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base_url = self.base_url.as_ref().map(Url::as_str);
        f.debug_struct("Fetcher")
            .field("provider", &self.provider.id_str())
            .field("base_url", &base_url)
            .finish_non_exhaustive()
    }
}

/// The headers and the query parameters of one account.
#[derive(Clone, Default)]
struct AccountRequest {
    headers: Vec<(String, String)>,
    query: Vec<(String, String)>,
}

/// The settings of a [`Fetcher`].
#[derive(Clone)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct FetcherBuilder {
    provider: &'static Provider,
    base_url: Option<Url>,
    base_urls: HashMap<AccountId, Url>,
    headers: Vec<(String, String)>,
    query: Vec<(String, String)>,
    of_accounts: HashMap<AccountId, AccountRequest>,
    transport: TransportSettings,
    clock: Clock,
    on_response: Option<OnResponse>,
}

impl FetcherBuilder {
    /// Sends requests here instead of to the provider. A path in the URL is a prefix of the endpoint's path.
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

    /// Sends this header with each request, in place of the provider's own value. It must not be a secret. The credential, the user
    /// agent and the framing of the request cannot be replaced.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Adds this query parameter to each request, after those of the provider. It must not be a secret.
    pub fn query(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.query.push((name.into(), value.into()));
        self
    }

    /// Sends this header with each request of this account, in place of [`header`](Self::header). It must not be a secret.
    pub fn header_for(
        mut self,
        account: AccountId,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Self {
        self.of_accounts.entry(account).or_default().headers.push((name.into(), value.into()));
        self
    }

    /// Adds this query parameter to each request of this account, after those of all accounts. It must not be a secret.
    pub fn query_for(
        mut self,
        account: AccountId,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Self {
        self.of_accounts.entry(account).or_default().query.push((name.into(), value.into()));
        self
    }

    /// The timeout of one call, from connecting to the end of the response (default: 10 seconds). Two requests share it.
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

    /// Passes the body of each usage response to a function, for example to keep the last one. If there are two
    /// responses, the function gets the first. It must not block, and must not write the body to a file, because the
    /// body may name the user.
    pub fn on_response(
        mut self,
        function: impl Fn(&AccountId, &Credential, &[u8]) + Send + Sync + 'static,
    ) -> Self {
        self.on_response = Some(Arc::new(function));
        self
    }

    /// Builds the fetcher, without connecting.
    ///
    /// # Errors
    ///
    /// [`BuildError`] if a base URL, a header, the user agent or the timeout is invalid.
    pub fn build(self) -> Result<Fetcher, BuildError> {
        let provider = self.provider;
        let base_url = self.base_url.or_else(|| provider.default_base_url());
        base_url
            .iter()
            .chain(self.base_urls.values())
            .try_for_each(|url| check_base(url, provider.allows_http()))?;
        let mut accounts = self.base_urls.keys().chain(self.of_accounts.keys());
        if let Some(account) = accounts.find(|account| *account.provider() != provider.id()) {
            return Err(BuildError::ForeignAccount { account: account.clone(), provider: provider.id() });
        }
        let headers = header_map(&self.headers)?;
        let of_accounts = self.of_accounts.into_iter().map(|(account, own)| {
            let headers = header_map(&own.headers)?;
            Ok((account, (headers, own.query)))
        });
        let of_accounts = of_accounts.collect::<Result<_, BuildError>>()?;
        let mut transport = self.transport;
        if provider.second.is_some() {
            // Each request gets less than half of the timeout, so that a caller with the same timeout gets the first
            // response if the second one is late.
            let timeout = transport.timeout.unwrap_or(TransportSettings::DEFAULT_TIMEOUT);
            transport.timeout = Some(timeout.mul_f64(0.45));
        }
        Ok(Fetcher {
            provider,
            headers,
            query: self.query,
            of_accounts,
            transport: transport.build()?,
            clock: self.clock,
            base_url,
            base_urls: self.base_urls,
            on_response: self.on_response,
        })
    }
}

fn header_map(headers: &[(String, String)]) -> Result<HeaderMap, BuildError> {
    let headers = headers.iter().map(|(name, value)| {
        let pair = (HeaderName::try_from(name).ok(), HeaderValue::try_from(value).ok());
        let (name, value) = pair.0.zip(pair.1).ok_or(BuildError::Header)?;
        if RESERVED.contains(&name) {
            return Err(BuildError::ReservedHeader { name: name.to_string() });
        }
        Ok((name, value))
    });
    headers.collect()
}

impl fmt::Debug for FetcherBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Omit the URLs: they may contain a password until `build` has validated them.
        f.debug_struct("FetcherBuilder").field("provider", &self.provider.id_str()).finish_non_exhaustive()
    }
}
