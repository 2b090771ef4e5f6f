//! Responses to clients: statuses, headers and bodies in the format of the provider. `account_sim` decides their content.

mod antigravity;
mod codex;
mod copilot;
mod cursor;
mod deepseek;
mod failure;
pub(crate) mod gemini;
mod kimi;
mod litellm;
mod message;
mod minimax;
mod openrouter;
pub(crate) mod token;
mod usage;
mod xai;
mod zai;

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use bytes::Bytes;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use serde_json::{Value, json};

use crate::account_sim::UsageState;
use crate::clock::SimClock;
use crate::script::Account;
use crate::window_sim::WindowLevel;

pub(crate) use failure::WriteFailure;
pub(crate) use message::{MessageRequest, done, rejected};
pub(crate) use usage::DIALECT as ANTHROPIC;
pub(crate) use usage::{faulty, profile, throttled, usage};

/// The usage endpoint of a provider: its path, the requests that it accepts, and its body.
pub(crate) struct Dialect {
    /// The provider, as scripts name it.
    pub(crate) provider: &'static str,
    /// `GET` or `POST`.
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    /// The plan of an account whose script names none.
    pub(crate) default_plan: &'static str,
    /// The header of each response that names the owner of the account.
    pub(crate) owner_header: Option<&'static str>,
    /// Rejects a request without the headers that the provider requires.
    pub(crate) check: fn(&HeaderMap, &Account) -> Result<(), Reply>,
    pub(crate) body: fn(&UsageState, &Account, &SimClock) -> Value,
    /// Writes an error in the format of the provider.
    pub(crate) failure: WriteFailure,
}

/// The providers that can be simulated. The names must also be in [`PROVIDERS`](crate::script::PROVIDERS).
pub(crate) static DIALECTS: &[&Dialect] = &[
    &usage::DIALECT, //
    &codex::DIALECT,
    &zai::DIALECT,
    &kimi::DIALECT,
    &minimax::DIALECT,
    &gemini::DIALECT,
    &antigravity::DIALECT,
    &copilot::DIALECT,
    &openrouter::DIALECT,
    &deepseek::DIALECT,
    &litellm::DIALECT,
    &cursor::DIALECT,
    &xai::DIALECT,
];

/// The usage endpoint of an account's provider.
pub(crate) fn dialect(account: &Account) -> &'static Dialect {
    let known = DIALECTS.iter().find(|dialect| dialect.provider == account.provider_name());
    known.copied().unwrap_or(&usage::DIALECT)
}

/// The plan of an account.
fn plan<'a>(account: &'a Account, dialect: &Dialect) -> &'a str {
    account.plan.as_deref().unwrap_or(dialect.default_plan)
}

/// The usage in percent, with two decimals.
fn percent(level: &WindowLevel) -> f64 {
    (level.used * 100.0).round() / 100.0
}

/// The body for an account with some use, for the tests of the providers.
#[cfg(test)]
fn sample(dialect: &Dialect) -> Value {
    use crate::account_sim::{AccountSim, Decision};
    use crate::clock::SimTime;
    use crate::script::Window;

    let clock = SimClock::start(Some(Timestamp::constant(1_790_000_000, 0)), 1.0);
    let windows = [Window::five_hour().used(57.126), Window::seven_day().used(100.0)];
    let account = Account::new("main").provider(dialect.provider).windows(windows);
    let Ok(Decision::Usage(usage)) = AccountSim::new(account.clone()).usage_call(SimTime::START) else {
        panic!("the account answers with its usage")
    };
    (dialect.body)(&usage, &account, &clock)
}

/// A complete response.
#[derive(Debug)]
pub(crate) struct Reply {
    status: u16,
    /// Whether the HTTP status is 200, because the body states the failure.
    is_sent_as_success: bool,
    content_type: &'static str,
    headers: Vec<(Cow<'static, str>, String)>,
    body: Bytes,
}

impl Reply {
    pub(crate) fn text(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let headers = Vec::new();
        Self { status: 200, is_sent_as_success: false, content_type, headers, body: body.into() }
    }

    pub(crate) fn json(body: &Value) -> Self {
        Self::text("application/json", body.to_string())
    }

    /// An error in the format of Anthropic, which others have adopted.
    pub(crate) fn error(status: u16, kind: &str, message: &str) -> Self {
        let body = json!({ "type": "error", "error": { "type": kind, "message": message } });
        Self::json(&body).with_status(status)
    }

    fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// Sends the HTTP status 200, because the body states the failure.
    fn sent_as_success(self) -> Self {
        Self { is_sent_as_success: true, ..self }
    }

    /// The status of the outcome, for the ledger. The HTTP status may be 200 although the body states a failure.
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    /// Adds a header. A value that is invalid in a header is omitted.
    pub(crate) fn header(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Adds `Retry-After` in whole seconds. It rounds up, so that a client which waits that long is never early.
    pub(crate) fn retry_after(self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.header("retry-after", seconds.to_string())
    }

    /// Adds the `Date` header.
    pub(crate) fn date(self, wall: Timestamp) -> Self {
        let date = rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&wall);
        match date {
            Ok(date) => self.header("date", date),
            Err(_) => self,
        }
    }
}

/// The 401 for an unknown token.
pub(crate) fn invalid_token(write: WriteFailure) -> Reply {
    write(401, "authentication_error", "Invalid bearer token")
}

/// The 401 for an expired login.
pub(crate) fn expired(write: WriteFailure) -> Reply {
    write(401, "authentication_error", "OAuth token has expired.")
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body));
        let status = if self.is_sent_as_success { 200 } else { self.status };
        *response.status_mut() = StatusCode::from_u16(status).expect("every status here has three digits");
        let headers = response.headers_mut();
        headers.insert("content-type", HeaderValue::from_static(self.content_type));
        for (name, value) in self.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(&*name), HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_provider_of_a_script_has_an_endpoint() {
        let providers: Vec<_> = DIALECTS.iter().map(|dialect| dialect.provider).collect();

        assert_eq!(providers, crate::script::PROVIDERS);
    }

    fn retry_after(wait: Duration) -> String {
        Reply::json(&json!({})).retry_after(wait).headers[0].1.clone()
    }

    #[test]
    fn a_wait_is_rounded_up_to_whole_seconds() {
        assert_eq!(retry_after(Duration::from_millis(2001)), "3");
        assert_eq!(retry_after(Duration::from_secs(2)), "2");
        assert_eq!(retry_after(Duration::ZERO), "0");
    }

    #[test]
    fn a_value_that_is_invalid_in_a_header_is_omitted() {
        let response = Reply::json(&json!({})).header("x-test", "a\r\nb: c").into_response();

        assert_eq!(response.headers().get("x-test"), None);
    }
}
