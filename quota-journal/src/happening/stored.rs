//! How a happening is read from a store: what is known of it is taken, and the rest is kept for whoever wrote it.
//! By hand, for what is derived drops what it does not know.

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Happening, What};

/// A happening of which only the moment and the kind are understood so far.
#[derive(Debug, Deserialize)]
pub(super) struct Stored {
    #[serde(rename = "at_ms", with = "crate::moment")]
    at: Timestamp,
    kind: String,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

impl From<Stored> for Happening {
    fn from(Stored { at, kind, mut fields }: Stored) -> Self {
        if let Some(what) = what(&kind, &fields) {
            for known in what.fields() {
                fields.remove(*known);
            }
            return Self { at, what, unknown: fields };
        }
        fields.insert("kind".to_owned(), kind.into());
        Self { at, what: What::Newer(fields), unknown: Map::new() }
    }
}

/// What happened; `None` if the kind is not known, or what is said of it not understood.
fn what(kind: &str, fields: &Map<String, Value>) -> Option<What> {
    Some(match kind {
        "refreshed" => What::Refreshed,
        "throttled" => What::Throttled { until: moment(fields, "until_ms")? },
        "held" => What::Held { until: moment(fields, "until_ms")?, why: word(fields, "why")? },
        "hold_ended" => What::HoldEnded,
        "reset" => What::Reset { window: field(fields, "window")? },
        "threshold" => What::Threshold {
            window: field(fields, "window")?,
            threshold_bp: field(fields, "threshold_bp")?,
            used_bp: field(fields, "used_bp")?,
            direction: field(fields, "direction")?,
        },
        "login_changed" => What::LoginChanged,
        "failing" => What::Failing { why: word(fields, "why")? },
        _ => return None,
    })
}

fn moment(fields: &Map<String, Value>, name: &str) -> Option<Timestamp> {
    Timestamp::from_millisecond(field(fields, name)?).ok()
}

/// A reason or a kind. One that would not be written back as it was read is not understood.
fn word<T: DeserializeOwned + Serialize>(fields: &Map<String, Value>, name: &str) -> Option<T> {
    let known: T = field(fields, name)?;
    (serde_json::to_value(&known).ok().as_ref() == fields.get(name)).then_some(known)
}

fn field<T: DeserializeOwned>(fields: &Map<String, Value>, name: &str) -> Option<T> {
    T::deserialize(fields.get(name)?).ok()
}

impl What {
    /// The names of the stored fields that are understood.
    fn fields(&self) -> &'static [&'static str] {
        match self {
            Self::Refreshed | Self::HoldEnded | Self::LoginChanged | Self::Newer(_) => &[],
            Self::Throttled { .. } => &["until_ms"],
            Self::Held { .. } => &["until_ms", "why"],
            Self::Reset { .. } => &["window"],
            Self::Threshold { .. } => &["window", "threshold_bp", "used_bp", "direction"],
            Self::Failing { .. } => &["why"],
        }
    }
}
