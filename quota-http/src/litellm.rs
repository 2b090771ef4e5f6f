//! LiteLLM: the budgets of a virtual key, and of its user or team. Users run the proxy themselves, so there is no
//! default URL.

mod write;

use std::time::Duration;

use crate::json::{Object, Value};
use jiff::Timestamp;
use quota_core::model::{Credits, Money};
use quota_core::{Credential, FetchError, Percent, WindowId, WindowReading};

use crate::command_environment::CommandEnvironment;
use crate::lenient::{Field, Unreadable, decimal, flag, number, spent_share, text, timestamp};
use crate::parsed::{ParseError, Parsed};
use crate::provider::{Provider, two_requests};
use crate::report::{ReportBuilder, credits_or_skip, has_error, json_object};
use crate::request::UsageRequest;
use crate::usage_endpoint::UsageEndpoint;
use crate::window_length::window_of_length;

/// LiteLLM: the budgets that apply to a virtual key.
pub static PROVIDER: Provider = Provider::new("litellm", "LiteLLM", request, parse_usage)
    .second_request(owner_request)
    .usage_endpoint(&ENDPOINT)
    .token_variables(&["LITELLM_PROXY_API_KEY", "LITELLM_API_KEY"])
    .command_environment(
        CommandEnvironment::new()
            .token("LITELLM_PROXY_API_KEY", &["LITELLM_API_KEY"])
            .base_url("LITELLM_PROXY_URL"),
    )
    .default_policy(two_requests);

/// A query would name another key.
static ENDPOINT: UsageEndpoint =
    UsageEndpoint::new("/key/info", write::usage, write::failure).only_query("").personal(&[
        "info.created_by",
        "info.key_alias",
        "info.key_name",
        "info.metadata",
        "info.organization_id",
        "info.team_alias",
        "info.team_id",
        "info.token",
        "info.updated_by",
        "info.user_alias",
        "info.user_email",
        "info.user_id",
        "key",
    ]);

/// LiteLLM calculates costs in US dollars.
const CURRENCY: &str = "USD";
/// Amounts are floating point numbers with up to 17 digits. Decimal digits after the second are noise.
const DIGITS: u8 = 2;

fn request(credential: &Credential) -> UsageRequest {
    UsageRequest::get("key/info").bearer(&credential.secret)
}

/// Requests the budget of the key's team, or of its user. The proxy applies the user's budget only to keys without a team.
fn owner_request(credential: &Credential, key: &[u8]) -> Result<Option<UsageRequest>, FetchError> {
    let root = json_object(key)?;
    let id = |name| text(root.get("info")?.get(name)).ok().map(str::to_owned);
    let request = match (id("team_id"), id("user_id")) {
        (Some(team), _) => UsageRequest::get("team/info").query("team_id", team),
        (None, Some(user)) => UsageRequest::get("user/info").query("user_id", user),
        (None, None) => return Ok(None),
    };
    Ok(Some(request.bearer(&credential.secret).optional()))
}

/// Fields that are not readings. They are neither parsed nor listed as skipped. Some are per-minute limits, which are
/// not budgets.
const KNOWN: [&str; 64] = [
    "access_group_ids",
    "admins",
    "agent_id",
    "aliases",
    "allowed_cache_controls",
    "allowed_routes",
    "auto_rotate",
    "blocked",
    "budget_duration",
    "budget_id",
    "budget_limits",
    "budget_reset_at",
    "config",
    "created_at",
    "created_by",
    "default_team_member_models",
    "expires",
    "key_alias",
    "key_name",
    "key_rotation_at",
    "last_active",
    "last_rotation_at",
    "litellm_budget_table",
    "litellm_model_table",
    "litellm_organization_table",
    "max_budget",
    "max_parallel_requests",
    "members",
    "members_with_roles",
    "metadata",
    "model_id",
    "model_max_budget",
    "model_spend",
    "models",
    "object_permission",
    "object_permission_id",
    "organization_id",
    "organization_memberships",
    "password",
    "permissions",
    "policies",
    "project_id",
    "rotation_count",
    "rotation_interval",
    "router_settings",
    "rpm_limit",
    "soft_budget",
    "soft_budget_cooldown",
    "spend",
    "sso_user_id",
    "team_alias",
    "team_id",
    "team_member_budget_table",
    "team_member_permissions",
    "team_memberships",
    "teams",
    "token",
    "tpm_limit",
    "updated_at",
    "updated_by",
    "user_alias",
    "user_email",
    "user_id",
    "user_role",
];

/// The budgets, by the field that contains them.
const BUDGETS: [Owner; 3] = [
    Owner { field: "info", name: "key", suffix: "" },
    Owner { field: "user_info", name: "user", suffix: "_user" },
    Owner { field: "team_info", name: "team", suffix: "_team" },
];

/// The owner of a budget.
struct Owner {
    field: &'static str,
    name: &'static str,
    /// The suffix of its window names, because one key may have several budgets of the same length.
    suffix: &'static str,
}

/// Parses the response of one of the endpoints for a key, a user or a team.
///
/// A budget becomes a window that is named by its length: `monthly` for the key, `monthly_user` and `monthly_team` for
/// its user and team. A budget that never resets has no length, so its window is `key_budget`, `user_budget` or
/// `team_budget`.
///
/// ```
/// use quota_core::{Percent, WindowId};
/// use quota_http::litellm::parse_usage;
///
/// let body = br#"{ "key": "88dc28", "info": { "spend": 2.5, "max_budget": 10, "budget_duration": "30d" } }"#;
/// let parsed = parse_usage(body, "2026-07-01T12:00:00Z".parse()?)?;
///
/// let month = &parsed.usage.windows[0];
/// assert_eq!((&month.id, Some(month.used)), (&WindowId::monthly(), Percent::from_percent(25.0)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`ParseError`] if the body is not a JSON object, is empty, or has no budget.
pub fn parse_usage(body: &[u8], _now: Timestamp) -> Result<Parsed, ParseError> {
    let root = json_object(body)?;
    if has_error(&root) {
        return Err(ParseError::ErrorResponse { kind: None });
    }
    let found = BUDGETS.iter().find_map(|owner| Some((owner, root.get(owner.field)?.as_object()?)));
    let Some((owner, fields)) = found else { return Err(ParseError::NoUsage) };
    let mut report = ReportBuilder::default();
    owner.add_window(fields, &mut report);
    report.skip_unknown(fields, &KNOWN, &format!("{}.", owner.field));
    if root.get("teams").and_then(Value::as_array).is_some_and(|teams| !teams.is_empty()) {
        report.skip("teams", "the budgets of teams, of which the key may have another one");
    }
    let credits = credits_or_skip(owner.credits(fields), owner.field, &mut report);
    report.build(credits)
}

impl Owner {
    /// Adds the window of the budget.
    fn add_window(&self, fields: &Object<'_>, report: &mut ReportBuilder) {
        let field = format!("{}.max_budget", self.field);
        let length = length(setting(fields, "budget_duration"));
        let id = self.window(length.clone().ok());
        let used = match setting(fields, "max_budget") {
            None => return report.mark_unnamed(field, "it is missing"),
            Some(Value::Null) => return report.add(WindowReading::unlimited(id), field),
            Some(limit) => spent_share(number(Some(limit)), number(fields.get("spend")), Field::Absent),
        };
        if length == Field::Unreadable {
            return report.mark_unnamed(field, "the length of its period is unclear");
        }
        let resets_at = timestamp(setting(fields, "budget_reset_at"));
        // A budget of 30 days is reset on the first day of a month, so its length varies too.
        let is_month = |length: &Duration| window_of_length(*length) == Some(WindowId::monthly());
        let length = length.ok().and_then(Period::length).filter(|length| !is_month(length));
        report.add_used(id, used.and_then(Percent::from_percent), field, |reading| {
            reading.length(length).resets_at(resets_at)
        });
    }

    fn window(&self, period: Option<Period>) -> WindowId {
        let id = match period {
            Some(Period::Month) => Some(WindowId::monthly()),
            Some(Period::Length(length)) => window_of_length(length),
            None => None,
        };
        let name = match id {
            Some(id) => format!("{id}{}", self.suffix),
            None => format!("{}_budget", self.name),
        };
        WindowId::new(&name).expect("the name is short")
    }

    /// The amount spent, and the limit. The amounts of the user and the team count only if the key has no budget.
    fn credits(&self, fields: &Object<'_>) -> Result<Credits, Unreadable> {
        let amount = |field| Ok(decimal(field).into_result()?.map(dollars));
        let mut credits = Credits::default();
        if flag(fields.get("blocked")).into_result()? == Some(true) {
            credits.enabled = Some(false);
            credits.disabled_reason = Some("blocked".to_owned());
        }
        let limit = amount(setting(fields, "max_budget"))?;
        let has_owner = ["team_id", "user_id"].iter().any(|name| text(fields.get(name)) != Field::Absent);
        if limit.is_none() && self.name == "key" && has_owner {
            // The amounts of two budgets must not be mixed.
            return Ok(credits);
        }
        credits.unlimited = setting(fields, "max_budget").map(Value::is_null);
        credits.used = amount(fields.get("spend"))?;
        if limit.is_some() && credits.used.is_none() {
            return Err(Unreadable);
        }
        credits.limit = limit;
        Ok(credits)
    }
}

/// A setting of the owner's own budget, or of a budget that several owners share. Null means that it is not set.
fn setting<'a, 'b>(fields: &'a Object<'b>, name: &str) -> Option<&'a Value<'b>> {
    let own = fields.get(name);
    let shared = || fields.get("litellm_budget_table")?.get(name).filter(|value| !value.is_null());
    own.filter(|value| !value.is_null()).or_else(shared).or(own)
}

fn dollars(amount: crate::lenient::Decimal) -> Money {
    amount.rounded(DIGITS).money(CURRENCY)
}

/// The period after which a budget resets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Period {
    Length(Duration),
    /// One calendar month.
    Month,
}

impl Period {
    fn length(self) -> Option<Duration> {
        match self {
            Self::Length(length) => Some(length),
            Self::Month => None,
        }
    }
}

/// Reads a duration as LiteLLM writes it: `30s`, `30m`, `24h`, `7d`, `1w`, `1mo`.
fn length(field: Option<&Value<'_>>) -> Field<Period> {
    text(field).and_then(|text| {
        let unit = text.find(|c: char| !c.is_ascii_digit())?;
        let (count, unit) = text.split_at(unit);
        let count: u64 = count.parse().ok().filter(|count| *count > 0)?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 24 * 3600,
            "w" => 7 * 24 * 3600,
            "mo" if count == 1 => return Some(Period::Month),
            _ => return None,
        };
        let length = Duration::from_secs(count.checked_mul(seconds)?);
        window_of_length(length).map(|_| Period::Length(length))
    })
}

#[cfg(test)]
mod tests;
