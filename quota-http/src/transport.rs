//! Sends one HTTP request, with TLS, proxies, a timeout, and a limit on the length of the response. The providers'
//! modules build requests; `classify` interprets the status.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use quota_core::FetchError;
use quota_core::secret::SecretBuffer;
use reqwest::header::{HeaderMap, HeaderValue, USER_AGENT};
use reqwest::{Client, RequestBuilder, Response, redirect, retry};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use url::Url;

use crate::endpoint::{BuildError, is_loopback};

/// The default `User-Agent`.
const DEFAULT_USER_AGENT: &str = concat!("quota/", env!("CARGO_PKG_VERSION"), " (shared usage cache)");
/// Usage responses are a few KiB, so a longer body is not one.
const MAX_BODY: usize = 1024 * 1024;

/// Sends requests. HTTP clients are built on first use, because loading certificates takes up to 30 ms. A program that
/// only reads the cache must avoid this cost.
#[derive(Debug)]
pub(crate) struct Transport {
    client: Option<Client>,
    clients: [OnceLock<Client>; 3],
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

/// A response, cut off at the length limit.
#[derive(Debug)]
pub(crate) struct HttpResponse {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: SecretBuffer,
}

impl TransportSettings {
    pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

    /// # Errors
    ///
    /// [`BuildError`] if the user agent is invalid or the timeout is zero.
    pub(crate) fn build(self) -> Result<Transport, BuildError> {
        let user_agent = self.user_agent.as_deref().unwrap_or(DEFAULT_USER_AGENT).trim();
        let is_sendable =
            !user_agent.is_empty() && user_agent.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        let user_agent = HeaderValue::from_str(user_agent).ok().filter(|_| is_sendable);
        let timeout = self.timeout.unwrap_or(Self::DEFAULT_TIMEOUT);
        if timeout.is_zero() {
            return Err(BuildError::Timeout);
        }
        Ok(Transport {
            client: self.client,
            clients: [const { OnceLock::new() }; 3],
            user_agent: user_agent.ok_or(BuildError::UserAgent)?,
            timeout,
        })
    }
}

impl Transport {
    /// Sends a GET request. Every status is `Ok`. An error status is returned even if reading its body fails.
    ///
    /// # Errors
    ///
    /// [`FetchError::TimedOut`], [`FetchError::Unavailable`] if there was no response, [`FetchError::Malformed`] if a
    /// successful response is too long.
    pub(crate) async fn get(&self, url: Url, headers: HeaderMap) -> Result<HttpResponse, FetchError> {
        self.send(self.client(&url)?.get(url.clone()), url, headers).await
    }

    /// Sends a POST request; see [`get`](Self::get).
    ///
    /// # Errors
    ///
    /// The same as those of [`get`](Self::get).
    pub(crate) async fn post(
        &self,
        url: Url,
        headers: HeaderMap,
        body: SecretBuffer,
    ) -> Result<HttpResponse, FetchError> {
        // `Bytes` owns the body and zeroizes it after it was sent.
        let body = Bytes::from_owner(body);
        self.send(self.client(&url)?.post(url.clone()).body(body), url, headers).await
    }

    async fn send(
        &self,
        request: RequestBuilder,
        url: Url,
        headers: HeaderMap,
    ) -> Result<HttpResponse, FetchError> {
        let origin = url.origin();
        let request = request.headers(headers).header(USER_AGENT, &self.user_agent);
        let mut response =
            request.timeout(self.timeout).send().await.map_err(|error| failure(error, &url))?;
        if response.url().origin() != origin {
            // A client set by the caller may follow redirects. A response from another host must not count as the provider's.
            return Err(FetchError::unavailable(
                "the provider redirected the request to another host; check base_url",
            ));
        }
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        let body = match read(&mut response, &url).await {
            Err(error) if status.is_success() => return Err(error),
            read => read.unwrap_or_default(),
        };
        Ok(HttpResponse { status: status.as_u16(), headers, body })
    }

    fn client(&self, url: &Url) -> Result<&Client, FetchError> {
        if let Some(client) = &self.client {
            return Ok(client);
        }
        let kind = ClientKind::for_url(url);
        let cell = &self.clients[kind as usize];
        if let Some(client) = cell.get() {
            return Ok(client);
        }
        // If two concurrent calls build a client, the first one is used.
        let client = kind.build_client()?;
        Ok(cell.get_or_init(|| client))
    }
}

/// The kind of HTTP client that a URL needs. Kinds differ in certificates and proxies.
#[derive(Debug, Clone, Copy, PartialEq)]
enum ClientKind {
    /// Unencrypted, to a loopback address. Works on systems without root certificates.
    Http,
    /// TLS to a loopback address, without a proxy.
    LoopbackTls,
    /// TLS to any other host, through the system's proxy if one is set.
    Tls,
}

impl ClientKind {
    fn for_url(url: &Url) -> Self {
        match (url.scheme(), is_loopback(url)) {
            ("http", _) => Self::Http,
            (_, true) => Self::LoopbackTls,
            (_, false) => Self::Tls,
        }
    }

    fn build_client(self) -> Result<Client, FetchError> {
        let tls = self.tls().map_err(|error| {
            FetchError::unreachable("could not set up TLS; check the certificates of this system", error)
        })?;
        let builder = Client::builder()
            .tls_backend_preconfigured(tls)
            // A redirect could send the credential to another host. The manager decides whether to retry.
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .referer(false);
        let builder = if self == Self::Tls { builder.https_only(true) } else { builder.no_proxy() };
        builder.build().map_err(|error| FetchError::unreachable("could not set up HTTP", error.without_url()))
    }

    /// TLS with its own crypto provider, so that the process need not install one.
    fn tls(self) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let builder = match self {
            Self::Http => builder.with_root_certificates(RootCertStore::empty()),
            Self::LoopbackTls | Self::Tls => builder.with_platform_verifier()?,
        };
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = vec!["h2".into(), "http/1.1".into()];
        Ok(config)
    }
}

/// Reads the body up to `MAX_BODY`.
async fn read(response: &mut Response, url: &Url) -> Result<SecretBuffer, FetchError> {
    // A response may contain tokens.
    let mut body = SecretBuffer::default();
    while let Some(chunk) = response.chunk().await.map_err(|error| failure(error, url))? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(FetchError::malformed("longer than 1 MiB"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Maps a reqwest error. It repeats only the host of the URL, because the rest may contain a secret.
fn failure(error: reqwest::Error, url: &Url) -> FetchError {
    if error.is_timeout() {
        return FetchError::TimedOut;
    }
    let host = url.host_str().unwrap_or("the provider");
    if error.is_dns() {
        let error = Unresolved { host: host.into() };
        return FetchError::unreachable(error.to_string(), error);
    }
    let reason = match () {
        () if error.is_connect() => format!("could not connect to {host}"),
        () if error.is_body() || error.is_decode() => format!("the response of {host} was cut off"),
        () => format!("the request to {host} failed"),
    };
    FetchError::unreachable(reason, error.without_url())
}

/// A DNS failure. The resolver's own text is dropped, because it adds no information.
#[derive(Debug, thiserror::Error)]
#[error("could not resolve {host}")]
struct Unresolved {
    host: Box<str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_for(url: &str) -> ClientKind {
        ClientKind::for_url(&url.parse().unwrap())
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
    fn no_client_is_built_before_first_use() {
        let transport = TransportSettings::default().build().unwrap();

        assert!(transport.clients.iter().all(|client| client.get().is_none()));
    }

    #[test]
    fn an_invalid_user_agent_is_rejected() {
        for text in ["", "  ", "a\r\nx: y", "tab\tbed", "ünnamed", "\u{7f}"] {
            assert_eq!(with_user_agent(text).err(), Some(BuildError::UserAgent), "{text:?}");
        }
    }

    #[test]
    fn a_zero_timeout_is_rejected() {
        let settings = TransportSettings { timeout: Some(Duration::ZERO), ..TransportSettings::default() };

        assert_eq!(settings.build().err(), Some(BuildError::Timeout));
    }

    #[test]
    fn only_remote_hosts_use_a_proxy() {
        assert_eq!(kind_for("https://example.com"), ClientKind::Tls);
        assert_eq!(kind_for("https://localhost"), ClientKind::LoopbackTls);
        assert_eq!(kind_for("http://127.0.0.1:80"), ClientKind::Http);
    }

    #[test]
    fn http_2_is_offered() {
        assert_eq!(ClientKind::Http.tls().unwrap().alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    }

    #[test]
    fn a_client_is_built_without_a_process_wide_crypto_provider() {
        let client = ClientKind::Http.build_client();

        assert!(client.is_ok());
        assert!(rustls::crypto::CryptoProvider::get_default().is_none());
    }
}
