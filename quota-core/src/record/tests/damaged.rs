//! Stored documents that are damaged, unsorted or implausible. They are parsed or rejected, and cause no panic. Documents of
//! newer programs are in `stored`.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::random::{World, ops};
use super::support::*;
use crate::model::WindowId;
use crate::record::{Counted, Record};

#[test]
fn a_document_that_is_not_a_record_is_rejected() {
    let damaged = [
        "",
        "{",
        "null",
        "[]",
        "{}",
        "{\"format\":\"1\"}",
        "{\"format\":2,\"hold\":7}",
        "{\"format\":3,\"fence\":-1}",
        "[9]",
    ];

    for body in damaged {
        assert!(Record::decode(body.as_bytes()).is_err(), "{body}");
    }
}

#[test]
fn a_truncated_record_is_rejected() {
    let body = full().encode();

    for end in 0..body.len() {
        assert!(Record::decode(&body[..end]).is_err(), "{end} bytes");
    }
}

#[test]
fn unsorted_windows_are_sorted_on_decode() {
    let mut document = document(&full());
    document["snapshot"]["windows"].as_array_mut().unwrap().reverse();

    assert_eq!(decode(&document), full());
}

#[test]
fn the_newer_reading_of_a_duplicate_window_wins() {
    let mut document = document(&polled(at(0), [five_hour(10)]));
    let mut older = document["snapshot"]["windows"][0].clone();
    older["at_ms"] = json!(at(-60).as_millisecond());
    older["used_bp"] = json!(9900);
    document["snapshot"]["windows"].as_array_mut().unwrap().push(older);

    let record = decode(&document);

    assert_eq!(record.snapshot().windows().len(), 1);
    assert_eq!(used(&record, &WindowId::five_hour()), Some(percent(10)));
}

proptest! {
    #[test]
    fn random_bytes_are_rejected(body in vec(any::<u8>(), 0..200)) {
        prop_assert!(Record::decode(&body).is_err());
    }

    #[test]
    fn a_record_from_damaged_bytes_survives_a_round_trip(
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut body = full().encode().to_vec();
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }

        if let Ok(record) = Record::decode(&body) {
            prop_assert_eq!(Record::decode(&record.encode()).unwrap(), record);
        }
    }

    #[test]
    fn rules_accept_a_record_with_implausible_values(
        changes in vec((any::<prop::sample::Index>(), implausible()), 1..6),
        ops in ops(),
        years in -9000_i64..7000,
    ) {
        let mut document = document(&full());
        for (which, value) in changes {
            replace(&mut document, which, value);
        }
        let Ok(record) = Record::decode(document.to_string().as_bytes()) else { return Ok(()) };
        let then = at(0) + jiff::SignedDuration::from_hours(years * 24 * 365);
        let mut world = World::new(record, then, policy());

        for op in &ops {
            let _ = world.apply(op);
            let _ = world.record.due_at(FRESH, Counted::Account, &policy());
            prop_assert_eq!(&Record::decode(&world.record.encode()).unwrap(), &world.record);
        }
    }
}

fn implausible() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!(null),
        json!(0),
        json!(-1),
        json!(i64::MIN),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(1e300),
        json!(""),
        json!("\u{0}"),
        json!([]),
        json!({}),
        json!([[]]),
        json!(true),
    ])
}

/// Replaces one of the values in `document` with `value`.
fn replace(document: &mut Value, which: prop::sample::Index, value: Value) {
    let mut paths = Vec::new();
    collect(document, "", &mut paths);
    let place = &paths[which.index(paths.len())];
    *document.pointer_mut(place).expect("it was just found") = value;
}

fn collect(value: &Value, path: &str, paths: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                collect(field, &format!("{path}/{}", name.replace('/', "~1")), paths);
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                collect(item, &format!("{path}/{at}"), paths);
            }
        }
        _ => {}
    }
    paths.push(path.to_owned());
}

#[test]
fn an_unreadable_record_of_a_higher_format_is_newer_not_damaged() {
    let record = Record::decode(br#"{"format":9,"fence":"text","snapshot":[1]}"#).unwrap();

    assert!(!record.is_writable());
}
