//! The journal of an account as a document: what was last seen, what happened, and what was used when.
//! Pure data and its rules; `journal` swaps it into a store.

use bytes::Bytes;
use jiff::Timestamp;
use quota_core::{Hold, Record};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::derive::derive;
use crate::happening::{Happening, What};
use crate::history::{History, Sample};
use crate::sight::Sight;

/// The format number. It rises when a field changes what others mean.
const FORMAT: u32 = 1;
/// So many happenings are kept: a week and more of an account that is asked every five minutes.
const MOST_HAPPENINGS: usize = 2500;

/// The journal of an account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Book {
    format: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seen: Option<Sight>,
    /// The number of the next happening.
    #[serde(default)]
    next: u64,
    /// The last happenings, oldest first, numbered without gaps up to `next`.
    #[serde(default)]
    happenings: Vec<Happening>,
    #[serde(default)]
    history: History,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl Default for Book {
    fn default() -> Self {
        Self {
            format: FORMAT,
            seen: None,
            next: 0,
            happenings: Vec::new(),
            history: History::default(),
            unknown: Map::new(),
        }
    }
}

impl Book {
    /// The journal as a store keeps it.
    pub(crate) fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("it has only text keys").into()
    }

    /// Reads what a store kept.
    ///
    /// # Errors
    ///
    /// That of serde if it is not a journal. One of a newer format is never damaged, only different.
    pub(crate) fn decode(body: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Envelope {
            format: u32,
        }
        serde_json::from_slice(body).or_else(|error| match serde_json::from_slice(body) {
            Ok(Envelope { format }) if format > FORMAT => Ok(Self { format, ..Self::default() }),
            _ => Err(error),
        })
    }

    /// Whether this program may change it; not if a newer one wrote it.
    pub(crate) fn is_writable(&self) -> bool {
        self.format <= FORMAT
    }

    /// Looks at the record and at the `hold` that is in force, and writes down what has happened to it; gives what is new.
    pub(crate) fn look(
        &mut self,
        record: &Record,
        hold: Option<&Hold>,
        now: Timestamp,
        thresholds: &[u32],
    ) -> Vec<Happening> {
        let (found, seen) = derive(self.seen.as_ref(), Sight::of(record, hold), now, thresholds);
        // Two names that are the same are one happening: a wavering clock must not tell it twice.
        let mut new: Vec<Happening> = Vec::new();
        for happening in found {
            let id = happening.id();
            let known = self.happenings.iter().rev().chain(&new).any(|known| known.id() == id);
            if !known {
                new.push(happening);
            }
        }
        if new.iter().any(|happening| happening.what == What::LoginChanged) {
            self.history.clear();
        }
        for (window, seen) in &seen.windows {
            let sample = Sample {
                at_s: seen.at.as_second(),
                used_bp: seen.used_bp,
                resets_s: seen.resets_at.map(Timestamp::as_second),
            };
            let is_new = self
                .seen
                .as_ref()
                .is_none_or(|before| before.windows.get(window).is_none_or(|before| before.at != seen.at));
            // What claims to be from after now comes from a wrong clock.
            if is_new && seen.at <= now {
                self.history.add(window, sample);
            }
        }
        self.history.thin(now);
        self.seen = Some(seen);
        self.next = self.next.saturating_add(new.len() as u64);
        self.happenings.extend(new.iter().cloned());
        let surplus = self.happenings.len().saturating_sub(MOST_HAPPENINGS);
        self.happenings.drain(..surplus);
        new
    }

    /// What happened, oldest first, each with its number.
    pub fn happenings(&self) -> impl DoubleEndedIterator<Item = (u64, &Happening)> {
        let first = self.next.saturating_sub(self.happenings.len() as u64);
        self.happenings
            .iter()
            .enumerate()
            .map(move |(at, happening)| (first.saturating_add(at as u64), happening))
    }

    /// The number of the next happening.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// What was used when.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The next moment at which time alone brings something about.
    #[must_use]
    pub fn next_moment(&self) -> Option<Timestamp> {
        self.seen.as_ref()?.next_moment()
    }
}

#[cfg(test)]
mod tests {
    use quota_core::{Ask, AttemptId, Begin, Freshness, Percent, Policy, Usage, WindowId, WindowReading};

    use super::*;
    use crate::journal::THRESHOLDS;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn read(record: &mut Record, second: i64, percent: f64) {
        let ask = Ask::new(AttemptId::from(0), Freshness::Since(at(second)));
        let Begin::Granted(lease) = record.begin(at(second), &ask, &Policy::default()) else {
            panic!("it may be asked");
        };
        let used = Percent::from_percent(percent).expect("a number");
        let reading = WindowReading::new(WindowId::five_hour(), used).resets_at(at(18_000));
        let _ = record.commit(at(second), &lease, &Usage::polled([reading]));
    }

    /// A journal of an account of which two readings were seen.
    fn kept() -> (Book, Record) {
        let (mut book, mut record) = (Book::default(), Record::default());
        book.look(&record, None, at(0), &THRESHOLDS);
        read(&mut record, 10, 40.0);
        book.look(&record, None, at(11), &THRESHOLDS);
        read(&mut record, 400, 60.0);
        book.look(&record, None, at(401), &THRESHOLDS);
        (book, record)
    }

    #[test]
    fn who_looks_again_finds_nothing_new() {
        let (mut book, record) = kept();
        let before = book.clone();

        assert!(book.look(&record, None, at(402), &THRESHOLDS).is_empty());
        assert_eq!(book, before);
    }

    #[test]
    fn every_reading_is_a_sample_once() {
        let (book, _) = kept();

        let used: Vec<_> = book.history().of("five_hour").iter().map(|sample| sample.used_bp).collect();
        assert_eq!(used, [4000, 6000]);
    }

    #[test]
    fn happenings_have_numbers_that_go_on_when_the_oldest_are_forgotten() {
        let (mut book, mut record) = kept();
        let last = 400 + 3600 * i64::try_from(MOST_HAPPENINGS).unwrap();
        for second in (4000..last).step_by(3600) {
            read(&mut record, second, 60.0);
            book.look(&record, None, at(second), &THRESHOLDS);
        }

        let numbers: Vec<_> = book.happenings().map(|(number, _)| number).collect();
        assert_eq!(numbers.len(), MOST_HAPPENINGS);
        assert_eq!(numbers.last(), Some(&(book.next() - 1)));
        assert!(numbers[0] > 0);
    }

    #[test]
    fn a_journal_comes_back_from_a_store() {
        let (book, _) = kept();

        assert_eq!(Book::decode(&book.encode()).unwrap(), book);
    }

    #[test]
    fn the_stored_form_stays() {
        let (book, _) = kept();
        let stored: Value = serde_json::from_slice(&book.encode()).unwrap();

        insta::assert_json_snapshot!(stored);
    }

    #[test]
    fn fields_of_a_newer_program_survive_and_a_higher_format_is_not_written() {
        let book = Book::decode(br#"{"format":2,"colour":"blue"}"#).unwrap();

        assert!(String::from_utf8_lossy(&book.encode()).contains(r#""colour":"blue""#));
        assert!(!book.is_writable());
    }

    #[test]
    fn what_a_newer_program_wrote_anywhere_survives_a_look_by_an_older_one() {
        let (book, mut record) = kept();
        let mut stored: Value = serde_json::from_slice(&book.encode()).unwrap();
        let newer =
            ["", "/seen", "/seen/windows/five_hour", "/happenings/0", "/happenings/2", "/history/five_hour"];
        for place in newer {
            stored.pointer_mut(place).unwrap()["colour"] = "blue".into();
        }
        let mut read_back = Book::decode(stored.to_string().as_bytes()).unwrap();

        read(&mut record, 4000, 80.0);
        let new = read_back.look(&record, None, at(4001), &THRESHOLDS);

        assert!(!new.is_empty());
        let stored: Value = serde_json::from_slice(&read_back.encode()).unwrap();
        for place in newer {
            assert_eq!(stored.pointer(place).unwrap()["colour"], "blue", "{place}");
        }
    }

    #[test]
    fn what_a_newer_program_wrote_of_a_hold_and_of_its_cause_survives_while_they_last() {
        let (mut book, mut record) = kept();
        let ask = Ask::new(AttemptId::from(0), Freshness::Since(at(800)));
        let Begin::Granted(lease) = record.begin(at(800), &ask, &Policy::default()) else {
            panic!("it may be asked");
        };
        let error = quota_core::FetchError::throttled(Some(std::time::Duration::from_secs(600)));
        let _ = record.fail(at(800), &lease, &error, &Policy::default());
        book.look(&record, record.hold(), at(801), &THRESHOLDS);
        let mut stored: Value = serde_json::from_slice(&book.encode()).unwrap();
        for place in ["/seen/hold", "/seen/trouble"] {
            stored.pointer_mut(place).unwrap()["colour"] = "blue".into();
        }
        let mut read_back = Book::decode(stored.to_string().as_bytes()).unwrap();

        read_back.look(&record, record.hold(), at(802), &THRESHOLDS);

        let kept: Value = serde_json::from_slice(&read_back.encode()).unwrap();
        assert_eq!(kept, stored);
    }

    #[test]
    fn a_reason_that_only_a_newer_program_knows_keeps_its_word() {
        let stored = serde_json::json!({
            "format": 1,
            "next": 2,
            "happenings": [
                { "at_ms": 1_800_000_000_000_i64, "kind": "held", "until_ms": 1_800_000_060_000_i64, "why": "asleep" },
                { "at_ms": 1_800_000_000_000_i64, "kind": "failing", "why": "on_strike" },
            ],
        });

        let book = Book::decode(stored.to_string().as_bytes()).unwrap();

        let kept: Value = serde_json::from_slice(&book.encode()).unwrap();
        assert_eq!(kept["happenings"], stored["happenings"]);
    }

    #[test]
    fn what_is_no_journal_is_refused() {
        for damaged in ["", "null", "{}", "[1]", r#"{"format":1,"happenings":7}"#] {
            assert!(Book::decode(damaged.as_bytes()).is_err(), "{damaged}");
        }
    }
}
