//! The money in a usage answer: `spend`, and the older `extra_usage`.
//! Amounts are taken in minor units as they are; percentages of money are not windows.

use quota_core::{Credits, Money};
use serde_json::{Map, Value};

use super::windows::Findings;
use crate::lenient::{Field, Unreadable, flag, number, text};

/// Reads what is said about money. `spend` counts where it speaks; what stands there and cannot be read leaves what was
/// known.
pub(super) fn read(root: &Map<String, Value>, findings: &mut Findings) -> Field<Credits> {
    let sources = [("spend", spend as fn(&Value) -> _), ("extra_usage", extra_usage)];
    let mut found = Field::Absent;
    for (field, source) in sources {
        match root.get(field).map_or(Ok(None), source) {
            Ok(Some(credits)) => return Field::Is(credits),
            Ok(None) => {}
            Err(Unreadable) => {
                findings.ignore(field, "its amounts cannot be read");
                found = Field::Unreadable;
            }
        }
    }
    found
}

fn spend(spend: &Value) -> Result<Option<Credits>, Unreadable> {
    let Some(fields) = object(spend)? else { return Ok(None) };
    let cap = fields.get("cap").map_or(Ok(None), object)?.and_then(|cap| cap.get("money"));
    let limit = match money(fields.get("limit"))? {
        Some(limit) => Some(limit),
        None => money(cap)?,
    };
    let mut credits = Credits::default();
    credits.enabled = flag(fields.get("enabled")).ok()?;
    credits.used = money(fields.get("used"))?;
    credits.limit = limit;
    credits.balance = money(fields.get("balance"))?;
    credits.disabled_reason = reason(fields);
    Ok(said(credits))
}

fn extra_usage(extra: &Value) -> Result<Option<Credits>, Unreadable> {
    let Some(fields) = object(extra)? else { return Ok(None) };
    let currency = text(fields.get("currency")).ok()?.unwrap_or_default();
    let exponent = exponent(fields.get("decimal_places"))?;
    let amount = |field| Ok(minor(fields.get(field))?.map(|minor| Money::new(minor, currency, exponent)));
    let mut credits = Credits::default();
    credits.enabled = flag(fields.get("is_enabled")).ok()?;
    credits.used = amount("used_credits")?;
    credits.limit = amount("monthly_limit")?;
    credits.disabled_reason = reason(fields);
    Ok(said(credits))
}

/// Why spending is off. It is a word for people, so one that cannot be shown makes nothing unreadable.
fn reason(fields: &Map<String, Value>) -> Option<String> {
    text(fields.get("disabled_reason")).known().map(Into::into)
}

fn said(credits: Credits) -> Option<Credits> {
    (credits != Credits::default()).then_some(credits)
}

fn object(value: &Value) -> Result<Option<&Map<String, Value>>, Unreadable> {
    match value {
        Value::Null => Ok(None),
        Value::Object(fields) => Ok(Some(fields)),
        _ => Err(Unreadable),
    }
}

/// Reads an amount that names its own currency.
fn money(value: Option<&Value>) -> Result<Option<Money>, Unreadable> {
    let Some(fields) = value.map_or(Ok(None), object)? else { return Ok(None) };
    let Some(minor) = minor(fields.get("amount_minor"))? else { return Ok(None) };
    let currency = text(fields.get("currency")).ok()?.unwrap_or_default();
    Ok(Some(Money::new(minor, currency, exponent(fields.get("exponent"))?)))
}

/// Reads whole minor units; a provider that computes with fractions of a cent is rounded.
fn minor(value: Option<&Value>) -> Result<Option<i64>, Unreadable> {
    /// The largest number that is still exact in a JSON number.
    const MAX_EXACT: f64 = 9_007_199_254_740_991.0;
    match number(value).ok()? {
        None => Ok(None),
        Some(amount) if amount.abs() > MAX_EXACT => Err(Unreadable),
        Some(amount) => Ok(Some(amount.round() as i64)),
    }
}

/// Reads how many decimal digits a minor unit stands for; two where it is not said.
fn exponent(value: Option<&Value>) -> Result<u8, Unreadable> {
    match number(value).ok()? {
        None => Ok(2),
        Some(digits) if (0.0..=18.0).contains(&digits) && digits.fract() == 0.0 => Ok(digits as u8),
        Some(_) => Err(Unreadable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read_all(body: Value) -> (Field<Credits>, Findings) {
        let mut findings = Findings::default();
        (read(body.as_object().unwrap(), &mut findings), findings)
    }

    fn credits_of(body: Value) -> Credits {
        read_all(body).0.ok().unwrap().unwrap()
    }

    fn euros(minor: i64) -> Option<Money> {
        Some(Money::new(minor, "EUR", 2))
    }

    fn amount(minor: i64) -> Value {
        json!({ "amount_minor": minor, "currency": "EUR", "exponent": 2 })
    }

    #[test]
    fn spend_is_read_with_all_its_amounts() {
        let credits = credits_of(json!({ "spend": {
            "used": amount(4001), "limit": amount(4000), "balance": amount(99), "enabled": false,
            "disabled_reason": "out_of_credits"
        }}));

        assert_eq!((credits.used, credits.limit, credits.balance), (euros(4001), euros(4000), euros(99)));
        assert_eq!(
            (credits.enabled, credits.disabled_reason.as_deref()),
            (Some(false), Some("out_of_credits"))
        );
    }

    #[test]
    fn the_cap_stands_in_for_a_limit() {
        let credits = credits_of(
            json!({ "spend": { "limit": null, "cap": { "money": amount(4000), "credits": null } } }),
        );

        assert_eq!(credits.limit, euros(4000));
    }

    #[test]
    fn extra_usage_counts_in_minor_units() {
        let credits = credits_of(json!({ "extra_usage": {
            "is_enabled": true, "monthly_limit": 2000, "used_credits": 763.0, "utilization": 38.15, "currency": "EUR"
        }}));

        assert_eq!((credits.used, credits.limit, credits.enabled), (euros(763), euros(2000), Some(true)));
    }

    #[test]
    fn without_a_monthly_limit_there_is_no_cap() {
        let credits = credits_of(json!({ "extra_usage": { "used_credits": "5086", "monthly_limit": null } }));

        assert_eq!((credits.used, credits.limit), (Some(Money::new(5086, "", 2)), None));
    }

    #[test]
    fn decimal_places_are_the_exponent() {
        let credits = credits_of(
            json!({ "extra_usage": { "used_credits": 300, "currency": "JPY", "decimal_places": 0 } }),
        );

        assert_eq!(credits.used, Some(Money::new(300, "JPY", 0)));
    }

    #[test]
    fn where_both_speak_spend_counts() {
        let credits =
            credits_of(json!({ "spend": { "used": amount(1) }, "extra_usage": { "used_credits": 2 } }));

        assert_eq!(credits.used, euros(1));
    }

    #[test]
    fn a_spend_that_says_nothing_leaves_the_word_to_extra_usage() {
        for spend in [json!(null), json!({}), json!({ "used": null, "percent": 0 })] {
            let credits = credits_of(json!({ "spend": spend, "extra_usage": { "is_enabled": false } }));

            assert_eq!(credits.enabled, Some(false));
        }
    }

    #[test]
    fn a_spend_that_cannot_be_read_leaves_the_word_to_extra_usage_and_is_listed() {
        let body =
            json!({ "spend": { "used": { "amount_minor": "many" } }, "extra_usage": { "used_credits": 2 } });

        let (credits, findings) = read_all(body);

        assert!(matches!(credits, Field::Is(_)));
        assert_eq!(findings.ignored[0].field, "spend");
    }

    #[test]
    fn money_that_cannot_be_read_is_not_absent() {
        let malformed = [
            json!({ "used_credits": "many" }),
            json!({ "used_credits": 1e300 }),
            json!({ "used_credits": 1, "decimal_places": -1 }),
            json!({ "used_credits": 1, "currency": 7 }),
            json!({ "is_enabled": "maybe" }),
            json!([]),
        ];
        for extra in malformed {
            assert_eq!(read_all(json!({ "extra_usage": extra })).0, Field::Unreadable, "{extra}");
        }
    }

    #[test]
    fn no_money_is_absent() {
        assert_eq!(read_all(json!({ "spend": null, "extra_usage": {} })).0, Field::Absent);
    }
}
