//! The request for usage that a provider describes. `fetcher` sends it.

use std::borrow::Cow;

use quota_core::secret::SecretBuffer;
use quota_core::{FetchError, Secret};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::Value;

/// One request to a provider: method, path, headers and body. The base URL is the fetcher's setting.
///
/// ```
/// use quota_core::Secret;
/// use quota_http::UsageRequest;
///
/// let request = UsageRequest::get("backend-api/wham/usage")
///     .bearer(&Secret::new("made-up"))
///     .header("chatgpt-account-id", "made-up-id");
/// ```
#[derive(Debug)]
#[must_use = "the fetcher sends a request that it gets"]
pub struct UsageRequest {
    pub(crate) path: Cow<'static, str>,
    pub(crate) query: Vec<(&'static str, Cow<'static, str>)>,
    pub(crate) headers: HeaderMap,
    /// The body of a POST request; `None` for GET.
    pub(crate) body: Option<SecretBuffer>,
    pub(crate) is_optional: bool,
    /// Why the request cannot be sent.
    pub(crate) invalid: Option<FetchError>,
}

impl UsageRequest {
    /// Creates a GET request for this path, without a leading slash.
    pub fn get(path: impl Into<Cow<'static, str>>) -> Self {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]);
        Self { path: path.into(), query: Vec::new(), headers, body: None, is_optional: false, invalid: None }
    }

    /// Creates a POST request with this JSON body.
    pub fn post(path: impl Into<Cow<'static, str>>, body: &impl Serialize) -> Self {
        let mut request = Self::get(path);
        let mut buffer = SecretBuffer::default();
        if serde_json::to_writer(&mut buffer, body).is_err() {
            request.invalid = Some(FetchError::malformed("the request has no JSON form"));
        }
        request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request.body = Some(buffer);
        request
    }

    /// Adds a query parameter.
    pub fn query(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// Sends the token as `Authorization: Bearer`.
    pub fn bearer(self, token: &Secret) -> Self {
        self.authorization("Bearer", token)
    }

    /// Sends the token as `Authorization`, with this scheme.
    pub fn authorization(self, scheme: &str, token: &Secret) -> Self {
        self.secret_header(AUTHORIZATION.as_str(), &format!("{scheme} "), token)
    }

    /// Sends the token in this header, after `prefix`.
    ///
    /// # Panics
    ///
    /// If the name is not a lower-case header name.
    pub fn secret_header(self, name: &'static str, prefix: &str, token: &Secret) -> Self {
        self.token_header(HeaderName::from_static(name), prefix, token)
    }

    fn token_header(mut self, name: HeaderName, prefix: &str, token: &Secret) -> Self {
        let token = token.expose().trim();
        let value = HeaderValue::from_str(&format!("{prefix}{token}")).ok().filter(|_| !token.is_empty());
        match value {
            Some(mut value) => {
                value.set_sensitive(true);
                self.headers.insert(name, value);
            }
            None => {
                let reason = "the access token is empty or invalid; log in again";
                self.invalid = Some(FetchError::not_logged_in(reason));
            }
        }
        self
    }

    /// Adds a header that is not secret. If its value is invalid, the fetch fails before the request.
    ///
    /// # Panics
    ///
    /// If the name is not a lower-case header name.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        match HeaderValue::from_str(value) {
            Ok(value) => {
                self.headers.insert(HeaderName::from_static(name), value);
            }
            Err(_) => {
                let reason = format!("the value of the header {name} is invalid; log in again");
                self.invalid = Some(FetchError::not_logged_in(reason));
            }
        }
        self
    }

    /// Ignores a failure of this second request, for an endpoint that not every login may use. The report then covers
    /// only the first response. This includes a 401, because the provider has just accepted the same token. It excludes
    /// a 429, which must start a hold.
    pub fn optional(mut self) -> Self {
        self.is_optional = true;
        self
    }
}

/// A request that data describes instead of code.
#[derive(Debug)]
pub(crate) struct DescribedRequest {
    /// The scheme, host and port.
    pub(crate) origin: String,
    /// Whether the token may be sent unencrypted to another machine.
    pub(crate) allow_http: bool,
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    /// The body of a POST request; `None` for GET.
    pub(crate) body: Option<Value>,
    pub(crate) token_header: HeaderName,
    /// The text before the token.
    pub(crate) token_prefix: String,
}

impl DescribedRequest {
    /// The request with this token.
    pub(crate) fn with(&'static self, token: &Secret) -> UsageRequest {
        let request = match &self.body {
            None => UsageRequest::get(&*self.path),
            Some(body) => UsageRequest::post(&*self.path, body),
        };
        let request = self.query.iter().fold(request, |request, (name, value)| request.query(name, &**value));
        request.token_header(self.token_header.clone(), &self.token_prefix, token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_hides_the_token() {
        let request = UsageRequest::get("usage").bearer(&Secret::new("sk-ant-oat01-made-up"));

        assert!(!format!("{request:?}").contains("made-up"));
    }

    #[test]
    fn an_unusable_token_is_not_sent() {
        for token in ["", " \n", "two\nlines"] {
            let request = UsageRequest::get("usage").bearer(&Secret::new(token));

            assert!(matches!(request.invalid, Some(FetchError::NotLoggedIn { .. })), "{token:?}");
            assert!(request.headers.get(AUTHORIZATION).is_none());
        }
    }

    #[test]
    fn an_invalid_header_value_ends_the_request_and_is_not_repeated() {
        let request = UsageRequest::get("usage").header("x-account", "n33dle\r\nx: y");

        assert!(!format!("{:?}", request.invalid.unwrap()).contains("n33dle"));
    }
}
