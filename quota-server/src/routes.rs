//! The paths of the gateway, each with its handler.

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use quota::http::PROVIDERS;

use crate::access::Role;
use crate::api;
use crate::dashboard;
use crate::gateway::Gateway;
use crate::metrics::Format;
use crate::problem::Problem;
use crate::usage::{self, Endpoint};

const NOT_FOUND: Problem = Problem::new(StatusCode::NOT_FOUND, "there is no such path");
const NOT_ALLOWED: Problem =
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "the path does not have this method");
const NOT_READY: Problem =
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the accounts were not read from the store yet");

/// The router of all paths.
pub(crate) fn router(gateway: Gateway) -> Router {
    let endpoints = PROVIDERS.iter().filter_map(|provider| Endpoint::of(provider));
    let usage = endpoints.fold(Router::new(), |router, endpoint| {
        let path = endpoint.path();
        router
            .route(
                path,
                get(move |state, query, headers| usage::of_credential(endpoint, state, query, headers)),
            )
            .route(
                &format!("/account/{{provider}}/{{name}}{path}"),
                get(move |state, names, query, headers| {
                    usage::of_account(endpoint, state, names, query, headers)
                }),
            )
    });
    usage
        .merge(api::routes())
        .merge(dashboard::routes())
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .route("/metrics", get(measured))
        .layer(from_fn(label))
        .fallback(async || NOT_FOUND)
        .method_not_allowed_fallback(async || NOT_ALLOWED)
        .with_state(gateway)
}

/// Reports that the process runs.
async fn healthy() -> Response {
    ([(CACHE_CONTROL, "no-store")], "ok\n").into_response()
}

/// Reports whether the accounts have been read.
async fn ready(State(gateway): State<Gateway>) -> Response {
    if gateway.current().accounts.is_read() { healthy().await } else { NOT_READY.into_response() }
}

/// The metrics of the process.
async fn measured(State(gateway): State<Gateway>, headers: HeaderMap) -> Response {
    if let Err(refused) = api::authorize(&gateway, &headers, Role::Read) {
        return refused.into_response();
    }
    let format = Format::of(&headers);
    let text = gateway.metrics().text(&gateway.current().accounts, format);
    ([(CONTENT_TYPE, format.content_type()), (CACHE_CONTROL, "no-store")], text).into_response()
}

/// Adds the path of the handler to the response, for the count of requests.
async fn label(matched: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Some(matched) = matched {
        response.extensions_mut().insert(matched);
    }
    response
}
