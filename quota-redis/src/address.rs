//! The address of a server.
//! `connector` connects to it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// The address of one server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Address {
    Tcp { host: Arc<str>, port: u16 },
    Unix(PathBuf),
}

/// The default port of Redis.
pub(crate) const REDIS_PORT: u16 = 6379;
/// The default port of sentinels.
pub(crate) const SENTINEL_PORT: u16 = 26379;

impl Address {
    pub(crate) fn tcp(host: &str, port: u16) -> Self {
        Self::Tcp { host: host.trim_start_matches('[').trim_end_matches(']').into(), port }
    }

    /// Parses `host`, `host:port` or `[v6]:port`.
    pub(crate) fn parse(text: &str, default_port: u16) -> Option<Self> {
        let (host, port) = match text.rsplit_once(':') {
            // In a bare IPv6 address the last part is not a port.
            Some((host, _)) if host.contains(':') && !host.starts_with('[') => (text, default_port),
            Some((_, end)) if end.ends_with(']') => (text, default_port),
            Some((host, port)) => (host, port.parse().ok()?),
            None => (text, default_port),
        };
        let address = Self::tcp(host, port);
        (!address.host().is_empty() && port != 0).then_some(address)
    }

    /// Parses the `host:port` of a redirect. An empty host means the node that sent the redirect.
    pub(crate) fn parse_redirect(&self, text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        self.resolve_peer(host, port.parse().ok()?)
    }

    /// Returns the address of another node of the same cluster, as this node reports it.
    pub(crate) fn resolve_peer(&self, host: &str, port: u16) -> Option<Self> {
        let host = if matches!(host, "" | "?") { self.host() } else { host };
        (port != 0 && !host.is_empty()).then(|| Self::tcp(host, port))
    }

    pub(crate) fn host(&self) -> &str {
        match self {
            Self::Tcp { host, .. } => host,
            Self::Unix(_) => "",
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_parsed() {
        for (text, shown) in [
            ("host", "host:6379"),
            ("host:7000", "host:7000"),
            ("127.0.0.1:7000", "127.0.0.1:7000"),
            ("[::1]:7000", "[::1]:7000"),
            ("[::1]", "[::1]:6379"),
            ("::1", "[::1]:6379"),
        ] {
            assert_eq!(Address::parse(text, REDIS_PORT).unwrap().to_string(), shown, "{text}");
        }
        for text in ["", ":7000", "host:", "host:x", "host:0", "host:70000"] {
            assert_eq!(Address::parse(text, REDIS_PORT), None, "{text}");
        }
    }

    #[test]
    fn a_redirect_without_a_host_means_the_host_of_its_sender() {
        let node = Address::tcp("10.0.0.1", 7000);

        assert_eq!(node.parse_redirect(":7001"), Some(Address::tcp("10.0.0.1", 7001)));
        assert_eq!(node.parse_redirect("10.0.0.2:7001"), Some(Address::tcp("10.0.0.2", 7001)));
        assert_eq!(node.parse_redirect("fe80::1:7001"), Some(Address::tcp("fe80::1", 7001)));
        assert_eq!(node.parse_redirect("nonsense"), None);
    }
}
