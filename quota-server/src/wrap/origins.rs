//! The hosts whose connections the proxy decrypts, and their usage paths.

use std::collections::BTreeSet;

use http::header::USER_AGENT;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue};
use quota::http::Provider;
use url::{Host, Url};

use crate::usage::Endpoint;

/// How the default user agent of quota's own requests begins.
const OWN_USER_AGENT: &[u8] = b"quota/";

/// A base URL of a provider whose usage requests are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageOrigin {
    /// The provider.
    pub provider: &'static Provider,
    /// The URL before the provider's own path, such as `https://api.anthropic.com`.
    pub base_url: Url,
    /// The user agent of this program's own requests, if it is not the default one.
    pub own_user_agent: Option<String>,
}

/// A host and its port, in the form that URLs have: lower case, and without a dot at the end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Target {
    /// The target of a `CONNECT` request, or of a `Host` header if a default port is given.
    pub(super) fn of(authority: &Authority, default_port: Option<u16>) -> Option<Self> {
        let host = authority.host().strip_suffix('.').unwrap_or(authority.host());
        let host = Host::parse(host).ok()?.to_string();
        Some(Self { host, port: authority.port_u16().or(default_port)? })
    }

    /// The authority of a URL; without the default port, as clients send it.
    pub(super) fn authority(&self) -> Authority {
        let text = match self.port {
            443 => self.host.clone(),
            port => format!("{}:{port}", self.host),
        };
        text.parse().expect("a valid host and a port are an authority")
    }
}

/// The usage endpoint of a provider on a host.
#[derive(Debug)]
pub(super) struct UsagePath {
    target: Target,
    path: String,
    pub(super) endpoint: Endpoint,
    own_user_agent: Option<String>,
}

impl UsagePath {
    /// Whether quota itself sent the request. It needs the provider's own response, because it stores the readings with
    /// the time of its call.
    pub(super) fn is_own(&self, headers: &HeaderMap) -> bool {
        let agent = headers.get(USER_AGENT).map_or(&[][..], HeaderValue::as_bytes);
        let own = self.own_user_agent.as_deref().map(str::as_bytes);
        agent.starts_with(OWN_USER_AGENT) || own == Some(agent)
    }
}

/// All hosts of the providers whose usage requests the proxy answers.
#[derive(Debug)]
pub(super) struct Origins(Vec<UsagePath>);

impl Origins {
    /// Selects the TLS origins whose provider has a usage endpoint that the gateway can answer.
    pub(super) fn new(origins: impl IntoIterator<Item = UsageOrigin>) -> Self {
        let paths = origins.into_iter().filter_map(|UsageOrigin { provider, base_url, own_user_agent }| {
            let endpoint = Endpoint::of(provider).filter(|endpoint| !endpoint.has_other_uses())?;
            let host = base_url.host()?.to_string();
            let port = (base_url.scheme() == "https").then(|| base_url.port_or_known_default())??;
            let path = format!("{}{}", base_url.path().trim_end_matches('/'), endpoint.path());
            Some(UsagePath { target: Target { host, port }, path, endpoint, own_user_agent })
        });
        Self(paths.collect())
    }

    /// The names and addresses of the hosts, each once.
    pub(super) fn hosts(&self) -> BTreeSet<&str> {
        self.0.iter().map(|usage| &*usage.target.host).collect()
    }

    pub(super) fn contains(&self, target: &Target) -> bool {
        self.0.iter().any(|usage| usage.target == *target)
    }

    /// The usage endpoint at a path of a host.
    pub(super) fn usage(&self, target: &Target, path: &str) -> Option<&UsagePath> {
        self.0.iter().find(|usage| usage.target == *target && usage.path == path)
    }
}

#[cfg(test)]
mod tests {
    use quota::http::find_provider;

    use super::*;

    fn origins(urls: &[(&str, &str)]) -> Origins {
        Origins::new(urls.iter().map(|(provider, url)| UsageOrigin {
            provider: find_provider(provider).unwrap(),
            base_url: url.parse().unwrap(),
            own_user_agent: Some("my-agent".to_owned()),
        }))
    }

    fn target(text: &str) -> Target {
        Target::of(&text.parse().unwrap(), None).unwrap()
    }

    #[test]
    fn a_usage_path_belongs_to_a_host_and_a_port() {
        let origins =
            origins(&[("anthropic", "https://api.anthropic.com"), ("codex", "https://chatgpt.com/")]);
        let has = |at: &str, path: &str| origins.usage(&target(at), path).is_some();

        assert!(
            has("api.anthropic.com:443", "/api/oauth/usage")
                && has("API.Anthropic.com.:443", "/api/oauth/usage")
        );
        assert!(has("chatgpt.com:443", "/backend-api/wham/usage"));
        for (at, path) in [
            ("api.anthropic.com:443", "/v1/messages"),
            ("api.anthropic.com:443", "/api/oauth/usage/"),
            ("api.anthropic.com:8443", "/api/oauth/usage"),
            ("chatgpt.com:443", "/api/oauth/usage"),
            ("anthropic.com:443", "/api/oauth/usage"),
        ] {
            assert!(!has(at, path), "{at} {path}");
        }
    }

    #[test]
    fn a_base_url_may_have_a_port_and_a_path() {
        let origins =
            origins(&[("anthropic", "https://10.0.0.7:8443/claude/"), ("anthropic", "https://[::1]:9443")]);

        assert!(origins.usage(&target("10.0.0.7:8443"), "/claude/api/oauth/usage").is_some());
        assert!(origins.usage(&target("[::1]:9443"), "/api/oauth/usage").is_some());
        assert!(!origins.contains(&target("10.0.0.7:443")));
    }

    #[test]
    fn hosts_without_tls_or_without_an_endpoint_are_not_opened() {
        let origins =
            origins(&[("anthropic", "http://localhost:8080"), ("cursor", "https://api2.cursor.sh")]);

        assert!(origins.hosts().is_empty());
    }

    #[test]
    fn a_response_with_other_uses_is_left_to_its_host() {
        assert!(origins(&[("copilot", "https://api.github.com")]).hosts().is_empty());
    }

    #[test]
    fn own_requests_are_recognized_by_their_user_agent() {
        let origins = origins(&[("anthropic", "https://api.anthropic.com")]);
        let usage = origins.usage(&target("api.anthropic.com:443"), "/api/oauth/usage").unwrap();
        let is_own = |agent: &'static str| {
            usage.is_own(&HeaderMap::from_iter([(USER_AGENT, HeaderValue::from_static(agent))]))
        };

        assert!(is_own("quota/0.1.0 (shared usage cache)") && is_own("my-agent"));
        assert!(!is_own("my-agent/2") && !is_own("curl/8") && !usage.is_own(&HeaderMap::new()));
    }

    #[test]
    fn a_target_needs_a_port() {
        assert_eq!(Target::of(&"api.anthropic.com".parse().unwrap(), None), None);
        assert_eq!(target("EXAMPLE.com:443").authority(), "example.com");
        assert_eq!(target("[::1]:8443").authority(), "[::1]:8443");
    }
}
