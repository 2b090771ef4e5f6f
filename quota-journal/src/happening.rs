//! Something that happened to an account: what, when, and a name by which everybody knows it again.
//! How it is found is in `derive`; how it is read from a store in `stored`.

mod stored;

use jiff::Timestamp;
use quota_core::{HoldReason, TroubleKind};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Something that happened to an account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "stored::Stored")]
pub struct Happening {
    /// When: for what time itself brings about, such as a reset, that moment; else when it was read.
    #[serde(rename = "at_ms", with = "crate::moment")]
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
    /// What a newer program says of it besides.
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// The provider was asked, and answered.
    Refreshed,
    /// The provider asked to slow down.
    Throttled {
        /// Until when it may not be called.
        #[serde(rename = "until_ms", with = "crate::moment")]
        until: Timestamp,
    },
    /// Nobody may ask for a while, for another reason.
    Held {
        /// Until when it may not be called.
        #[serde(rename = "until_ms", with = "crate::moment")]
        until: Timestamp,
        /// The reason of the hold.
        why: HoldReason,
    },
    /// Asking is allowed again.
    HoldEnded,
    /// A window began anew.
    Reset {
        /// The window's id.
        window: String,
    },
    /// A window's use went past a threshold.
    Threshold {
        /// The window's id.
        window: String,
        /// The threshold, in hundredths of a percent.
        threshold_bp: u32,
        /// The use that was read, in hundredths of a percent.
        used_bp: u32,
        /// Which way it was passed.
        direction: Direction,
    },
    /// The account holds another login.
    LoginChanged,
    /// A call failed where the one before did not, or in another way.
    Failing {
        /// What the call failed by.
        why: TroubleKind,
    },
    /// What only a newer program understands, as it wrote it.
    #[serde(untagged)]
    Newer(Map<String, Value>),
}

/// Which way a threshold was passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The use rose to the threshold or above it.
    Up,
    /// The use fell below the threshold.
    Down,
}

impl Happening {
    /// An event at this time, to the millisecond.
    #[must_use]
    pub fn new(at: Timestamp, what: What) -> Self {
        let at = Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at);
        Self { at, what, unknown: Map::new() }
    }

    /// Its name: two processes that find out the same give it the same one.
    #[must_use]
    pub fn id(&self) -> String {
        let at = self.at.as_millisecond();
        let kind = self.what.kind();
        match &self.what {
            What::Threshold { window, threshold_bp, direction, .. } => {
                format!("{kind}-{}:{window}:{threshold_bp}@{at}", direction.as_str())
            }
            What::Reset { window } => format!("{kind}:{window}@{at}"),
            _ => format!("{kind}@{at}"),
        }
    }
}

impl What {
    /// The kind as a stable word.
    #[must_use]
    pub fn kind(&self) -> &'static str {
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

    /// The window it is about, if it is about one.
    #[must_use]
    pub fn window(&self) -> Option<&str> {
        match self {
            Self::Reset { window } | Self::Threshold { window, .. } => Some(window),
            _ => None,
        }
    }
}

impl Direction {
    /// The direction as a stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_same_happening_has_the_same_name() {
        let reset = |second| Happening::new(at(second), What::Reset { window: "five_hour".into() });

        assert_eq!(reset(7).id(), "reset:five_hour@7000");
        assert_eq!(reset(7).id(), reset(7).id());
        assert_ne!(reset(7).id(), reset(8).id());
    }

    #[test]
    fn two_thresholds_passed_at_once_are_two_happenings() {
        let passed = |threshold_bp| {
            let direction = Direction::Up;
            let what = What::Threshold { window: "five_hour".into(), threshold_bp, used_bp: 9600, direction };
            Happening::new(at(7), what).id()
        };

        assert_eq!(passed(7500), "threshold-up:five_hour:7500@7000");
        assert_ne!(passed(7500), passed(9000));
    }

    #[test]
    fn the_stored_form_stays() {
        let direction = Direction::Up;
        let what =
            What::Threshold { window: "five_hour".into(), threshold_bp: 7500, used_bp: 7620, direction };
        let stored = serde_json::to_string(&Happening::new(at(7), what)).unwrap();

        insta::assert_snapshot!(stored, @r#"{"at_ms":7000,"kind":"threshold","window":"five_hour","threshold_bp":7500,"used_bp":7620,"direction":"up"}"#);
    }

    #[test]
    fn what_a_newer_program_says_of_a_happening_is_kept() {
        for stored in [
            r#"{"at_ms":7000,"kind":"refreshed","calls":3}"#,
            r#"{"at_ms":7000,"kind":"reset","window":"five_hour","early":{"by_s":60}}"#,
        ] {
            let read: Happening = serde_json::from_str(stored).unwrap();

            assert_ne!(read.what.kind(), "newer");
            assert_eq!(serde_json::to_string(&read).unwrap(), stored);
        }
    }

    #[test]
    fn what_only_a_newer_program_understands_is_kept_as_it_is() {
        for stored in [
            r#"{"at_ms":7000,"kind":"sold","price":3,"window":["five_hour","seven_day"]}"#,
            r#"{"at_ms":7000,"direction":"sideways","kind":"threshold","threshold_bp":1,"used_bp":2,"window":"w"}"#,
            r#"{"at_ms":7000,"kind":"throttled","until_ms":"tomorrow"}"#,
        ] {
            let read: Happening = serde_json::from_str(stored).unwrap();

            assert_eq!(read.what.kind(), "newer");
            assert_eq!(serde_json::to_string(&read).unwrap(), stored);
        }
    }

    #[test]
    fn every_kind_comes_back_from_a_store() {
        let window = || "five_hour".to_owned();
        let direction = Direction::Down;
        for what in [
            What::Refreshed,
            What::Throttled { until: at(60) },
            What::Held { until: at(60), why: HoldReason::Failing },
            What::HoldEnded,
            What::Reset { window: window() },
            What::Threshold { window: window(), threshold_bp: 7500, used_bp: 7300, direction },
            What::LoginChanged,
            What::Failing { why: TroubleKind::Forbidden },
        ] {
            let happening = Happening::new(at(7), what);

            let stored = serde_json::to_vec(&happening).unwrap();

            assert_eq!(serde_json::from_slice::<Happening>(&stored).unwrap(), happening);
        }
    }
}
