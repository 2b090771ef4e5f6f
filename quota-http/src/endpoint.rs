//! Builds endpoint URLs, and rejects base URLs to which a credential must not be sent.

use quota_core::{AccountId, ProviderId};
use url::{Host, Url};

/// Why a fetcher or refresher cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The user agent is not a valid header value.
    #[error(
        "the user agent is empty or has characters that are not valid in a header; use your program's name and version"
    )]
    UserAgent,
    /// The client id is empty or has spaces or non-ASCII characters.
    #[error("the client id is empty or has invalid characters; use the one your login was created with")]
    ClientId,
    /// The timeout is zero.
    #[error("the timeout is zero; omit it for the default of 10 seconds")]
    Timeout,
    /// The base URL would send the credential unencrypted.
    #[error(
        "the base URL must begin with https:// (http:// is allowed for 127.0.0.1, [::1] and localhost only)"
    )]
    Insecure,
    /// The base URL has a user name or a password.
    #[error("the base URL contains a user name or password; remove it")]
    UserInfo,
    /// The base URL has a query or fragment, so the endpoint's path cannot be appended.
    #[error("the base URL has a query or fragment; remove everything from the `?` or `#` on")]
    Query,
    /// The name or the value of a header is invalid.
    #[error(
        "a header has an invalid name or value; write a name such as x-example and a value of ASCII text"
    )]
    Header,
    /// The fetcher sets this header itself, or the header would break the request.
    #[error(
        "the header {name} cannot be set, because quota sets it for each request; remove it, and use `user_agent` or the account's login instead"
    )]
    ReservedHeader {
        /// The name of the header, in lower case.
        name: String,
    },
    /// A setting names an account of another provider.
    #[error("{account} is not an account of {provider}; use its own provider's fetcher")]
    #[non_exhaustive]
    ForeignAccount {
        /// The account in the setting.
        account: AccountId,
        /// The provider of this fetcher.
        provider: ProviderId,
    },
}

/// Checks that a credential may be sent to this base URL. With `allow_http` it may be sent unencrypted to another machine.
///
/// # Errors
///
/// [`BuildError`] if it must not be sent there.
pub(crate) fn check_base(base: &Url, allow_http: bool) -> Result<(), BuildError> {
    if base.scheme() != "https" && !(base.scheme() == "http" && (allow_http || is_loopback(base))) {
        return Err(BuildError::Insecure);
    }
    if !base.username().is_empty() || base.password().is_some() {
        return Err(BuildError::UserInfo);
    }
    if base.query().is_some() || base.fragment().is_some() {
        return Err(BuildError::Query);
    }
    Ok(())
}

/// Appends `path` to the path of the base URL, so that a proxy may serve the API under a prefix. A trailing slash is
/// kept.
///
/// # Errors
///
/// [`BuildError`] if a credential must not be sent there.
pub(crate) fn endpoint(base: &Url, path: &str, allow_http: bool) -> Result<Url, BuildError> {
    check_base(base, allow_http)?;
    let mut url = base.clone();
    let mut segments = url.path_segments_mut().expect("an http URL has a path");
    segments.pop_if_empty().extend(path.split('/').filter(|segment| !segment.is_empty()));
    if path.ends_with('/') {
        segments.push("");
    }
    drop(segments);
    Ok(url)
}

/// Whether the host is a loopback address, so that the request stays on this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage_at(base: &str) -> Result<String, BuildError> {
        endpoint(&base.parse().unwrap(), "api/usage", false).map(String::from)
    }

    #[test]
    fn a_final_slash_stays() {
        let url = endpoint(&"https://example.com".parse().unwrap(), "/api/usage/", false).unwrap();

        assert_eq!(url.path(), "/api/usage/");
    }

    #[test]
    fn http_to_another_host_must_be_allowed() {
        assert_eq!(check_base(&"http://10.0.0.1".parse().unwrap(), true), Ok(()));
        assert_eq!(check_base(&"ftp://10.0.0.1".parse().unwrap(), true), Err(BuildError::Insecure));
    }

    #[test]
    fn a_path_prefix_is_preserved() {
        for base in ["https://example.com/claude", "https://example.com/claude/"] {
            assert_eq!(usage_at(base).unwrap(), "https://example.com/claude/api/usage");
        }
    }

    #[test]
    fn a_host_without_path_gets_the_endpoint_path() {
        assert_eq!(usage_at("https://example.com").unwrap(), "https://example.com/api/usage");
    }

    #[test]
    fn http_is_allowed_for_loopback_only() {
        for base in ["http://127.0.0.1:8080", "http://127.9.9.9", "http://[::1]:1", "http://localhost"] {
            assert!(usage_at(base).is_ok(), "{base}");
        }
        for base in
            ["http://example.com", "http://0.0.0.0", "http://localhost.example.com", "http://10.0.0.1"]
        {
            assert_eq!(usage_at(base), Err(BuildError::Insecure), "{base}");
        }
    }

    #[test]
    fn other_schemes_are_rejected() {
        for base in ["ftp://localhost", "file:///etc", "data:text/plain,x", "unix:/run/x"] {
            assert_eq!(usage_at(base), Err(BuildError::Insecure), "{base}");
        }
    }

    #[test]
    fn a_password_is_rejected_and_not_repeated() {
        let error = usage_at("https://me:hunter2@example.com").unwrap_err();

        assert_eq!(error, BuildError::UserInfo);
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }

    #[test]
    fn a_user_name_is_rejected() {
        assert_eq!(usage_at("https://me@example.com"), Err(BuildError::UserInfo));
    }

    #[test]
    fn a_query_or_fragment_is_rejected() {
        assert_eq!(usage_at("https://example.com/?key=1"), Err(BuildError::Query));
        assert_eq!(usage_at("https://example.com/#a"), Err(BuildError::Query));
    }
}
