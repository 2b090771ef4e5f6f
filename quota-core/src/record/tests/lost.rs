//! Lost writes of a store: how a process detects them, and what it restores. How a standalone process rejoins is in
//! `readings`.

use super::support::*;
use crate::model::UsageReport;
use crate::provider::FetchError;
use crate::record::{CommitOutcome, MergeOutcome, Record};

/// The next stored form of a record.
fn stored_next(record: &mut Record) -> Record {
    record.bump_revision();
    stored(record)
}

#[test]
fn an_earlier_state_has_lost_the_later_one() {
    let mut record = polled(at(0), [five_hour(10)]);
    let before = stored_next(&mut record);
    let _ = merge_headers(&mut record, at(60), [five_hour(20)]);
    let after = stored_next(&mut record);

    assert!(before.is_behind(&after));
    assert!(!after.is_behind(&before));
    assert!(!after.is_behind(&after));
}

#[test]
fn a_write_on_an_older_state_has_lost_the_previous_write() {
    let mut record = polled(at(0), [five_hour(10)]);
    let mut fork = stored_next(&mut record);
    let _ = merge_headers(&mut record, at(60), [five_hour(20)]);
    let lost = stored_next(&mut record);
    let _ = merge_headers(&mut fork, at(61), [seven_day(5)]);
    let stands = stored_next(&mut fork);

    assert!(stands.is_behind(&lost));
}

#[test]
fn a_record_that_was_never_stored_cannot_be_lost() {
    assert!(!Record::default().is_behind(&polled(at(0), [five_hour(10)])));
}

#[test]
fn a_restored_state_has_a_later_revision() {
    let mut record = polled(at(0), [five_hour(10)]);
    let mut stands = stored_next(&mut record);
    let _ = merge_headers(&mut record, at(60), [five_hour(20)]);
    let lost = stored_next(&mut record);

    let _ = stands.merge_standalone(at(70), &lost, None);
    let put_back = stored_next(&mut stands);

    assert!(!put_back.is_behind(&lost));
    assert_eq!(used(&put_back, &crate::WindowId::five_hour()), Some(percent(20)));
}

#[test]
fn a_restored_response_ends_the_hold_again() {
    let mut record = Record::default();
    let over = fail(&mut record, at(0), &FetchError::throttled(None)).unwrap().until;
    let lease = grant(&mut record, over);
    let mut stands = stored_next(&mut record);
    let committed = record.commit(over + SECOND, &lease, &UsageReport::polled([five_hour(10)]));
    assert_eq!(committed, CommitOutcome::Stored);
    let lost = stored_next(&mut record);

    let joined = stands.merge_standalone(over + SECOND * 2, &lost, None);

    assert_eq!((joined, stands.consecutive_failures(), stands.hold()), (MergeOutcome::Merged, 0, None));
}

#[test]
fn a_hold_that_a_later_response_ended_is_not_restored() {
    let mut lost = Record::default();
    fail(&mut lost, at(0), &FetchError::throttled(Some(HOUR)));
    let mut stands = polled(at(60), [five_hour(10)]);

    let _ = stands.merge_standalone(at(70), &lost, None);

    assert_eq!((stands.consecutive_failures(), stands.hold()), (0, None));
}

#[test]
fn a_record_of_a_newer_format_is_not_restored() {
    let newer = Record::decode(br#"{"format":4,"fence":7}"#).unwrap();
    let mut empty = Record::default();

    let joined = empty.merge_standalone(at(0), &newer, None);

    assert_eq!((joined, empty), (MergeOutcome::UnsupportedFormat, Record::default()));
}

#[test]
fn unknown_fields_are_restored() {
    let newer = Record::decode(br#"{"format":3,"fence":7,"later":1}"#).unwrap();
    let mut empty = Record::default();

    let _ = empty.merge_standalone(at(0), &newer, None);

    assert!(String::from_utf8_lossy(&empty.encode()).contains(r#""later":1"#));
}
