//! Responses to clients: statuses, headers and bodies in the format of the provider. `account_sim` decides their content.

mod message;
pub(crate) mod token;
mod usage;

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use bytes::Bytes;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use serde_json::{Value, json};

pub(crate) use message::{MessageRequest, done, rejected};
pub(crate) use usage::{faulty, profile, throttled, usage};

/// A complete response.
#[derive(Debug)]
pub(crate) struct Reply {
    status: u16,
    content_type: &'static str,
    headers: Vec<(Cow<'static, str>, String)>,
    body: Bytes,
}

impl Reply {
    pub(crate) fn text(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status: 200, content_type, headers: Vec::new(), body: body.into() }
    }

    pub(crate) fn json(body: &Value) -> Self {
        Self::text("application/json", body.to_string())
    }

    /// An error in the format of the provider.
    pub(crate) fn error(status: u16, kind: &str, message: &str) -> Self {
        let body = json!({ "type": "error", "error": { "type": kind, "message": message } });
        Self { status, ..Self::json(&body) }
    }

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
pub(crate) fn invalid_token() -> Reply {
    Reply::error(401, "authentication_error", "Invalid bearer token")
}

/// The 401 for an expired login.
pub(crate) fn expired() -> Reply {
    Reply::error(401, "authentication_error", "OAuth token has expired.")
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() =
            StatusCode::from_u16(self.status).expect("every status here has three digits");
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
