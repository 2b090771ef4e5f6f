//! Rejects requests that web pages make in a browser on this machine, by DNS rebinding or from another origin.
//!
//! A web page can make the browser call an address on this machine. The request's `Host` is then the page's host name,
//! or the browser states the page's origin. Other programs send neither.

use std::net::IpAddr;

use http::header::{HOST, HeaderName, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, StatusCode, Uri};

use crate::problem::Problem;

/// The headers in which browsers state the origin and purpose of a request.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

const NO_HOST: Problem = Problem::new(StatusCode::BAD_REQUEST, "the request must have one valid Host header");
const OTHER_HOST: Problem = Problem::new(
    StatusCode::MISDIRECTED_REQUEST,
    "the Host must be an IP address, localhost, or a name of --allow-host",
);
const OTHER_ORIGIN: Problem =
    Problem::new(StatusCode::FORBIDDEN, "requests of web pages from other origins are not answered");

/// The host names that clients may use for the gateway, in addition to `localhost` and IP addresses.
#[derive(Debug, Clone, Default)]
pub(crate) struct Guard {
    pub(crate) hosts: Vec<String>,
}

impl Guard {
    /// Checks a request. Any host is accepted on a Unix socket, because browsers cannot connect to it.
    pub(crate) fn check(&self, uri: &Uri, headers: &HeaderMap, is_unix: bool) -> Result<(), Problem> {
        let mut hosts = headers.get_all(HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().ok(),
            (None, _) => uri.authority().map(Authority::as_str),
            (Some(_), Some(_)) => None,
        };
        let host = host.filter(|host| !host.contains('@'));
        let authority = host.and_then(|host| host.parse::<Authority>().ok());
        if !is_unix {
            let authority = authority.as_ref().ok_or(NO_HOST)?;
            // If the request has an absolute target, as for a proxy, it must not contradict the header.
            let is_consistent = uri.authority().is_none_or(|target| target == authority);
            if !is_consistent || !self.accepts(authority.host()) {
                return Err(OTHER_HOST);
            }
        }
        let own = |origin: &str| {
            let origin = origin.split_once("://").map(|(_, authority)| authority);
            authority.as_ref().is_some_and(|own| origin.is_some_and(|origin| *own == origin))
        };
        let mut origins = headers.get_all(ORIGIN).iter();
        if !origins.all(|origin| origin.to_str().is_ok_and(own)) {
            return Err(OTHER_ORIGIN);
        }
        let is = |name: &HeaderName, values: &[&str]| {
            headers.get(name).is_some_and(|value| values.iter().any(|known| *value == known))
        };
        // Following a link to the dashboard is a navigation. The page with the link cannot read the response.
        if is(&FETCH_SITE, &["cross-site", "same-site"]) && !is(&FETCH_MODE, &["navigate"]) {
            return Err(OTHER_ORIGIN);
        }
        Ok(())
    }

    /// An IP address is safe, because it does not depend on a name server that an attacker may control.
    fn accepts(&self, host: &str) -> bool {
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = host.strip_suffix('.').unwrap_or(host);
        literal.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|allowed| name.eq_ignore_ascii_case(allowed))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn check(target: &str, headers: &[(&'static str, &str)], is_unix: bool) -> Result<(), u16> {
        let guard = Guard { hosts: vec!["quota.internal".to_owned()] };
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value);
        }
        let checked = guard.check(&target.parse().unwrap(), &map, is_unix);
        checked.map_err(|problem| problem.status.as_u16())
    }

    #[test]
    fn addresses_localhost_and_allowed_names_are_hosts() {
        for host in [
            "127.0.0.1:7878",
            "[::1]:7878",
            "localhost",
            "LOCALHOST:1",
            "localhost.",
            "10.0.0.2:80",
            "quota.internal",
        ] {
            assert_eq!(check("/", &[("host", host)], false), Ok(()), "{host}");
        }
    }

    #[test]
    fn other_names_are_misdirected() {
        for host in ["example.com", "localhost.example.com", "127.0.0.1.example.com:7878", "x.quota.internal"]
        {
            assert_eq!(check("/", &[("host", host)], false), Err(421), "{host}");
            assert_eq!(check("/", &[("host", host)], true), Ok(()), "{host}");
        }
    }

    #[test]
    fn a_missing_doubled_or_malformed_host_is_rejected() {
        assert_eq!(check("/", &[], false), Err(400));
        assert_eq!(check("/", &[("host", "localhost"), ("host", "localhost")], false), Err(400));
        for host in ["", "local host", "user@@x", "a/b"] {
            assert_eq!(check("/", &[("host", host)], false), Err(400), "{host}");
        }
        assert_eq!(check("http://localhost/", &[("host", "127.0.0.1")], false), Err(421));
    }

    #[test]
    fn only_the_own_origin_is_accepted() {
        let host = ("host", "127.0.0.1:7878");

        assert_eq!(check("/", &[host, ("origin", "http://127.0.0.1:7878")], false), Ok(()));
        for origin in ["null", "https://example.com", "http://127.0.0.1:9999", "127.0.0.1:7878", ""] {
            assert_eq!(check("/", &[host, ("origin", origin)], false), Err(403), "{origin}");
        }
        let two = [host, ("origin", "http://127.0.0.1:7878"), ("origin", "https://example.com")];
        assert_eq!(check("/", &two, false), Err(403));
    }

    #[test]
    fn only_a_navigation_may_come_from_another_site() {
        let host = ("host", "localhost");
        let from = |site| check("/", &[host, ("sec-fetch-site", site)], false);

        assert_eq!((from("none"), from("same-origin")), (Ok(()), Ok(())));
        assert_eq!((from("cross-site"), from("same-site")), (Err(403), Err(403)));
        let link = [host, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
        assert_eq!(check("/", &link, false), Ok(()));
    }
}
