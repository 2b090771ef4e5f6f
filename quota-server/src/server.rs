//! Serves connections within the limits, until it is stopped. Only this file owns the tasks of connections.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::MatchedPath;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use quota::Clock;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tower_service::Service as _;

use crate::api::SameUser;
use crate::gateway::Gateway;
use crate::guard::Guard;
use crate::limits::Limits;
use crate::listener::{Accepted, Listener};
use crate::problem::Problem;
use crate::routes;
use crate::tls::Tls;
use crate::work::Client;

/// How long idle connections stay open after the server begins to stop, to answer requests that are already on their
/// way.
const IDLE_GRACE: Duration = Duration::from_millis(200);
/// The pause after a failed accept, such as without a free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const TOO_LARGE: Problem =
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the body of the request is too large");
const TOO_LATE: Problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the response took too long");
const PANICKED: Problem =
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the handler of the request panicked");

/// Serves a [`Gateway`] over HTTP/1.1.
#[derive(Debug)]
#[must_use = "a server answers only while `run` is polled"]
pub struct Server {
    gateway: Gateway,
    listeners: Vec<Listener>,
    guard: Guard,
    tls: Option<Tls>,
    limits: Limits,
}

impl Server {
    /// Prepares a server for these sockets.
    pub fn new(gateway: Gateway, listeners: Vec<Listener>) -> Self {
        Self { gateway, listeners, guard: Guard::default(), tls: None, limits: Limits::default() }
    }

    /// Also accepts requests for these host names. IP addresses and `localhost` are always accepted.
    pub fn allow_hosts(mut self, hosts: impl IntoIterator<Item = String>) -> Self {
        self.guard.hosts.extend(hosts);
        self
    }

    /// Serves TLS on the TCP sockets.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Sets the limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Serves until `stop` completes. Then it closes the sockets, and waits up to a timeout for responses in flight,
    /// and for requests that change state even if their clients have disconnected.
    ///
    /// Returns whether all of them ended in time. If the future is dropped, all connections are closed immediately.
    pub async fn run(self, stop: impl Future<Output = ()>) -> bool {
        let (clock, limit) = (Clock::system(), self.limits.shutdown_timeout);
        let stopping = watch::Sender::new(false);
        self.gateway.limit_event_streams(self.limits.max_event_streams.min(self.limits.max_connections / 2));
        let service = Arc::new(Service {
            app: routes::router(self.gateway.clone()),
            gateway: self.gateway.clone(),
            guard: self.guard,
            tls: self.tls,
            slots: Arc::new(Semaphore::new(self.limits.max_connections)),
            limits: self.limits,
            stopping: stopping.subscribe(),
        });
        let mut listening = JoinSet::new();
        for listener in self.listeners {
            listening.spawn(listen(listener, Arc::clone(&service)));
        }
        stop.await;
        let begun = clock.instant();
        stopping.send_replace(true);
        self.gateway.stop();
        let mut all_ended = true;
        while let Some(ended) = listening.join_next().await {
            all_ended &= ended.unwrap_or(false);
        }
        // Wait for requests that clients sent before they disconnected.
        let left = limit.saturating_sub(clock.instant().saturating_since(begun));
        all_ended & clock.bounded(left, self.gateway.work().ended()).await.is_some()
    }
}

/// The state that the connections share.
#[derive(Debug)]
struct Service {
    app: Router,
    gateway: Gateway,
    guard: Guard,
    tls: Option<Tls>,
    slots: Arc<Semaphore>,
    limits: Limits,
    stopping: watch::Receiver<bool>,
}

/// Accepts connections until the server stops, and waits for them. Returns whether all ended in time.
async fn listen(listener: Listener, service: Arc<Service>) -> bool {
    let clock = Clock::system();
    let mut connections = JoinSet::new();
    let mut stopping = service.stopping.clone();
    loop {
        let accept = async {
            // Connections beyond the limit wait in the accept queue.
            let slot =
                Arc::clone(&service.slots).acquire_owned().await.expect("the semaphore is never closed");
            (slot, listener.accept().await)
        };
        tokio::select! {
            (slot, accepted) = accept => match accepted {
                Ok(accepted) => {
                    let service = Arc::clone(&service);
                    connections.spawn(async move {
                        serve(accepted, service).await;
                        drop(slot);
                    });
                }
                Err(error) if is_of_client(&error) => {}
                Err(_) => clock.sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
            _ = stopping.changed() => break,
        }
    }
    // Closing the socket resets the connections in its queue, so accept these first.
    while let Some(Ok(accepted)) = listener.accept().now_or_never() {
        connections.spawn(serve(accepted, Arc::clone(&service)));
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    let all_ended = clock.bounded(service.limits.shutdown_timeout, ended).await.is_some();
    connections.shutdown().await;
    all_ended
}

/// Whether only one connection failed.
fn is_of_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn serve(accepted: Accepted, service: Arc<Service>) {
    match accepted {
        Accepted::Tcp(stream) => {
            // Without this option, responses only arrive a little later.
            let _ = stream.set_nodelay(true);
            let Some(tls) = &service.tls else { return serve_stream(stream, Peer::Network, service).await };
            let handshake = tls.0.accept(stream);
            let shaken = Clock::system().bounded(service.limits.handshake_timeout, handshake).await;
            if let Some(Ok(stream)) = shaken {
                serve_stream(stream, Peer::Network, service).await;
            }
        }
        #[cfg(unix)]
        Accepted::Unix(stream) => {
            let own = rustix::process::geteuid().as_raw();
            let is_same_user = stream.peer_cred().is_ok_and(|peer| peer.uid() == own);
            serve_stream(stream, Peer::Unix { is_same_user }, service).await;
        }
    }
}

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Network,
    #[cfg_attr(not(unix), expect(dead_code))]
    Unix {
        is_same_user: bool,
    },
}

/// Serves one client until it disconnects, breaks a limit, or the server stops.
async fn serve_stream<S>(stream: S, peer: Peer, service: Arc<Service>)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let limits = service.limits.clone();
    let mut stopping = service.stopping.clone();
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.write_timeout));
    let service = service_fn(move |request| {
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(service.respond(request, peer).await) }
    });
    // The `auto` connection of hyper-util has no timeout before the first byte.
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_header_size(limits.max_header_bytes)
        .max_headers(limits.max_headers)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        // A client may disconnect at any time.
        _ = connection.as_mut() => return,
        _ = stopping.changed() => {}
    }
    let clock = Clock::system();
    if clock.bounded(IDLE_GRACE, connection.as_mut()).await.is_none() {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

impl Service {
    async fn respond(&self, mut request: Request<Incoming>, peer: Peer) -> Response {
        if peer == (Peer::Unix { is_same_user: true }) {
            request.extensions_mut().insert(SameUser);
        }
        let mut response = match self.reject(&request, peer != Peer::Network) {
            Some(problem) => problem.into_response(),
            None => self.answer(request).await,
        };
        let route = response.extensions().get::<MatchedPath>();
        let status = response.status().as_u16();
        self.gateway.metrics().count_request(route.map_or("other", MatchedPath::as_str), status);
        let headers = response.headers_mut();
        headers
            .insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
        if *self.stopping.borrow() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn reject(&self, request: &Request<Incoming>, is_unix: bool) -> Option<Problem> {
        if let Err(problem) = self.guard.check(request.uri(), request.headers(), is_unix) {
            return Some(problem);
        }
        let length = request.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse::<u64>().ok()?;
        (length > self.limits.max_body_bytes as u64).then_some(TOO_LARGE)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response {
        let (limit, app) = (self.limits.request_timeout, self.app.clone());
        let changes_state = !request.method().is_safe();
        let request = request.map(|body| Limited::new(body, self.limits.max_body_bytes));
        let clock = Clock::system();
        let response = match changes_state {
            false => clock.bounded(limit, respond(app, request.map(Body::new))).await,
            true => {
                let (client, _leaves) = Client::new();
                let work = finish(app, request, client, limit);
                clock.bounded(limit, self.gateway.work().finish(work)).await
            }
        };
        response.unwrap_or_else(|| TOO_LATE.into_response())
    }
}

/// Handles a request that changes state. It always completes, because a client may disconnect after sending the
/// request.
async fn finish(
    app: Router,
    request: Request<Limited<Incoming>>,
    client: Client,
    limit: Duration,
) -> Response {
    let (mut head, body) = request.into_parts();
    let body = match Clock::system().bounded(limit, body.collect()).await {
        Some(Ok(body)) => body.to_bytes(),
        Some(Err(_)) => return TOO_LARGE.into_response(),
        None => return TOO_LATE.into_response(),
    };
    head.extensions.insert(client);
    respond(app, Request::from_parts(head, Body::from(body))).await
}

async fn respond(mut app: Router, request: Request<Body>) -> Response {
    match AssertUnwindSafe(app.call(request)).catch_unwind().await {
        Ok(Ok(response)) => response,
        Err(_) => PANICKED.into_response(),
    }
}
