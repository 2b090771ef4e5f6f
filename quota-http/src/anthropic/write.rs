//! Writes responses of Anthropic's usage endpoint from the readings of an account. `usage` parses them.

use jiff::Timestamp;
use quota_core::WindowId;
use quota_core::model::{Credits, Money, Window};
use serde_json::{Map, Value, json};

use super::usage::{ROOT_FIELDS, is_window};
use super::windows::{WindowDef, add_named};
use super::{limits, money};
use crate::lenient::Field;
use crate::report::ReportBuilder;
use crate::usage_endpoint::{EndpointFailure, KnownUsage, is_current};
use crate::window_length::scoped_id;

/// Windows that the provider always lists. They are null if the account does not have them.
const ALWAYS: [&str; 4] = ["five_hour", "seven_day", "seven_day_opus", "seven_day_sonnet"];
/// Rows of `limits` are rounded to whole percent.
const ROW_ROUNDING: u32 = 50;

/// The body of a successful response.
pub(super) fn usage(known: &KnownUsage<'_>) -> Map<String, Value> {
    let last = known.last_fields();
    let mut root: Map<_, _> = ALWAYS.iter().map(|name| ((*name).to_owned(), Value::Null)).collect();
    for (name, value) in last.into_iter().flatten() {
        let is_understood =
            matches!(&**name, "limits" | "spend" | "extra_usage") || is_window(name, &value.into());
        root.insert(name.clone(), if is_understood { Value::Null } else { value.clone() });
    }
    let limits = rows(known);
    for window in &known.windows {
        let Some(name) = field_of(window.id()) else { continue };
        let last_value = last.and_then(|last| last.get(&name)).filter(|value| !value.is_null());
        // The provider lists some windows only in `limits`.
        if last_value.is_some() || last.is_none_or(|last| !has_row(last, window.id())) {
            root.insert(name.clone(), window_object(&name, last_value, window));
        }
    }
    // If the provider sends no `limits`, no client expects them.
    let is_listed = last.is_none_or(|last| last.contains_key("limits"));
    if is_listed || limits.iter().any(|(id, _)| field_of(id).is_none()) {
        root.insert("limits".to_owned(), limits.into_iter().map(|(_, row)| row).collect());
    }
    for (name, value) in money(known) {
        root.insert(name.to_owned(), value);
    }
    root
}

/// The body of an error response.
pub(super) fn failure(failure: &EndpointFailure<'_>) -> Value {
    let kind = match failure.status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        400..500 => "invalid_request_error",
        _ => "api_error",
    };
    json!({ "type": "error", "error": { "type": kind, "message": failure.message } })
}

/// The root field of a window, if it can be one.
fn field_of(id: &WindowId) -> Option<String> {
    let name = id.as_str().replace('/', "_");
    WindowDef::parse(&name).filter(|named| named.id == *id).map(|_| name)
}

fn window_object(name: &str, last: Option<&Value>, window: &Window) -> Value {
    let mut report = ReportBuilder::default();
    if let Some(last) = last {
        add_named(&mut report, name, &last.into(), &ROOT_FIELDS, "");
        if report.windows.values().any(|reading| is_current(reading, window, 0)) {
            return last.clone();
        }
    }
    json!({ "utilization": window.used().as_f64(), "resets_at": window.resets_at().map(time) })
}

/// The rows of `limits`, each with its window: those of the last response in their order, then the others.
fn rows(known: &KnownUsage<'_>) -> Vec<(WindowId, Value)> {
    let last = known.last_fields().and_then(|last| last.get("limits")?.as_array());
    let mut rows = Vec::new();
    for row in last.into_iter().flatten() {
        let (id, reading) = limits::read_row(&row.into());
        let Some(window) = id.as_ref().and_then(|id| known.window(id)) else { continue };
        let row = match reading.filter(|reading| is_current(reading, window, ROW_ROUNDING)) {
            Some(_) => row.clone(),
            None => changed_row(row, window),
        };
        rows.push((window.id().clone(), row));
    }
    let listed: Vec<_> = rows.iter().map(|(id, _)| id.clone()).collect();
    let others = known.windows.iter().filter(|window| !listed.contains(window.id()));
    rows.extend(others.filter_map(|window| Some((window.id().clone(), new_row(window)?))));
    rows
}

fn has_row(last: &Map<String, Value>, id: &WindowId) -> bool {
    let rows = last.get("limits").and_then(Value::as_array).into_iter().flatten();
    rows.map(|row| limits::read_row(&row.into())).any(|(named, _)| named.as_ref() == Some(id))
}

/// A row with a different reading. Fields that depend on the usage, such as `severity`, are omitted.
fn changed_row(row: &Value, window: &Window) -> Value {
    let kept = ["kind", "group", "scope"].into_iter().filter_map(|name| Some((name, row.get(name)?)));
    let mut changed: Map<_, _> = kept.map(|(name, value)| (name.to_owned(), value.clone())).collect();
    changed.extend(reading(window));
    Value::Object(changed)
}

/// The row of a window that the last response does not list; `None` for a window that has only a root field.
fn new_row(window: &Window) -> Option<Value> {
    let (kind, group) = match window.id() {
        id if *id == WindowId::five_hour() => ("session", "session"),
        id if *id == WindowId::seven_day() => ("weekly_all", "weekly"),
        _ => ("weekly_scoped", "weekly"),
    };
    let scope = match (kind, window.scope()) {
        ("weekly_scoped", Some(scope)) => {
            scoped_id(&WindowId::seven_day(), scope).ok().filter(|id| id == window.id())?;
            let model = scope.model.as_deref().map(|name| json!({ "id": null, "display_name": name }));
            json!({ "model": model, "surface": scope.surface })
        }
        ("weekly_scoped", None) => return None,
        _ => Value::Null,
    };
    let mut row = Map::from_iter([("scope".to_owned(), scope)]);
    row.extend([("kind".to_owned(), kind.into()), ("group".to_owned(), group.into())]);
    row.extend(reading(window));
    Some(Value::Object(row))
}

fn reading(window: &Window) -> [(String, Value); 2] {
    [
        ("percent".to_owned(), window.used().as_f64().into()),
        ("resets_at".to_owned(), window.resets_at().map(time).into()),
    ]
}

/// `spend` and `extra_usage`: copied from the last response if the credits are still the same, otherwise written from
/// the credits.
fn money(known: &KnownUsage<'_>) -> [(&'static str, Value); 2] {
    let last = known.last_fields();
    let unchanged = last.filter(|last| {
        let read = money::read(&(*last).into(), &mut ReportBuilder::default());
        matches!((read, known.credits), (Field::Present(read), Some(credits)) if read == *credits)
    });
    let field = |name: &str, write: fn(&Credits) -> Value| match unchanged {
        Some(last) => last.get(name).cloned().unwrap_or_default(),
        None => known.credits.map_or(Value::Null, write),
    };
    [("spend", field("spend", spend)), ("extra_usage", field("extra_usage", extra_usage))]
}

fn spend(credits: &Credits) -> Value {
    let money = |money: &Option<Money>| {
        money.as_ref().map(|money| {
            json!({ "amount_minor": money.minor, "currency": money.currency, "exponent": money.exponent })
        })
    };
    json!({
        "used": money(&credits.used),
        "limit": money(&credits.limit),
        "percent": share(credits),
        "enabled": credits.enabled,
        "balance": money(&credits.balance),
        "disabled_reason": credits.disabled_reason,
    })
}

fn extra_usage(credits: &Credits) -> Value {
    let unit = credits.used.as_ref().or(credits.limit.as_ref());
    let mut written = json!({
        "is_enabled": credits.enabled,
        "used_credits": credits.used.as_ref().map(|used| used.minor),
        "utilization": share(credits),
        "currency": unit.map(|unit| &unit.currency),
        "decimal_places": unit.map(|unit| unit.exponent),
        "disabled_reason": credits.disabled_reason,
    });
    // Null means that there is no limit, so an unknown limit is omitted.
    if credits.limit.is_some() || credits.unlimited == Some(true) || credits.enabled != Some(true) {
        written["monthly_limit"] = json!(credits.limit.as_ref().map(|limit| limit.minor));
    }
    written
}

/// The used share of the limit, in percent.
fn share(credits: &Credits) -> Option<f64> {
    let (used, limit) = (credits.used.as_ref()?, credits.limit.as_ref()?);
    let is_comparable = limit.minor > 0 && limit.exponent == used.exponent && limit.currency == used.currency;
    is_comparable.then(|| used.minor as f64 / limit.minor as f64 * 100.0)
}

/// A time as the provider writes it. Some clients accept no `Z`.
fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string()
}

#[cfg(test)]
mod tests;
