//! Something that happened to an account: what, when, and a name by which everybody knows it again.
//! How it is found out is in `derive`; how it is told in `events`.

use jiff::Timestamp;
use quota::{HoldReason, TroubleKind};
use serde::{Deserialize, Serialize};

/// Something that happened to an account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Happening {
    /// When: for what time itself brings about, such as a reset, that moment; else when it was read.
    #[serde(rename = "at_ms", with = "super::moment")]
    pub(crate) at: Timestamp,
    #[serde(flatten)]
    pub(crate) what: What,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum What {
    /// The provider was asked, and answered.
    Refreshed,
    /// The provider asked to slow down.
    Throttled {
        #[serde(rename = "until_ms", with = "super::moment")]
        until: Timestamp,
    },
    /// Nobody may ask for a while, for another reason.
    Held {
        #[serde(rename = "until_ms", with = "super::moment")]
        until: Timestamp,
        why: HoldReason,
    },
    /// Asking is allowed again.
    HoldEnded,
    /// A window began anew.
    Reset { window: String },
    /// A window's use went past a threshold.
    Threshold { window: String, threshold_bp: u32, used_bp: u32, direction: Direction },
    /// The account holds another login.
    LoginChanged,
    /// A call failed where the one before did not, or in another way.
    Failing { why: TroubleKind },
    /// A kind that only a newer program knows.
    #[serde(other)]
    Newer,
}

/// Which way a threshold was passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Direction {
    Up,
    Down,
}

impl Happening {
    pub(crate) fn new(at: Timestamp, what: What) -> Self {
        let at = Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at);
        Self { at, what }
    }

    /// Its name: two processes that find out the same give it the same one.
    pub(crate) fn id(&self) -> String {
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
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Refreshed => "refreshed",
            Self::Throttled { .. } => "throttled",
            Self::Held { .. } => "held",
            Self::HoldEnded => "hold_ended",
            Self::Reset { .. } => "reset",
            Self::Threshold { .. } => "threshold",
            Self::LoginChanged => "login_changed",
            Self::Failing { .. } => "failing",
            Self::Newer => "newer",
        }
    }

    /// The window it is about, if it is about one.
    pub(crate) fn window(&self) -> Option<&str> {
        match self {
            Self::Reset { window } | Self::Threshold { window, .. } => Some(window),
            _ => None,
        }
    }
}

impl Direction {
    pub(crate) fn as_str(self) -> &'static str {
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
    fn a_kind_of_a_newer_program_is_read() {
        let read: Happening = serde_json::from_str(r#"{"at_ms":7000,"kind":"sold","price":3}"#).unwrap();

        assert_eq!(read.what, What::Newer);
    }
}
