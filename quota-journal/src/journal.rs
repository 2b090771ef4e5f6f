//! The journal of an account as a document: the last observation, the events, and the history of usage. This module has the data
//! and its rules; `update` writes the document to a store.

use bytes::Bytes;
use jiff::Timestamp;
use quota_core::clock::is_from_future;
use quota_core::record::{Hold, Record};
use quota_core::store::format_of;
use serde::de::Error;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::diff::diff;
use crate::event::{EventKind, JournalEvent};
use crate::history::{History, Sample};
use crate::observation::Observation;

/// The format number. It must rise when a field changes the meaning of other fields.
const FORMAT: u32 = 3;
/// The maximum number of events: enough for more than a week if an account is refreshed every five minutes.
const MAX_EVENTS: usize = 2500;

/// The journal of an account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Journal {
    format: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_observation: Option<Observation>,
    /// The number of the next event.
    #[serde(default)]
    next_number: u64,
    /// The last events, oldest first. Their numbers have no gaps up to `next_number`.
    #[serde(default)]
    events: Vec<JournalEvent>,
    #[serde(default)]
    history: History,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            format: FORMAT,
            last_observation: None,
            next_number: 0,
            events: Vec::new(),
            history: History::default(),
            unknown: Map::new(),
        }
    }
}

impl Journal {
    /// Encodes the body of the stored document.
    pub(crate) fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("all keys are strings").into()
    }

    /// Decodes the body of a stored document.
    ///
    /// # Errors
    ///
    /// serde's error if the body is not a journal, or is in an older format. A newer format is never an error.
    pub(crate) fn decode(body: &[u8]) -> Result<Self, serde_json::Error> {
        match format_of(body) {
            // No release has written an older format.
            Some(format) if format < FORMAT => Err(Error::custom("it has an older format")),
            Some(format) if format > FORMAT => {
                Ok(serde_json::from_slice(body).unwrap_or_else(|_| Self { format, ..Self::default() }))
            }
            _ => serde_json::from_slice(body),
        }
    }

    /// Whether this program may change the journal. It must not change a journal in a newer format.
    pub(crate) fn is_writable(&self) -> bool {
        self.format <= FORMAT
    }

    /// Compares the record, and the active `hold`, with the last observation. Adds the new events and returns them.
    pub(crate) fn update(
        &mut self,
        record: &Record,
        hold: Option<&Hold>,
        now: Timestamp,
        thresholds: &[u32],
    ) -> Vec<JournalEvent> {
        self.repair_clock(now);
        let before = self.last_observation.as_ref();
        let (found, observed) = diff(before, Observation::new(record, hold, now), now, thresholds);
        // Two events with one id are the same event. Otherwise a clock that was set back would report an event twice.
        let mut new: Vec<JournalEvent> = Vec::new();
        for event in found {
            let id = event.id();
            let is_recorded = self.events.iter().rev().chain(&new).any(|recorded| recorded.id() == id);
            if !is_recorded {
                new.push(event);
            }
        }
        if new.iter().any(|event| event.kind == EventKind::LoginChanged) {
            self.history.clear();
        }
        for (id, window) in &observed.windows {
            let sample = Sample {
                at_s: window.at.as_second(),
                used_bp: window.used_bp,
                resets_s: window.resets_at.map(Timestamp::as_second),
            };
            let earlier = before.and_then(|before| before.windows.get(id));
            let is_new = earlier.is_none_or(|earlier| earlier.at != window.at);
            if is_new {
                self.history.add(id, sample);
            }
        }
        self.history.downsample(now);
        self.last_observation = Some(observed);
        self.next_number = self.next_number.saturating_add(new.len() as u64);
        self.events.extend(new.iter().cloned());
        let surplus = self.events.len().saturating_sub(MAX_EVENTS);
        self.events.drain(..surplus);
        new
    }

    /// Repairs timestamps from the future, which a wrong clock wrote (see [`is_from_future`]). Events keep theirs.
    ///
    /// Otherwise each failed call would begin a new series of failures, and `pace` would use a sample from the future.
    fn repair_clock(&mut self, now: Timestamp) {
        if let Some(observation) = &mut self.last_observation {
            observation.repair_clock(now);
        }
        self.history
            .retain(|sample| Timestamp::from_second(sample.at_s).is_ok_and(|at| !is_from_future(at, now)));
    }

    /// The stored events, oldest first, each with its number.
    pub fn events(&self) -> impl DoubleEndedIterator<Item = (u64, &JournalEvent)> {
        let first = self.next_number.saturating_sub(self.events.len() as u64);
        self.events.iter().enumerate().map(move |(index, event)| (first.saturating_add(index as u64), event))
    }

    /// The number of the next event.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// The usage of each window over time.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The next time at which an event can happen without a change to the record.
    #[must_use]
    pub fn next_change_at(&self) -> Option<Timestamp> {
        self.last_observation.as_ref()?.next_change_at()
    }
}

#[cfg(test)]
mod tests {
    use quota_core::model::RequestId;
    use quota_core::record::{LeaseDecision, LeaseRequest, MaxStaleness};
    use quota_core::{Percent, Policy, UsageReport, WindowId, WindowReading};

    use super::*;
    use crate::diff::DEFAULT_THRESHOLDS;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn read(record: &mut Record, second: i64, percent: f64) {
        let request = LeaseRequest::new(RequestId::from(0), MaxStaleness::NewCall);
        let LeaseDecision::Granted(lease) = record.begin(at(second), &request, &Policy::default()) else {
            panic!("the lease is free");
        };
        let used = Percent::from_percent(percent).expect("a valid percentage");
        let reading = WindowReading::new(WindowId::five_hour(), used).resets_at(at(18_000));
        let _ = record.commit(at(second), &lease, &UsageReport::polled([reading]));
    }

    /// A journal with two readings, and the record from which it was made.
    fn journal() -> (Journal, Record) {
        let (mut journal, mut record) = (Journal::default(), Record::default());
        journal.update(&record, None, at(0), &DEFAULT_THRESHOLDS);
        read(&mut record, 10, 40.0);
        journal.update(&record, None, at(11), &DEFAULT_THRESHOLDS);
        read(&mut record, 400, 60.0);
        journal.update(&record, None, at(401), &DEFAULT_THRESHOLDS);
        (journal, record)
    }

    #[test]
    fn a_second_update_finds_nothing_new() {
        let (mut journal, record) = journal();
        let before = journal.clone();

        assert!(journal.update(&record, None, at(402), &DEFAULT_THRESHOLDS).is_empty());
        assert_eq!(journal, before);
    }

    #[test]
    fn every_reading_becomes_one_sample() {
        let (journal, _) = journal();

        let used: Vec<_> =
            journal.history().samples("five_hour").iter().map(|sample| sample.used_bp).collect();
        assert_eq!(used, [4000, 6000]);
    }

    const DAY: i64 = 86_400;

    fn fail(record: &mut Record, second: i64) {
        let request = LeaseRequest::new(RequestId::from(0), MaxStaleness::NewCall);
        let LeaseDecision::Granted(lease) = record.begin(at(second), &request, &Policy::default()) else {
            panic!("the lease is free");
        };
        let error = quota_core::FetchError::unavailable("down");
        let _ = record.fail(at(second), &lease, &error, &Policy::default());
    }

    /// Updates the journal just after `second`, and returns the kinds of the new events.
    fn update(journal: &mut Journal, record: &Record, hold: Option<&Hold>, second: i64) -> Vec<&'static str> {
        let new = journal.update(record, hold, at(second + 1), &DEFAULT_THRESHOLDS);
        new.iter().map(|event| event.kind.as_str()).collect()
    }

    #[test]
    fn after_a_clock_was_ahead_each_event_is_reported_once() {
        let (mut journal, mut record) = journal();
        read(&mut record, DAY, 40.0);
        update(&mut journal, &record, None, DAY);

        let mut failing = Vec::new();
        for second in [1000, 2000, 3000] {
            fail(&mut record, second);
            failing.extend(update(&mut journal, &record, None, second));
        }
        read(&mut record, 4000, 60.0);
        let succeeded = update(&mut journal, &record, None, 4000);

        assert_eq!(failing, ["failing"]);
        assert_eq!(succeeded, ["refreshed", "threshold"]);
    }

    #[test]
    fn samples_of_a_clock_that_was_ahead_are_dropped() {
        let (mut journal, mut record) = journal();
        read(&mut record, DAY, 40.0);
        update(&mut journal, &record, None, DAY);

        read(&mut record, 4000, 70.0);
        update(&mut journal, &record, None, 4000);

        let used: Vec<_> =
            journal.history().samples("five_hour").iter().map(|sample| sample.used_bp).collect();
        assert_eq!(used, [4000, 6000, 7000]);
    }

    #[test]
    fn a_failure_from_the_future_does_not_hide_a_later_one() {
        let (mut journal, mut record) = journal();
        fail(&mut record, DAY);
        assert!(update(&mut journal, &record, None, DAY).contains(&"failing"));

        let (_, mut record) = self::journal();
        fail(&mut record, 1000);

        assert_eq!(update(&mut journal, &record, None, 1000), ["failing"]);
    }

    #[test]
    fn a_record_from_the_future_changes_nothing_until_its_repair() {
        let (mut journal, mut record) = journal();
        let before = journal.clone();
        read(&mut record, DAY, 95.0);

        assert_eq!(update(&mut journal, &record, None, 500), Vec::<&str>::new());
        assert_eq!(journal, before);
        read(&mut record, 4000, 60.0);
        assert_eq!(update(&mut journal, &record, None, 4000), ["refreshed"]);
    }

    #[test]
    fn a_threshold_is_not_crossed_again_after_a_reading_from_the_future() {
        let (mut journal, mut record) = journal();
        // A window without a reset.
        let observed = journal.last_observation.as_mut().unwrap();
        observed.windows.get_mut("five_hour").unwrap().resets_at = None;
        read(&mut record, DAY, 60.0);
        fail(&mut record, 1000);
        update(&mut journal, &record, None, 1000);

        read(&mut record, 4000, 60.0);

        assert_eq!(update(&mut journal, &record, None, 4000), ["refreshed"]);
    }

    #[test]
    fn a_use_lowered_after_a_reading_from_the_future_is_a_reset() {
        let (mut journal, mut record) = journal();
        read(&mut record, 1000, 60.0);
        update(&mut journal, &record, None, 1000);

        read(&mut record, 500, 10.0);

        assert_eq!(update(&mut journal, &record, None, 500), ["refreshed", "reset"]);
    }

    #[test]
    fn a_hold_from_the_future_continues_after_its_repair() {
        let (mut journal, mut record) = journal();
        fail(&mut record, DAY);
        let mut hold = record.hold().unwrap().clone();
        update(&mut journal, &record, Some(&hold), DAY);
        let (_, record) = self::journal();
        let length = hold.until.duration_since(hold.since);
        (hold.since, hold.until) = (at(1000), at(1000) + length);

        assert_eq!(update(&mut journal, &record, Some(&hold), 1000), Vec::<&str>::new());
        assert_eq!(update(&mut journal, &record, None, 1001), ["hold_ended"]);
    }

    #[test]
    fn a_clock_repair_changes_a_journal_once() {
        let (mut journal, mut record) = journal();
        read(&mut record, DAY, 40.0);
        update(&mut journal, &record, None, DAY);

        update(&mut journal, &record, None, 1000);
        let repaired = journal.clone();
        update(&mut journal, &record, None, 2000);

        assert_eq!(journal, repaired);
    }

    #[test]
    fn event_numbers_continue_when_the_oldest_events_are_dropped() {
        let (mut journal, mut record) = journal();
        let last = 400 + 3600 * i64::try_from(MAX_EVENTS).unwrap();
        for second in (4000..last).step_by(3600) {
            read(&mut record, second, 60.0);
            journal.update(&record, None, at(second), &DEFAULT_THRESHOLDS);
        }

        let numbers: Vec<_> = journal.events().map(|(number, _)| number).collect();
        assert_eq!(numbers.len(), MAX_EVENTS);
        assert_eq!(numbers.last(), Some(&(journal.next_number() - 1)));
        assert!(numbers[0] > 0);
    }

    #[test]
    fn a_journal_survives_encoding_and_decoding() {
        let (journal, _) = journal();

        assert_eq!(Journal::decode(&journal.encode()).unwrap(), journal);
    }

    #[test]
    fn the_stored_format_is_unchanged() {
        let (journal, _) = journal();
        let stored: Value = serde_json::from_slice(&journal.encode()).unwrap();

        insta::assert_json_snapshot!(stored);
    }

    #[test]
    fn unknown_fields_are_preserved_and_a_newer_format_is_read_only() {
        let journal = Journal::decode(br#"{"format":4,"color":"blue"}"#).unwrap();

        assert!(String::from_utf8_lossy(&journal.encode()).contains(r#""color":"blue""#));
        assert!(!journal.is_writable());
    }

    #[test]
    fn a_journal_of_an_older_format_is_an_error() {
        for older in [r#"{"format":1,"seen":{},"happenings":[]}"#, r#"{"format":2}"#] {
            assert!(Journal::decode(older.as_bytes()).is_err(), "{older}");
        }
    }

    #[test]
    fn an_update_preserves_the_unknown_fields_of_every_object() {
        let (journal, mut record) = journal();
        let mut stored: Value = serde_json::from_slice(&journal.encode()).unwrap();
        let newer = [
            "",
            "/last_observation",
            "/last_observation/windows/five_hour",
            "/events/0",
            "/events/2",
            "/history/five_hour",
        ];
        for pointer in newer {
            stored.pointer_mut(pointer).unwrap()["color"] = "blue".into();
        }
        let mut decoded = Journal::decode(stored.to_string().as_bytes()).unwrap();

        read(&mut record, 4000, 80.0);
        let new = decoded.update(&record, None, at(4001), &DEFAULT_THRESHOLDS);

        assert!(!new.is_empty());
        let stored: Value = serde_json::from_slice(&decoded.encode()).unwrap();
        for pointer in newer {
            assert_eq!(stored.pointer(pointer).unwrap()["color"], "blue", "{pointer}");
        }
    }

    #[test]
    fn unknown_fields_of_a_hold_and_a_failure_are_preserved() {
        let (mut journal, mut record) = journal();
        let request = LeaseRequest::new(RequestId::from(0), MaxStaleness::NewCall);
        let LeaseDecision::Granted(lease) = record.begin(at(800), &request, &Policy::default()) else {
            panic!("the lease is free");
        };
        let error = quota_core::FetchError::throttled(Some(std::time::Duration::from_secs(600)));
        let _ = record.fail(at(800), &lease, &error, &Policy::default());
        journal.update(&record, record.hold(), at(801), &DEFAULT_THRESHOLDS);
        let mut stored: Value = serde_json::from_slice(&journal.encode()).unwrap();
        for pointer in ["/last_observation/hold", "/last_observation/failure"] {
            stored.pointer_mut(pointer).unwrap()["color"] = "blue".into();
        }
        let mut decoded = Journal::decode(stored.to_string().as_bytes()).unwrap();

        decoded.update(&record, record.hold(), at(802), &DEFAULT_THRESHOLDS);

        let rewritten: Value = serde_json::from_slice(&decoded.encode()).unwrap();
        assert_eq!(rewritten, stored);
    }

    #[test]
    fn an_unknown_reason_is_preserved() {
        let stored = serde_json::json!({
            "format": 3,
            "next_number": 2,
            "events": [
                { "at_ms": 1_800_000_000_000_i64, "kind": "held", "until_ms": 1_800_000_060_000_i64, "reason": "asleep" },
                { "at_ms": 1_800_000_000_000_i64, "kind": "failing", "reason": "on_strike" },
            ],
        });

        let journal = Journal::decode(stored.to_string().as_bytes()).unwrap();

        let rewritten: Value = serde_json::from_slice(&journal.encode()).unwrap();
        assert_eq!(rewritten["events"], stored["events"]);
    }

    #[test]
    fn a_body_that_is_not_a_journal_is_an_error() {
        for damaged in ["", "null", "{}", "[1]", "[3]", r#"{"format":3,"events":7}"#] {
            assert!(Journal::decode(damaged.as_bytes()).is_err(), "{damaged}");
        }
    }
}
