//! Which addresses a credential may be sent to, and the error for settings that no fetcher can be built from.
//! Sending is in `transport`.

use quota_core::{AccountId, ProviderId};
use url::{Host, Url};

/// Why a fetcher cannot be built from these settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The user agent cannot be sent.
    #[error(
        "the user agent is empty or has characters that a header cannot carry; name your program and its version"
    )]
    UserAgent,
    /// The client id is empty or cannot be one.
    #[error("the client id is empty or has characters that none has; give the one your login was made with")]
    ClientId,
    /// The time-out leaves no time.
    #[error("the time-out is zero; leave it out for ten seconds")]
    Timeout,
    /// The base URL would send the credential in the clear.
    #[error("the base URL must begin with https://; http:// is for 127.0.0.1, [::1] and localhost only")]
    Insecure,
    /// The base URL has a user name or a password.
    #[error(
        "the base URL has a user name or password in it; take it out, the login comes from its own source"
    )]
    UserInfo,
    /// The base URL goes on where the endpoint's path must begin.
    #[error("the base URL has a query or fragment; end it before the `?` or `#`")]
    Query,
    /// A setting was made for an account that this fetcher never asks about.
    #[error("{account} is not an account of {provider}; use the fetcher of its own provider")]
    #[non_exhaustive]
    ForeignAccount {
        /// The account that was named.
        account: AccountId,
        /// The provider this fetcher asks.
        provider: ProviderId,
    },
}

/// Puts `path` behind the base URL's own, so that a proxy may serve below a prefix.
///
/// # Errors
///
/// [`BuildError`] if a credential must not be sent there.
pub(crate) fn endpoint(base: &Url, path: &[&str]) -> Result<Url, BuildError> {
    if base.scheme() != "https" && !(base.scheme() == "http" && is_loopback(base)) {
        return Err(BuildError::Insecure);
    }
    if !base.username().is_empty() || base.password().is_some() {
        return Err(BuildError::UserInfo);
    }
    if base.query().is_some() || base.fragment().is_some() {
        return Err(BuildError::Query);
    }
    let mut url = base.clone();
    let mut segments = url.path_segments_mut().expect("an http URL has a path");
    segments.pop_if_empty().extend(path);
    drop(segments);
    Ok(url)
}

/// Whether the address is this machine, so that nothing leaves it.
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
        endpoint(&base.parse().unwrap(), &["api", "usage"]).map(String::from)
    }

    #[test]
    fn a_prefix_of_the_base_url_stays() {
        for base in ["https://example.com/claude", "https://example.com/claude/"] {
            assert_eq!(usage_at(base).unwrap(), "https://example.com/claude/api/usage");
        }
    }

    #[test]
    fn a_bare_host_gets_the_path() {
        assert_eq!(usage_at("https://example.com").unwrap(), "https://example.com/api/usage");
    }

    #[test]
    fn plain_http_reaches_only_this_machine() {
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
    fn another_scheme_is_refused() {
        for base in ["ftp://localhost", "file:///etc", "data:text/plain,x", "unix:/run/x"] {
            assert_eq!(usage_at(base), Err(BuildError::Insecure), "{base}");
        }
    }

    #[test]
    fn a_password_in_the_base_url_is_refused_and_not_repeated() {
        let error = usage_at("https://me:hunter2@example.com").unwrap_err();

        assert_eq!(error, BuildError::UserInfo);
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }

    #[test]
    fn a_user_name_alone_is_refused() {
        assert_eq!(usage_at("https://me@example.com"), Err(BuildError::UserInfo));
    }

    #[test]
    fn a_query_or_a_fragment_is_refused() {
        assert_eq!(usage_at("https://example.com/?key=1"), Err(BuildError::Query));
        assert_eq!(usage_at("https://example.com/#a"), Err(BuildError::Query));
    }
}
