//! The rules for parsers, for every provider: properties of small payloads and of random changes to them.

#![cfg(test)]

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;
use quota_core::model::Coverage;
use quota_core::{UsageReport, WindowId, WindowReading};
use quota_http::shape::UsageShape;
use quota_http::{PROVIDERS, ParseError, Parsed, window_of_length};
use serde_json::{Map, Value, json};

type Parse = Box<dyn Fn(&[u8]) -> Result<Parsed, ParseError>>;

/// A parser, and a payload with readable windows, or a balance.
struct Case {
    name: &'static str,
    parse: Parse,
    payload: Value,
}

const PAYLOADS: [(&str, &str); 14] = [
    ("anthropic", include_str!("payloads/anthropic.json")),
    ("antigravity", include_str!("payloads/antigravity.json")),
    ("copilot", include_str!("payloads/copilot.json")),
    ("cursor", include_str!("payloads/cursor.json")),
    ("deepseek", include_str!("payloads/deepseek.json")),
    ("defined", include_str!("payloads/defined.json")),
    ("gemini", include_str!("payloads/gemini.json")),
    ("kimi", include_str!("payloads/kimi.json")),
    ("litellm", include_str!("payloads/litellm.json")),
    ("minimax", include_str!("payloads/minimax.json")),
    ("openai", include_str!("payloads/openai.json")),
    ("openrouter", include_str!("payloads/openrouter.json")),
    ("xai", include_str!("payloads/xai.json")),
    ("zai", include_str!("payloads/zai.json")),
];

fn now() -> Timestamp {
    "2026-07-01T12:00:00Z".parse().unwrap()
}

fn payload(name: &str) -> Value {
    let (_, text) =
        PAYLOADS.into_iter().find(|(known, _)| *known == name).expect("each provider has a payload");
    serde_json::from_str(text).unwrap()
}

/// The shape of a provider that a configuration defines.
fn defined() -> UsageShape {
    let mut shape = UsageShape::default();
    shape.windows = serde_json::from_value(json!([
        { "rows": "$.limits[*]", "length": "$.window", "used": "$.used", "limit": "$.limit", "unit": "amount",
          "resets_at": "$.reset_at" },
        { "id": "seven_day", "model": "Heron", "remaining": "$.models.heron.left_percent",
          "resets_in": "$.models.heron.seconds_to_reset" },
    ]))
    .unwrap();
    shape.credits = Some(
        serde_json::from_value(
            json!({ "balance": "$.balance.cents", "currency": "$.balance.currency", "minor_digits": 2 }),
        )
        .unwrap(),
    );
    shape.plan = Some("$.plan.name".parse().unwrap());
    shape
}

fn cases() -> Vec<Case> {
    let known = PROVIDERS.iter().map(|provider| Case {
        name: provider.id_str(),
        parse: Box::new(|body| provider.parse(body, now())),
        payload: payload(provider.id_str()),
    });
    let shape = defined();
    let parse = Box::new(move |body: &[u8]| shape.parse(body, now()));
    known.chain([Case { name: "defined", parse, payload: payload("defined") }]).collect()
}

impl Case {
    fn read(&self, document: &Value) -> Result<Parsed, ParseError> {
        (self.parse)(document.to_string().as_bytes())
    }

    /// The windows of a document; none if it is an error.
    fn windows(&self, document: &Value) -> BTreeMap<WindowId, Reading> {
        self.read(document).map(|parsed| readings(&parsed.usage)).unwrap_or_default()
    }
}

/// The used share in basis points, whether there is no limit, and the reset in seconds.
type Reading = (u32, bool, Option<i64>);

fn readings(usage: &UsageReport) -> BTreeMap<WindowId, Reading> {
    let read = usage.windows.iter();
    read.map(|one| {
        let reset = one.resets_at.map(Timestamp::as_second);
        (one.id.clone(), (one.used.basis_points(), one.is_unlimited, reset))
    })
    .collect()
}

/// The pointers to all values below the root.
fn pointers(document: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![(String::new(), document)];
    while let Some((at, value)) = open.pop() {
        match value {
            Value::Array(rows) => {
                open.extend(rows.iter().enumerate().map(|(row, value)| (format!("{at}/{row}"), value)));
            }
            Value::Object(fields) => {
                let escape = |name: &str| name.replace('~', "~0").replace('/', "~1");
                open.extend(fields.iter().map(|(name, value)| (format!("{at}/{}", escape(name)), value)));
            }
            _ => {}
        }
        if !at.is_empty() {
            found.push(at);
        }
    }
    found
}

fn with(document: &Value, at: &str, value: Value) -> Value {
    let mut changed = document.clone();
    *changed.pointer_mut(at).unwrap() = value;
    changed
}

fn without(document: &Value, at: &str) -> Value {
    let mut changed = document.clone();
    let (parent, name) = at.rsplit_once('/').unwrap();
    match changed.pointer_mut(parent).unwrap() {
        Value::Array(rows) => {
            rows.remove(name.parse().unwrap());
        }
        Value::Object(fields) => {
            fields.remove(&name.replace("~1", "/").replace("~0", "~"));
        }
        _ => unreachable!("a value has a parent"),
    }
    changed
}

/// The numbers of a document, also those in texts.
fn numbers(document: &Value) -> Vec<f64> {
    let of = |value: &Value| match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    pointers(document).iter().filter_map(|at| of(document.pointer(at)?)).collect()
}

/// How many values can be a usage: numbers, and `true` for a window without a limit or for an exhausted one.
fn possible_usages(document: &Value) -> usize {
    let all = pointers(document);
    let is_true = all.iter().filter(|at| document.pointer(at) == Some(&Value::Bool(true))).count();
    // A budget of null has no limit.
    let nulls = all.iter().filter(|at| document.pointer(at) == Some(&Value::Null)).count();
    numbers(document).len() + is_true + nulls
}

/// Whether the share is one that the numbers state: a percentage or fraction, used or remaining, or an amount of a limit.
fn is_stated(basis_points: u32, numbers: &[f64]) -> bool {
    let is = |percent: f64| (percent * 100.0 - f64::from(basis_points)).abs() <= 1.0;
    // A share of readable amounts ends at the highest usage.
    let is_share = |part: f64, limit: f64| limit > 0.0 && is((part / limit * 100.0).min(1_000.0));
    numbers.iter().any(|a| {
        is(*a) || is(100.0 - a) || is(a * 100.0) || is((1.0 - a) * 100.0)
            // Nothing is left of a limit of zero.
            || *a == 0.0 && is(100.0)
            || numbers.iter().any(|limit| is_share(*a, *limit) || is_share(limit - a, *limit))
    })
}

fn junk() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-50.0..200.0).prop_map(Value::from),
        prop::sample::select(vec![
            "",
            " ",
            "NaN",
            "1e308",
            "-0.1",
            "42",
            "bad",
            "2026-07-01T12:00:00",
            "\u{1b}[2J",
            "5h",
            "$",
        ])
        .prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[a-z]{200}".prop_map(Value::from),
    ];
    scalar.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..4)
                .prop_map(|fields| Value::Object(Map::from_iter(fields))),
        ]
    })
}

/// A change of a payload at one of its places.
#[derive(Debug, Clone)]
enum Change {
    Replace(Value),
    Remove,
    Copy,
    Insert(String, Value),
}

fn change() -> impl Strategy<Value = (prop::sample::Index, Change)> {
    let change = prop_oneof![
        4 => junk().prop_map(Change::Replace),
        2 => Just(Change::Remove),
        1 => Just(Change::Copy),
        1 => (any::<String>(), junk()).prop_map(|(name, value)| Change::Insert(name, value)),
    ];
    (any::<prop::sample::Index>(), change)
}

fn apply(document: &mut Value, at: prop::sample::Index, change: &Change) {
    let all = pointers(document);
    if all.is_empty() {
        return;
    }
    let at = at.get(&all);
    match change {
        Change::Replace(value) => *document = with(document, at, value.clone()),
        Change::Remove => *document = without(document, at),
        Change::Copy => {
            let value = document.pointer(at).unwrap().clone();
            if let Some(rows) = document.pointer_mut(at.rsplit_once('/').unwrap().0).unwrap().as_array_mut() {
                rows.push(value);
            }
        }
        Change::Insert(name, value) => match document.pointer_mut(at).unwrap() {
            Value::Object(fields) => {
                fields.insert(name.clone(), value.clone());
            }
            Value::Array(rows) => rows.push(value.clone()),
            _ => {}
        },
    }
}

#[test]
fn each_payload_has_usage() {
    for case in cases() {
        let usage = case.read(&case.payload).unwrap().usage;

        assert!(!usage.windows.is_empty() || usage.credits.is_some(), "{}", case.name);
        assert_eq!(case.read(&case.payload).unwrap().skipped, [], "{}", case.name);
    }
}

#[test]
fn a_number_may_be_a_text() {
    for case in cases() {
        let expected = case.windows(&case.payload);
        for at in pointers(&case.payload) {
            let Value::Number(number) = case.payload.pointer(&at).unwrap() else { continue };
            let changed = with(&case.payload, &at, Value::from(number.to_string()));

            assert_eq!(case.windows(&changed), expected, "{} {at}", case.name);
        }
    }
}

#[test]
fn a_missing_or_unreadable_value_is_never_a_usage() {
    for case in cases() {
        let expected = case.windows(&case.payload);
        for at in pointers(&case.payload) {
            let changes = [json!(null), json!("bad"), json!([]), json!({}), json!(false)];
            let changed = changes.map(|value| with(&case.payload, &at, value));
            for changed in changed.into_iter().chain([without(&case.payload, &at)]) {
                for (id, (used, unlimited, _)) in case.windows(&changed) {
                    let known = expected.get(&id).map(|(used, ..)| *used);
                    let is_other = known.is_none() && is_stated(used, &numbers(&changed));
                    assert!(
                        known == Some(used) || unlimited || is_other,
                        "{} {at} {id} {used} {changed}",
                        case.name
                    );
                }
            }
        }
    }
}

#[test]
fn a_unix_time_is_in_seconds_or_milliseconds() {
    for case in cases() {
        let expected = case.windows(&case.payload);
        for at in pointers(&case.payload) {
            let value = case.payload.pointer(&at).unwrap();
            let number = value.as_i64().or_else(|| value.as_str()?.parse().ok());
            let other = match number {
                Some(seconds @ 1_000_000_000..1_000_000_000_000) => seconds * 1000,
                Some(ms @ 1_000_000_000_000..) => ms / 1000,
                _ => continue,
            };

            assert_eq!(case.windows(&with(&case.payload, &at, json!(other))), expected, "{} {at}", case.name);
        }
    }
}

#[test]
fn a_date_may_have_any_precision_and_no_offset() {
    for case in cases() {
        let expected = case.windows(&case.payload);
        for at in pointers(&case.payload) {
            let Some(date) = case.payload.pointer(&at).and_then(Value::as_str) else { continue };
            let Some(whole) = date.parse::<Timestamp>().ok().map(Timestamp::as_second) else { continue };
            let second = Timestamp::from_second(whole).unwrap().to_string();
            let plain = second.trim_end_matches('Z');
            let fractions = (0..=9).map(|digits| match digits {
                0 => plain.to_owned(),
                digits => format!("{plain}.{}", &"123456789"[..digits]),
            });
            let with_offsets = fractions
                .flat_map(|time| ["", "Z", "+00:00", "-00:00"].map(|offset| format!("{time}{offset}")));
            // The same instant by the clocks of other places.
            let elsewhere = [("+05:30", 19_800), ("-08:00", -28_800)].map(|(offset, seconds)| {
                let local = Timestamp::from_second(whole + seconds).unwrap().to_string();
                local.replace('Z', offset)
            });
            for other in with_offsets.chain(elsewhere).chain([plain.replace('T', " ")]) {
                let changed = with(&case.payload, &at, json!(other));

                assert_eq!(case.windows(&changed), expected, "{} {at} {other}", case.name);
            }
        }
    }
}

/// The used shares of the windows that change if the number at this place is `value`.
fn changed_by(case: &Case, at: &str, value: f64) -> BTreeMap<WindowId, u32> {
    let before = case.windows(&case.payload);
    let after = case.windows(&with(&case.payload, at, json!(value)));
    let changed =
        after.into_iter().filter(|(id, (used, ..))| before.get(id).is_some_and(|known| known.0 != *used));
    changed.map(|(id, (used, ..))| (id, used)).collect()
}

/// How much the usage of each window grows from one value at this place to another, in basis points per unit.
fn growth(case: &Case, at: &str, values: [f64; 2]) -> BTreeMap<WindowId, f64> {
    let [low, high] = values.map(|value| changed_by(case, at, value));
    let both = low.into_iter().filter_map(|(id, low)| Some((high.get(&id).copied()?, low, id)));
    // A negative use is zero.
    let both = both.filter(|(high, low, _)| *high > 0 && *low > 0);
    both.map(|(high, low, id)| (id, (f64::from(high) - f64::from(low)) / (values[1] - values[0]))).collect()
}

#[test]
fn the_place_decides_between_percent_and_fraction() {
    for case in cases() {
        for at in pointers(&case.payload) {
            if numbers(&json!([case.payload.pointer(&at)])).is_empty() {
                continue;
            }
            let large = growth(&case, &at, [40.0, 60.0]);
            for (id, small) in growth(&case, &at, [0.25, 0.75]) {
                // Limits are divisors, so their growth is no constant.
                let is_amount = ["limit", "max_budget", "total_count"].iter().any(|name| at.ends_with(name));
                let differs = large.get(&id).is_some_and(|large| (small - large).abs() > 2.5);
                assert!(is_amount || !differs, "{} {at}", case.name);
            }
        }
    }
}

#[test]
fn a_usage_above_100_percent_stays() {
    for case in cases() {
        for (id, (_, unlimited, _)) in case.windows(&case.payload) {
            let can_exceed = pointers(&case.payload).iter().any(|at| {
                [150.0, -50.0, 1.5, -0.5, 300.0, 1200.0]
                    .iter()
                    .any(|value| changed_by(&case, at, *value).get(&id).is_some_and(|used| *used > 10_000))
            });

            assert!(unlimited || can_exceed, "{} {id}", case.name);
        }
    }
}

/// Whether the name of a window is that of its length. A name without a length says nothing about it.
fn is_named_by_length(window: &WindowReading) -> bool {
    const USUAL: [&str; 3] = ["five_hour", "seven_day", "monthly"];
    let is_about = |name: &str| {
        // As in the name: the part before the model or the surface.
        window
            .id
            .as_str()
            .strip_prefix(name)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['_', '/']))
    };
    let Some(length) = window.length else { return true };
    match window_of_length(length) {
        Some(name) if USUAL.contains(&name.as_str()) => is_about(name.as_str()),
        // The last interval of a day of MiniMax has four hours.
        _ if length == Duration::from_secs(4 * 3600) => true,
        _ => !USUAL.iter().any(|name| is_about(name)),
    }
}

/// The fields that only differ by their position: `primary…` and `secondary…`.
fn with_swapped_slots(document: &mut Value) {
    match document {
        Value::Array(rows) => {
            rows.reverse();
            rows.iter_mut().for_each(with_swapped_slots);
        }
        Value::Object(fields) => {
            fields.values_mut().for_each(with_swapped_slots);
            let slots = ["primary_window", "secondary_window"];
            let [first, second] = slots.map(|slot| fields.remove(slot));
            let swapped = slots.into_iter().zip([second, first]);
            fields.extend(swapped.filter_map(|(slot, value)| Some((slot.to_owned(), value?))));
        }
        _ => {}
    }
}

#[test]
fn the_position_of_a_window_does_not_name_it() {
    for case in cases() {
        let mut swapped = case.payload.clone();
        with_swapped_slots(&mut swapped);

        assert_eq!(case.windows(&swapped), case.windows(&case.payload), "{}", case.name);
    }
}

#[test]
fn another_length_is_another_window() {
    for case in cases() {
        for at in pointers(&case.payload) {
            let named = ["limit_window_seconds", "duration", "number", "window"];
            let is_length = named.iter().any(|name| at.ends_with(&format!("/{name}")));
            // A week remains a week in days.
            let value = case.payload.pointer(&at).unwrap();
            let (Some(number), true) = (value.as_i64(), is_length) else { continue };
            let before = case.windows(&case.payload);
            let after = case.windows(&with(&case.payload, &at, json!(number * 3)));

            assert_eq!(after.len(), before.len(), "{} {at}", case.name);
            assert_eq!(after.keys().filter(|id| !before.contains_key(*id)).count(), 1, "{} {at}", case.name);
        }
    }
}

/// The objects with a window, of which a provider may add others: removing one removes a window.
fn window_objects(case: &Case) -> Vec<String> {
    let before = case.windows(&case.payload);
    let is_window = |at: &String| {
        let value = case.payload.pointer(at).unwrap();
        let names = value.as_object().map(Map::len).unwrap_or_default();
        let after = case.windows(&without(&case.payload, at));
        names > 0 && after.len() + 1 == before.len() && !after.is_empty()
    };
    let mut found: Vec<_> = pointers(&case.payload).into_iter().filter(is_window).collect();
    // Not the parts of a window.
    let all = found.clone();
    found.retain(|at| !all.iter().any(|other| at.starts_with(&format!("{other}/"))));
    found
}

#[test]
fn an_unknown_window_is_listed_or_read_beside_the_known_ones() {
    // The paths of a configured shape select what is read, and everything else is of no interest.
    for case in cases().into_iter().filter(|case| case.name != "defined") {
        let before = case.windows(&case.payload);
        for at in window_objects(&case) {
            let copy = case.payload.pointer(&at).unwrap().clone();
            let mut document = case.payload.clone();
            match document.pointer_mut(at.rsplit_once('/').unwrap().0).unwrap() {
                Value::Object(fields) => {
                    fields.insert("made_up_window".to_owned(), copy);
                }
                // A row of an unknown kind.
                Value::Array(rows) => {
                    rows.push(json!({ "kind": "made_up", "type": "made_up", "made_up": copy }))
                }
                _ => unreachable!("a value has a parent"),
            }
            let parsed = case.read(&document).unwrap();
            let after = readings(&parsed.usage);

            // Without the copy nothing is skipped.
            assert!(!parsed.skipped.is_empty() || after.len() > before.len(), "{} {at}", case.name);
            for (id, window) in &before {
                assert_eq!(after.get(id), Some(window), "{} {at} {id}", case.name);
            }
        }
    }
}

#[test]
fn deep_nesting_is_rejected() {
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
    for case in cases() {
        for nested in [deep("[", "]"), deep("{\"a\":", "}"), deep("[{\"limits\":", "}]")] {
            assert!((case.parse)(nested.as_bytes()).is_err(), "{}", case.name);
            for at in pointers(&case.payload) {
                let body =
                    with(&case.payload, &at, json!("n33dle")).to_string().replace("\"n33dle\"", &nested);

                assert!(
                    matches!((case.parse)(body.as_bytes()), Err(ParseError::NotJson { .. })),
                    "{} {at}",
                    case.name
                );
            }
        }
    }
}

#[test]
fn the_memory_for_a_response_of_one_mebibyte_is_bounded() {
    const MIB: usize = 1024 * 1024;
    for case in cases() {
        let places = pointers(&case.payload);
        let first_row = places.iter().find(|at| at.ends_with("/0"));
        let mut bodies = Vec::new();
        if let Some(at) = first_row {
            // As many rows as fit.
            let row = case.payload.pointer(at).unwrap().to_string();
            let body = case.payload.to_string();
            let rows = format!("{row},").repeat((MIB - body.len()) / (row.len() + 1));
            bodies.push(body.replacen(&row, &format!("{rows}{row}"), 1));
        }
        let fields: String = (0..50_000).map(|at| format!("\"name{at}\":{{}},")).collect();
        bodies.push(case.payload.to_string().replacen('{', &format!("{{{fields}"), 1));
        for body in bodies {
            assert!(body.len() <= MIB + 1, "{}", body.len());
            let memory = allocation_counter::measure(|| {
                let _ = (case.parse)(body.as_bytes());
            });
            assert!(
                memory.bytes_max <= 96 * MIB as u64,
                "{}: {} MiB",
                case.name,
                memory.bytes_max / MIB as u64
            );
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in any::<Vec<u8>>()) {
        for case in cases() {
            let _ = (case.parse)(&bytes);
        }
    }

    #[test]
    fn a_changed_payload_has_no_invented_usage(changes in prop::collection::vec(change(), 1..5)) {
        for case in cases() {
            let mut document = case.payload.clone();
            for (at, change) in &changes {
                apply(&mut document, *at, change);
            }
            let Ok(parsed) = case.read(&document) else { continue };

            prop_assert!(parsed.usage.windows.len() <= possible_usages(&document), "{} {document}", case.name);
            for window in &parsed.usage.windows {
                prop_assert!(is_named_by_length(window), "{} {window:?} {document}", case.name);
            }
            let numbers = numbers(&document);
            for window in parsed.usage.windows.iter().filter(|window| !window.is_unlimited) {
                let used = window.used.basis_points();
                prop_assert!(is_stated(used, &numbers), "{} {} {used} {document}", case.name, window.id);
            }
        }
    }

    #[test]
    fn a_malformed_value_keeps_the_windows_that_do_not_need_it(at in any::<prop::sample::Index>(), junk in junk()) {
        for case in cases() {
            let all = pointers(&case.payload);
            let at = at.get(&all);
            let expected = case.windows(&case.payload);
            let needless = case.windows(&without(&case.payload, at));
            if needless.is_empty() || !needless.iter().all(|(id, window)| expected.get(id) == Some(window)) {
                continue;
            }
            let is_scalar = !case.payload.pointer(at).is_some_and(|value| value.is_object() || value.is_array());
            let is_flag = matches!(case.payload.pointer(at), Some(Value::Bool(_) | Value::Null));
            if is_scalar && (junk.is_string() || junk.is_number() || is_flag && junk.is_boolean()) {
                // It could be a valid name, amount or flag.
                continue;
            }
            let parsed = match case.read(&with(&case.payload, at, junk.clone())) {
                Err(ParseError::ErrorResponse { .. } | ParseError::Unauthorized | ParseError::RateLimited) => continue,
                parsed => parsed,
            };
            let usage = parsed.map(|parsed| parsed.usage);
            let kept = usage.as_ref().map(readings).unwrap_or_default();
            let lost = needless.iter().filter(|(id, (used, ..))| kept.get(*id).is_none_or(|(kept, ..)| kept < used));
            let lost: Vec<_> = lost.map(|(id, _)| id).collect();
            // A malformed value inside a window may make that window unknown, although it could be read without the value.
            let is_known_to_be_lost = match usage.map(|usage| usage.coverage) {
                Ok(Coverage::Complete { except, .. }) => is_scalar && lost.iter().all(|id| except.contains(id)),
                Ok(_) => is_scalar && lost.len() == 1,
                Err(_) => false,
            };

            prop_assert!(lost.is_empty() || is_known_to_be_lost, "{} {at} {lost:?} {junk}", case.name);
        }
    }
}
