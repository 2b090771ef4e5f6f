//! The usage of windows over time, from the journals: `GET /v1/history` and `GET /v1/pace`.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use quota::{AccountId, AccountUsage, Clock};
use quota_journal::{Journal, Sample};
use quota_view::format::rfc3339;
use quota_view::pace::{AccountPace, AccountPaceJson, JSON_VERSION};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{INVALID_QUERY, NO_ACCOUNT, authorize, json};
use crate::access::Role;
use crate::gateway::Gateway;
use crate::journals::read_all;
use crate::problem::Problem;

/// The period if the request has no `hours`.
const DEFAULT_HOURS: u32 = 24;
/// The period that a journal keeps: 35 days.
const MAX_HOURS: u32 = 35 * 24;

/// The parameters of `history`.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct HistoryQuery {
    /// Only this account, such as `anthropic/main`.
    account: Option<String>,
    /// Only this window, such as `five_hour`.
    window: Option<String>,
    /// The last hours; without it, 24.
    #[param(minimum = 1, maximum = 840)]
    hours: Option<u32>,
}

/// The parameters of `pace`.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PaceQuery {
    /// Only this account, such as `anthropic/main`.
    account: Option<String>,
    /// Only this window, such as `five_hour`.
    window: Option<String>,
}

/// The use over time.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HistoryJson {
    version: u32,
    /// The time of the answer.
    #[schema(format = DateTime)]
    now: String,
    accounts: Vec<AccountHistoryJson>,
}

/// The use of an account over time.
#[derive(Debug, Serialize, ToSchema)]
struct AccountHistoryJson {
    account: String,
    windows: Vec<WindowHistoryJson>,
}

/// The use of a window over time.
#[derive(Debug, Serialize, ToSchema)]
struct WindowHistoryJson {
    id: String,
    /// Oldest first: the last reading of every three minutes for a day, and then of each hour.
    samples: Vec<SampleJson>,
}

/// The use at one time.
#[derive(Debug, Serialize, ToSchema)]
struct SampleJson {
    #[schema(format = DateTime)]
    at: String,
    used_percent: f64,
    /// When the window was to reset.
    #[schema(format = DateTime)]
    resets_at: Option<String>,
}

impl SampleJson {
    fn of(sample: &Sample) -> Option<Self> {
        let time = |second| Timestamp::from_second(second).ok().map(rfc3339);
        Some(Self {
            at: time(sample.at_s)?,
            used_percent: f64::from(sample.used_bp) / 100.0,
            resets_at: sample.resets_s.and_then(time),
        })
    }
}

/// An account with its journal.
struct Recorded {
    id: AccountId,
    usage: AccountUsage,
    journal: Journal,
}

/// The accounts with their journals, or only the named one.
async fn recorded(gateway: &Gateway, only: Option<&str>) -> Result<Vec<Recorded>, Problem> {
    let current = gateway.current();
    let served =
        current.accounts.all.iter().filter(|served| only.is_none_or(|only| served.id().as_str() == only));
    let accounts: Vec<_> = served.map(|served| (served.id().clone(), served.account.peek())).collect();
    if only.is_some() && accounts.is_empty() {
        return Err(NO_ACCOUNT);
    }
    let ids = accounts.iter().map(|(id, _)| id.clone()).collect();
    let journals = read_all(gateway.journals(), ids).await;
    let recorded = accounts.into_iter().zip(journals);
    Ok(recorded.map(|((id, usage), journal)| Recorded { id, usage, journal }).collect())
}

fn now(recorded: &[Recorded]) -> Timestamp {
    recorded.first().map_or_else(|| Clock::system().now(), |first| first.usage.now())
}

/// Show the use of windows over time
///
/// The samples of the journals, in which programs of all hosts record the readings.
#[utoipa::path(get, path = "/v1/history", tag = "accounts", params(HistoryQuery), responses(
    (status = 200, description = "the samples of each window", body = HistoryJson),
    (status = 400, description = "a parameter has another form"),
    (status = 401, description = "no valid token"),
    (status = 404, description = "no such account"),
))]
pub(super) async fn history(
    State(gateway): State<Gateway>,
    query: Result<Query<HistoryQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = authorize(&gateway, &headers, Role::Read) {
        return refused.into_response();
    }
    let Ok(Query(HistoryQuery { account, window, hours })) = query else {
        return INVALID_QUERY.into_response();
    };
    let hours = hours.unwrap_or(DEFAULT_HOURS);
    if !(1..=MAX_HOURS).contains(&hours) {
        return INVALID_QUERY.into_response();
    }
    let recorded = match recorded(&gateway, account.as_deref()).await {
        Ok(recorded) => recorded,
        Err(refused) => return refused.into_response(),
    };
    let now = now(&recorded);
    let since = now - SignedDuration::from_hours(hours.into());
    let accounts = recorded.iter().map(|recorded| {
        let ids = recorded.usage.snapshot().windows().iter().map(|window| window.id().as_str());
        let ids = ids.filter(|id| window.as_deref().is_none_or(|only| only == *id));
        let windows = ids.map(|id| {
            let samples = recorded.journal.history().samples(id).iter();
            let samples =
                samples.filter(|sample| sample.at_s >= since.as_second()).filter_map(SampleJson::of);
            WindowHistoryJson { id: id.to_owned(), samples: samples.collect() }
        });
        AccountHistoryJson { account: recorded.id.to_string(), windows: windows.collect() }
    });
    json(&HistoryJson { version: 1, now: rfc3339(now), accounts: accounts.collect() })
}

#[derive(Debug, Serialize)]
struct PaceJson<'a> {
    version: u32,
    now: String,
    accounts: Vec<AccountPaceJson<'a>>,
}

/// Show how fast windows are used, and when they run out
///
/// `docs/pace-json.md` describes the fields, which are those of `quota pace --json`.
#[utoipa::path(get, path = "/v1/pace", tag = "accounts", params(PaceQuery), responses(
    (status = 200, description = "the pace of each window", body = Object),
    (status = 400, description = "a parameter has another form"),
    (status = 401, description = "no valid token"),
    (status = 404, description = "no such account"),
))]
pub(super) async fn pace(
    State(gateway): State<Gateway>,
    query: Result<Query<PaceQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = authorize(&gateway, &headers, Role::Read) {
        return refused.into_response();
    }
    let Ok(Query(PaceQuery { account, window })) = query else { return INVALID_QUERY.into_response() };
    let recorded = match recorded(&gateway, account.as_deref()).await {
        Ok(recorded) => recorded,
        Err(refused) => return refused.into_response(),
    };
    let now = now(&recorded);
    let pace = |recorded: &Recorded| {
        let Recorded { id, usage, journal } = recorded;
        AccountPace::of(id, usage.snapshot(), journal.history(), now, usage.max_age(), window.as_deref())
    };
    let all: Vec<_> = recorded.iter().map(pace).collect();
    let accounts = all.iter().map(|pace| AccountPaceJson::of(pace, now)).collect();
    json(&PaceJson { version: JSON_VERSION, now: rfc3339(now), accounts })
}
