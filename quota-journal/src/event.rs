//! One event of an account: its time, its kind, and an id that is the same in every process. `diff` decides which events follow
//! from a change to the record.

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use quota_core::record::{HoldReason, LastFailureKind};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// An event of an account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "StoredEvent")]
pub struct JournalEvent {
    /// When it happened. A reset, or the end of a hold, has its scheduled time. Any other event has the time of its reading or
    /// call.
    #[serde(rename = "at_ms", with = "millisecond::required")]
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
    /// Fields that a newer program wrote.
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// The kinds of events.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventKind {
    /// A call to the provider succeeded.
    Refreshed,
    /// The provider responded with a rate limit.
    Throttled {
        /// No call is allowed before this time.
        #[serde(rename = "until_ms", with = "millisecond::required")]
        until: Timestamp,
    },
    /// A hold began for a reason other than a rate limit.
    Held {
        /// No call is allowed before this time.
        #[serde(rename = "until_ms", with = "millisecond::required")]
        until: Timestamp,
        /// The reason for the hold.
        reason: HoldReason,
    },
    /// Calls are allowed again.
    HoldEnded,
    /// A window reset.
    Reset {
        /// The window's id.
        window: String,
    },
    /// A window's usage crossed a threshold.
    Threshold {
        /// The window's id.
        window: String,
        /// The threshold, in hundredths of a percent.
        threshold_bp: u32,
        /// The usage in the reading that crossed it, in hundredths of a percent.
        used_bp: u32,
        /// The direction in which the usage crossed it.
        direction: Direction,
    },
    /// The account now has a different login.
    LoginChanged,
    /// A call failed after a success, or in a different way than the previous call.
    Failing {
        /// Why the call failed.
        reason: LastFailureKind,
    },
    /// An event that only a newer program understands, in its stored form.
    #[serde(untagged)]
    Newer(Map<String, Value>),
}

/// The direction in which the usage crossed a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The usage rose to the threshold or above.
    Up,
    /// The usage fell below the threshold.
    Down,
}

impl JournalEvent {
    /// Creates an event at this time, truncated to the millisecond.
    #[must_use]
    pub fn new(at: Timestamp, kind: EventKind) -> Self {
        let at = Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at);
        Self { at, kind, unknown: Map::new() }
    }

    /// The id of the event within its account. Two processes that derive the same event give it the same id.
    #[must_use]
    pub fn id(&self) -> String {
        let at = self.at.as_millisecond();
        let kind = self.kind.as_str();
        match &self.kind {
            EventKind::Threshold { window, threshold_bp, direction, .. } => {
                format!("{kind}-{}:{window}:{threshold_bp}@{at}", direction.as_str())
            }
            EventKind::Reset { window } => format!("{kind}:{window}@{at}"),
            _ => format!("{kind}@{at}"),
        }
    }
}

impl EventKind {
    /// The kind as an identifier that never changes.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Refreshed => "refreshed",
            Self::Throttled { .. } => "throttled",
            Self::Held { .. } => "held",
            Self::HoldEnded => "hold_ended",
            Self::Reset { .. } => "reset",
            Self::Threshold { .. } => "threshold",
            Self::LoginChanged => "login_changed",
            Self::Failing { .. } => "failing",
            Self::Newer(_) => "newer",
        }
    }

    /// The window of the event, if its kind has one.
    #[must_use]
    pub fn window(&self) -> Option<&str> {
        match self {
            Self::Reset { window } | Self::Threshold { window, .. } => Some(window),
            _ => None,
        }
    }

    /// Decodes a stored kind. `None` if this program does not understand the kind or one of its fields.
    fn decode(kind: &str, fields: &Map<String, Value>) -> Option<Self> {
        Some(match kind {
            "refreshed" => Self::Refreshed,
            "throttled" => Self::Throttled { until: timestamp(fields, "until_ms")? },
            "held" => {
                Self::Held { until: timestamp(fields, "until_ms")?, reason: lossless(fields, "reason")? }
            }
            "hold_ended" => Self::HoldEnded,
            "reset" => Self::Reset { window: field(fields, "window")? },
            "threshold" => Self::Threshold {
                window: field(fields, "window")?,
                threshold_bp: field(fields, "threshold_bp")?,
                used_bp: field(fields, "used_bp")?,
                direction: field(fields, "direction")?,
            },
            "login_changed" => Self::LoginChanged,
            "failing" => Self::Failing { reason: lossless(fields, "reason")? },
            _ => return None,
        })
    }

    /// The names of the stored fields that `decode` reads.
    fn field_names(&self) -> &'static [&'static str] {
        match self {
            Self::Refreshed | Self::HoldEnded | Self::LoginChanged | Self::Newer(_) => &[],
            Self::Throttled { .. } => &["until_ms"],
            Self::Held { .. } => &["until_ms", "reason"],
            Self::Reset { .. } => &["window"],
            Self::Threshold { .. } => &["window", "threshold_bp", "used_bp", "direction"],
            Self::Failing { .. } => &["reason"],
        }
    }
}

impl Direction {
    /// The direction as an identifier that never changes.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// A stored event of which only the time and the name of its kind are decoded.
///
/// A derived `Deserialize` of [`EventKind`] would drop fields that a newer program wrote.
#[derive(Debug, Deserialize)]
struct StoredEvent {
    #[serde(rename = "at_ms", with = "millisecond::required")]
    at: Timestamp,
    kind: String,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

impl From<StoredEvent> for JournalEvent {
    fn from(StoredEvent { at, kind, mut fields }: StoredEvent) -> Self {
        if let Some(kind) = EventKind::decode(&kind, &fields) {
            for name in kind.field_names() {
                fields.remove(*name);
            }
            return Self { at, kind, unknown: fields };
        }
        fields.insert("kind".to_owned(), kind.into());
        Self { at, kind: EventKind::Newer(fields), unknown: Map::new() }
    }
}

fn timestamp(fields: &Map<String, Value>, name: &str) -> Option<Timestamp> {
    Timestamp::from_millisecond(field(fields, name)?).ok()
}

/// Decodes a reason. `None` if encoding it again would change it.
fn lossless<T: DeserializeOwned + Serialize>(fields: &Map<String, Value>, name: &str) -> Option<T> {
    let value: T = field(fields, name)?;
    (serde_json::to_value(&value).ok().as_ref() == fields.get(name)).then_some(value)
}

fn field<T: DeserializeOwned>(fields: &Map<String, Value>, name: &str) -> Option<T> {
    T::deserialize(fields.get(name)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_id_depends_on_kind_window_and_time() {
        let reset = |second| JournalEvent::new(at(second), EventKind::Reset { window: "five_hour".into() });

        assert_eq!(reset(7).id(), "reset:five_hour@7000");
        assert_eq!(reset(7).id(), reset(7).id());
        assert_ne!(reset(7).id(), reset(8).id());
    }

    #[test]
    fn two_thresholds_crossed_at_once_are_two_events() {
        let crossed = |threshold_bp| {
            let direction = Direction::Up;
            let kind =
                EventKind::Threshold { window: "five_hour".into(), threshold_bp, used_bp: 9600, direction };
            JournalEvent::new(at(7), kind).id()
        };

        assert_eq!(crossed(7500), "threshold-up:five_hour:7500@7000");
        assert_ne!(crossed(7500), crossed(9000));
    }

    #[test]
    fn the_stored_format_is_unchanged() {
        let direction = Direction::Up;
        let kind =
            EventKind::Threshold { window: "five_hour".into(), threshold_bp: 7500, used_bp: 7620, direction };
        let stored = serde_json::to_string(&JournalEvent::new(at(7), kind)).unwrap();

        insta::assert_snapshot!(stored, @r#"{"at_ms":7000,"kind":"threshold","window":"five_hour","threshold_bp":7500,"used_bp":7620,"direction":"up"}"#);
    }

    #[test]
    fn unknown_fields_of_an_event_are_preserved() {
        for stored in [
            r#"{"at_ms":7000,"kind":"refreshed","calls":3}"#,
            r#"{"at_ms":7000,"kind":"reset","window":"five_hour","early":{"by_s":60}}"#,
        ] {
            let read: JournalEvent = serde_json::from_str(stored).unwrap();

            assert_ne!(read.kind.as_str(), "newer");
            assert_eq!(serde_json::to_string(&read).unwrap(), stored);
        }
    }

    #[test]
    fn an_event_of_an_unknown_kind_is_preserved() {
        for stored in [
            r#"{"at_ms":7000,"kind":"sold","price":3,"window":["five_hour","seven_day"]}"#,
            r#"{"at_ms":7000,"direction":"sideways","kind":"threshold","threshold_bp":1,"used_bp":2,"window":"w"}"#,
            r#"{"at_ms":7000,"kind":"throttled","until_ms":"tomorrow"}"#,
        ] {
            let read: JournalEvent = serde_json::from_str(stored).unwrap();

            assert_eq!(read.kind.as_str(), "newer");
            assert_eq!(serde_json::to_string(&read).unwrap(), stored);
        }
    }

    #[test]
    fn every_kind_survives_encoding_and_decoding() {
        let window = || "five_hour".to_owned();
        let direction = Direction::Down;
        for kind in [
            EventKind::Refreshed,
            EventKind::Throttled { until: at(60) },
            EventKind::Held { until: at(60), reason: HoldReason::Failing },
            EventKind::HoldEnded,
            EventKind::Reset { window: window() },
            EventKind::Threshold { window: window(), threshold_bp: 7500, used_bp: 7300, direction },
            EventKind::LoginChanged,
            EventKind::Failing { reason: LastFailureKind::Forbidden },
        ] {
            let event = JournalEvent::new(at(7), kind);

            let stored = serde_json::to_vec(&event).unwrap();

            assert_eq!(serde_json::from_slice::<JournalEvent>(&stored).unwrap(), event);
        }
    }
}
