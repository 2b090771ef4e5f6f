//! The gateway's own API below `/v1`: accounts, their changes, refreshes, and responses that other programs received.

mod history;
mod json;
mod openapi;
mod routing;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use quota::http::{find_provider, parse_response};
use quota::provider::{ResponseHeaders, ResponseMeta};
use quota::{AccountId, AccountUsage, Clock, QuotaError};
use serde::{Deserialize, Serialize};

use self::json::{
    AccountJson, AccountsJson, ChangesJson, ObserveJson, ObservedJson, RefreshJson, RejectedJson,
};
pub use self::openapi::openapi;
pub(crate) use self::routing::SameUser;
use crate::access::{Role, password};
use crate::changes::Position;
use crate::gateway::{Current, Gateway};
use crate::problem::Problem;
use crate::served::Served;
use crate::usage::presented;

/// The minimum time between two calls that clients cause with `refresh`, as for `quota status --refresh`.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);
/// How long a request waits for a refresh that has started.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(20);
/// The longest wait for a change. It is shorter than the timeout for a response.
const MAX_WAIT: u64 = 25;

const NO_ACCOUNT: Problem = Problem::new(StatusCode::NOT_FOUND, "there is no account with this name");
const NO_TOKEN: Problem = Problem::new(StatusCode::UNAUTHORIZED, "present a token of the gateway");
const NO_ROLE: Problem = Problem::new(StatusCode::FORBIDDEN, "the token does not permit this");
const DISABLED: Problem =
    Problem::new(StatusCode::CONFLICT, "the account is disabled, so it is never refreshed");
const NOT_JSON: Problem =
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must have the type application/json");
const INVALID_BODY: Problem = Problem::new(
    StatusCode::UNPROCESSABLE_ENTITY,
    "the body does not have the form that /openapi.json describes",
);
const INVALID_QUERY: Problem =
    Problem::new(StatusCode::BAD_REQUEST, "a parameter does not have the form that /openapi.json describes");
const TOO_LARGE: Problem =
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the body of the request is too large");
const OTHER_LOGIN: Problem = Problem::new(
    StatusCode::CONFLICT,
    "the response belongs to another login, or the account cannot be changed",
);

pub(crate) fn routes() -> Router<Gateway> {
    Router::new()
        .route("/v1/accounts", get(accounts))
        .route("/v1/accounts/{provider}/{name}", get(account))
        .route("/v1/accounts/{provider}/{name}/refresh", post(refresh))
        .route("/v1/observe", post(observe))
        .route("/v1/changes", get(changes))
        .route("/v1/events", get(stream::events))
        .route("/v1/history", get(history::history))
        .route("/v1/pace", get(history::pace))
        .route("/v1/explain", get(routing::explain))
        .route("/v1/route", post(routing::route))
        .route("/v1/report", post(routing::report))
        .route("/v1/reservations", post(routing::reserve))
        .route("/v1/reservations/{id}", delete(routing::release))
        .route("/openapi.json", get(document))
}

/// Checks the role of a client. A request that only reads may have the token as the password that a browser sends.
pub(crate) fn authorize(gateway: &Gateway, headers: &HeaderMap, needed: Role) -> Result<(), Problem> {
    // A browser also adds the password to requests that other pages make, so the password must not permit changes.
    let password = (needed == Role::Read).then(|| password(headers)).flatten();
    match gateway.tokens().role(presented(headers).or(password.as_deref())) {
        Some(role) if role >= needed => Ok(()),
        Some(_) => Err(NO_ROLE),
        None => Err(NO_TOKEN),
    }
}

fn json(value: &impl Serialize) -> Response {
    json_text(json_bytes(value))
}

fn json_bytes(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("an answer has only texts as keys").into()
}

/// A response with this JSON text.
fn json_text(body: Bytes) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, body).into_response()
}

type Names = Result<Path<(String, String)>, PathRejection>;

fn find(current: &Current, names: Names) -> Result<Arc<Served>, Problem> {
    let Path((provider, name)) = names.map_err(|_| NO_ACCOUNT)?;
    let provider = find_provider(&provider).ok_or(NO_ACCOUNT)?;
    let id = AccountId::new(provider.id(), &name).map_err(|_| NO_ACCOUNT)?;
    current.accounts.get(&id).cloned().ok_or(NO_ACCOUNT)
}

/// List all accounts with their readings
#[utoipa::path(get, path = "/v1/accounts", tag = "accounts", responses(
    (status = 200, description = "the accounts, in the order of the configuration", body = AccountsJson),
    (status = 401, description = "no valid token"),
))]
async fn accounts(State(gateway): State<Gateway>, headers: HeaderMap) -> Response {
    if let Err(refused) = authorize(&gateway, &headers, Role::Read) {
        return refused.into_response();
    }
    let current = gateway.current();
    let all = &current.accounts.all;
    let now = all.first().map_or_else(|| Clock::system().now(), |one| one.account.peek().now());
    let write = |usages: &[AccountUsage]| {
        json_bytes(&AccountsJson::of(now, all.iter().map(|served| &**served).zip(usages)))
    };
    json_text(current.listed.get_or_write(all, now, write))
}

/// Show one account
#[utoipa::path(get, path = "/v1/accounts/{provider}/{name}", tag = "accounts",
    params(
        ("provider" = String, Path, description = "the provider, such as anthropic"),
        ("name" = String, Path, description = "the name of the account, such as main"),
    ),
    responses(
        (status = 200, description = "the account", body = AccountJson),
        (status = 401, description = "no valid token"),
        (status = 404, description = "no such account"),
    ))]
async fn account(State(gateway): State<Gateway>, names: Names, headers: HeaderMap) -> Response {
    if let Err(refused) = authorize(&gateway, &headers, Role::Read) {
        return refused.into_response();
    }
    match find(&gateway.current(), names) {
        Ok(served) => json(&AccountJson::of(&served, &served.account.peek())),
        Err(problem) => problem.into_response(),
    }
}

/// Call the provider now, if the rules allow it
///
/// No call is made if another process has called within ten seconds, during a hold, or without budget.
#[utoipa::path(post, path = "/v1/accounts/{provider}/{name}/refresh", tag = "accounts",
    params(
        ("provider" = String, Path, description = "the provider, such as anthropic"),
        ("name" = String, Path, description = "the name of the account, such as main"),
    ),
    responses(
        (status = 200, description = "the account afterwards, and why there are no new readings", body = RefreshJson),
        (status = 401, description = "no valid token"),
        (status = 403, description = "the token does not permit this"),
        (status = 404, description = "no such account"),
        (status = 409, description = "the account is disabled"),
    ))]
async fn refresh(State(gateway): State<Gateway>, names: Names, headers: HeaderMap) -> Response {
    if let Err(refused) = authorize(&gateway, &headers, Role::Operate) {
        return refused.into_response();
    }
    let served = match find(&gateway.current(), names) {
        Ok(served) if served.is_disabled => return DISABLED.into_response(),
        Ok(served) => served,
        Err(problem) => return problem.into_response(),
    };
    let refreshed = served.account.refresh_unless_called_within(REFRESH_INTERVAL);
    let refreshed = Clock::system().bounded(REFRESH_TIMEOUT, refreshed).await;
    let (fetched, called_at, error) = match refreshed {
        Some(Ok(outcome)) => {
            let error = outcome.error.as_ref().map(QuotaError::cause);
            (outcome.fetched, outcome.called_at.map(|at| at.to_string()), error)
        }
        Some(Err(error)) => (false, None, Some(error.cause())),
        None => (false, None, Some("the refresh is still in progress".to_owned())),
    };
    json(&RefreshJson {
        fetched,
        called_at,
        error,
        account: AccountJson::of(&served, &served.account.peek()),
    })
}

/// Report the status and the headers of a response that another program got
///
/// The limits in the headers become readings of the account at once, without a call.
#[utoipa::path(post, path = "/v1/observe", tag = "accounts", request_body = ObserveJson,
    responses(
        (status = 200, description = "what was read", body = ObservedJson),
        (status = 401, description = "no valid token"),
        (status = 403, description = "the token does not permit this"),
        (status = 404, description = "no such account"),
        (status = 409, description = "the response belongs to another login"),
        (status = 413, description = "the body is too large"),
        (status = 415, description = "the body is not JSON"),
        (status = 422, description = "the body has another form"),
    ))]
async fn observe(
    State(gateway): State<Gateway>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    if let Err(refused) = authorize(&gateway, &headers, Role::Route) {
        return refused.into_response();
    }
    match observed(&gateway, &headers, body) {
        Ok(observed) => json(&observed),
        Err(problem) => problem.into_response(),
    }
}

fn observed(
    gateway: &Gateway,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<ObservedJson, Problem> {
    let request: ObserveJson = parse(headers, body)?;
    if !(100..600).contains(&request.status) {
        return Err(INVALID_BODY);
    }
    let id: AccountId = request.account.parse().map_err(|_| NO_ACCOUNT)?;
    let served = gateway.current().accounts.get(&id).cloned().ok_or(NO_ACCOUNT)?;
    let lines: Vec<(String, String)> = request.headers.into_iter().collect();
    let response =
        ResponseMeta::new(request.status, ResponseHeaders::from(&lines[..]), served.account.peek().now());
    let usage = parse_response(id.provider(), &response).usage;
    let windows = usage.windows.iter().map(|window| window.id.to_string()).collect();
    let rejected = if usage.is_empty() {
        Vec::new()
    } else {
        served.account.observe(&usage).map_err(|_| OTHER_LOGIN)?
    };
    Ok(ObservedJson { windows, rejected: rejected.iter().map(RejectedJson::of).collect() })
}

/// Parses a JSON body. A page of another origin cannot send this type without the permission of the gateway.
fn parse<T: for<'a> Deserialize<'a>>(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<T, Problem> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(NOT_JSON);
    }
    let body = body.map_err(|_| TOO_LARGE)?;
    serde_json::from_slice(&body).map_err(|_| INVALID_BODY)
}

/// The parameters of `changes`.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ChangesQuery {
    /// The `next` of the previous answer. Without it, all accounts are returned at once.
    after: Option<String>,
    /// How long to wait for a change, in seconds.
    #[param(minimum = 0, maximum = 25)]
    wait: Option<u64>,
}

/// Wait for the next change of an account
///
/// Returns at once if there was one since `after`; otherwise with the next one, or without an account at the end of `wait`.
#[utoipa::path(get, path = "/v1/changes", tag = "accounts", params(ChangesQuery), responses(
    (status = 200, description = "the changed accounts", body = ChangesJson),
    (status = 400, description = "a parameter has another form"),
    (status = 401, description = "no valid token"),
))]
async fn changes(
    State(gateway): State<Gateway>,
    query: Result<Query<ChangesQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = authorize(&gateway, &headers, Role::Read) {
        return refused.into_response();
    }
    let Ok(Query(ChangesQuery { after, wait })) = query else { return INVALID_QUERY.into_response() };
    let wait = wait.unwrap_or(MAX_WAIT);
    if wait > MAX_WAIT {
        return INVALID_QUERY.into_response();
    }
    // A position from an earlier process, or an invalid one, selects all accounts.
    let after = after.as_deref().and_then(Position::parse);
    if let Some(after) = &after {
        let clock = Clock::system();
        tokio::select! {
            _ = clock.bounded(Duration::from_secs(wait), gateway.changes().wait(after)) => {}
            () = gateway.stopping() => {}
        }
    }
    // Read the position first. A change in between is then reported twice instead of missed.
    let next = gateway.changes().position().to_string();
    let current = gateway.current();
    let changed = gateway.changes().since(after.as_ref(), &current.accounts.all);
    let accounts = changed.map(|served| AccountJson::of(served, &served.account.peek())).collect();
    json(&ChangesJson { next, accounts })
}

/// The description of this API.
async fn document() -> Response {
    json(&openapi())
}
