use proptest::prelude::*;
use quota_core::model::Coverage;
use serde_json::{Value, json};

use super::*;

fn window(of: Value) -> WindowShape {
    serde_json::from_value(of).unwrap()
}

fn shape(windows: Value) -> UsageShape {
    let windows: Vec<WindowShape> = serde_json::from_value(windows).unwrap();
    let shape = UsageShape { windows, ..UsageShape::default() };
    shape.validate().unwrap();
    shape
}

fn parse(shape: &UsageShape, body: &Value) -> Parsed {
    shape.parse(body.to_string().as_bytes(), "2026-07-01T12:00:00Z".parse().unwrap()).unwrap()
}

/// The name, the use and the reset of each window.
fn windows(parsed: &Parsed) -> Vec<(String, f64, Option<String>)> {
    let one =
        |one: &WindowReading| (one.id.to_string(), one.used.as_f64(), one.resets_at.map(|at| at.to_string()));
    parsed.usage.windows.iter().map(one).collect()
}

#[test]
fn each_unit_is_that_of_the_shape_and_not_of_the_value() {
    let body = json!({ "used": 0.5, "rest": 0.25, "limit": 4 });
    let used = |of: Value| windows(&parse(&shape(json!([of])), &body))[0].1;

    assert_eq!(used(json!({ "id": "w", "used": "$.used" })), 0.5);
    assert_eq!(used(json!({ "id": "w", "used": "$.used", "unit": "fraction" })), 50.0);
    assert_eq!(used(json!({ "id": "w", "used": "$.used", "unit": "amount", "limit": "$.limit" })), 12.5);
    assert_eq!(used(json!({ "id": "w", "remaining": "$.rest" })), 99.75);
    assert_eq!(used(json!({ "id": "w", "remaining": "$.rest", "unit": "fraction" })), 75.0);
    assert_eq!(
        used(json!({ "id": "w", "remaining": "$.rest", "unit": "amount", "limit": "$.limit" })),
        93.75
    );
}

#[test]
fn rows_are_named_by_their_length() {
    let shape = shape(json!([{
        "rows": "$.limits[?@.kind == 'plan']", "length": "$.window", "used": "$.used", "resets_at": "$.reset",
    }]));
    let body = json!({ "limits": [
        { "kind": "plan", "window": "5h", "used": "12.5", "reset": 1_782_907_200 },
        { "kind": "plan", "window": "7d", "used": 150, "reset": "2026-07-03T00:00:00" },
        { "kind": "plan", "window": 3600, "used": 1 },
        { "kind": "other", "window": "5h", "used": 99 },
    ] });

    let expected = [
        ("60_minutes", 1.0, None),
        ("five_hour", 12.5, Some("2026-07-01T12:00:00Z")),
        ("seven_day", 150.0, Some("2026-07-03T00:00:00Z")),
    ];
    let expected = expected.map(|(id, used, reset)| (id.to_owned(), used, reset.map(str::to_owned)));
    assert_eq!(windows(&parse(&shape, &body)), expected);
}

#[test]
fn a_delay_is_added_to_the_time_of_the_response() {
    let shape =
        shape(json!([{ "id": "w", "used": "$.u", "resets_in": "$.ms", "resets_in_unit": "milliseconds" }]));

    let parsed = parse(&shape, &json!({ "u": 1, "ms": 60_000 }));

    assert_eq!(windows(&parsed)[0].2.as_deref(), Some("2026-07-01T12:01:00Z"));
}

#[test]
fn a_model_and_a_surface_have_windows_of_their_own() {
    let shape = shape(json!([
        { "id": "seven_day", "used": "$.all" },
        { "rows": "$.models[*]", "id": "seven_day", "used": "$.used", "model": "$.name" },
        { "id": "seven_day", "used": "$.code", "surface": "code review" },
    ]));
    let parsed = parse(&shape, &json!({ "all": 1, "code": 3, "models": [{ "name": "Opus", "used": 2 }] }));

    let ids: Vec<_> = windows(&parsed).into_iter().map(|one| (one.0, one.1)).collect();
    let expected = [("seven_day", 1.0), ("seven_day/opus", 2.0), ("seven_day_code_review", 3.0)];
    assert_eq!(ids, expected.map(|(id, used)| (id.to_owned(), used)));
}

#[test]
fn a_path_that_finds_nothing_makes_its_window_unknown() {
    let shape = shape(json!([{ "id": "five_hour", "used": "$.a" }, { "id": "seven_day", "used": "$.b" }]));
    let parsed = parse(&shape, &json!({ "b": 2 }));

    assert_eq!(windows(&parsed).len(), 1);
    let except = vec![WindowId::five_hour()];
    assert_eq!(parsed.usage.coverage, Coverage::Complete { except, credits: true });
    assert_eq!(parsed.skipped[0].field, "windows[0]");
}

#[test]
fn several_values_for_one_number_are_unknown() {
    let shape = shape(json!([{ "id": "w", "used": "$.rows[*]" }]));

    assert!(windows(&parse(&shape, &json!({ "rows": [1, 2] }))).is_empty());
}

#[test]
fn an_unlimited_window_has_no_use() {
    let shape = shape(json!([{ "id": "w", "used": "$.used", "unlimited": "$.unlimited" }]));
    let parsed = parse(&shape, &json!({ "used": 7, "unlimited": true }));

    assert!(parsed.usage.windows[0].is_unlimited);
}

#[test]
fn credits_are_exact_amounts_in_their_currency() {
    let of = |credits: Value, body: Value| {
        let credits = Some(serde_json::from_value(credits).unwrap());
        parse(&UsageShape { credits, ..UsageShape::default() }, &body).usage.credits
    };
    let cents =
        of(json!({ "used": "$.cents", "currency": "EUR", "minor_digits": 2 }), json!({ "cents": 1234 }));
    let major =
        of(json!({ "balance": "$.sum", "currency": "$.unit" }), json!({ "sum": "0.10", "unit": "USD" }));

    assert_eq!(cents.unwrap().used.unwrap().to_string(), "12.34 EUR");
    assert_eq!(major.unwrap().balance.unwrap().to_string(), "0.10 USD");
    assert_eq!(of(json!({ "balance": "$.sum" }), json!({ "sum": [] })), None);
}

#[test]
fn a_value_at_the_error_path_is_an_error() {
    let mut shape = shape(json!([{ "id": "w", "used": "$.used" }]));
    shape.error = Some("$.error".parse().unwrap());
    let is_error = |body: Value| shape.parse(body.to_string().as_bytes(), Timestamp::UNIX_EPOCH).is_err();

    assert!(is_error(json!({ "used": 1, "error": { "code": 1 } })));
    assert!(!is_error(json!({ "used": 1, "error": null })));
}

#[test]
fn an_entry_that_can_never_be_read_is_rejected() {
    for (of, key) in [
        (json!({ "id": "w" }), "used"),
        (json!({ "id": "w", "used": "$.a", "remaining": "$.b" }), "remaining"),
        (json!({ "id": "w", "used": "$.a", "unit": "amount" }), "limit"),
        (json!({ "id": "w", "used": "$.a", "limit": "$.b" }), "limit"),
        (json!({ "used": "$.a" }), "id"),
        (json!({ "id": "", "used": "$.a" }), "id"),
    ] {
        let shape = UsageShape { windows: vec![window(of)], ..UsageShape::default() };
        assert_eq!(shape.validate().unwrap_err().key, format!("windows[0].{key}"));
    }
    assert_eq!(UsageShape::default().validate().unwrap_err().key, "windows");
}

#[test]
fn a_length_in_words_is_read() {
    let read = |text: &str| parse_length(text).map(|length| length.as_secs());

    assert_eq!([read("5h"), read("7d"), read("1w"), read("90m")], [18_000, 604_800, 604_800, 5400].map(Some));
    assert_eq!([read(""), read("0h"), read("-5h"), read("weekly"), read("5")], [None; 5]);
}

fn any_json() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[0-9a-z$]{0,6}".prop_map(Value::from),
    ];
    scalar.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec(("(rows|used|limit|name|length|reset)", inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

#[test]
fn the_places_of_rows_are_few_and_short() {
    let rows: Path = "$..limits[*]".parse().unwrap();
    let key = "ü".repeat(1_000);
    let body = |count: usize| json!({ &key: { "limits": vec![0; count] } });
    let (few, many) = (body(2), body(3));

    let found = rows.located(&few, 2).unwrap();

    assert!(found.iter().all(|(place, _)| place.chars().count() == 129), "{found:?}");
    assert!(rows.located(&many, 2).is_none());
}

proptest! {
    #[test]
    fn no_text_of_a_path_panics(text in "\\$[$@.\\[\\]()?*!=<>&|'\"a-z0-9, :-]{0,64}", body in any_json()) {
        if let Ok(path) = text.parse::<Path>() {
            let _ = path.located(&body, 1_000);
        }
    }

    #[test]
    fn a_row_is_at_most_one_window_and_keeps_a_good_one(rows in prop::collection::vec(any_json(), 0..6)) {
        let shape = shape(json!([
            { "rows": "$.rows[*]", "id": "$.name", "length": "$.length", "used": "$.used", "limit": "$.limit",
              "unit": "amount", "resets_at": "$.reset", "model": "$.name" },
            { "id": "good", "used": "$.good" },
        ]));
        let body = json!({ "rows": rows, "good": 12.5 });

        let parsed = parse(&shape, &body);

        prop_assert!(parsed.usage.windows.len() <= rows.len() + 1);
        let good = parsed.usage.windows.iter().find(|one| one.id.as_str() == "good");
        prop_assert_eq!(good.map(|one| one.used.basis_points()), Some(1250));
    }
}
