//! The middleware of a reqwest client, against HTTP servers.
#![expect(clippy::disallowed_methods, reason = "the runtime of a test ends its servers")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::StreamBody;
use http_body_util::combinators::BoxBody;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use quota_http::observe::{ObserveMiddleware, ObservedResponse};
use quota_http::reqwest::{Client, Version};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use crate::support::Recorder;

type Chunks = mpsc::Receiver<Bytes>;

/// A server for HTTP/1 and HTTP/2 whose response body has the chunks that the test sends.
struct Server {
    address: SocketAddr,
    chunks: Option<mpsc::Sender<Bytes>>,
    closed: oneshot::Receiver<()>,
}

async fn serve(status: u16) -> Server {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = mpsc::channel::<Bytes>(8);
    let (closed_sender, closed) = oneshot::channel();
    let body = Arc::new(Mutex::new(Some((receiver, closed_sender))));
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            let body = Arc::clone(&body);
            let answer = service_fn(move |_: Request<Incoming>| {
                let (chunks, closed) = body.lock().unwrap().take().unwrap();
                async move { Ok::<_, Infallible>(answer(status, chunks, closed)) }
            });
            tokio::spawn(async move {
                let builder = auto::Builder::new(TokioExecutor::new());
                builder.serve_connection(TokioIo::new(stream), answer).await
            });
        }
    });
    Server { address, chunks: Some(sender), closed }
}

/// A stream of events. Dropping its body tells `closed`.
fn answer(status: u16, chunks: Chunks, closed: oneshot::Sender<()>) -> Response<BoxBody<Bytes, Infallible>> {
    let stream = futures_util::stream::unfold((chunks, closed), |(mut chunks, closed)| async move {
        let chunk = chunks.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(chunk)), (chunks, closed)))
    });
    let response = Response::builder().status(status).header("content-type", "text/event-stream");
    let response = response.header("anthropic-ratelimit-unified-5h-utilization", "0.5");
    response.body(BoxBody::new(StreamBody::new(Box::pin(sync(stream))))).unwrap()
}

/// Makes a stream `Sync`: only one task polls it.
fn sync<T: Send + 'static>(
    stream: impl futures_util::Stream<Item = T> + Send + 'static,
) -> impl futures_util::Stream<Item = T> + Send + Sync {
    let stream = Mutex::new(Box::pin(stream));
    futures_util::stream::poll_fn(move |cx| stream.lock().unwrap().as_mut().poll_next(cx))
}

fn client(recorder: &Recorder, version: Version) -> ClientWithMiddleware {
    let recorder = recorder.clone();
    // This workspace builds reqwest without a provider of cryptography.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder().no_proxy();
    let builder = if version == Version::HTTP_2 { builder.http2_prior_knowledge() } else { builder };
    let middleware =
        ObserveMiddleware::for_each(move |response: &ObservedResponse<'_>| recorder.record(response));
    ClientBuilder::new(builder.build().unwrap()).with(middleware).build()
}

const VERSIONS: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

#[tokio::test]
async fn a_stream_of_events_passes_chunk_by_chunk() {
    for version in VERSIONS {
        let (recorder, mut server) = (Recorder::default(), serve(200).await);
        let url = format!("http://{}/v1/messages?a=b", server.address);

        let mut response = client(&recorder, version).get(&url).send().await.unwrap();

        assert_eq!((response.version(), recorder.seen().len()), (version, 1));
        for chunk in ["event: a\n\n", "event: b\n\n"] {
            server.chunks.as_ref().unwrap().send(chunk.into()).await.unwrap();
            assert_eq!(response.chunk().await.unwrap().unwrap(), chunk);
        }
        server.chunks = None;
        // HTTP/2 ends a body with an empty frame.
        assert!(response.chunk().await.unwrap().unwrap_or_default().is_empty());
        assert_eq!(recorder.only_body(), b"");
    }
}

#[tokio::test]
async fn a_rejection_keeps_its_url_address_and_version() {
    for version in VERSIONS {
        let (recorder, mut server) = (Recorder::default(), serve(429).await);
        let url = format!("http://{}/v1/messages?a=b", server.address);

        let response = client(&recorder, version).get(&url).send().await.unwrap();

        assert_eq!((response.url().as_str(), response.version()), (url.as_str(), version));
        assert_eq!(response.remote_addr(), Some(server.address));
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        server.chunks.take().unwrap().send("why".into()).await.unwrap();
        assert_eq!(response.text().await.unwrap(), "why");
        assert_eq!(recorder.only_body(), b"why");
    }
}

#[tokio::test]
async fn dropping_a_response_cancels_its_body_on_the_server() {
    for (version, status) in VERSIONS.into_iter().flat_map(|version| [(version, 200), (version, 429)]) {
        let (recorder, server) = (Recorder::default(), serve(status).await);
        let url = format!("http://{}/", server.address);

        let response = client(&recorder, version).get(&url).send().await.unwrap();
        drop(response);

        // The sender of the notice is dropped with the body.
        assert!(server.closed.await.is_err());
        assert_eq!(recorder.seen().len(), 1, "{version:?} {status}");
    }
}
