//! Reads two values of Claude Code's state file: the account that is logged in, and its cached usage.
//! Parsing the usage is the provider's business (`quota-http`).

use quota_core::LoginId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::hash;
use quota_core::file;

/// The cached usage in Claude Code's state file, unparsed, and the login it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnparsedUsage {
    /// The state file reduced to its `cachedUsageUtilization`: JSON for the provider's parser
    /// (`quota_http::anthropic::parse_claude_json`).
    pub state_file: Vec<u8>,
    /// The login it belongs to; `None` if the organization is not known.
    pub lineage: Option<LoginId>,
}

/// The field that holds the cached usage.
const CACHED_USAGE: &str = "cachedUsageUtilization";

/// The two values this program is interested in; `Null` where one is missing.
#[derive(Deserialize)]
pub(super) struct State {
    #[serde(default, rename = "oauthAccount")]
    account: Value,
    #[serde(default, rename = "cachedUsageUtilization")]
    cached: Value,
}

impl State {
    /// Finds them in what was read; `None` if it is not a state file, or only half of one.
    pub(super) fn parse(contents: &[u8]) -> Option<Self> {
        serde_json::from_slice(file::strip_bom(contents)).ok()
    }

    /// Which login this is. Both ids are needed: one person has another quota in another organization.
    pub(super) fn lineage(&self) -> Option<LoginId> {
        let (account, organization) =
            (text(&self.account, "accountUuid")?, text(&self.account, "organizationUuid")?);
        let name = ["anthropic", account, organization].join("\0");
        Some(LoginId::new(&format!("{:016x}", hash::first_64_bits(name.as_bytes()))))
    }

    /// The usage, if it is known to be that of the account which is logged in.
    pub(super) fn cached_usage(&self) -> Option<UnparsedUsage> {
        // The cached usage survives a change of the login, and then belongs to the previous one.
        if text(&self.cached, "accountUuid")? != text(&self.account, "accountUuid")? {
            return None;
        }
        let state_file = json!({ CACHED_USAGE: self.cached }).to_string().into_bytes();
        Some(UnparsedUsage { state_file, lineage: self.lineage() })
    }
}

/// The text of that name in an object, if there is one and it says something.
fn text<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.get(name)?.as_str().map(str::trim).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn state(value: Value) -> State {
        State::parse(value.to_string().as_bytes()).unwrap()
    }

    fn lineage_of(account: &str, organization: &str) -> Option<LoginId> {
        let account = json!({ "accountUuid": account, "organizationUuid": organization, "emailAddress": "a@example.com" });
        state(json!({ "numStartups": 7, "oauthAccount": account })).lineage()
    }

    #[test]
    fn a_lineage_is_the_first_half_of_a_hash_over_both_ids() {
        // printf 'anthropic\0account-a\0org-a' | sha256sum | cut -c1-16
        assert_eq!(lineage_of("account-a", "org-a").unwrap().as_str(), "9e9728732fb9f9e1");
    }

    #[test]
    fn another_account_or_organization_is_another_lineage() {
        assert_ne!(lineage_of("account-a", "org-a"), lineage_of("account-b", "org-a"));
        assert_ne!(lineage_of("account-a", "org-a"), lineage_of("account-a", "org-b"));
    }

    #[test]
    fn without_both_ids_there_is_no_lineage() {
        assert_eq!(lineage_of("account-a", ""), None);
        assert_eq!(lineage_of(" ", "org-a"), None);
        assert_eq!(state(json!({ "oauthAccount": { "accountUuid": "account-a" } })).lineage(), None);
    }

    #[test]
    fn an_account_of_another_shape_has_no_lineage() {
        for odd in [json!(null), json!(7), json!("account-a"), json!([]), json!({ "accountUuid": 7 })] {
            assert_eq!(state(json!({ "oauthAccount": odd })).lineage(), None, "{odd}");
        }
    }

    #[test]
    fn what_is_not_a_state_file_says_nothing() {
        for contents in ["", "null", "7", "[]x", "{\"oauthAccount\": {", "\u{0}"] {
            assert!(State::parse(contents.as_bytes()).is_none(), "{contents:?}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        assert!(State::parse("\u{feff}{}".as_bytes()).is_some());
    }

    #[test]
    fn usage_of_the_account_that_is_logged_in_is_given_with_its_lineage() {
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
        assert_eq!(usage.lineage, lineage_of("account-a", "org-a"));
    }

    #[test]
    fn usage_of_an_account_in_an_unknown_organization_has_no_lineage() {
        let state = state(json!({
            "oauthAccount": { "accountUuid": "account-a" },
            "cachedUsageUtilization": { "accountUuid": "account-a" },
        }));

        assert_eq!(state.cached_usage().unwrap().lineage, None);
    }

    #[test]
    fn cached_usage_of_another_login_is_withheld() {
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
        fn no_bytes_panic(contents in any::<Vec<u8>>()) {
            if let Some(state) = State::parse(&contents) {
                let _ = (state.lineage(), state.cached_usage());
            }
        }
    }
}
