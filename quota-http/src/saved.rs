//! Documents that a user saved: usage responses, and other documents with usage. A login is detected and never parsed.

use quota_core::UsageReport;
use serde_json::Value;

use crate::parsed::Parsed;

/// A saved document of a provider.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SavedDocument {
    /// The kind of the document, such as `usage`.
    pub kind: &'static str,
    /// The parsed content.
    pub parsed: Parsed,
    /// The user, if the document names one in addition to the owner.
    pub user: Option<String>,
}

impl SavedDocument {
    /// Creates a document of this kind.
    #[must_use]
    pub fn new(kind: &'static str, parsed: Parsed) -> Self {
        Self { kind, parsed, user: None }
    }

    /// Creates a document without readings.
    pub(crate) fn of_usage(kind: &'static str, usage: UsageReport) -> Self {
        Self::new(kind, Parsed::new(usage, Vec::new()))
    }

    /// Sets the user.
    #[must_use]
    pub fn user(mut self, user: impl Into<Option<String>>) -> Self {
        self.user = user.into();
        self
    }
}

/// Whether the document is a login: it has a token at one of its first two levels.
pub(crate) fn is_login(document: &[u8]) -> bool {
    let Ok(Value::Object(root)) = serde_json::from_slice(document) else { return false };
    let is_secret = |name: &str| {
        const NAMES: [&str; 7] = [
            "access_token",
            "accesstoken",
            "refresh_token",
            "refreshtoken",
            "id_token",
            "claudeaioauth",
            "mcpoauth",
        ];
        let name = name.to_ascii_lowercase();
        NAMES.contains(&&*name) || name.ends_with("api_key") || name == "oauth_token"
    };
    root.iter().any(|(name, value)| {
        let second = value.as_object().into_iter().flatten();
        is_secret(name) || second.into_iter().any(|(name, _)| is_secret(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_of_every_program_are_detected() {
        for login in [
            r#"{"claudeAiOauth":{}}"#,
            r#"{"mcpOAuth":{}}"#,
            r#"{"OPENAI_API_KEY":"made-up"}"#,
            r#"{"tokens":{"accessToken":"made-up"}}"#,
            r#"{"access_token":"made-up","expiry_date":1}"#,
            r#"{"github.com:app":{"oauth_token":"made-up"}}"#,
        ] {
            assert!(is_login(login.as_bytes()), "{login}");
        }
    }

    #[test]
    fn a_usage_response_is_not_a_login() {
        for usage in
            [r#"{"five_hour":{"utilization":1}}"#, r#"{"limits":[{"type":"TOKENS_LIMIT"}]}"#, "[]", ""]
        {
            assert!(!is_login(usage.as_bytes()), "{usage}");
        }
    }
}
