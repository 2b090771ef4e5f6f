//! The changes that a relay makes to a request and its response: it removes the headers of one connection, and nothing
//! else.

use http::header::{
    CONNECTION, COOKIE, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Uri, Version};

use super::origins::Target;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Whether a request asks for another protocol on its connection, such as WebSocket.
pub(super) fn is_upgrade(version: Version, headers: &HeaderMap) -> bool {
    version == Version::HTTP_11 && headers.contains_key(UPGRADE) && names(headers).any(|name| name == UPGRADE)
}

/// Removes the headers that belong to one connection (RFC 9110, section 7.6.1), except those that an upgrade needs.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap, is_upgrade: bool) {
    let named: Vec<_> = names(headers).filter(|name| !(is_upgrade && *name == UPGRADE)).collect();
    // The only value that a relay may forward. gRPC needs it.
    let has_trailers =
        headers.get_all(TE).iter().any(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"));
    for name in named {
        headers.remove(name);
    }
    for name in [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHORIZATION,
        PROXY_AUTHENTICATE,
        TE,
        TRANSFER_ENCODING,
    ] {
        headers.remove(name);
    }
    if has_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if is_upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    } else {
        headers.remove(UPGRADE);
    }
}

/// Joins the parts into which HTTP/2 may split a cookie, because the host may have only HTTP/1.1 (RFC 9113, section 8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    let parts: Vec<_> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if parts.len() > 1
        && let Ok(mut cookie) = HeaderValue::from_bytes(&parts.join(&b"; "[..]))
    {
        cookie.set_sensitive(true);
        headers.insert(COOKIE, cookie);
    }
}

/// The names in `Connection` headers.
fn names(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok())
}

/// The host that a request names, or the host of the tunnel if it names none.
pub(super) fn named_host(uri: &Uri, headers: &HeaderMap, tunnel: &Target) -> Option<Target> {
    let authority = match (uri.authority(), headers.get(HOST)) {
        (Some(authority), _) => authority.clone(),
        (None, Some(host)) => host.to_str().ok()?.parse().ok()?,
        (None, None) => return Some(tunnel.clone()),
    };
    Target::of(&authority, Some(443))
}

/// The URL of a request to the host of the tunnel.
pub(super) fn url(target: &Target, path: Option<&PathAndQuery>) -> Uri {
    let path = path.cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let parts = Uri::builder().scheme(Scheme::HTTPS).authority(target.authority()).path_and_query(path);
    parts.build().expect("a scheme, an authority and a path are a URL")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    fn relayed(lines: &[(&'static str, &'static str)], is_upgrade: bool) -> Vec<String> {
        let mut map = headers(lines);
        remove_hop_by_hop(&mut map, is_upgrade);
        map.keys().map(|name| name.as_str().to_owned()).collect()
    }

    #[test]
    fn headers_of_one_connection_are_removed() {
        let lines = [
            ("authorization", "Bearer abc"),
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "Basic abc"),
            ("upgrade", "h2c"),
            ("x-other", "1"),
        ];

        assert_eq!(relayed(&lines, false), ["authorization", "x-other"]);
    }

    #[test]
    fn an_upgrade_keeps_its_headers() {
        let lines = [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", "abc")];

        assert!(is_upgrade(Version::HTTP_11, &headers(&lines)));
        assert!(
            !is_upgrade(Version::HTTP_2, &headers(&lines))
                && !is_upgrade(Version::HTTP_11, &headers(&lines[1..]))
        );
        let mut kept = relayed(&lines, true);
        kept.sort();
        assert_eq!(kept, ["connection", "sec-websocket-key", "upgrade"]);
    }

    #[test]
    fn the_parts_of_a_cookie_are_joined() {
        let mut map = headers(&[("cookie", "a=1"), ("cookie", "b=2")]);
        join_cookies(&mut map);

        assert_eq!(map.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2"]);
    }

    #[test]
    fn trailers_stay_possible() {
        assert_eq!(relayed(&[("te", "trailers")], false), ["te"]);
        assert!(relayed(&[("te", "gzip")], false).is_empty());
    }

    #[test]
    fn a_request_may_name_another_host_than_the_tunnel() {
        let tunnel = Target { host: "api.anthropic.com".to_owned(), port: 443 };
        let named = |uri: &str, lines: &[(&'static str, &'static str)]| {
            named_host(&uri.parse().unwrap(), &headers(lines), &tunnel).is_some_and(|named| named == tunnel)
        };

        assert!(
            named("/", &[("host", "API.anthropic.com")]) && named("/", &[("host", "api.anthropic.com:443")])
        );
        assert!(named("/", &[]) && named("https://api.anthropic.com/", &[]));
        assert!(!named("/", &[("host", "example.com")]) && !named("/", &[("host", "a b")]));
    }

    #[test]
    fn the_url_has_the_host_of_the_tunnel() {
        let target = Target { host: "[::1]".to_owned(), port: 8443 };
        let path = PathAndQuery::from_static("/v1/messages?beta=true");

        assert_eq!(url(&target, Some(&path)), "https://[::1]:8443/v1/messages?beta=true");
    }
}
