//! Connections to the hosts that the command calls: directly, or through the proxy of the user.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use quota::Secret;
use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::net::TcpStream;
use tower_service::Service;

use super::origins::Target;

/// The timeout for connecting to one address of a host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long an idle connection to a host is kept open for the next request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type HttpsClient = Client<HttpsConnector<Dialer>, Body>;

/// The user's proxy, through which the command would connect without `quota wrap`.
#[derive(Debug, Clone, Default)]
pub struct UserProxy {
    /// The URL of an HTTP proxy, which may contain a password.
    pub url: Option<Secret>,
    /// The hosts to which the command connects directly, in the form of `NO_PROXY`.
    pub no_proxy: String,
}

impl UserProxy {
    /// The value of `NO_PROXY` for the command, without the entries that match one of these hosts.
    #[must_use]
    pub fn exceptions_without<'a>(no_proxy: &str, hosts: impl Iterator<Item = &'a str> + Clone) -> String {
        let matches = |entry: &str| {
            // Some programs accept these forms too.
            let entry = entry.strip_prefix("*.").unwrap_or(entry);
            let name = entry
                .rsplit_once(':')
                .filter(|(name, port)| !name.contains(':') && port.bytes().all(|byte| byte.is_ascii_digit()));
            let entry = name.map_or(entry, |(name, _)| name);
            let rule = Matcher::builder().https("http://localhost").no(entry).build();
            hosts.clone().any(|host| {
                let uri = Uri::builder().scheme("https").authority(host).path_and_query("/").build();
                uri.is_ok_and(|uri| rule.intercept(&uri).is_none())
            })
        };
        let entries = no_proxy.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        entries.filter(|entry| !matches(entry)).collect::<Vec<_>>().join(",")
    }
}

/// Opens TCP connections.
#[derive(Debug, Clone)]
pub(super) struct Dialer {
    direct: HttpConnector,
    proxies: Arc<Matcher>,
}

impl Dialer {
    fn new(proxy: &UserProxy) -> Self {
        let mut direct = HttpConnector::new();
        direct.enforce_http(false);
        direct.set_nodelay(true);
        direct.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let url = proxy.url.as_ref().map_or("", |url| url.expose());
        let proxies = Matcher::builder().https(url).no(&*proxy.no_proxy).build();
        Self { direct, proxies: Arc::new(proxies) }
    }
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.direct.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, host: Uri) -> Self::Future {
        let Some(proxy) = self.proxies.intercept(&host) else {
            let connecting = self.direct.call(host);
            return Box::pin(async move { Ok(connecting.await?) });
        };
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.direct.clone());
        if let Some(credentials) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(credentials.clone());
        }
        let connecting = tunnel.call(host);
        Box::pin(async move { Ok(connecting.await?) })
    }
}

/// Connects to hosts, and sends them requests.
pub(super) struct Upstream {
    dialer: Dialer,
    /// Clients for HTTP/1.1, and for HTTP/2 if the host supports it. Loading the system's certificates takes up to 30
    /// ms, so the first request builds the clients.
    clients: OnceLock<Result<[HttpsClient; 2], rustls::Error>>,
}

impl Upstream {
    pub(super) fn new(proxy: &UserProxy) -> Self {
        Self { dialer: Dialer::new(proxy), clients: OnceLock::new() }
    }

    /// Connects to a host, for a tunnel.
    ///
    /// # Errors
    ///
    /// The reason why the host or the proxy is unreachable.
    pub(super) async fn connect(&self, target: &Target) -> Result<TcpStream, BoxError> {
        let uri = Uri::builder().scheme("https").authority(target.authority()).path_and_query("/").build()?;
        Ok(self.dialer.clone().call(uri).await?.into_inner())
    }

    /// Sends a request with its own HTTP version, if the host supports it. The system must trust the certificate of the
    /// host.
    ///
    /// # Errors
    ///
    /// Why there is no response.
    pub(super) async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, BoxError> {
        let clients = self.clients.get_or_init(|| self.clients()).as_ref().map_err(Clone::clone)?;
        let is_http2 = request.version() == Version::HTTP_2;
        // The client selects the version from the connection.
        *request.version_mut() = Version::HTTP_11;
        Ok(clients[usize::from(is_http2)].request(request).await?)
    }

    fn clients(&self) -> Result<[HttpsClient; 2], rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = config.with_platform_verifier()?.with_no_client_auth();
        let builder = || HttpsConnectorBuilder::new().with_tls_config(config.clone()).https_only();
        let connectors = [
            builder().enable_http1().wrap_connector(self.dialer.clone()),
            builder().enable_all_versions().wrap_connector(self.dialer.clone()),
        ];
        Ok(connectors.map(|connector| {
            Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_TIMEOUT)
                .http1_preserve_header_case(true)
                .build(connector)
        }))
    }
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(no_proxy: &str) -> String {
        UserProxy::exceptions_without(no_proxy, ["api.anthropic.com", "10.1.2.3"].into_iter())
    }

    #[test]
    fn exceptions_for_opened_hosts_are_removed() {
        for entry in [
            "*",
            "api.anthropic.com",
            ".anthropic.com",
            "anthropic.com",
            "*.anthropic.com",
            "API.anthropic.com",
            "api.anthropic.com:443",
            "10.0.0.0/8",
            "10.1.2.3",
        ] {
            assert_eq!(kept(&format!("localhost, {entry} ,internal")), "localhost,internal", "{entry}");
        }
    }

    #[test]
    fn other_exceptions_stay() {
        let others = "localhost,127.0.0.1,::1,console.anthropic.com,example.com:8080,192.168.0.0/16";

        assert_eq!(kept(others), others);
        assert_eq!(kept(""), "");
    }
}
