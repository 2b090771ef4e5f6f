//! Parses the response of Anthropic's profile endpoint: the owner of the account. Personal names and email addresses are
//! skipped.

use quota_core::model::OwnerId;

use super::usage::object;
use crate::lenient::text;
use crate::parsed::ParseError;

/// The owner of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Profile {
    /// The id of the user.
    pub account: Option<String>,
    /// The id of the organization, which also appears in the responses of the usage endpoint.
    pub organization: Option<OwnerId>,
    /// The plan as the provider names it, such as `claude_max`.
    pub plan: Option<String>,
}

/// Parses the response of the profile endpoint.
///
/// ```
/// use quota_http::anthropic::parse_profile;
///
/// let profile = parse_profile(br#"{ "organization": { "uuid": "org-1", "organization_type": "claude_team" } }"#)?;
/// assert_eq!(profile.plan.as_deref(), Some("claude_team"));
/// # Ok::<(), quota_http::ParseError>(())
/// ```
///
/// # Errors
///
/// [`ParseError`] if the body is not a JSON object, or names neither a user nor an organization.
pub fn parse_profile(body: &[u8]) -> Result<Profile, ParseError> {
    let root = object(body)?;
    let field = |part: &str, name: &str| text(root.get(part).and_then(|part| part.get(name))).ok();
    let profile = Profile {
        account: field("account", "uuid").map(Into::into),
        organization: field("organization", "uuid").map(OwnerId::new),
        plan: field("organization", "organization_type")
            .or_else(|| field("organization", "rate_limit_tier"))
            .map(Into::into),
    };
    if profile.account.is_none() && profile.organization.is_none() {
        return Err(ParseError::NoUsage);
    }
    Ok(profile)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parse(body: Value) -> Result<Profile, ParseError> {
        parse_profile(body.to_string().as_bytes())
    }

    #[test]
    fn the_organization_is_the_owner() {
        let profile = parse(json!({
            "account": { "uuid": "user-1", "email": "user@example.com" }, "organization": { "uuid": "org-1" }
        }));

        let profile = profile.unwrap();
        assert_eq!(profile.organization, Some(OwnerId::new("org-1")));
        assert_eq!((profile.account.as_deref(), profile.plan), (Some("user-1"), None));
    }

    #[test]
    fn rate_limit_tier_replaces_a_missing_plan() {
        let profile = parse(
            json!({ "organization": { "uuid": "org-1", "rate_limit_tier": "default_claude_max_20x" } }),
        );

        assert_eq!(profile.unwrap().plan.as_deref(), Some("default_claude_max_20x"));
    }

    #[test]
    fn a_profile_without_ids_is_an_error() {
        for body in
            [json!({ "account": {} }), json!({ "organization": { "uuid": 7 } }), json!({ "error": {} })]
        {
            assert!(parse(body.clone()).is_err(), "{body}");
        }
    }
}
