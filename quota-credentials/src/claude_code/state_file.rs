//! Parses two values from Claude Code's state file: the account that is logged in, and its cached usage. The provider's parser in
//! `quota-http` parses the usage itself.

use jiff::Timestamp;
use quota_core::file;
use quota_core::model::LoginId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::token;

/// The cached usage in Claude Code's state file, unparsed, and the login that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnparsedUsage {
    /// The state file, reduced to its `cachedUsageUtilization`. It is the JSON that the provider's parser
    /// (`quota_http::anthropic::parse_claude_json`) expects.
    pub state_file: Vec<u8>,
    /// The login that the usage belongs to; `None` if the organization is unknown.
    pub login_id: Option<LoginId>,
    /// When the login file was last written; `None` if the login is not in a file. Usage that was fetched before may belong to another
    /// organization of the same account, because the cached usage does not name its organization.
    pub login_since: Option<Timestamp>,
}

/// The field with the cached usage.
const CACHED_USAGE: &str = "cachedUsageUtilization";

/// The two values; `Null` if they are missing.
#[derive(Deserialize)]
pub(super) struct ClaudeState {
    #[serde(default, rename = "oauthAccount")]
    account: Value,
    #[serde(default, rename = "cachedUsageUtilization")]
    cached: Value,
}

impl ClaudeState {
    /// Parses the file; `None` if it is not JSON, perhaps because Claude Code is writing it.
    pub(super) fn parse(contents: &[u8]) -> Option<Self> {
        serde_json::from_slice(file::strip_bom(contents)).ok()
    }

    /// The login id. It needs both ids, because an account has a separate quota in each organization.
    pub(super) fn login_id(&self) -> Option<LoginId> {
        let (account, organization) =
            (text(&self.account, "accountUuid")?, text(&self.account, "organizationUuid")?);
        Some(token::login_id(&["anthropic", account, organization]))
    }

    /// The cached usage, if it belongs to the account that is logged in.
    pub(super) fn cached_usage(&self) -> Option<UnparsedUsage> {
        // Cached usage survives a change of login. It then still belongs to the previous account.
        if text(&self.cached, "accountUuid")? != text(&self.account, "accountUuid")? {
            return None;
        }
        let state_file = json!({ CACHED_USAGE: self.cached }).to_string().into_bytes();
        Some(UnparsedUsage { state_file, login_id: self.login_id(), login_since: None })
    }
}

/// A field of an object, if it is a non-blank string.
fn text<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.get(name)?.as_str().map(str::trim).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn state(value: Value) -> ClaudeState {
        ClaudeState::parse(value.to_string().as_bytes()).unwrap()
    }

    fn login_id_of(account: &str, organization: &str) -> Option<LoginId> {
        let account = json!({ "accountUuid": account, "organizationUuid": organization, "emailAddress": "a@example.com" });
        state(json!({ "numStartups": 7, "oauthAccount": account })).login_id()
    }

    #[test]
    fn a_login_id_is_a_hash_of_both_ids() {
        // printf 'anthropic\0account-a\0org-a' | sha256sum | cut -c1-16
        assert_eq!(login_id_of("account-a", "org-a").unwrap().as_str(), "9e9728732fb9f9e1");
    }

    #[test]
    fn another_account_or_organization_is_another_login() {
        assert_ne!(login_id_of("account-a", "org-a"), login_id_of("account-b", "org-a"));
        assert_ne!(login_id_of("account-a", "org-a"), login_id_of("account-a", "org-b"));
    }

    #[test]
    fn without_both_ids_there_is_no_login_id() {
        assert_eq!(login_id_of("account-a", ""), None);
        assert_eq!(login_id_of(" ", "org-a"), None);
        assert_eq!(state(json!({ "oauthAccount": { "accountUuid": "account-a" } })).login_id(), None);
    }

    #[test]
    fn an_account_of_another_type_has_no_login_id() {
        for odd in [json!(null), json!(7), json!("account-a"), json!([]), json!({ "accountUuid": 7 })] {
            assert_eq!(state(json!({ "oauthAccount": odd })).login_id(), None, "{odd}");
        }
    }

    #[test]
    fn other_content_is_not_a_state_file() {
        for contents in ["", "null", "7", "[]x", "{\"oauthAccount\": {", "\u{0}"] {
            assert!(ClaudeState::parse(contents.as_bytes()).is_none(), "{contents:?}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        assert!(ClaudeState::parse("\u{feff}{}".as_bytes()).is_some());
    }

    #[test]
    fn cached_usage_has_the_login_id_of_its_account() {
        let cached =
            json!({ "fetchedAtMs": 1, "accountUuid": "account-a", "utilization": { "five_hour": null } });
        let state = state(json!({
            "oauthAccount": { "accountUuid": "account-a", "organizationUuid": "org-a" },
            "cachedUsageUtilization": cached,
            "projects": { "/secret/path": {} },
        }));

        let usage = state.cached_usage().unwrap();

        let state_file: Value = serde_json::from_slice(&usage.state_file).unwrap();
        assert_eq!(state_file, json!({ "cachedUsageUtilization": cached }));
        assert_eq!(usage.login_id, login_id_of("account-a", "org-a"));
    }

    #[test]
    fn cached_usage_without_an_organization_has_no_login_id() {
        let state = state(json!({
            "oauthAccount": { "accountUuid": "account-a" },
            "cachedUsageUtilization": { "accountUuid": "account-a" },
        }));

        assert_eq!(state.cached_usage().unwrap().login_id, None);
    }

    #[test]
    fn cached_usage_of_another_account_is_not_returned() {
        let none = json!(null);
        let a = json!({ "accountUuid": "account-a" });
        let b = json!({ "accountUuid": "account-b" });

        for (account, cached) in [(&a, &b), (&a, &none), (&none, &a), (&none, &none)] {
            let state = state(json!({ "oauthAccount": account, "cachedUsageUtilization": cached }));

            assert_eq!(state.cached_usage(), None, "{account} {cached}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_state_no_login_and_no_usage(contents in any::<Vec<u8>>()) {
            if let Some(state) = ClaudeState::parse(&contents) {
                prop_assert_eq!((state.login_id(), state.cached_usage()), (None, None));
            }
        }
    }
}
