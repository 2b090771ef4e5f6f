//! The usage endpoints of providers: finds the account of a request, and responds. `answer` writes the bodies.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::header::{
    AGE, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH, RETRY_AFTER, VARY,
    WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use quota::http::{EndpointFailure, Provider, UsageEndpoint, find_provider};
use quota::{AccountId, AccountUsage, FetchError, QuotaError};

use crate::access::Role;
use crate::adopted::NotAdopted;
use crate::answer::{Failure, Written};
use crate::gateway::Gateway;
use crate::served::Served;

/// How long a request waits for a refresh. The gateway keeps its accounts fresh, so few requests wait.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(5);
const FRESHNESS: HeaderName = HeaderName::from_static("quota-freshness");

/// A usage endpoint, with its provider.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Endpoint {
    provider: &'static Provider,
    shape: &'static UsageEndpoint,
}

impl Endpoint {
    /// The endpoint of a provider, if the gateway can write its responses.
    pub(crate) fn of(provider: &'static Provider) -> Option<Self> {
        provider.endpoint().map(|shape| Self { provider, shape })
    }

    pub(crate) fn path(self) -> &'static str {
        self.shape.path()
    }

    /// Whether a request with this query gets a usage response for the account of the credential.
    #[cfg(feature = "wrap")]
    pub(crate) fn answers(self, query: Option<&str>) -> bool {
        self.shape.answers(query)
    }

    /// The error for a request with another query.
    fn refusal(self, query: Option<&str>) -> Option<Response> {
        let only = self.shape.query().filter(|_| !self.shape.answers(query))?;
        let message = match only {
            "" => "quota answers this path only without a query".to_owned(),
            only => format!("quota answers this path only with the query {only}"),
        };
        Some(self.failure(StatusCode::NOT_FOUND, &message, None))
    }

    /// Whether programs read more from the response than usage.
    #[cfg(feature = "wrap")]
    pub(crate) fn has_other_uses(self) -> bool {
        self.shape.has_other_uses()
    }

    /// An error in the provider's format.
    fn failure(self, status: StatusCode, message: &str, retry_after: Option<Duration>) -> Response {
        let failure = EndpointFailure { status: status.as_u16(), message, retry_after };
        let body = self.shape.failure(&failure).to_string();
        let headers = [
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        let mut response = (status, headers, body).into_response();
        if let Some(wait) = retry_after {
            response.headers_mut().insert(RETRY_AFTER, wait.as_secs().into());
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }

    fn unauthorized(self, message: &str) -> Response {
        self.failure(StatusCode::UNAUTHORIZED, message, None)
    }
}

/// `GET` of the provider's own path: the account of the presented credential.
pub(crate) async fn of_credential(
    endpoint: Endpoint,
    State(gateway): State<Gateway>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    if let Some(refused) = endpoint.refusal(query.as_deref()) {
        return refused;
    }
    let provider = endpoint.provider;
    let Some(token) = presented(&headers) else {
        let message = format!(
            "the request presents no credential; present the one of a configured account, or use the path \
             /account/{}/NAME{}",
            provider.id_str(),
            endpoint.path(),
        );
        return endpoint.unauthorized(&message);
    };
    if let Some(response) = of_configured(endpoint, &gateway, &headers).await {
        return response;
    }
    let adopted = gateway.adopted().filter(|_| gateway.tokens().is_open());
    let adopted = match adopted {
        Some(adopted) => Some(adopted.adopt(&provider.id(), token, gateway.responses()).await),
        None => None,
    };
    match adopted {
        Some(Ok(served)) => respond(endpoint, &gateway, &served, &headers, true).await,
        Some(Err(NotAdopted::Full)) => {
            let message =
                "too many unknown credentials are in use; add their logins to the configuration of quota";
            endpoint.failure(StatusCode::SERVICE_UNAVAILABLE, message, Some(Duration::from_secs(60)))
        }
        Some(Err(NotAdopted::Implausible)) | None => {
            let message = format!(
                "quota does not know this credential; add its login with: quota accounts add {}/NAME; or start \
                 quota serve with --adopt-presented",
                provider.id_str(),
            );
            endpoint.unauthorized(&message)
        }
    }
}

/// The usage of the configured account whose credential is presented; `None` if there is no such account.
pub(crate) async fn of_configured(
    endpoint: Endpoint,
    gateway: &Gateway,
    headers: &HeaderMap,
) -> Option<Response> {
    let current = gateway.current();
    let served = current.credentials.find(&endpoint.provider.id(), presented(headers)?).await?;
    Some(respond(endpoint, gateway, &served, headers, true).await)
}

/// `GET` of the path below `/account/{provider}/{name}`: a named account, for clients that cannot present its credential.
pub(crate) async fn of_account(
    endpoint: Endpoint,
    State(gateway): State<Gateway>,
    names: Result<Path<(String, String)>, PathRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    if let Some(refused) = endpoint.refusal(query.as_deref()) {
        return refused;
    }
    let not_found = || {
        let message =
            "quota has no account with this name and this usage endpoint; quota accounts lists them";
        endpoint.failure(StatusCode::NOT_FOUND, message, None)
    };
    let token = presented(&headers);
    let tokens = gateway.tokens();
    let has_role = tokens.role(token).is_some_and(|role| role >= Role::Read);
    if !has_role && token.is_none() {
        return endpoint.unauthorized("the request presents no token");
    }
    let current = gateway.current();
    let served = names.ok().and_then(|Path((provider, name))| {
        let provider = find_provider(&provider).filter(|provider| **provider == *endpoint.provider)?;
        let id = AccountId::new(provider.id(), &name).ok()?;
        current.accounts.get(&id).cloned()
    });
    let is_owner = match (&served, token) {
        // If the credential is not needed, an unknown one must not delay the response.
        (Some(served), Some(token)) if has_role => current.credentials.knows(served, token),
        (Some(served), Some(token)) => current.credentials.is_of(served, token).await,
        (None, _) if !has_role => {
            // Take as long as for an existing account, because the time must not reveal which accounts exist.
            current.credentials.check().await;
            false
        }
        _ => false,
    };
    if !has_role && !is_owner {
        return endpoint.unauthorized("the gateway does not accept this token");
    }
    match served {
        Some(served) => respond(endpoint, &gateway, &served, &headers, is_owner).await,
        None => not_found(),
    }
}

/// The token of an `Authorization` header with one of the schemes that providers use.
pub(crate) fn presented(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
    let is_known = ["bearer", "token"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    Some(token.trim()).filter(|token| is_known && !token.is_empty())
}

/// The usage of an account, or why there is none. `is_personal` allows the fields that identify the user.
async fn respond(
    endpoint: Endpoint,
    gateway: &Gateway,
    served: &Served,
    headers: &HeaderMap,
    is_personal: bool,
) -> Response {
    let read = if served.is_disabled {
        Ok(served.account.sync().await)
    } else {
        served.account.get_for_within(None, REFRESH_TIMEOUT).await
    };
    let (usage, error) = match read {
        Ok(usage) => (usage, None),
        Err(error) => (served.account.peek(), Some(error)),
    };
    let mut login = served.login.lock().clone();
    if let Some(id) = usage.login_id() {
        login.login_id = Some(id.clone());
    }
    let response = gateway.responses().get(served.id(), &login);
    let slot = &served.written[usize::from(is_personal)];
    let last = slot.lock().clone().filter(|written| written.holds(&usage, response.as_ref()));
    let written = last.or_else(|| {
        let written = Written::of(&usage, endpoint.shape, response, is_personal, gateway.max_age())?;
        let written = Arc::new(written);
        *slot.lock() = Some(Arc::clone(&written));
        Some(written)
    });
    if let Some(written) = written {
        return success(&written, &usage, headers);
    }
    let error = error.as_ref().or(usage.error());
    let is_rejected = matches!(
        error,
        Some(
            QuotaError::CredentialRejected { .. } | QuotaError::Fetch { error: FetchError::Unauthorized, .. }
        )
    );
    if is_rejected && gateway.adopted().is_some_and(|adopted| adopted.has(served.id())) {
        return endpoint.unauthorized("the provider rejected this credential");
    }
    let Failure { status, retry_after, message } = Failure::of(&usage, error, gateway.max_age());
    endpoint.failure(status, &message, Some(retry_after))
}

fn success(written: &Written, usage: &AccountUsage, headers: &HeaderMap) -> Response {
    let is_known = headers.get_all(IF_NONE_MATCH).iter().any(|value| matches(value, &written.etag));
    let stale = written.stale_reason(usage);
    let (freshness, cache) = match stale {
        None => ("fresh".to_owned(), format!("private, max-age={}", written.lifetime(usage).as_secs())),
        Some(reason) => (format!("stale; reason={}", reason.as_str()), "private, no-cache".to_owned()),
    };
    let text = |text: String| HeaderValue::try_from(text).expect("it has only printable characters");
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], written.body.clone()).into_response()
    };
    let response_headers = response.headers_mut();
    response_headers.insert(ETAG, written.etag.clone());
    response_headers.insert(AGE, written.age(usage.now()).as_secs().into());
    response_headers.insert(CACHE_CONTROL, text(cache));
    response_headers.insert(FRESHNESS, text(freshness));
    response_headers.insert(VARY, HeaderValue::from_static("authorization"));
    response
}

/// A validator without its prefix `W/`.
fn opaque(tag: &str) -> &str {
    tag.trim().trim_start_matches("W/")
}

/// Whether a value of `If-None-Match` has this validator, by the weak comparison of RFC 9110.
fn matches(value: &HeaderValue, etag: &HeaderValue) -> bool {
    let (Ok(value), Ok(etag)) = (value.to_str(), etag.to_str()) else { return false };
    value.split(',').any(|tag| tag.trim() == "*" || opaque(tag) == opaque(etag))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token_of(values: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        presented(&headers).map(str::to_owned)
    }

    #[test]
    fn the_schemes_of_providers_are_accepted() {
        assert_eq!(token_of(&["Bearer abc"]).as_deref(), Some("abc"));
        assert_eq!(token_of(&["token  abc "]).as_deref(), Some("abc"));
        for value in ["abc", "Basic abc", "Bearer", "Bearer ", ""] {
            assert_eq!(token_of(&[value]), None, "{value}");
        }
        assert_eq!(token_of(&["Bearer abc", "Bearer abc"]), None);
        assert_eq!(token_of(&[]), None);
    }

    #[test]
    fn validators_are_compared_weakly() {
        let is_known = |value: &str| {
            matches(&HeaderValue::from_str(value).unwrap(), &HeaderValue::from_static("W/\"ab\""))
        };

        assert!(is_known("W/\"ab\"") && is_known("\"ab\"") && is_known("\"x\", W/\"ab\"") && is_known("*"));
        assert!(!is_known("\"x\"") && !is_known("") && !is_known("ab"));
    }
}
