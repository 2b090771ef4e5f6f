//! The list of all providers. Each provider is one line.

use crate::provider::Provider;
use crate::{
    anthropic, antigravity, codex, copilot, cursor, deepseek, gemini, kimi, litellm, minimax, openrouter,
    xai, zai,
};

/// All providers, in the order in which `quota providers` lists them.
pub static PROVIDERS: &[&Provider] = &[
    &anthropic::PROVIDER, //
    &codex::PROVIDER,
    &zai::PROVIDER,
    &kimi::PROVIDER,
    &minimax::PROVIDER,
    &gemini::PROVIDER,
    &antigravity::PROVIDER,
    &copilot::PROVIDER,
    &openrouter::PROVIDER,
    &deepseek::PROVIDER,
    &litellm::PROVIDER,
    &cursor::PROVIDER,
    &xai::PROVIDER,
];

/// Finds the provider with this id, or with this other name that users may type.
///
/// ```
/// assert_eq!(quota_http::find_provider("codex").unwrap().id_str(), "openai");
/// assert!(quota_http::find_provider("unknown").is_none());
/// ```
#[must_use]
pub fn find_provider(name: &str) -> Option<&'static Provider> {
    PROVIDERS.iter().copied().find(|provider| provider.has_name(name))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use jiff::Timestamp;
    use quota_core::Policy;

    use super::*;
    use crate::fetcher::Fetcher;

    #[test]
    fn no_two_providers_share_a_name() {
        let mut names = HashSet::new();
        for provider in PROVIDERS {
            for name in [provider.id_str()].iter().chain(provider.other_names()) {
                assert!(names.insert(*name), "{name}");
            }
        }
    }

    #[test]
    fn no_two_usage_endpoints_share_a_path() {
        let mut paths = HashSet::new();
        for endpoint in PROVIDERS.iter().filter_map(|provider| provider.endpoint()) {
            assert!(paths.insert(endpoint.path()), "{endpoint:?}");
            // The gateway's own paths. Paths below /v1 must differ too, or the gateway does not start.
            for own in ["/account/", "/metrics", "/healthz", "/readyz", "/openapi.json"] {
                assert!(!endpoint.path().starts_with(own), "{endpoint:?}");
            }
        }
    }

    #[test]
    fn every_provider_has_valid_defaults() {
        for provider in PROVIDERS {
            assert_eq!(provider.policy(Policy::default()).validate(), Ok(()), "{provider:?}");
            assert!(Fetcher::builder(provider).build().is_ok(), "{provider:?}");
            assert!(
                provider.own_login().is_some() || !provider.variables().is_empty(),
                "{provider:?} has no login"
            );
        }
    }

    #[test]
    fn no_parser_accepts_an_empty_or_a_foreign_body() {
        for provider in PROVIDERS {
            for body in ["", "{}", "[]", "null", "<html>", r#"{"error":{"type":"made_up"}}"#] {
                let parsed = provider.parse(body.as_bytes(), Timestamp::UNIX_EPOCH);

                assert!(parsed.is_err() || parsed.unwrap().usage.is_empty(), "{provider:?} {body}");
            }
        }
    }
}
