//! Parses the credits of a Codex account: its balance, and the limit that a workspace sets for one user.

use crate::json::{Object, Value};
use quota_core::model::Credits;

use crate::lenient::{Decimal, Field, Unreadable, decimal, flag, parse_decimal};
use crate::report::ReportBuilder;

/// The unit of the amounts. The provider states no currency.
const UNIT: &str = "credits";
/// Amounts have up to 14 decimal digits. All digits after the second are noise.
const DIGITS: u8 = 2;

/// Parses the credits. If one amount is unreadable, the cached credits are kept.
pub(super) fn read(root: &Object<'_>, report: &mut ReportBuilder) -> Field<Credits> {
    let individual = [
        root.get("spend_control").and_then(|control| control.get("individual_limit")),
        root.get("rate_limit").and_then(|limit| limit.get("individual_limit")),
    ];
    let individual = individual.into_iter().flatten().find(|limit| !limit.is_null());
    let parts =
        [("credits", root.get("credits"), balance as Part), ("individual_limit", individual, spending)];
    let mut credits = Credits::default();
    for (field, value, part) in parts {
        match value.filter(|value| !value.is_null()).map_or(Ok(Credits::default()), part) {
            Ok(part) => credits = credits.or(part),
            Err(Unreadable) => {
                report.skip(field, "its amounts are invalid");
                return Field::Unreadable;
            }
        }
    }
    if credits == Credits::default() { Field::Absent } else { Field::Present(credits) }
}

type Part = fn(&Value<'_>) -> Result<Credits, Unreadable>;

fn balance(credits: &Value<'_>) -> Result<Credits, Unreadable> {
    let fields = credits.as_object().ok_or(Unreadable)?;
    let mut credits = Credits::default();
    credits.enabled = flag(fields.get("has_credits")).into_result()?;
    credits.unlimited = flag(fields.get("unlimited")).into_result()?;
    credits.balance = amount(fields.get("balance"))?;
    Ok(credits)
}

fn spending(limit: &Value<'_>) -> Result<Credits, Unreadable> {
    let fields = limit.as_object().ok_or(Unreadable)?;
    let mut credits = Credits::default();
    credits.used = amount(fields.get("used"))?;
    credits.limit = amount(fields.get("limit"))?;
    Ok(credits)
}

/// The credits that the headers of a response report. An unreadable part is missing, because headers cover only what they report.
pub(super) fn of_headers(
    has_credits: Option<&str>,
    unlimited: Option<&str>,
    balance: Option<&str>,
) -> Option<Credits> {
    let flag = |text: Option<&str>| text?.to_ascii_lowercase().parse().ok();
    let mut credits = Credits::default();
    credits.enabled = flag(has_credits);
    credits.unlimited = flag(unlimited);
    credits.balance = balance.and_then(parse_decimal).map(|amount| amount.rounded(DIGITS).money(UNIT));
    Some(credits).filter(|credits| *credits != Credits::default())
}

fn amount(value: Option<&Value<'_>>) -> Result<Option<quota_core::model::Money>, Unreadable> {
    let amount = decimal(value).into_result()?;
    Ok(amount.map(|amount: Decimal| amount.rounded(DIGITS).money(UNIT)))
}
