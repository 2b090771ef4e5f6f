//! Parses the money in a usage response: `spend`, and the older `extra_usage`. Amounts are in minor units. Percentages of money
//! are not windows.

use crate::json::{Object, Value};
use quota_core::model::{Credits, Money};

use crate::lenient::{Field, Unreadable, flag, number, text};
use crate::report::ReportBuilder;

/// Parses the credits. `spend` takes precedence. If an amount is unreadable, the cached credits are kept.
pub(super) fn read(root: &Object<'_>, report: &mut ReportBuilder) -> Field<Credits> {
    let sources = [("spend", spend as fn(&Value<'_>) -> _), ("extra_usage", extra_usage)];
    let mut result = Field::Absent;
    for (field, source) in sources {
        match root.get(field).map_or(Ok(None), source) {
            Ok(Some(mut credits)) => {
                // Only the older field states that there is no limit.
                if credits.limit.is_none() && credits.unlimited.is_none() {
                    let older = root.get("extra_usage").map_or(Ok(None), extra_usage).ok().flatten();
                    credits.unlimited = older.and_then(|older| older.unlimited);
                }
                return Field::Present(credits);
            }
            Ok(None) => {}
            Err(Unreadable) => {
                report.skip(field, "its amounts are invalid");
                result = Field::Unreadable;
            }
        }
    }
    result
}

fn spend(spend: &Value<'_>) -> Result<Option<Credits>, Unreadable> {
    let Some(fields) = object(spend)? else { return Ok(None) };
    let cap = fields.get("cap").map_or(Ok(None), object)?.and_then(|cap| cap.get("money"));
    let limit = match money(fields.get("limit"))? {
        Some(limit) => Some(limit),
        None => money(cap)?,
    };
    let mut credits = Credits::default();
    credits.enabled = flag(fields.get("enabled")).into_result()?;
    credits.used = money(fields.get("used"))?;
    credits.limit = limit;
    credits.balance = money(fields.get("balance"))?;
    credits.disabled_reason = reason(fields);
    Ok(non_empty(credits))
}

fn extra_usage(extra: &Value<'_>) -> Result<Option<Credits>, Unreadable> {
    let Some(fields) = object(extra)? else { return Ok(None) };
    let currency = text(fields.get("currency")).into_result()?.unwrap_or_default();
    let exponent = exponent(fields.get("decimal_places"))?;
    let amount =
        |field| Ok(minor_units(fields.get(field))?.map(|units| Money::new(units, currency, exponent)));
    let mut credits = Credits::default();
    credits.enabled = flag(fields.get("is_enabled")).into_result()?;
    credits.used = amount("used_credits")?;
    credits.limit = amount("monthly_limit")?;
    // A null limit means that there is no limit. If the field is missing, the limit is unknown.
    let has_no_limit = fields.get("monthly_limit").is_some_and(Value::is_null);
    credits.unlimited = (has_no_limit && credits.enabled == Some(true)).then_some(true);
    credits.disabled_reason = reason(fields);
    Ok(non_empty(credits))
}

/// Why spending is disabled. The text is only displayed, so an invalid one does not make the credits unreadable.
fn reason(fields: &Object<'_>) -> Option<String> {
    text(fields.get("disabled_reason")).ok().map(Into::into)
}

fn non_empty(credits: Credits) -> Option<Credits> {
    (credits != Credits::default()).then_some(credits)
}

fn object<'a, 'b>(value: &'a Value<'b>) -> Result<Option<&'a Object<'b>>, Unreadable> {
    match value {
        Value::Null => Ok(None),
        Value::Object(fields) => Ok(Some(fields)),
        _ => Err(Unreadable),
    }
}

/// Parses an amount with its currency.
fn money(value: Option<&Value<'_>>) -> Result<Option<Money>, Unreadable> {
    let Some(fields) = value.map_or(Ok(None), object)? else { return Ok(None) };
    let Some(minor_units) = minor_units(fields.get("amount_minor"))? else { return Ok(None) };
    let currency = text(fields.get("currency")).into_result()?.unwrap_or_default();
    Ok(Some(Money::new(minor_units, currency, exponent(fields.get("exponent"))?)))
}

/// Parses whole minor units; fractions of a cent are rounded.
fn minor_units(value: Option<&Value<'_>>) -> Result<Option<i64>, Unreadable> {
    /// The largest integer that a JSON number can represent exactly.
    const MAX_EXACT: f64 = 9_007_199_254_740_991.0;
    match number(value).into_result()? {
        None => Ok(None),
        Some(amount) if amount.abs() > MAX_EXACT => Err(Unreadable),
        Some(amount) => Ok(Some(amount.round() as i64)),
    }
}

/// Parses the number of decimal digits of the minor unit (default: 2).
fn exponent(value: Option<&Value<'_>>) -> Result<u8, Unreadable> {
    match number(value).into_result()? {
        None => Ok(2),
        Some(digits) if (0.0..=18.0).contains(&digits) && digits.fract() == 0.0 => Ok(digits as u8),
        Some(_) => Err(Unreadable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read_all(body: Value) -> (Field<Credits>, ReportBuilder) {
        let mut report = ReportBuilder::default();
        (read(&body.as_object().unwrap().into(), &mut report), report)
    }

    fn credits_of(body: Value) -> Credits {
        read_all(body).0.into_result().unwrap().unwrap()
    }

    fn euros(minor: i64) -> Option<Money> {
        Some(Money::new(minor, "EUR", 2))
    }

    fn amount(minor: i64) -> Value {
        json!({ "amount_minor": minor, "currency": "EUR", "exponent": 2 })
    }

    #[test]
    fn spend_is_parsed_with_all_amounts() {
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
    fn a_limit_of_null_is_none_and_a_missing_one_is_unknown() {
        let unlimited = |extra| credits_of(json!({ "extra_usage": extra })).unlimited;

        assert_eq!(
            unlimited(json!({ "is_enabled": true, "monthly_limit": null, "used_credits": 5 })),
            Some(true)
        );
        assert_eq!(unlimited(json!({ "is_enabled": true, "used_credits": 5 })), None);
        assert_eq!(unlimited(json!({ "is_enabled": false, "monthly_limit": null })), None);
        assert_eq!(unlimited(json!({ "is_enabled": true, "monthly_limit": 100 })), None);
        let beside = |spend| {
            credits_of(
                json!({ "spend": spend, "extra_usage": { "is_enabled": true, "monthly_limit": null } }),
            )
            .unlimited
        };
        assert_eq!(beside(json!({ "used": amount(1), "limit": null, "enabled": true })), Some(true));
        assert_eq!(beside(json!({ "used": amount(1), "limit": amount(5), "enabled": true })), None);
    }

    #[test]
    fn cap_replaces_a_missing_limit() {
        let credits = credits_of(
            json!({ "spend": { "limit": null, "cap": { "money": amount(4000), "credits": null } } }),
        );

        assert_eq!(credits.limit, euros(4000));
    }

    #[test]
    fn extra_usage_is_in_minor_units() {
        let credits = credits_of(json!({ "extra_usage": {
            "is_enabled": true, "monthly_limit": 2000, "used_credits": 763.0, "utilization": 38.15, "currency": "EUR"
        }}));

        assert_eq!((credits.used, credits.limit, credits.enabled), (euros(763), euros(2000), Some(true)));
    }

    #[test]
    fn credits_without_monthly_limit_have_no_limit() {
        let credits = credits_of(json!({ "extra_usage": { "used_credits": "5086", "monthly_limit": null } }));

        assert_eq!((credits.used, credits.limit), (Some(Money::new(5086, "", 2)), None));
    }

    #[test]
    fn decimal_places_is_the_exponent() {
        let credits = credits_of(
            json!({ "extra_usage": { "used_credits": 300, "currency": "JPY", "decimal_places": 0 } }),
        );

        assert_eq!(credits.used, Some(Money::new(300, "JPY", 0)));
    }

    #[test]
    fn spend_has_precedence_over_extra_usage() {
        let credits =
            credits_of(json!({ "spend": { "used": amount(1) }, "extra_usage": { "used_credits": 2 } }));

        assert_eq!(credits.used, euros(1));
    }

    #[test]
    fn an_empty_spend_falls_back_to_extra_usage() {
        for spend in [json!(null), json!({}), json!({ "used": null, "percent": 0 })] {
            let credits = credits_of(json!({ "spend": spend, "extra_usage": { "is_enabled": false } }));

            assert_eq!(credits.enabled, Some(false));
        }
    }

    #[test]
    fn an_unreadable_spend_falls_back_to_extra_usage_and_is_listed() {
        let body =
            json!({ "spend": { "used": { "amount_minor": "many" } }, "extra_usage": { "used_credits": 2 } });

        let (credits, report) = read_all(body);

        assert!(matches!(credits, Field::Present(_)));
        assert_eq!(report.skipped[0].field, "spend");
    }

    #[test]
    fn unreadable_money_is_not_absent() {
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
    fn a_response_without_money_has_no_credits() {
        assert_eq!(read_all(json!({ "spend": null, "extra_usage": {} })).0, Field::Absent);
    }
}
