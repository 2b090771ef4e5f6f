//! The dashboard at `/`: a stateless HTML page with the account to use now, and the state of every account.
//!
//! When an account changes, the script of the page fetches the page again and replaces the parts that differ. So the
//! page has only one template, and works without the script.

mod assets;
mod curve;
mod page;

use askama::Template as _;
use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use quota::Clock;
use quota::accounts::routing::{Candidate, Role as AccountRole, choose};
use quota::accounts::{Decision, Request, RoutingPolicy};
use quota_view::format::LocalTime;
use quota_view::zone;
use serde::Deserialize;

use self::assets::Asset;
use self::page::{AccountState, Page};
use crate::access::Role;
use crate::api::authorize;
use crate::gateway::{Current, Gateway};
use crate::journals::read_all;

/// The page loads nothing from other hosts, and its markup contains neither scripts nor styles.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);
/// Makes a browser ask for a name and a password.
const BASIC: HeaderValue =
    HeaderValue::from_static("Basic realm=\"quota: any name, a token as the password\"");
const NO_TOKEN: &str = "This dashboard needs a token of the gateway as the password. The name is ignored.\n";
const NO_ROLE: &str = "This token may not read usage.\n";

pub(crate) fn routes() -> Router<Gateway> {
    let assets = assets::all().iter().fold(Router::new(), |router, asset: &'static Asset| {
        router.route(asset.path(), get(async |headers: HeaderMap| asset.respond(&headers)))
    });
    assets.route("/", get(dashboard))
}

/// The parameters of the page.
#[derive(Debug, Deserialize)]
struct PageQuery {
    /// The reader's time zone. If it is missing or unknown, times are in the gateway's time zone.
    zone: Option<String>,
}

async fn dashboard(
    State(gateway): State<Gateway>,
    query: Result<Query<PageQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = authorize(&gateway, &headers, Role::Read) {
        return refuse(refused.status);
    }
    let zone = query.ok().and_then(|Query(query)| zone::named(&query.zone?));
    let current = gateway.current();
    let page = page(&gateway, &current, zone.unwrap_or_else(zone::local_time_zone)).await;
    let html = page.render().expect("writing to a string succeeds");
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (headers, html).into_response()
}

/// Requests a token through Basic authentication, which browsers support.
fn refuse(status: StatusCode) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    if status == StatusCode::UNAUTHORIZED {
        return (status, headers, [(WWW_AUTHENTICATE, BASIC)], NO_TOKEN).into_response();
    }
    (status, headers, NO_ROLE).into_response()
}

/// The page at this time.
async fn page(gateway: &Gateway, current: &Current, zone: TimeZone) -> Page {
    let ids = current.accounts.all.iter().map(|served| served.id().clone()).collect();
    let journals = read_all(gateway.journals(), ids).await;
    let served = &current.accounts.all;
    let now = served.first().map_or_else(|| Clock::system().now(), |served| served.account.peek().now());
    let states: Vec<_> = served
        .iter()
        .zip(journals)
        .map(|(served, journal)| AccountState {
            id: served.id(),
            usage: served.account.peek(),
            is_disabled: served.is_disabled,
            journal,
        })
        .collect();
    Page::new(&states, &decide(gateway, current, now), &LocalTime { now, zone })
}

/// The account for the next request, according to the current readings. This is the decision of `/v1/explain`, or that
/// of the default policy if the gateway has no router.
fn decide(gateway: &Gateway, current: &Current, now: Timestamp) -> Decision {
    if let Some(router) = gateway.router() {
        return router.explain(&Request::new());
    }
    let candidates = current.accounts.all.iter().enumerate().map(|(index, served)| {
        let role = if index == 0 { AccountRole::Main } else { AccountRole::Fallback };
        Candidate::from_usage(served.id(), role, served.account.peek()).disabled(served.is_disabled)
    });
    choose(candidates, &Request::new(), now, &RoutingPolicy::default())
}
