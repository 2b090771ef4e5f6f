//! DeepSeek: the prepaid balance of an API key. There are no windows.

use crate::json::{Object, Value};
mod write;

use jiff::Timestamp;
use quota_core::Credential;
use quota_core::model::{Credits, Money};

use crate::command_environment::CommandEnvironment;
use crate::lenient::{Field, Unreadable, decimal, flag, text};
use crate::parsed::{ParseError, Parsed};
use crate::provider::Provider;
use crate::report::{ReportBuilder, has_error, json_object};
use crate::request::UsageRequest;
use crate::usage_endpoint::UsageEndpoint;

/// DeepSeek: the balance of an API key.
pub static PROVIDER: Provider = Provider::new("deepseek", "DeepSeek", request, parse_usage)
    .base_url("https://api.deepseek.com")
    .usage_endpoint(&ENDPOINT)
    .token_variables(&["DEEPSEEK_API_KEY"])
    .command_environment(CommandEnvironment::new().token("DEEPSEEK_API_KEY", &[]));

static ENDPOINT: UsageEndpoint = UsageEndpoint::new("/user/balance", write::usage, write::failure);

fn request(credential: &Credential) -> UsageRequest {
    UsageRequest::get("user/balance").bearer(&credential.secret)
}

/// Parses the response of the balance endpoint.
///
/// If there are balances in several currencies, the first that is positive counts, otherwise the first. The others are listed.
///
/// ```
/// use quota_http::deepseek::parse_usage;
///
/// let body = br#"{ "is_available": true, "balance_infos": [{ "currency": "CNY", "total_balance": "110.00" }] }"#;
/// let credits = parse_usage(body, "2026-07-01T12:00:00Z".parse()?)?.usage.credits.unwrap();
///
/// assert_eq!(credits.balance.unwrap().to_string(), "110.00 CNY");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`ParseError`] if the body is not a JSON object, is empty, or is an error response.
pub fn parse_usage(body: &[u8], _now: Timestamp) -> Result<Parsed, ParseError> {
    let root = json_object(body)?;
    if has_error(&root) {
        return Err(ParseError::ErrorResponse { kind: None });
    }
    let mut report = ReportBuilder::default();
    report.skip_unknown(&root, &["is_available", "balance_infos"], "");
    let credits = match credits(&root, &mut report) {
        Ok(credits) if credits == Credits::default() => Field::Absent,
        Ok(credits) => Field::Present(credits),
        Err(Unreadable) => Field::Unreadable,
    };
    report.build(credits)
}

fn credits(root: &Object<'_>, report: &mut ReportBuilder) -> Result<Credits, Unreadable> {
    let mut credits = Credits::default();
    let is_available = flag(root.get("is_available"));
    if is_available == Field::Unreadable {
        report.skip("is_available", "not a boolean");
    }
    credits.enabled = is_available.ok();
    let rows = match root.get("balance_infos") {
        None | Some(Value::Null) => return Ok(credits),
        Some(Value::Array(rows)) => rows,
        Some(_) => {
            report.skip("balance_infos", "not a list");
            return Err(Unreadable);
        }
    };
    let mut balances = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let field = format!("balance_infos[{at}]");
        match balance(row) {
            Some(balance) => balances.push((field, balance)),
            None => report.skip(field, "its amount or currency is invalid"),
        }
    }
    let counts = balances.iter().position(|(_, balance)| balance.minor > 0).unwrap_or_default();
    for (at, (field, balance)) in balances.into_iter().enumerate() {
        if at == counts {
            credits.balance = Some(balance);
        } else {
            report.skip(field, "a balance in another currency");
        }
    }
    // An empty list means that the account has no balance. If a row is unreadable, the cached balance is kept.
    if credits.balance.is_none() && !rows.is_empty() { Err(Unreadable) } else { Ok(credits) }
}

/// The total balance, granted and topped up.
fn balance(row: &Value<'_>) -> Option<Money> {
    let currency = text(row.get("currency")).ok()?;
    Some(decimal(row.get("total_balance")).ok()?.extended(2).money(currency))
}

#[cfg(test)]
mod tests {
    use quota_core::model::Coverage;
    use serde_json::{Value, json};

    use super::*;

    fn parse(body: &Value) -> Parsed {
        parse_usage(body.to_string().as_bytes(), Timestamp::UNIX_EPOCH).unwrap()
    }

    fn row(currency: &str, total: &str) -> Value {
        json!({ "currency": currency, "total_balance": total, "granted_balance": "1", "topped_up_balance": "2" })
    }

    fn balance_of(rows: &Value) -> Option<Money> {
        parse(&json!({ "is_available": true, "balance_infos": rows })).usage.credits?.balance
    }

    #[test]
    fn the_balance_is_exact() {
        let credits = parse(&json!({ "is_available": false, "balance_infos": [row("USD", "0.1205")] }));

        let credits = credits.usage.credits.unwrap();
        assert_eq!((credits.balance, credits.enabled), (Some(Money::new(1205, "USD", 4)), Some(false)));
    }

    #[test]
    fn the_first_positive_balance_counts() {
        assert_eq!(balance_of(&json!([row("CNY", "0"), row("USD", "5")])), Some(Money::new(500, "USD", 2)));
        assert_eq!(balance_of(&json!([row("CNY", "0"), row("USD", "-5")])), Some(Money::new(0, "CNY", 2)));
    }

    #[test]
    fn the_balances_in_other_currencies_are_listed() {
        let parsed = parse(&json!({ "balance_infos": [row("CNY", "0"), row("USD", "5")], "new": 1 }));

        let skipped: Vec<_> = parsed.skipped.iter().map(|skipped| &*skipped.field).collect();
        assert_eq!(skipped, ["new", "balance_infos[0]"]);
    }

    #[test]
    fn a_malformed_balance_keeps_the_good_one() {
        let rows = json!([row("USD", "some"), 7, { "total_balance": "3" }, row("CNY", "3")]);

        assert_eq!(balance_of(&rows), Some(Money::new(300, "CNY", 2)));
    }

    #[test]
    fn an_unreadable_flag_keeps_the_good_balance() {
        let parsed = parse(&json!({ "is_available": "yes", "balance_infos": [row("USD", "5")] }));

        let credits = parsed.usage.credits.unwrap();
        assert_eq!((credits.balance, credits.enabled), (Some(Money::new(500, "USD", 2)), None));
        assert_eq!(parsed.skipped[0].field, "is_available");
    }

    #[test]
    fn unreadable_balances_keep_the_cached_one() {
        for rows in [json!([row("USD", "some")]), json!("none")] {
            let parsed = parse(&json!({ "is_available": true, "balance_infos": rows }));

            assert_eq!(parsed.usage.coverage, Coverage::Complete { except: vec![], credits: false });
            assert_eq!(parsed.usage.credits, None);
        }
    }

    #[test]
    fn an_account_without_a_balance_is_not_one_with_zero() {
        assert_eq!(balance_of(&json!([])), None);
        assert_eq!(balance_of(&json!([row("USD", "0.00")])), Some(Money::new(0, "USD", 2)));
    }

    #[test]
    fn an_error_response_has_no_balance() {
        let error = parse_usage(br#"{"error":{"message":"made up"}}"#, Timestamp::UNIX_EPOCH);

        assert_eq!(error, Err(ParseError::ErrorResponse { kind: None }));
    }
}
