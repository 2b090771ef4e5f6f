//! Writes responses of the Codex usage endpoint from the readings of an account. `usage` parses them.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use quota_core::model::{Credits, Money, Scope, Window};
use quota_core::{Percent, WindowReading};
use serde_json::{Map, Value, json};

use super::money;
use super::usage::{FIELDS, INDIVIDUAL, Limit};
use crate::lenient::{Field, text};
use crate::report::ReportBuilder;
use crate::usage_endpoint::{EndpointFailure, KnownUsage, is_current, whole_percent};

/// The fields for windows, shortest window first.
const SLOTS: [&str; 3] = ["primary_window", "secondary_window", "tertiary_window"];
/// The provider rounds to whole percent.
const ROUNDING: u32 = 50;

/// The body of a successful response.
pub(super) fn usage(known: &KnownUsage<'_>) -> Map<String, Value> {
    let mut root = known.last_fields().cloned().unwrap_or_default();
    let writer = Writer::new(known);
    root.insert("plan_type".to_owned(), known.plan.into());
    root.insert("rate_limit".to_owned(), writer.limit(writer.last("rate_limit"), None));
    let review = Scope::surface("code_review");
    let review = writer.limit(writer.last("code_review_rate_limit"), Some(&review));
    root.insert("code_review_rate_limit".to_owned(), review);
    root.insert("additional_rate_limits".to_owned(), writer.models());
    let (credits, control) = writer.money();
    root.insert("credits".to_owned(), credits);
    root.insert("spend_control".to_owned(), control);
    root
}

/// The body of an error response.
pub(super) fn failure(failure: &EndpointFailure<'_>) -> Value {
    let kind = match failure.status {
        401 => "invalid_credentials",
        429 => "rate_limit_exceeded",
        400..500 => "invalid_request_error",
        _ => "server_error",
    };
    json!({
        "error": { "type": kind, "code": kind, "message": failure.message, "param": null },
        "status": failure.status,
    })
}

struct Writer<'a> {
    known: &'a KnownUsage<'a>,
    /// The window of the limit that a workspace sets for one user.
    individual: Option<&'a Window>,
    /// Whether the amounts of the last response are still current.
    is_money_current: bool,
}

impl<'a> Writer<'a> {
    fn new(known: &'a KnownUsage<'a>) -> Self {
        let individual = known.windows.iter().copied().find(|window| window.id().as_str() == INDIVIDUAL);
        let read = known.last_fields().map(|last| money::read(&last.into(), &mut ReportBuilder::default()));
        let is_money_current = individual.is_none()
            && matches!((read, known.credits), (Some(Field::Present(read)), Some(credits)) if read == *credits);
        Self { known, individual, is_money_current }
    }

    /// A field of the last response that is not null.
    fn last(&self, name: &str) -> Option<&Value> {
        self.known.last_fields()?.get(name).filter(|value| !value.is_null())
    }

    /// The object with the windows of `scope`; null if there are none and the provider sent none.
    fn limit(&self, last: Option<&Value>, scope: Option<&Scope>) -> Value {
        let is_own = |window: &&&Window| window.scope() == scope && window.id().as_str() != INDIVIDUAL;
        let mut windows: Vec<&Window> = self.known.windows.iter().filter(is_own).copied().collect();
        windows.sort_by_key(|window| window.length().unwrap_or(Duration::MAX));
        if windows.is_empty() && last.is_none() {
            return Value::Null;
        }
        let is_reached = windows.iter().any(|window| window.used() >= Percent::FULL);
        let mut fields = last.and_then(Value::as_object).cloned().unwrap_or_default();
        if !self.is_money_current {
            fields.remove(INDIVIDUAL);
        }
        let mut is_unchanged = true;
        for (name, value) in &mut fields {
            let is_window = name.ends_with("_window") || value.get("used_percent").is_some();
            if name == INDIVIDUAL || !is_window {
                continue;
            }
            let Some(reading) = self.read(name, value, scope) else {
                *value = Value::Null;
                continue;
            };
            let at = windows.iter().position(|window| *window.id() == reading.id);
            let window = at.map(|at| windows.remove(at));
            is_unchanged &= window.is_some_and(|window| is_current(&reading, window, ROUNDING));
            *value = window.map_or(Value::Null, |window| self.window(Some((value, &reading)), window));
        }
        is_unchanged &= windows.is_empty();
        for window in windows {
            let free = SLOTS.iter().find(|name| fields.get(**name).is_none_or(Value::is_null));
            let own = SLOTS.iter().find(|name| **name == window.id().as_str());
            if let Some(name) = own.or(free) {
                fields.insert((*name).to_owned(), self.window(None, window));
            }
        }
        for name in &SLOTS[..2] {
            fields.entry(*name).or_insert(Value::Null);
        }
        if !is_unchanged || !fields.contains_key("allowed") {
            fields.insert("allowed".to_owned(), (!is_reached).into());
            fields.insert("limit_reached".to_owned(), is_reached.into());
        }
        Value::Object(fields)
    }

    /// The reading of a window in the last response, if the field is a window.
    fn read(&self, name: &str, value: &Value, scope: Option<&Scope>) -> Option<WindowReading> {
        let now = self.known.last_response.map_or(self.known.now, |response| response.received_at());
        let limit = Limit { path: String::new(), scope: scope.cloned(), now, fields: &FIELDS };
        let mut report = ReportBuilder::default();
        let only = Map::from_iter([(name.to_owned(), value.clone())]);
        limit.read(Some(&(&Value::Object(only)).into()), &mut report);
        report.windows.into_values().next()
    }

    /// One window. The seconds until its reset are counted from now.
    fn window(&self, last: Option<(&Value, &WindowReading)>, window: &Window) -> Value {
        let current = last.filter(|(_, reading)| is_current(reading, window, ROUNDING));
        let mut fields = match current.and_then(|(value, _)| value.as_object()) {
            Some(fields) => fields.clone(),
            None => Map::from_iter([
                ("used_percent".to_owned(), whole_percent(window.used()).into()),
                ("limit_window_seconds".to_owned(), window.length().map(|length| length.as_secs()).into()),
                ("reset_at".to_owned(), window.resets_at().map(Timestamp::as_second).into()),
            ]),
        };
        fields.insert("reset_after_seconds".to_owned(), window.resets_at().map(|at| self.until(at)).into());
        Value::Object(fields)
    }

    fn until(&self, at: Timestamp) -> i64 {
        at.duration_since(self.known.now).as_secs().max(0)
    }

    /// The limits of single models: those of the last response in their order, then the others.
    fn models(&self) -> Value {
        let mut windows: BTreeMap<&str, &Scope> = BTreeMap::new();
        for scope in self.known.windows.iter().filter_map(|window| window.scope()) {
            windows.extend(scope.model.as_deref().map(|model| (model, scope)));
        }
        let mut rows = Vec::new();
        for row in self.last("additional_rate_limits").and_then(Value::as_array).into_iter().flatten() {
            let name = text(row.get("limit_name")).ok().or_else(|| text(row.get("metered_feature")).ok());
            let Some(scope) = name.and_then(|name| windows.remove(name)) else { continue };
            let mut row = row.clone();
            row["rate_limit"] = self.limit(row.get("rate_limit"), Some(scope));
            rows.push(row);
        }
        for (name, scope) in windows {
            rows.push(json!({ "limit_name": name, "rate_limit": self.limit(None, Some(scope)) }));
        }
        if rows.is_empty() { Value::Null } else { Value::Array(rows) }
    }

    /// `credits` and `spend_control`: copied from the last response if they are still the same, otherwise written from
    /// the credits.
    fn money(&self) -> (Value, Value) {
        if self.is_money_current {
            let field = |name| self.last(name).cloned().unwrap_or_default();
            return (field("credits"), field("spend_control"));
        }
        let Some(credits) = self.known.credits else { return (Value::Null, Value::Null) };
        let amount = |money: &Option<Money>| money.as_ref().map(decimal);
        let balance = json!({
            "has_credits": credits.enabled,
            "unlimited": credits.unlimited,
            "balance": amount(&credits.balance),
        });
        if credits.used.is_none() && credits.limit.is_none() {
            return (balance, Value::Null);
        }
        let limit = json!({
            "used": amount(&credits.used),
            "limit": amount(&credits.limit),
            "used_percent": self.individual.map(|window| whole_percent(window.used())),
            "reset_at": self.individual.and_then(Window::resets_at).map(Timestamp::as_second),
        });
        (balance, json!({ "reached": is_spent(credits), "individual_limit": limit }))
    }
}

fn is_spent(credits: &Credits) -> bool {
    let amounts = credits.used.as_ref().zip(credits.limit.as_ref());
    amounts.is_some_and(|(used, limit)| used.exponent == limit.exponent && used.minor >= limit.minor)
}

/// An amount as the provider writes it, without its unit.
fn decimal(money: &Money) -> String {
    let text = money.to_string();
    text.rsplit_once(' ').map_or(text.clone(), |(amount, _)| amount.to_owned())
}

#[cfg(test)]
mod tests;
