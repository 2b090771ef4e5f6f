//! Routing for other programs: which account a request should use, what came of it, and reservations. The rules are those of
//! `quota::accounts`.

use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use quota::accounts::{
    Classification, Decision, FallbackAccountManager, Request, RequestOutcome, RetryAdvice, RouteError,
};
use quota::provider::Rejection;
use quota::{Percent, WindowId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{INVALID_BODY, INVALID_QUERY, authorize, json, parse};
use crate::access::Role;
use crate::gateway::Gateway;
use crate::open_routes::{OpenRoute, OpenRoutes};
use crate::problem::Problem;
use crate::work::Client;

/// The maximum number of bytes of a model or session.
const MAX_TEXT: usize = 256;
const LONG_TEXT: Problem =
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "a model and a session have at most 256 bytes");
const NO_ROUTER: Problem =
    Problem::new(StatusCode::NOT_IMPLEMENTED, "this gateway has no accounts to choose from");
const NO_ACCOUNT_NOW: Problem =
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no account can serve the request now; see /v1/explain");
const TOO_MANY_ROUTES: Problem =
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many routes were not reported yet; try again later");
const NO_ROUTE: Problem =
    Problem::new(StatusCode::NOT_FOUND, "there is no such route or reservation, or it has expired");
const NO_ESTIMATE: Problem = Problem::new(
    StatusCode::UNPROCESSABLE_ENTITY,
    "a reservation needs an estimate: a window, and a percentage of at most 100",
);

/// A client on a Unix socket whose user is the one of the gateway. Only the server sets it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SameUser;

/// A request that needs an account.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RouteRequestJson {
    /// The model, which selects the windows that count.
    model: Option<String>,
    /// Requests of one session stay on one account.
    session: Option<String>,
    /// The expected use, which is reserved until the report.
    estimate: Option<EstimateJson>,
}

/// The expected use of a request.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct EstimateJson {
    /// The window, such as `five_hour`.
    window: String,
    #[schema(minimum = 0, maximum = 100)]
    percent: f64,
}

/// The account for a request.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RouteJson {
    /// The id for the report.
    route: String,
    /// The account.
    account: String,
    /// Why it was selected, such as `main_available`.
    reason: &'static str,
    /// How long the route can be reported, and how long its reservation lasts.
    expires_in_seconds: u64,
    /// Only over a Unix socket, for the same user, if the gateway hands out credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<CredentialJson>,
}

/// The credential of an account.
#[derive(Serialize, ToSchema)]
struct CredentialJson {
    token: String,
    /// The provider's own id of the account, if requests must name it.
    account_id: Option<String>,
}

impl std::fmt::Debug for CredentialJson {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CredentialJson").finish_non_exhaustive()
    }
}

/// What came of a route.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReportJson {
    /// The id of the route.
    route: String,
    /// What happened. A response needs a status.
    #[serde(default)]
    outcome: OutcomeJson,
    /// The HTTP status.
    #[schema(minimum = 100, maximum = 599)]
    #[serde(default, deserialize_with = "super::json::optional_whole")]
    status: Option<u16>,
    /// The headers of the response.
    #[serde(default)]
    headers: std::collections::BTreeMap<String, String>,
    /// The body of a rejection, or its beginning.
    body: Option<String>,
}

/// The kinds of outcomes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum OutcomeJson {
    /// The provider responded.
    #[default]
    Response,
    /// The provider was unreachable, or closed the connection early.
    Unreachable,
    /// The request was cancelled before its outcome was known.
    Cancelled,
}

/// What to do after a report.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AdviceJson {
    /// Why the provider rejected the request, such as `quota_exhausted`; null if it did not.
    failure: Option<&'static str>,
    /// `done`, `other_account`, `same_account`, `after` or `do_not_retry`.
    next: &'static str,
    /// The wait before the retry, for `after`.
    wait_seconds: Option<u64>,
}

impl AdviceJson {
    fn of(classification: &Classification) -> Self {
        let (next, wait) = match classification.next {
            RetryAdvice::Done => ("done", None),
            RetryAdvice::OtherAccount => ("other_account", None),
            RetryAdvice::SameAccount => ("same_account", None),
            RetryAdvice::After(wait) => ("after", Some(wait)),
            _ => ("do_not_retry", None),
        };
        let failure = classification.failure.as_ref().map(|Rejection { kind, .. }| kind.as_str());
        Self { failure, next, wait_seconds: wait.map(whole_seconds) }
    }
}

/// Rounded up, so that a client does not come too early.
fn whole_seconds(wait: std::time::Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

impl RouteRequestJson {
    fn into_request(self) -> Result<Request, Problem> {
        // The gateway keeps the request until its report.
        if [&self.model, &self.session].into_iter().flatten().any(|text| text.len() > MAX_TEXT) {
            return Err(LONG_TEXT);
        }
        let mut request = Request::new();
        if let Some(model) = &self.model {
            request = request.with_model(model);
        }
        if let Some(session) = &self.session {
            request = request.with_session(session);
        }
        if let Some(EstimateJson { window, percent }) = self.estimate {
            let share = Percent::from_percent(percent).filter(|_| (0.0..=100.0).contains(&percent));
            let window: WindowId = window.parse().map_err(|_| INVALID_BODY)?;
            request = request.with_estimate(window, share.ok_or(INVALID_BODY)?);
        }
        Ok(request)
    }
}

/// Choose the account for a request
///
/// Send the request with the credential of this account, and report its outcome. The choice follows the routing of the configuration.
#[utoipa::path(post, path = "/v1/route", tag = "routing", request_body = RouteRequestJson,
    responses(
        (status = 200, description = "the account", body = RouteJson),
        (status = 401, description = "no valid token"),
        (status = 403, description = "the token does not permit this"),
        (status = 413, description = "the body is too large"),
        (status = 415, description = "the body is not JSON"),
        (status = 422, description = "the body has another form"),
        (status = 501, description = "the gateway has no accounts"),
        (status = 503, description = "no account can serve the request now; Retry-After states when one may"),
    ))]
pub(super) async fn route(
    State(gateway): State<Gateway>,
    same_user: Option<Extension<SameUser>>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let client = (client, same_user.is_some());
    match routed(&gateway, &headers, body, false, client).await {
        Ok(route) => json(&route),
        Err(refused) => refused,
    }
}

/// Reserve a share of a window
///
/// Chooses an account as for a request, and counts the estimate as used until the reservation is deleted, reported or ten minutes old.
#[utoipa::path(post, path = "/v1/reservations", tag = "routing", request_body = RouteRequestJson,
    responses(
        (status = 201, description = "the account; Location names the reservation", body = RouteJson),
        (status = 401, description = "no valid token"),
        (status = 403, description = "the token does not permit this"),
        (status = 413, description = "the body is too large"),
        (status = 415, description = "the body is not JSON"),
        (status = 422, description = "the body has another form, or no estimate"),
        (status = 501, description = "the gateway has no accounts"),
        (status = 503, description = "no account has this share left; Retry-After states when one may"),
    ))]
pub(super) async fn reserve(
    State(gateway): State<Gateway>,
    same_user: Option<Extension<SameUser>>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let client = (client, same_user.is_some());
    match routed(&gateway, &headers, body, true, client).await {
        Ok(route) => {
            let location = HeaderValue::try_from(format!("/v1/reservations/{}", route.route));
            let location = location.expect("an id is a header value");
            (StatusCode::CREATED, [(LOCATION, location)], json(&route)).into_response()
        }
        Err(refused) => refused,
    }
}

async fn routed(
    gateway: &Gateway,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
    is_reservation: bool,
    (client, is_same_user): (Client, bool),
) -> Result<RouteJson, Response> {
    let prepared = authorize(gateway, headers, Role::Route).and_then(|()| {
        let request: RouteRequestJson = parse(headers, body)?;
        if is_reservation && request.estimate.is_none() {
            return Err(NO_ESTIMATE);
        }
        let router = gateway.router().ok_or(NO_ROUTER)?;
        if gateway.open_routes().is_full() {
            return Err(TOO_MANY_ROUTES);
        }
        Ok((router, request.into_request()?))
    });
    let (router, request) = prepared.map_err(IntoResponse::into_response)?;
    let route = tokio::select! {
        biased;
        // A route that no client knows would keep its reservation until it expires.
        () = client.left() => return Err(NO_ACCOUNT_NOW.into_response()),
        route = router.route(request) => route.map_err(|error| unavailable(&error))?,
    };
    gateway.take_over(&router);
    let credential = route.credential().filter(|_| is_same_user && gateway.hands_out_credentials());
    let credential = credential.map(|credential| CredentialJson {
        token: credential.secret.expose().to_owned(),
        account_id: credential.account_id.clone(),
    });
    Ok(RouteJson {
        account: route.account().to_string(),
        reason: route.reason().as_str(),
        expires_in_seconds: OpenRoutes::TTL.as_secs(),
        credential,
        route: gateway.open_routes().add(route, FallbackAccountManager::clone(&router)),
    })
}

fn unavailable(error: &RouteError) -> Response {
    let mut response = NO_ACCOUNT_NOW.into_response();
    if let Some(wait) = error.retry_after() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait).max(1)));
    }
    response
}

/// Report what came of a route
///
/// The limits in the headers become readings, a rejection blocks the account, and the reservation ends. A second report of the same
/// route changes nothing, so it may be repeated.
#[utoipa::path(post, path = "/v1/report", tag = "routing", request_body = ReportJson,
    responses(
        (status = 200, description = "whether and where to retry", body = AdviceJson),
        (status = 401, description = "no valid token"),
        (status = 403, description = "the token does not permit this"),
        (status = 404, description = "no such route, or it has expired"),
        (status = 413, description = "the body is too large"),
        (status = 415, description = "the body is not JSON"),
        (status = 422, description = "the body has another form"),
    ))]
pub(super) async fn report(
    State(gateway): State<Gateway>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let prepared = authorize(&gateway, &headers, Role::Route).and_then(|()| {
        let report: ReportJson = parse(&headers, body)?;
        let open = gateway.open_routes().get_to_report(&report.route).ok_or(NO_ROUTE)?;
        Ok((open, report.into_outcome()?))
    });
    match prepared {
        Ok((open, outcome)) => match reported(&gateway, &open, outcome).await {
            Some(classification) => json(&AdviceJson::of(&classification)),
            None => NO_ROUTE.into_response(),
        },
        Err(refused) => refused.into_response(),
    }
}

/// Release a reservation
#[utoipa::path(delete, path = "/v1/reservations/{id}", tag = "routing",
    params(("id" = String, Path, description = "the route of the reservation")),
    responses(
        (status = 204, description = "the reservation has ended"),
        (status = 401, description = "no valid token"),
        (status = 403, description = "the token does not permit this"),
        (status = 404, description = "no such reservation, or it has expired"),
    ))]
pub(super) async fn release(
    State(gateway): State<Gateway>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = authorize(&gateway, &headers, Role::Route) {
        return refused.into_response();
    }
    let open = id.ok().and_then(|Path(id)| gateway.open_routes().get_to_report(&id));
    let Some(open) = open else { return NO_ROUTE.into_response() };
    match reported(&gateway, &open, RequestOutcome::cancelled()).await {
        Some(_) => StatusCode::NO_CONTENT.into_response(),
        None => NO_ROUTE.into_response(),
    }
}

/// Reports to the current router, which later requests use. After a reload it may not have the account.
async fn reported(gateway: &Gateway, open: &OpenRoute, outcome: RequestOutcome) -> Option<Classification> {
    if let Some(router) = gateway.router()
        && let Ok(classification) = router.report(&open.route, outcome.clone()).await
    {
        gateway.take_over(&router);
        return Some(classification);
    }
    open.router.report(&open.route, outcome).await.ok()
}

impl ReportJson {
    fn into_outcome(self) -> Result<RequestOutcome, Problem> {
        match (self.outcome, self.status) {
            (OutcomeJson::Response, Some(status)) if (100..600).contains(&status) => {
                let outcome = RequestOutcome::from_response(status, self.headers);
                Ok(match self.body {
                    Some(body) => outcome.body(body.as_bytes()),
                    None => outcome,
                })
            }
            (OutcomeJson::Unreachable, None) => Ok(RequestOutcome::unreachable()),
            (OutcomeJson::Cancelled, None) => Ok(RequestOutcome::cancelled()),
            _ => Err(INVALID_BODY),
        }
    }
}

/// The parameters of `explain`.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ExplainQuery {
    /// The model of the request.
    model: Option<String>,
    /// The session of the request.
    session: Option<String>,
}

#[derive(Debug, Serialize)]
struct ExplainJson<'a> {
    version: u32,
    #[serde(flatten)]
    decision: &'a Decision,
}

/// Explain which account a request would use
///
/// The decision from the current readings, without a call: each account with its readings, and the reason that selects or excludes it.
/// `docs/explain-json.md` describes the fields; `model` is missing.
#[utoipa::path(get, path = "/v1/explain", tag = "routing", params(ExplainQuery), responses(
    (status = 200, description = "the decision", body = Object),
    (status = 400, description = "a parameter has another form"),
    (status = 401, description = "no valid token"),
    (status = 501, description = "the gateway has no accounts"),
))]
pub(super) async fn explain(
    State(gateway): State<Gateway>,
    query: Result<Query<ExplainQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = authorize(&gateway, &headers, Role::Read) {
        return refused.into_response();
    }
    let Ok(Query(ExplainQuery { model, session })) = query else { return INVALID_QUERY.into_response() };
    let Some(router) = gateway.router() else { return NO_ROUTER.into_response() };
    let request = RouteRequestJson { model, session, estimate: None }.into_request();
    match request {
        Ok(request) => json(&ExplainJson { version: 2, decision: &router.explain(&request) }),
        Err(refused) => refused.into_response(),
    }
}
