//! The stored form of a record, and how it preserves fields of newer programs. Damage is in `damaged`. `tests/wire.rs` pins
//! the exact text.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::random::{World, ops};
use super::support::*;
use crate::model::{Source, UsageReport};
use crate::provider::FetchError;
use crate::record::{
    CommitOutcome, FailOutcome, HoldReason, LastFailureKind, LeaseDecision, MergeOutcome, Record, Seed,
};

/// The time after [`full`], when its last call is still running.
const NOW: i64 = 1300;

/// The objects whose keys are names. Their entries are not fields.
const MAPS: [&str; 3] = ["calls_ms", "exceptions", "peaks"];

/// Adds a field to every object, as a newer program might.
fn add_everywhere(value: &mut Value, name: &str) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                add_everywhere(field, name);
            }
            if !MAPS.contains(&name) {
                fields.insert("newer".into(), json!({ "colour": "blue" }));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| add_everywhere(item, "")),
        _ => {}
    }
}

/// The paths of such fields.
fn levels(record: &Record) -> BTreeSet<String> {
    fn walk(value: &Value, path: &str, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                if fields.contains_key("newer") {
                    found.insert(path.trim_start_matches('.').to_owned());
                }
                let known = fields.iter().filter(|(name, _)| *name != "newer");
                known.for_each(|(name, field)| walk(field, &format!("{path}.{name}"), found));
            }
            Value::Array(items) => items.iter().for_each(|item| {
                walk(item, &format!("{path}.{}", item["id"].as_str().unwrap_or_default()), found);
            }),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    walk(&document(record), "", &mut found);
    found
}

/// The record [`full`] as a newer program may have written it.
fn newer() -> Record {
    let mut document = document(&full());
    add_everywhere(&mut document, "");
    decode(&document)
}

/// The paths of unknown fields that `change` removes.
fn lost(change: impl FnOnce(&mut Record)) -> Vec<String> {
    let mut record = newer();
    change(&mut record);
    levels(&newer()).difference(&levels(&stored(&record))).cloned().collect()
}

#[test]
fn unknown_fields_survive_at_every_level() {
    let levels: Vec<_> = levels(&newer()).into_iter().collect();

    assert_eq!(
        levels,
        [
            "",
            "failed",
            "hold",
            "hold.calls",
            "last_failure",
            "lease",
            "snapshot",
            "snapshot.credits",
            "snapshot.credits.value",
            "snapshot.credits.value.used",
            "snapshot.plan",
            "snapshot.watermark",
            "snapshot.watermark.all",
            "snapshot.watermark.exceptions.$credits",
            "snapshot.watermark.exceptions.seven_day",
            "snapshot.windows.five_hour",
            "snapshot.windows.five_hour.peak",
            "snapshot.windows.seven_day",
            "snapshot.windows.seven_day/opus",
            "snapshot.windows.seven_day/opus.scope",
            "succeeded",
        ]
    );
}

#[test]
fn a_denied_request_loses_no_unknown_field() {
    assert_eq!(lost(|record| drop(begin(record, at(NOW), &request(99)))), [""; 0]);
}

#[test]
fn a_grant_loses_only_unknown_fields_of_the_old_lease() {
    assert_eq!(lost(|record| drop(begin(record, at(NOW + 600), &request(99)))), ["lease"]);
}

#[test]
fn headers_lose_only_unknown_fields_of_their_windows() {
    let replaced = lost(|record| {
        let _ = merge_headers(record, at(NOW), [five_hour(50)]);
    });

    assert_eq!(replaced, ["snapshot.windows.five_hour"]);
}

#[test]
fn an_older_seed_loses_no_unknown_field() {
    let old = Seed::new(headers(at(0), [five_hour(1)])).hold(rate_limited(at(0), at(60)));

    assert_eq!(lost(|record| assert_eq!(record.seed(at(NOW), &old), MergeOutcome::Merged)), [""; 0]);
}

#[test]
fn a_rejoining_process_loses_no_unknown_field() {
    let alone = full();

    assert_eq!(
        lost(|record| assert_eq!(record.merge_standalone(at(NOW), &alone, None), MergeOutcome::Merged)),
        [""; 0]
    );
}

#[test]
fn a_cancelled_call_loses_only_unknown_fields_of_its_lease() {
    assert_eq!(lost(|record| record.release(&record.lease().unwrap().clone())), ["lease"]);
}

#[test]
fn a_failed_call_loses_only_unknown_fields_that_it_replaces() {
    let replaced = lost(|record| {
        let lease = record.lease().unwrap().clone();
        let _ = record.fail(at(NOW), &lease, &FetchError::TimedOut, &policy());
    });

    assert_eq!(replaced, ["failed", "hold", "hold.calls", "last_failure", "lease"]);
}

#[test]
fn a_response_loses_only_unknown_fields_that_it_replaces() {
    let replaced = lost(|record| {
        let lease = record.lease().unwrap().clone();
        let _ = record.commit(at(NOW), &lease, &UsageReport::from_headers([five_hour(50)]));
    });

    assert_eq!(
        replaced,
        ["failed", "hold", "hold.calls", "last_failure", "lease", "snapshot.windows.five_hour", "succeeded"]
    );
}

#[test]
fn a_full_record_survives_a_round_trip() {
    let record = full();

    assert_eq!(stored(&record), record);
}

#[test]
fn a_document_with_only_a_format_is_an_empty_record() {
    assert_eq!(decode(&json!({ "format": 3 })), Record::default());
}

#[test]
fn unknown_words_survive_a_round_trip() {
    let mut document = document(&full());
    document["hold"]["reason"] = json!("eclipse");
    document["last_failure"]["kind"] = json!("comet");
    document["snapshot"]["windows"][0]["source"] = json!("telepathy");
    document["snapshot"]["plan"]["source"] = json!("oracle");

    let record = decode(&document);

    assert_eq!(record.hold().unwrap().reason, HoldReason::Other("eclipse".into()));
    assert_eq!(record.last_failure().unwrap().kind, LastFailureKind::Other("comet".into()));
    assert_eq!(record.snapshot().windows()[0].source(), Source::Other("telepathy".into()));
    assert_eq!(self::document(&record), document);
}

/// A record of the next format.
fn of_next_format(record: &Record) -> Record {
    let mut document = document(record);
    document["format"] = json!(4);
    decode(&document)
}

#[test]
fn a_record_of_a_higher_format_can_be_read() {
    let record = of_next_format(&full());

    assert!(!record.is_writable());
    assert_eq!(record.snapshot(), full().snapshot());
    assert_eq!(record.hold(), full().hold());
}

#[test]
fn fresh_readings_of_a_higher_format_are_used() {
    let mut record = of_next_format(&polled(at(0), [five_hour(10)]));

    assert_eq!(begin(&mut record, at(1), &request(1)), LeaseDecision::NotNeeded);
    assert_eq!(begin(&mut record, at(600), &request(1)), LeaseDecision::UnsupportedFormat);
}

#[test]
fn a_record_of_a_higher_format_is_not_fresh_for_another_login() {
    let mut polled = Record::default();
    poll(&mut polled, at(0), &UsageReport::polled([five_hour(10)]).login_id(login_id("a")));
    let mut record = of_next_format(&polled);

    let other = request(1).login(crate::model::LoginInfo::new(login_id("b")));

    assert_eq!(begin(&mut record, at(1), &other), LeaseDecision::UnsupportedFormat);
}

#[test]
fn a_record_of_a_higher_format_from_the_future_is_not_fresh() {
    let mut record = of_next_format(&polled(at(1_000_000), [five_hour(10)]));

    assert_eq!(begin(&mut record, at(0), &request(1)), LeaseDecision::UnsupportedFormat);
}

#[test]
fn a_record_of_a_higher_format_is_never_changed() {
    let mut record = of_next_format(&full());
    let lease = record.lease().unwrap().clone();
    let before = record.clone();
    let usage = UsageReport::polled([five_hour(10)]);

    assert_eq!(begin(&mut record, at(9999), &request(1)), LeaseDecision::UnsupportedFormat);
    assert_eq!(record.commit(at(NOW), &lease, &usage), CommitOutcome::TooLate);
    assert_eq!(record.fail(at(NOW), &lease, &FetchError::TimedOut, &policy()), FailOutcome::TooLate);
    assert_eq!(merge_headers(&mut record, at(NOW), [five_hour(10)]), MergeOutcome::UnsupportedFormat);
    assert_eq!(record.seed(at(NOW), &held(rate_limited(at(NOW), at(9999)))), MergeOutcome::UnsupportedFormat);
    assert_eq!(record.merge_standalone(at(NOW), &full(), None), MergeOutcome::UnsupportedFormat);
    record.release(&lease);
    assert!(!record.new_login(&login_id("b")));
    assert_eq!(record, before);
}

proptest! {
    #[test]
    fn no_operation_changes_a_record_of_a_higher_format(before in ops(), after in ops()) {
        let mut world = World::after(&before, at(0));
        world.record = of_next_format(&world.record);
        let read = world.record.clone();

        for op in &after {
            let _ = world.apply(op);
        }

        prop_assert_eq!(&world.record, &read);
        prop_assert_eq!(world.record.encode(), read.encode());
    }
}
