//! The proxy of `quota wrap`: it answers the usage requests of one command, and forwards all its other requests
//! unchanged.
//!
//! It is for programs that have no setting for the provider's address, but use the proxy of their environment. The
//! proxy decrypts only connections to the given hosts, with a certificate that its own
//! [authority](WrapProxy::certificate) signs. It tunnels connections to all other hosts.

mod authority;
mod origins;
mod password;
mod relay;
mod upstream;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::header::{CONTENT_TYPE, PROXY_AUTHENTICATE};
use http::{Method, Request, StatusCode, Version};
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use quota::{Clock, Secret};
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::authority::Authority;
use self::origins::{Origins, Target};
use self::password::Password;
use self::upstream::Upstream;
use crate::gateway::Gateway;
use crate::usage;

pub use self::origins::UsageOrigin;
pub use self::upstream::UserProxy;

/// The timeout for the headers of a request to the proxy.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// The timeout of the command's TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// The timeout for connecting to a host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// The pause after a failed accept, such as without a free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The maximum number of concurrent connections. Further ones wait in the accept queue.
const MAX_CONNECTIONS: usize = 1024;
/// The buffer of a tunnel, for each direction.
const BUFFER: usize = 64 * 1024;

/// A proxy for one command.
#[derive(Debug)]
#[must_use = "a proxy answers only while `run` is polled"]
pub struct WrapProxy {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// Why a proxy cannot be created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WrapError {
    /// The operating system provides no socket.
    #[error("could not listen on a loopback port: {0}")]
    Listen(#[source] io::Error),
    /// The operating system provides no random numbers.
    #[error("could not make a password: {0}")]
    Random(#[source] getrandom::Error),
    /// A certificate cannot contain this host.
    #[error("could not make a certificate: {0}")]
    Certificate(#[source] rcgen::Error),
}

impl WrapProxy {
    /// Creates a proxy on a free loopback port, with its own password and certificate authority.
    ///
    /// It decrypts connections to the origins whose provider has a usage endpoint. The gateway answers usage requests
    /// for configured accounts.
    ///
    /// # Errors
    ///
    /// [`WrapError`] if the operating system provides no socket or random numbers, or if a certificate cannot contain a
    /// host.
    pub async fn bind(
        gateway: Gateway,
        origins: impl IntoIterator<Item = UsageOrigin>,
        proxy: &UserProxy,
    ) -> Result<Self, WrapError> {
        let origins = Origins::new(origins);
        let clock = Clock::system();
        let authority = Authority::new(&origins.hosts(), clock.now()).map_err(WrapError::Certificate)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(WrapError::Listen)?;
        let address = listener.local_addr().map_err(WrapError::Listen)?;
        let password = Password::random().map_err(WrapError::Random)?;
        let upstream = Upstream::new(proxy);
        let shared = Arc::new(Shared { gateway, origins, authority, password, upstream, clock });
        Ok(Self { listener, address, shared })
    }

    /// The URL for `HTTPS_PROXY`, with the password.
    #[must_use]
    pub fn url(&self) -> Secret {
        Secret::new(format!("http://{}@{}", self.shared.password.user_info().expose(), self.address))
    }

    /// The certificate that the command must trust, as PEM. It is valid for a day, and only for the decrypted hosts.
    #[must_use]
    pub fn certificate(&self) -> &str {
        self.shared.authority.pem()
    }

    /// The names and addresses of the decrypted hosts.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.shared.origins.hosts().into_iter()
    }

    /// Serves the command until `stop` completes, and then closes all connections.
    pub async fn run<T>(self, stop: impl Future<Output = T>) -> T {
        let Self { listener, shared, .. } = self;
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            let accept = async {
                let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
                (slot, listener.accept().await)
            };
            tokio::select! {
                biased;
                stopped = stop.as_mut() => return stopped,
                (slot, accepted) = accept => match accepted {
                    Ok((stream, _)) => {
                        let shared = Arc::clone(&shared);
                        connections.spawn(async move {
                            shared.serve(stream).await;
                            drop(slot);
                        });
                    }
                    // If no file descriptor is free, the next accept would fail too.
                    Err(_) => shared.clock.sleep(ACCEPT_PAUSE).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

/// The state that the connections share.
#[derive(Debug)]
struct Shared {
    gateway: Gateway,
    origins: Origins,
    authority: Authority,
    password: Password,
    upstream: Upstream,
    clock: Clock,
}

/// The continuation of an accepted `CONNECT` request.
enum Tunnel {
    /// The proxy answers in place of the host.
    Open(OnUpgrade, Target),
    /// The bytes are passed on.
    Blind(OnUpgrade, TcpStream),
}

/// Two connections that change their protocol together.
type Upgrade = (OnUpgrade, OnUpgrade);

impl Shared {
    /// Serves one connection of the command: a `CONNECT` request, and its tunnel.
    async fn serve(self: Arc<Self>, stream: TcpStream) {
        // Without this option, small packets only arrive a little later.
        let _ = stream.set_nodelay(true);
        let accepted = Mutex::new(None);
        let service = service_fn(async |request| {
            let (response, tunnel) = self.connect(request).await;
            *accepted.lock() = tunnel;
            Ok::<_, Infallible>(response)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        // A client may disconnect at any time.
        let _ = connection.await;
        match accepted.into_inner() {
            Some(Tunnel::Open(upgrade, target)) => self.open(upgrade, target).await,
            Some(Tunnel::Blind(upgrade, mut host)) => {
                let Ok(client) = upgrade.await else { return };
                let mut client = TokioIo::new(client);
                let _ = copy_bidirectional_with_sizes(&mut client, &mut host, BUFFER, BUFFER).await;
            }
            None => {}
        }
    }

    /// Answers a request to the proxy itself.
    async fn connect(&self, mut request: Request<Incoming>) -> (Response, Option<Tunnel>) {
        if !self.password.is_presented(request.headers()) {
            let text = "quota wrap: the proxy needs the password of its command";
            let mut response = refusal(StatusCode::PROXY_AUTHENTICATION_REQUIRED, text);
            let challenge = http::HeaderValue::from_static("Basic realm=\"quota wrap\"");
            response.headers_mut().insert(PROXY_AUTHENTICATE, challenge);
            return (response, None);
        }
        if request.method() != Method::CONNECT {
            let text = "quota wrap: the proxy accepts only CONNECT requests, for https URLs";
            return (refusal(StatusCode::METHOD_NOT_ALLOWED, text), None);
        }
        let target = request.uri().authority().and_then(|authority| Target::of(authority, None));
        let Some(target) = target else {
            let text = "quota wrap: the target of a CONNECT request must be HOST:PORT";
            return (refusal(StatusCode::BAD_REQUEST, text), None);
        };
        if self.origins.contains(&target) && self.authority.acceptor(self.clock.now()).is_some() {
            let tunnel = Tunnel::Open(hyper::upgrade::on(&mut request), target);
            return (Response::default(), Some(tunnel));
        }
        match self.clock.bounded(CONNECT_TIMEOUT, self.upstream.connect(&target)).await {
            Some(Ok(host)) => {
                let tunnel = Tunnel::Blind(hyper::upgrade::on(&mut request), host);
                (Response::default(), Some(tunnel))
            }
            Some(Err(error)) => (unreachable(&target, &*error), None),
            None => (refusal(StatusCode::GATEWAY_TIMEOUT, "quota wrap: the connection timed out"), None),
        }
    }

    /// Accepts a TLS connection in place of a host, and serves its requests.
    async fn open(self: Arc<Self>, upgrade: OnUpgrade, target: Target) {
        let Some(acceptor) = self.authority.acceptor(self.clock.now()) else { return };
        let Ok(client) = upgrade.await else { return };
        let handshake = acceptor.accept(TokioIo::new(client));
        let Some(Ok(stream)) = self.clock.bounded(HANDSHAKE_TIMEOUT, handshake).await else { return };
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            self.serve_http2(TokioIo::new(stream), target).await;
        } else {
            self.serve_http1(TokioIo::new(stream), &target).await;
        }
    }

    async fn serve_http2(self: Arc<Self>, stream: impl Read + Write + Unpin, target: Target) {
        let target = Arc::new(target);
        let service = service_fn(move |request| {
            let (shared, target) = (Arc::clone(&self), Arc::clone(&target));
            async move { Ok::<_, Infallible>(shared.respond(request, &target).await.0) }
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .serve_connection(stream, service);
        let _ = connection.await;
    }

    async fn serve_http1(&self, stream: impl Read + Write + Unpin + Send + 'static, target: &Target) {
        let upgrades = Mutex::new(None);
        let service = service_fn(async |request| {
            let (response, upgrade) = self.respond(request, target).await;
            *upgrades.lock() = upgrade;
            Ok::<_, Infallible>(response)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .preserve_header_case(true)
            .serve_connection(stream, service)
            .with_upgrades();
        let _ = connection.await;
        let Some((client, host)) = upgrades.into_inner() else { return };
        if let (Ok(client), Ok(host)) = tokio::join!(client, host) {
            let (mut client, mut host) = (TokioIo::new(client), TokioIo::new(host));
            let _ = copy_bidirectional_with_sizes(&mut client, &mut host, BUFFER, BUFFER).await;
        }
    }

    /// Handles a request to a decrypted host: answers it if it requests the usage of a configured account, and
    /// otherwise forwards it.
    async fn respond(&self, request: Request<Incoming>, target: &Target) -> (Response, Option<Upgrade>) {
        let is_same_host =
            relay::named_host(request.uri(), request.headers(), target).as_ref() == Some(target);
        if request.version() == Version::HTTP_2 && !is_same_host {
            let text = "quota wrap: the request names another host than its tunnel";
            return (refusal(StatusCode::MISDIRECTED_REQUEST, text), None);
        }
        if is_same_host
            && request.method() == Method::GET
            && let Some(usage) = self.origins.usage(target, request.uri().path())
            && usage.endpoint.answers(request.uri().query())
            && !usage.is_own(request.headers())
            && let Some(response) =
                usage::of_configured(usage.endpoint, &self.gateway, request.headers()).await
        {
            return (response, None);
        }
        self.relay(request, target).await
    }

    /// Forwards a request to its host.
    async fn relay(&self, mut request: Request<Incoming>, target: &Target) -> (Response, Option<Upgrade>) {
        let is_upgrade = relay::is_upgrade(request.version(), request.headers());
        let client = is_upgrade.then(|| hyper::upgrade::on(&mut request));
        *request.uri_mut() = relay::url(target, request.uri().path_and_query());
        relay::remove_hop_by_hop(request.headers_mut(), is_upgrade);
        relay::join_cookies(request.headers_mut());
        let mut response = match self.upstream.send(request.map(Body::new)).await {
            Ok(response) => response,
            Err(error) => return (unreachable(target, &*error), None),
        };
        let is_upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let upgrade =
            client.filter(|_| is_upgraded).map(|client| (client, hyper::upgrade::on(&mut response)));
        relay::remove_hop_by_hop(response.headers_mut(), is_upgraded);
        (response.map(Body::new), upgrade)
    }
}

fn refusal(status: StatusCode, text: &str) -> Response {
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], format!("{text}\n")).into_response()
}

fn unreachable(target: &Target, error: &(dyn std::error::Error + 'static)) -> Response {
    let mut text = format!("quota wrap: could not get a response from {}: {error}", target.host);
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    refusal(StatusCode::BAD_GATEWAY, &text)
}
