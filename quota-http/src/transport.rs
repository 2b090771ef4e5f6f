//! One request over the network: TLS, proxies, the time it may take and how much of the answer is read.
//! What is asked and what an answer means is not known here; see `anthropic` and `classify`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use quota_core::{FetchError, SecretBuffer};
use reqwest::header::{HeaderMap, HeaderValue, USER_AGENT};
use reqwest::{Client, RequestBuilder, Response, redirect, retry};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use url::Url;

use crate::endpoint::{BuildError, is_loopback};

/// Who asks, if nobody says otherwise.
const USER_AGENT_DEFAULT: &str = concat!("quota/", env!("CARGO_PKG_VERSION"), " (shared usage cache)");
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// No usage answer comes near this; whatever does is not one.
const MAX_BODY: usize = 1024 * 1024;

/// Sends requests, and makes its clients when they are first needed: loading certificates takes tens of milliseconds,
/// which a program that finds everything in the cache must not pay.
#[derive(Debug)]
pub(crate) struct Transport {
    given: Option<Client>,
    made: [OnceLock<Client>; 3],
    user_agent: HeaderValue,
    timeout: Duration,
}

/// The settings of a [`Transport`].
#[derive(Debug, Clone, Default)]
pub(crate) struct TransportSettings {
    pub(crate) client: Option<Client>,
    pub(crate) user_agent: Option<String>,
    pub(crate) timeout: Option<Duration>,
}

/// An answer, as far as it was read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: SecretBuffer,
}

impl TransportSettings {
    /// # Errors
    ///
    /// [`BuildError`] if the user agent cannot be sent, or there is no time to answer.
    pub(crate) fn build(self) -> Result<Transport, BuildError> {
        let user_agent = self.user_agent.as_deref().unwrap_or(USER_AGENT_DEFAULT).trim();
        let is_sendable =
            !user_agent.is_empty() && user_agent.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        let user_agent = HeaderValue::from_str(user_agent).ok().filter(|_| is_sendable);
        let timeout = self.timeout.unwrap_or(TIMEOUT_DEFAULT);
        if timeout.is_zero() {
            return Err(BuildError::Timeout);
        }
        Ok(Transport {
            given: self.client,
            made: [const { OnceLock::new() }; 3],
            user_agent: user_agent.ok_or(BuildError::UserAgent)?,
            timeout,
        })
    }
}

impl Transport {
    /// Asks once. Every status is an answer; a refusal stays one even if its body breaks off.
    ///
    /// # Errors
    ///
    /// [`FetchError::TimedOut`], [`FetchError::Unavailable`] if nobody answered, [`FetchError::Malformed`] if a good
    /// answer is too long.
    pub(crate) async fn get(&self, url: Url, headers: HeaderMap) -> Result<Answer, FetchError> {
        self.send(self.client(&url)?.get(url.clone()), url, headers).await
    }

    /// Sends a body once, as [`get`](Self::get) asks.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub(crate) async fn post(
        &self,
        url: Url,
        headers: HeaderMap,
        body: SecretBuffer,
    ) -> Result<Answer, FetchError> {
        // Wiped when it has been sent.
        let body = Bytes::from_owner(body);
        self.send(self.client(&url)?.post(url.clone()).body(body), url, headers).await
    }

    async fn send(
        &self,
        request: RequestBuilder,
        url: Url,
        headers: HeaderMap,
    ) -> Result<Answer, FetchError> {
        let asked = url.origin();
        let request = request.headers(headers).header(USER_AGENT, &self.user_agent);
        let mut response =
            request.timeout(self.timeout).send().await.map_err(|error| failure(error, &url))?;
        if response.url().origin() != asked {
            // A client that was given may follow redirects; an answer of somebody else is not the provider's.
            return Err(FetchError::unavailable(
                "the provider sent the request on to another host; check base_url",
            ));
        }
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        let body = match read(&mut response, &url).await {
            Err(error) if status.is_success() => return Err(error),
            read => read.unwrap_or_default(),
        };
        Ok(Answer { status: status.as_u16(), headers, body })
    }

    fn client(&self, url: &Url) -> Result<&Client, FetchError> {
        if let Some(given) = &self.given {
            return Ok(given);
        }
        let route = Route::to(url);
        let made = &self.made[route as usize];
        if let Some(client) = made.get() {
            return Ok(client);
        }
        // Two racers may both make one; the first is kept.
        let client = route.client()?;
        Ok(made.get_or_init(|| client))
    }
}

/// How a request leaves. Each way has a client of its own, for they differ in what they trust and pass through.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Route {
    /// To this machine in the clear: works where there are no certificates at all.
    Plain,
    /// To this machine over TLS.
    Near,
    /// To anywhere else: over TLS, and through the system's proxy if there is one.
    Far,
}

impl Route {
    fn to(url: &Url) -> Self {
        match (url.scheme(), is_loopback(url)) {
            ("http", _) => Self::Plain,
            (_, true) => Self::Near,
            (_, false) => Self::Far,
        }
    }

    fn client(self) -> Result<Client, FetchError> {
        let tls = self.tls().map_err(|error| {
            FetchError::unreachable("could not set up TLS; check the certificates of this system", error)
        })?;
        let builder = Client::builder()
            .tls_backend_preconfigured(tls)
            // A redirect could carry the credential to somebody else, and a retry is the manager's to decide.
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .referer(false);
        let builder = if self == Self::Far { builder.https_only(true) } else { builder.no_proxy() };
        builder.build().map_err(|error| FetchError::unreachable("could not set up HTTP", error.without_url()))
    }

    /// TLS with a provider of cryptography of its own: whether the process has installed one, and which, does not
    /// matter.
    fn tls(self) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let builder = match self {
            Self::Plain => builder.with_root_certificates(RootCertStore::empty()),
            Self::Near | Self::Far => builder.with_platform_verifier()?,
        };
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = vec!["h2".into(), "http/1.1".into()];
        Ok(config)
    }
}

/// Reads the body, and stops where no usage answer goes on.
async fn read(response: &mut Response, url: &Url) -> Result<SecretBuffer, FetchError> {
    // An answer may hold tokens.
    let mut body = SecretBuffer::default();
    while let Some(chunk) = response.chunk().await.map_err(|error| failure(error, url))? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(FetchError::malformed("it is longer than 1 MiB"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Sorts what can go wrong on the way. Of the URL only the host is repeated: the rest could hold a secret.
fn failure(error: reqwest::Error, url: &Url) -> FetchError {
    if error.is_timeout() {
        return FetchError::TimedOut;
    }
    let host = url.host_str().unwrap_or("the provider");
    if error.is_dns() {
        let error = Unresolved { host: host.into() };
        return FetchError::unreachable(error.to_string(), error);
    }
    let why = match () {
        () if error.is_connect() => format!("could not connect to {host}"),
        () if error.is_body() || error.is_decode() => format!("the answer of {host} broke off"),
        () => format!("the request to {host} failed"),
    };
    FetchError::unreachable(why, error.without_url())
}

/// A host name without an address. The resolver's own text adds nothing to this, so it is not kept.
#[derive(Debug, thiserror::Error)]
#[error("could not resolve {host}")]
struct Unresolved {
    host: Box<str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route_to(url: &str) -> Route {
        Route::to(&url.parse().unwrap())
    }

    fn with_user_agent(text: &str) -> Result<Transport, BuildError> {
        TransportSettings { user_agent: Some(text.into()), ..TransportSettings::default() }.build()
    }

    #[test]
    fn the_default_user_agent_names_this_program() {
        let transport = TransportSettings::default().build().unwrap();

        assert!(transport.user_agent.to_str().unwrap().starts_with("quota/"));
    }

    #[test]
    fn nothing_is_made_before_it_is_needed() {
        let transport = TransportSettings::default().build().unwrap();

        assert!(transport.made.iter().all(|client| client.get().is_none()));
    }

    // B102
    #[test]
    fn without_a_user_agent_there_is_no_transport() {
        for text in ["", "  ", "a\r\nx: y", "tab\tbed", "ünnamed", "\u{7f}"] {
            assert_eq!(with_user_agent(text).err(), Some(BuildError::UserAgent), "{text:?}");
        }
    }

    #[test]
    fn a_time_out_of_nothing_is_refused() {
        let settings = TransportSettings { timeout: Some(Duration::ZERO), ..TransportSettings::default() };

        assert_eq!(settings.build().err(), Some(BuildError::Timeout));
    }

    #[test]
    fn only_what_leaves_this_machine_may_pass_a_proxy() {
        assert_eq!(route_to("https://example.com"), Route::Far);
        assert_eq!(route_to("https://localhost"), Route::Near);
        assert_eq!(route_to("http://127.0.0.1:80"), Route::Plain);
    }

    #[test]
    fn http_2_is_offered() {
        assert_eq!(Route::Plain.tls().unwrap().alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    }

    #[test]
    fn a_client_is_made_without_a_provider_of_cryptography_in_the_process() {
        let made = Route::Plain.client();

        assert!(made.is_ok());
        assert!(rustls::crypto::CryptoProvider::get_default().is_none());
    }
}
